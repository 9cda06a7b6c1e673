"""Reloads on the virtual clock: what is true of a scenario, what a probe tells of it, how waits are judged."""

from __future__ import annotations

import dataclasses
import io
from array import array
from collections.abc import Iterable

import pytest
import waits_to_score
from hypothesis import given, settings
from hypothesis import strategies as st
from settle_world import GIB, MIB, SECOND

from fake_gpu import Ramp
from pytest_vramsettle.expectations import expectation_of
from pytest_vramsettle.policies import all_policies
from pytest_vramsettle.score.corpus import KINDS, Corpus, Kind, scenario
from pytest_vramsettle.score.gate import Limits, broken_limits
from pytest_vramsettle.score.reload import Reload, play, replay
from pytest_vramsettle.score.run import ScoreError, play_all, score
from pytest_vramsettle.score.scenarios import SERVER_PID, Card, Scenario, Tenant
from pytest_vramsettle.score.sheet import read, written
from pytest_vramsettle.score.subjects import FunctionSubject, PolicySubject, SubjectError, subject_named, subject_of
from pytest_vramsettle.score.tally import Scoreboard, Tally, percentile

MS = 1_000_000
SINGLE = tuple(kind.name for kind in KINDS if kind.group == "single tenant")

kinds = st.sampled_from(KINDS)
numbers = st.integers(0, 10_000)


def one_card(ramp: Ramp, *tenants: Tenant, held: int = 20 * GIB, **rest: object) -> Scenario:
    plain = Scenario("made/0", "made", "single tenant", (Card("GPU-0", 80 * GIB, GIB, held, ramp),), tenants)
    return dataclasses.replace(plain, **rest)  # type: ignore[arg-type]  # the tests know the fields


def policy(name: str = "verified") -> PolicySubject:
    subject = subject_named(name)
    assert isinstance(subject, PolicySubject)
    return subject


def wait(name: str) -> FunctionSubject:
    subject = subject_of(name, getattr(waits_to_score, name))
    assert isinstance(subject, FunctionSubject)
    return subject


# -- scenarios


@given(kind=kinds, seed=st.integers(0, 99), number=numbers)
def test_a_scenario_is_the_same_every_time_and_can_be(kind: Kind, seed: int, number: int) -> None:
    made = scenario(kind, seed, number)
    assert made == scenario(kind, seed, number)
    assert made.baseline_ns < 0 <= made.load_ns
    for index, card in enumerate(made.cards):
        tenants = [tenant for tenant in made.tenants if tenant.card == index]
        most = sum(max(tenant.amounts) for tenant in tenants)
        assert card.reserved + card.held + most <= card.total
        assert all(list(tenant.instants_ns) == sorted(tenant.instants_ns) for tenant in tenants)


@given(kind=kinds, number=numbers, instants=st.lists(st.integers(-SECOND, 40 * SECOND), min_size=2, max_size=8))
def test_what_is_missing_never_grows_and_ends(kind: Kind, number: int, instants: list[int]) -> None:
    made = scenario(kind, 1, number)
    missing = [made.missing(instant) for instant in sorted(instants)]
    assert missing == sorted(missing, reverse=True)
    assert min(missing) >= 0
    back = made.back_ns
    if back is None:
        assert made.kind == "never"
    else:
        assert all(card.back_in_the_end - card.back(back) < MIB for card in made.cards)
        assert back == 0 or any(card.back_in_the_end - card.back(back - 1) >= MIB for card in made.cards)


@given(kind=kinds, number=numbers, at=st.integers(0, 40 * SECOND))
def test_free_memory_is_what_nobody_holds(kind: Kind, number: int, at: int) -> None:
    made = scenario(kind, 1, number)
    reading = made.reading(at, holders=True)
    assert [gpu.key for gpu in reading.gpus] == [card.uuid for card in made.cards]
    for index, gpu in enumerate(reading.gpus):
        assert gpu.free is not None
        assert 0 <= gpu.free <= made.cards[index].total
        assert (gpu.holders is None) == made.blind
        assert SERVER_PID not in (gpu.holders or ()) or at < made.listed_ns


def test_nvidia_smi_reads_the_holders_a_run_later() -> None:
    taker = Tenant(7, 0, (-SECOND, SECOND), (0, GIB))
    made = one_card(Ramp.step(after=1), taker, run_ns=40 * MS)
    (gpu,) = made.reading(SECOND + 30 * MS, holders=True).gpus
    assert gpu.free == 59 * GIB  # of 10 ms before: nothing is back, nothing taken
    assert gpu.holders == {7: GIB}
    (gpu,) = made.reading(SECOND, holders=False).gpus
    assert (gpu.free, gpu.holders) == (78 * GIB, None)
    assert made.probe_ns(holders=True) == 80 * MS
    assert dataclasses.replace(made, run_ns=2 * MS).probe_ns(holders=True) == 2 * MS


def test_the_kill_record_expects_what_was_held() -> None:
    taker = Tenant(7, 0, (-9 * SECOND, SECOND), (3 * GIB, 0))
    made = one_card(Ramp.never(), taker)
    expectation = expectation_of([made.kill(5)])
    assert expectation is not None
    assert expectation.held == {"GPU-0": 20 * GIB}
    assert expectation.free_before == {"GPU-0": 56 * GIB}
    assert expectation.others == {"GPU-0": {7: 3 * GIB}}
    assert expectation_of([dataclasses.replace(made, blind=True).kill(5)]) is None


def test_a_corpus_is_a_sequence_of_the_classes_in_turn() -> None:
    given_ones = (one_card(Ramp.immediate()),)
    corpus = Corpus(40, 3, ("linear", "drip"), given_ones)
    names = [one.name for one in corpus]
    assert len(corpus) == len(names) == 41
    assert names[:3] == ["linear/0", "drip/0", "linear/1"]
    assert corpus[40] is given_ones[0] is corpus.named("made/0")
    assert corpus.named("drip/1000") == scenario(next(kind for kind in KINDS if kind.name == "drip"), 3, 1000)
    with pytest.raises(ValueError, match="no scenario 'drop/1'; the known ones are late-start/N"):
        corpus.named("drop/1")
    with pytest.raises(IndexError):
        corpus[41]


# -- one reload


def test_a_reload_that_is_known() -> None:
    made = one_card(Ramp.step(after=1), run_ns=MS)
    result, spans = replay(policy("two-samples"), made)
    assert (result.outcome, result.flagged, result.misread_mib) == ("settled", False, 20 * 1024)
    assert (result.elapsed_ns, result.waste_ns, result.probes) == (252 * MS, 0, 2)
    assert spans == ((0, MS), (251 * MS, 252 * MS))
    result = play(policy(), made)
    assert (result.outcome, result.misread_mib) == ("settled", 0)
    assert result.waste_ns == result.elapsed_ns - SECOND < 250 * MS


def test_a_load_that_comes_late_wastes_only_its_own_time() -> None:
    result = play(policy(), one_card(Ramp.linear(1), load_ns=20 * SECOND))
    assert (result.outcome, result.waste_ns, result.elapsed_ns) == ("already_released", 80 * MS, 80 * MS)


def test_what_never_comes_back_is_not_missed_and_has_no_waste() -> None:
    result = play(policy(), one_card(Ramp.never()))
    assert (result.outcome, result.flagged, result.misread_mib, result.waste_ns) == ("timed_out", True, 0, None)
    assert result.elapsed_ns == 30 * SECOND


@settings(max_examples=20)
@given(kind=kinds, number=numbers, name=st.sampled_from(list(all_policies())))
def test_every_reload_is_judged_within_bounds(kind: Kind, number: int, name: str) -> None:
    made = scenario(kind, 1, number)
    result = play(policy(name), made)
    assert result == play(policy(name), made)
    assert not result.broken
    assert 0 <= result.misread_mib <= sum(card.held for card in made.cards) // MIB
    assert 0 <= result.elapsed_ns <= policy(name).policy.max_wait_ns
    assert result.waste_ns is None or 0 <= result.waste_ns <= result.elapsed_ns


def test_verified_misreads_nothing_of_a_single_tenant_unsaid() -> None:
    board = Scoreboard().update(play_all(Corpus(11 * 12, kinds=SINGLE), ["verified", "two-samples"]))
    verified, upstream = (board.of_group(name, "single tenant") for name in ("verified", "two-samples"))
    assert verified.unflagged_worst_mib <= 256
    assert verified.unflagged_share == 0 < upstream.unflagged_share
    assert upstream.misread_share > 0.4


# -- waits of somebody's own


def test_an_upstream_wait_is_the_policy_of_that_name() -> None:
    for number in range(24):
        made = dataclasses.replace(scenario(KINDS[number % 11], 2, number), run_ns=12 * MS)
        theirs, ours = play(wait("upstream"), made), play(policy("two-samples"), made)
        assert theirs.misread_mib == ours.misread_mib
        # A probe that is under way at the deadline is cut off in ours.
        assert 0 <= theirs.elapsed_ns - ours.elapsed_ns < 12 * MS
        assert not theirs.flagged


@pytest.mark.parametrize(
    ("name", "outcome", "note"),
    [
        ("at_once", "returned", ""),
        ("demanding", "returned", ""),
        ("raises", "raised", "RuntimeError: given ['probe', 'since_kill']"),
        ("never_returns", "never returned", "for 300 s of virtual time"),
    ],
)
def test_what_becomes_of_it(name: str, outcome: str, note: str) -> None:
    result = play(wait(name), one_card(Ramp.linear(1)))
    assert (result.outcome, result.note) == (outcome, note)
    assert result.broken == (outcome != "returned")


def test_one_that_returns_false_has_flagged_its_reading() -> None:
    assert play(wait("doubts"), one_card(Ramp.linear(1))).flagged
    assert not play(wait("at_once"), one_card(Ramp.linear(1))).flagged


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("verifed", "no policy 'verifed'; the known ones are verified, two-samples, ollama"),
        ("not_there:wait", "module 'not_there' cannot be imported: ModuleNotFoundError"),
        ("waits_to_score:nothing", "'waits_to_score' has no 'nothing'"),
        ("waits_to_score:number", "is 5: neither a function nor a Policy"),
        ("waits_to_score:NoPolicy", "a class, but not of policies: it lacks name, max_wait_ns"),
        ("waits_to_score:Unmade", "cannot be made without arguments: TypeError"),
        ("waits_to_score:no_probe", "takes no probe="),
        ("waits_to_score:wants_more", "wants backend, which a wait is not given"),
    ],
)
def test_what_cannot_be_judged_is_told(name: str, told: str) -> None:
    with pytest.raises(SubjectError) as refused:
        subject_named(name)
    assert told in str(refused.value)


@pytest.mark.parametrize("name", ["own", "Own"])
def test_policies_of_somebodys_own(name: str) -> None:
    assert play(subject_named(f"waits_to_score:{name}"), one_card(Ramp.immediate())).outcome == "settled"


# -- statistics and the gate


@given(st.lists(st.integers(0, 1000), min_size=1), st.integers(0, 100))
def test_a_percentile_is_a_nearest_rank(values: list[int], percent: int) -> None:
    found = percentile(array("q", sorted(values)), percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert percentile(array("q", sorted(values)), 100) == max(values)


def reload(misread_mib: int = 0, waste: float = 0.0, *, flagged: bool = False, outcome: str = "settled") -> Reload:
    waste_ns = round(waste * SECOND)
    return Reload("made/0", "made", "single tenant", "mine", outcome, flagged, misread_mib, waste_ns, waste_ns, 2)


def test_a_tally_counts() -> None:
    tally = Tally()
    for one in (
        reload(0, 1.0),
        reload(256, 2.0),
        reload(257),
        reload(5000, flagged=True, outcome="timed_out"),
        reload(outcome="raised"),
    ):
        tally.add(one)
    found = tally.summary()
    assert (found.reloads, len(found.broken), found.timeouts) == (5, 1, 1)
    assert (found.misread_p50_mib, found.misread_worst_mib, found.unflagged_worst_mib) == (256, 5000, 257)
    assert (found.misread_share, found.unflagged_share) == (0.5, 0.25)
    assert (found.waste_mean_s, found.waste_p50_s, found.waste_worst_s) == (1.5, 1.0, 2.0)
    assert Tally().summary().misread_share == 0


@pytest.mark.parametrize(
    ("name", "limits", "told"),
    [
        ("at_once", Limits(max_misread_mib=256), "misreads"),
        ("for_long", Limits(max_misread_mib=256), None),
        ("for_long", Limits(max_waste_s=0.5), "wastes"),
        ("doubts", Limits(max_misread_mib=256), "gives up on"),
        ("doubts", Limits(max_misread_mib=256, max_given_up=1.0), None),
        ("at_once", Limits(max_waste_s=0.5), None),
        ("raises", Limits(), "raised: RuntimeError"),
        ("never_returns", Limits(), "never returned"),
    ],
)
def test_the_gate(name: str, limits: Limits, told: str | None) -> None:
    board = Scoreboard().update(play(wait(name), one) for one in Corpus(22, kinds=SINGLE))
    broken = broken_limits(board, limits)
    assert bool(broken) == (told is not None)
    assert told is None or told in broken[0]
    assert len(broken) <= 6


def test_the_gate_asks_for_other_tenants_when_it_is_told_to() -> None:
    beside = dataclasses.replace(reload(999), group="shared")
    board = Scoreboard().update([beside, reload()])
    assert not broken_limits(board, Limits(max_misread_mib=256))
    assert broken_limits(board, Limits(max_misread_mib=256, shared=True))
    assert not broken_limits(Scoreboard().update([dataclasses.replace(beside, group="unknowable")]), Limits(0, 0.0))


def test_the_gate_judges_the_share_that_was_given_up_and_the_mean_waste() -> None:
    board = Scoreboard().update([reload(5000, flagged=True), *[reload()] * 18, reload(waste=19.0)])
    kept = Limits(max_misread_mib=256, max_waste_s=1.0, max_given_up=0.05)
    assert not broken_limits(board, kept)
    assert len(broken_limits(board.update([reload(5000, flagged=True), reload(waste=9.0)]), kept)) == 2


def test_a_wait_that_fails_is_told_beside_what_it_misreads() -> None:
    board = Scoreboard().update([reload(999), reload(outcome="raised")])
    misreads, fails = broken_limits(board, Limits(max_misread_mib=256))
    assert "misreads 999 MiB" in misreads
    assert "made/0: raised" in fails


def test_a_limit_has_to_be_one() -> None:
    with pytest.raises(ValueError, match="waste"):
        Limits(max_waste_s=float("nan"))


# -- all of them


def rows(reloads: Iterable[Reload]) -> str:
    out = io.StringIO()
    list(written(reloads, out))
    return out.getvalue()


def test_the_rows_do_not_depend_on_the_processes_and_can_be_read_again() -> None:
    corpus, names = Corpus(45, kinds=("linear", "tenants-take", "never")), ["verified", "two-samples"]
    here = rows(play_all(corpus, names))
    assert here == rows(score(corpus, names, workers=1)) == rows(score(corpus, names, workers=3))
    assert here != rows(play_all(dataclasses.replace(corpus, seed=2), names))
    assert rows(read(io.StringIO(here))) == here


def test_a_wait_that_gets_stuck_in_real_time_is_written_down_and_the_rest_goes_on() -> None:
    easy = one_card(Ramp.immediate())
    full = one_card(Ramp.never(), held=79 * GIB, name="full/0")
    waits = ["waits_to_score:spins_at_small_cards", "waits_to_score:bound_early"]
    found = list(score(Corpus(0, given=(easy, full, easy)), waits, workers=1, real_seconds=0.4))
    assert [one.outcome for one in found[::2]] == ["returned", "never returned", "returned"]
    assert "real time" in found[2].note
    assert [one.elapsed_ns for one in found[1::2]] == [60 * SECOND] * 3


def test_a_wait_that_always_gets_stuck_ends_the_score() -> None:
    corpus = Corpus(0, given=(one_card(Ramp.never(), held=79 * GIB),))
    with pytest.raises(ScoreError, match=r"got stuck in 1 reloads.*virtual clock"):
        list(score(corpus, ["waits_to_score:spins_at_small_cards"], workers=1, real_seconds=0.1, most_stuck=0))


def test_a_sheet_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="no sheet"):
        list(read(io.StringIO("a,b\n")))
    spoilt = rows([reload()]).replace("settled,0", "settled,x")
    with pytest.raises(ValueError, match="line 2 is no row"):
        list(read(io.StringIO(spoilt)))
