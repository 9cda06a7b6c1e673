"""The kill record, around real processes that really die."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from real_processes import WITH_CHILD, Start, child_of, end, needs_procfs, start

from pytest_vramsettle import _procfs
from pytest_vramsettle.expectations import expectation_of
from pytest_vramsettle.kills import BASELINE_NS, Kill, KillRecord
from pytest_vramsettle.probes import GpuReading, ProbeBudget, ProbeFailed, ProbeTimeout, Reading
from pytest_vramsettle.settle import wait_for_vram_settle

__all__ = ["start"]  # a fixture

MIB = 1024 * 1024
GIB = 1024 * MIB
GPU, OTHER_GPU = "GPU-one", "GPU-two"
TENANT = 4_300_001


class Card:
    """A probe of one GPU (and an idle one) of which each listed PID holds what it is said to hold."""

    def __init__(self) -> None:
        self.holders: dict[int, int | None] = {TENANT: GIB}
        self.free: int | None = 10 * GIB
        self.error: Exception | None = None
        self.budgets: list[int] = []

    def read(self, budget: ProbeBudget, *, holders: bool) -> Reading:
        assert holders
        self.budgets.append(budget.rest_ns())
        if self.error is not None:
            raise self.error
        first = GpuReading(0, GPU, self.free, 24 * GIB, dict(self.holders))
        return Reading((first, GpuReading(1, OTHER_GPU, 24 * GIB, 24 * GIB, {})))


@pytest.fixture
def card() -> Card:
    return Card()


@pytest.fixture
def kills(card: Card) -> KillRecord:
    return KillRecord(probe=card)


class TestRecording:
    def test_a_kill(self, kills: KillRecord, card: Card, start: Start) -> None:
        process = start()
        card.holders[process.pid] = 8 * GIB
        assert (kills.last_kill_ns, kills.last_kill_monotonic, kills.pending()) == (None, 0.0, ())
        before = time.monotonic_ns()
        with kills.recording(process.pid):
            end(process)
        (kill,) = kills.pending()
        assert before < kill.when_ns <= time.monotonic_ns()
        assert kills.last_kill_ns == kill.when_ns
        assert kills.last_kill_monotonic == kill.when_ns / 1e9
        assert kill.pids == {process.pid}
        assert kill.held == {GPU: 8 * GIB}
        assert kill.free_before == {GPU: 10 * GIB, OTHER_GPU: 24 * GIB}
        assert kill.others == {GPU: {TENANT: GIB}}

    def test_the_reading_may_take_250_ms(self, kills: KillRecord, card: Card, start: Start) -> None:
        process = start()
        with kills.recording(process.pid):
            end(process)
        assert 0 < card.budgets[0] <= BASELINE_NS == 250_000_000

    def test_a_hanging_reading_does_not_put_off_the_kill(self, start: Start) -> None:
        release, process = threading.Event(), start()
        kills = KillRecord(probe=lambda: [(0, int(release.wait(10)))])
        started = time.monotonic()
        with kills.recording(process.pid):
            assert 0.25 <= time.monotonic() - started < 8
            end(process)
        release.set()
        assert [kill.held for kill in kills.pending()] == [None]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
    def test_stamped_whatever_is_raised(self, kills: KillRecord, start: Start, error: type[BaseException]) -> None:
        process = start()

        def fail() -> None:
            end(process)
            raise error

        with pytest.raises(error), kills.recording(process.pid):
            fail()
        assert kills.last_kill_ns is not None

    def test_no_stamp_while_it_lives_and_one_when_it_dies_after_all(
        self, kills: KillRecord, card: Card, start: Start
    ) -> None:
        process = start()
        card.holders[process.pid] = 8 * GIB
        with pytest.raises(KeyboardInterrupt), kills.recording(process.pid):
            raise KeyboardInterrupt
        assert (kills.last_kill_ns, kills.pending()) == (None, ())
        end(process)
        assert [kill.held for kill in kills.pending()] == [{GPU: 8 * GIB}]
        assert kills.last_kill_ns is not None

    def test_a_pid_that_nobody_has(self, kills: KillRecord, card: Card, start: Start) -> None:
        process = start()
        end(process)
        with kills.recording(process.pid):
            pass
        assert (kills.last_kill_ns, card.budgets) == (None, [])

    @needs_procfs
    def test_a_process_that_had_crashed_and_was_not_reaped(self, kills: KillRecord, start: Start) -> None:
        process = start()
        process.send_signal(signal.SIGKILL)
        while not _procfs.is_zombie(process.pid):
            time.sleep(0.001)
        with kills.recording(process.pid):
            process.wait()
        (kill,) = kills.pending()
        assert (kill.pids, kill.held) == ({process.pid}, None)

    @needs_procfs
    def test_the_children_are_of_the_kill(self, kills: KillRecord, card: Card, start: Start) -> None:
        process = start(WITH_CHILD)
        child = child_of(process)
        card.holders[child] = 6 * GIB
        with kills.recording(process.pid):
            end(process)
        (kill,) = kills.pending()
        try:
            assert (kill.pids, kill.held) == ({child}, {GPU: 6 * GIB})
            assert kill.every_pid == {process.pid, child}
            # The orphan lives and still holds its memory, so it has not settled, however free the card looks.
            card.free = 24 * GIB
            result = wait_for_vram_settle(kills, probe=card, max_wait=0.1)
            assert (result.outcome, result.holding_pids) == ("timed_out", (child,))
        finally:
            os.kill(child, signal.SIGKILL)
        while _procfs.identify(child):
            time.sleep(0.001)
        del card.holders[child]
        assert wait_for_vram_settle(kills, probe=card, max_wait=0.5).outcome == "already_released"

    @needs_procfs
    def test_when_only_a_child_dies_the_kill_is_the_child(self, kills: KillRecord, card: Card, start: Start) -> None:
        process = start(WITH_CHILD)
        child = child_of(process)
        card.holders.update({child: 6 * GIB, process.pid: 2 * GIB})
        with kills.recording(process.pid):
            os.kill(child, signal.SIGKILL)
            while _procfs.identify(child):
                time.sleep(0.001)
        (kill,) = kills.pending()
        assert (kill.pids, kill.held) == ({child}, {GPU: 6 * GIB})
        assert kill.others == {GPU: {TENANT: GIB, process.pid: 2 * GIB}}

    @pytest.mark.parametrize("error", [ProbeFailed("no"), ProbeTimeout("slow"), OSError("no"), ValueError("no")])
    def test_without_a_reading_there_is_a_time(
        self, kills: KillRecord, card: Card, start: Start, error: Exception
    ) -> None:
        process, card.error = start(), error
        with kills.recording(process.pid):
            end(process)
        (kill,) = kills.pending()
        assert (kill.pids, kill.held, kill.cards) == ({process.pid}, None, frozenset())

    def test_a_tree_that_is_not_listed_may_hold_memory(self, kills: KillRecord, start: Start) -> None:
        process = start()
        with kills.recording(process.pid):
            end(process)
        (kill,) = kills.pending()
        assert (kill.held, kill.cards) == (None, {GPU, OTHER_GPU})
        assert expectation_of([kill]) is None

    def test_an_amount_that_the_driver_does_not_tell(self, kills: KillRecord, card: Card, start: Start) -> None:
        process = start()
        card.holders[process.pid] = None
        with kills.recording(process.pid):
            end(process)
        assert [kill.held for kill in kills.pending()] == [None]

    def test_a_card_that_does_not_tell_what_is_free(self, kills: KillRecord, card: Card, start: Start) -> None:
        process, card.free = start(), None
        card.holders[process.pid] = 8 * GIB
        with kills.recording(process.pid):
            end(process)
        assert [kill.held for kill in kills.pending()] == [None]

    def test_a_probe_for_this_kill(self, kills: KillRecord, card: Card, start: Start) -> None:
        process = start()
        with kills.recording(process.pid, probe=lambda: [(0, 1000)]):
            end(process)
        assert [kill.cards for kill in kills.pending()] == [{0}]
        assert card.budgets == []

    def test_no_lock_is_held_in_the_block(self, kills: KillRecord, start: Start) -> None:
        process = start()
        with kills.recording(process.pid):
            thread = threading.Thread(target=kills.stamp)
            thread.start()
            thread.join(5)
            assert not thread.is_alive()
            end(process)


class TestWatching:
    def test_a_crash_is_noticed_by_the_next_wait(self, kills: KillRecord, card: Card, start: Start) -> None:
        process = start()
        card.holders[process.pid] = 8 * GIB
        assert kills.watch(process.pid)
        assert kills.last_kill_ns is None
        end(process)
        del card.holders[process.pid]
        card.free = 18 * GIB
        result = wait_for_vram_settle(kills, probe=card)
        assert (result.outcome, result.missing_mib) == ("already_released", 0)
        assert kills.pending() == ()
        assert kills.last_kill_ns is not None

    def test_it_stands_in_for_a_reading_that_fails(self, kills: KillRecord, card: Card, start: Start) -> None:
        process = start()
        card.holders[process.pid] = 8 * GIB
        kills.watch(process.pid)
        card.error = ProbeFailed("no")
        assert kills.watch(process.pid)
        with kills.recording(process.pid):
            end(process)
        assert [kill.held for kill in kills.pending()] == [{GPU: 8 * GIB}]

    def test_it_stands_in_for_the_same_process_only(
        self, kills: KillRecord, card: Card, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        process = start()
        card.holders[process.pid] = 8 * GIB
        kills.watch(process.pid)
        card.error = ProbeFailed("no")
        # The number is handed out again, to a process that starts later.
        later = _procfs.ProcessIdentity(process.pid, 1 << 40)
        monkeypatch.setattr(_procfs, "tree", lambda pid: (later,))
        with kills.recording(process.pid):
            end(process)
        assert [kill.held for kill in kills.pending() if kill.processes == (later,)] == [None]

    def test_a_kill_of_what_had_crashed(self, kills: KillRecord, card: Card, start: Start) -> None:
        process = start()
        card.holders[process.pid] = 8 * GIB
        kills.watch(process.pid)
        end(process)
        with kills.recording(process.pid):
            pass
        assert [kill.held for kill in kills.pending()] == [{GPU: 8 * GIB}]

    def test_a_recorded_kill_is_no_crash_as_well(self, kills: KillRecord, start: Start) -> None:
        process = start()
        kills.watch(process.pid)
        with kills.recording(process.pid):
            end(process)
        assert len(kills.pending()) == 1

    def test_nobody_to_watch(self, kills: KillRecord, start: Start) -> None:
        process = start()
        end(process)
        assert not kills.watch(process.pid)

    def test_no_reading(self, kills: KillRecord, card: Card, start: Start) -> None:
        process, card.error = start(), ProbeFailed("no")
        assert not kills.watch(process.pid)
        end(process)
        assert [kill.held for kill in kills.pending()] == [None]


class TestObserved:
    def kill(self, pid: int = 5_000_000, when_ns: int = 1, held: int = GIB) -> Kill:
        return Kill(frozenset({pid}), when_ns, {GPU: held}, {GPU: 10 * GIB}, {GPU: {}})

    def test_a_death_that_others_observed(self, kills: KillRecord, card: Card) -> None:
        kills.add(self.kill())
        assert kills.last_kill_ns == 1
        assert card.budgets == []

    def test_a_death_counts_once(self, kills: KillRecord) -> None:
        kills.add(self.kill())
        kills.add(self.kill(when_ns=2))
        assert len(kills.pending()) == 1
        assert kills.last_kill_ns == 2

    def test_a_pid_that_was_handed_out_again_is_another_death(self, kills: KillRecord) -> None:
        for start_ticks in (1, 2):
            kills.add(Kill(frozenset({7}), start_ticks, {}, processes=(_procfs.ProcessIdentity(7, start_ticks),)))
        assert len(kills.pending()) == 2

    def test_a_late_kill_of_a_number_leaves_its_next_owner_watched(self, kills: KillRecord, start: Start) -> None:
        process = start()
        assert process.stdout is not None
        process.stdout.readline()
        kills.watch(process.pid)
        kills.add(Kill(frozenset(), time.monotonic_ns(), {}, processes=(_procfs.ProcessIdentity(process.pid, 1),)))
        before = len(kills.pending())
        end(process)
        assert len(kills.pending()) == before + 1

    def test_a_death_that_is_told_late_does_not_set_the_time_back(self, kills: KillRecord) -> None:
        kills.add(self.kill(when_ns=5))
        kills.add(self.kill(pid=5_000_001, when_ns=2))
        assert kills.last_kill_ns == 5

    def test_a_stamp_is_all_that_is_known_of_orphans(self, kills: KillRecord) -> None:
        kills.stamp()
        kills.stamp()
        assert [(kill.pids, kill.held) for kill in kills.pending()] == [(frozenset(), None)] * 2
        assert kills.last_kill_ns is not None

    def test_old_kills_are_dropped_when_new_ones_come(self, kills: KillRecord) -> None:
        for minute in range(10):
            kills.add(self.kill(pid=5_000_000 + minute, when_ns=minute * 61_000_000_000))
        assert len(kills.pending()) == 1

    def test_forgotten(self, kills: KillRecord) -> None:
        for pid in (5_000_000, 5_000_001):
            kills.add(self.kill(pid))
        first, second = kills.pending()
        kills.forget([first])
        assert kills.pending() == (second,)
        assert repr(kills) == "KillRecord(1 pending, watching [])"

    def test_many_threads(self, kills: KillRecord) -> None:
        def add(offset: int) -> None:
            for n in range(100):
                kills.add(self.kill(pid=5_000_000 + offset * 100 + n))

        threads = [threading.Thread(target=add, args=(offset,)) for offset in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(kills.pending()) == 800


WORKER = """
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
print(worker.pid, flush=True)
time.sleep(60)
"""


class TestSeveralAtOnce:
    def test_overlapping_recordings_count_from_the_newer_reading(
        self, kills: KillRecord, card: Card, start: Start
    ) -> None:
        """The one that was read first dies last."""
        first, second = start(), start()
        card.holders |= {first.pid: 2 * GIB, second.pid: 3 * GIB}
        with kills.recording(first.pid):
            end(first)
            del card.holders[first.pid]
            card.free = 11 * GIB  # half of it is back
            with kills.recording(second.pid):
                end(second)
        expectation = expectation_of(kills.pending())
        assert expectation is not None
        assert (expectation.free_before[GPU], expectation.held[GPU]) == (11 * GIB, 4 * GIB)

    @pytest.mark.parametrize("what", ["recorded", "noticed by a wait"])
    def test_a_worker_that_crashed_before_its_leader(
        self, kills: KillRecord, card: Card, start: Start, what: str
    ) -> None:
        leader = start(WORKER)
        worker = child_of(leader)
        card.holders |= {leader.pid: GIB, worker: 5 * GIB}
        assert kills.watch(leader.pid)
        os.kill(worker, signal.SIGKILL)
        until_gone(worker)
        del card.holders[worker]
        if what == "recorded":
            with kills.recording(leader.pid):
                end(leader)
        expectation = expectation_of(kills.pending())
        assert expectation is not None
        assert expectation.held[GPU] == (6 if what == "recorded" else 5) * GIB

    def test_a_helper_that_holds_nothing_comes_and_goes(self, kills: KillRecord, card: Card, start: Start) -> None:
        leader = start(WORKER)
        helper = child_of(leader)
        card.holders[leader.pid] = GIB
        assert kills.watch(leader.pid)
        os.kill(helper, signal.SIGKILL)
        until_gone(helper)
        assert kills.pending() == ()

    def test_a_wait_that_begins_between_the_death_and_the_end_of_the_block(
        self, kills: KillRecord, card: Card, start: Start
    ) -> None:
        process = start()
        card.holders[process.pid] = GIB
        with kills.recording(process.pid):
            end(process)
            assert len(kills.pending()) == 1
        assert len(kills.pending()) == 1


def until_gone(pid: int) -> None:
    """A killed process, or what is left of it until its parent asks, is dead."""
    for _ in range(1000):
        if not _procfs.tree(pid):
            return
        time.sleep(0.005)
    raise AssertionError(f"{pid} still lives")
