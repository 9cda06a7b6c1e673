"""Judging: plays scenarios on a machine of their own each, and says what of them an implementation kept."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from pytest_vramsettle.conformance.model import (
    LEVELS,
    Capabilities,
    Check,
    Kind,
    Level,
    Observation,
    Report,
    Scenario,
    Verdict,
    seconds,
    short,
)
from pytest_vramsettle.conformance.stage import CHILD_GRACE, Stage, told_end, told_logs, told_probes

if TYPE_CHECKING:
    from fake_gpu import Driver
    from pytest_vramsettle.conformance.kill_scenarios import KillRoutine


class ConformanceError(ValueError):
    """What was asked of a suite cannot be: an unknown level or scenario, a subject of the wrong kind."""


def selected(scenarios: Sequence[Scenario], level: Level, only: str | Iterable[str] | None = None) -> list[Scenario]:
    """The scenarios of a level; `only` these names. Raises ConformanceError."""
    if level not in LEVELS:
        raise ConformanceError(f"there is no level {level!r}: there are {' and '.join(map(repr, LEVELS))}")
    of_level = [one for one in scenarios if level in one.levels]
    if only is None:
        return of_level
    wanted = [only] if isinstance(only, str) else list(only)
    known = {one.name for one in of_level}
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise ConformanceError(
            f"at level {level!r} there is no scenario {', '.join(map(repr, unknown)) or 'in an empty list'}; "
            f"there are {', '.join(sorted(known))}"
        )
    return [one for one in of_level if one.name in wanted]


def gap_of(scenario: Scenario, subject: Any, capabilities: Capabilities) -> str | None:
    """Why the whole scenario is not judged; None where it is."""
    if scenario.part is not None and not has_part(subject, scenario.part):
        return f"no {scenario.part} was given"
    return unclaimed(scenario, capabilities)


def unclaimed(scenario: Scenario, capabilities: Capabilities) -> str | None:
    """The same, as far as it is known before there is a subject."""
    if scenario.needs is None or getattr(capabilities, scenario.needs):
        return None
    return f"the capability {scenario.needs} is not claimed"


def has_part(subject: Any, part: str) -> bool:
    """Whether a subject has an optional part. A coroutine function brings its own way to be cancelled."""
    if part == "cancel" and inspect.iscoroutinefunction(getattr(subject, "wait", None)):
        return True
    return getattr(subject, part, None) is not None


def judge(scenario: Scenario, stage: Stage, seen: Observation, level: Level, capabilities: Capabilities) -> Verdict:
    """What is said of an observation. Looks at the stage for the drawing."""
    checks = [one for one in scenario.checks if level in one.levels]
    gaps = [one for one in checks if one.needs is not None and not getattr(capabilities, one.needs)]
    judged = [_ENDS if scenario.may_raise else _RETURNS, *(one for one in checks if one not in gaps)]
    if not scenario.leaves:
        judged.append(_LEAVES_NOTHING)
    first = _never_ran(scenario, seen) or judged[0].judge(seen)
    # What follows from not having returned is no news.
    problems = [first] if first else [problem for one in judged if (problem := one.judge(seen)) is not None]
    unknown = _not_covered(scenario, stage)
    return Verdict(
        scenario=scenario.name,
        kind=scenario.kind,
        status="failed" if problems else "passed",
        problems=(*unknown, *problems) if problems else (),
        gaps=(*(f"{one.expects}: the capability {one.needs} is not claimed" for one in gaps), *unknown),
        story=story_of(scenario, seen, judged, stage.seed),
        timeline=stage.timeline(),
    )


_JUDGED = {"settle": "wait", "kills": "kill routine", "reload": "backend"}


def _not_covered(scenario: Scenario, stage: Stage) -> tuple[str, ...]:
    """What was asked of the fake that it does not know: its refusal is not the implementation's fault."""
    asked = dict.fromkeys((call.via, call.name) for call in stage.driver.calls if not call.covered)
    what = _JUDGED.get(scenario.kind, scenario.kind)
    return tuple(f"the fake {via} does not cover {name!r}: this says nothing of your {what}" for via, name in asked)


def _never_ran(scenario: Scenario, seen: Observation) -> str | None:
    """A generator is not begun by the call that makes it. A probe may be one: its readings are iterated."""
    if scenario.kind == "probe" or not (inspect.isgenerator(seen.result) or inspect.isasyncgen(seen.result)):
        return None
    return (
        f"it returned a generator, {short(seen.result, 60)}: nothing of it has run. A plain or async function is wanted"
    )


def _ended(seen: Observation) -> str | None:
    if seen.returned:
        return None
    return f"it raised {seen.error}" if seen.error else f"it had not returned {seconds(seen.elapsed_ns)} after the call"


def _over(seen: Observation) -> str | None:
    return _ended(seen) if seen.error is None else None


def _left(seen: Observation) -> str | None:
    return f"it left behind: {', '.join(seen.left)}" if seen.left else None


_ENDS = Check("returns, or raises", _over)
_RETURNS = Check("returns, and raises nothing", _ended)
_LEAVES_NOTHING = Check("leaves no process and no pipe behind", _left)


def story_of(scenario: Scenario, seen: Observation, judged: Sequence[Check], seed: int | None) -> str:
    """What was scripted, what was seen and when, how it ended, what was expected."""
    lines = [f"about: {scenario.about}", f"scripted: {scenario.scripted}"]
    lines += ["what it saw, since the kill or the beginning:", *told_probes(seen)]
    lines += [f"  {name}: {value}" for name, value in seen.notes]
    lines += told_logs(seen)
    lines += [f"how it ended: {told_end(seen)}", "expected:", *(f"  it {one.expects}" for one in judged)]
    lines.append(f"order of threads: {'the default one' if seed is None else f'seed {seed}'}")
    return "\n".join(lines)


def gap_verdict(scenario: Scenario, reason: str) -> Verdict:
    """For a scenario that is not judged."""
    return Verdict(scenario=scenario.name, kind=scenario.kind, status="gap", gaps=(reason,))


def play(
    scenario: Scenario,
    make: Callable[[Stage], Any],
    *,
    level: Level,
    capabilities: Capabilities,
    seed: int | None = None,
) -> Verdict:
    """One scenario on a machine of its own; `make` makes the subject, once the machine is there."""
    from fake_gpu import Driver
    from pytest_vramsettle.clock import VirtualClock

    with VirtualClock(seed=seed, child_grace=CHILD_GRACE) as clock, Driver(clock=clock) as driver, _balanced(driver):
        stage = Stage(driver, clock, seed=seed)
        scenario.machine(stage)
        subject = make(stage)
        gap = gap_of(scenario, subject, capabilities)
        if gap is not None:
            return gap_verdict(scenario, gap)
        return judge(scenario, stage, scenario.play(stage, subject), level, capabilities)


@contextmanager
def _balanced(driver: Driver) -> Iterator[None]:
    """What an implementation leaves initialised in NVML would still be so for whatever this process does next."""
    before = driver.own_session.initialised
    try:
        yield
    finally:
        driver.own_session.initialised = before


def broken(scenario: Scenario, problem: str, story: str = "") -> Verdict:
    """For a scenario that could not be played to its end; `story`: stacks, and what else is known."""
    told = "\n".join([f"about: {scenario.about}", f"scripted: {scenario.scripted}", *([story] if story else [])])
    return Verdict(scenario=scenario.name, kind=scenario.kind, status="failed", problems=(problem.strip(),), story=told)


def guarded(scenario: Scenario, run: Callable[[], Verdict]) -> Verdict:
    """`run`, or the scenario's failure where the implementation cannot be made, or the clock finds it stuck."""
    try:
        return run()
    except Exception as error:
        return broken(scenario, f"it could not be played: {type(error).__name__}: {error}")


def check(
    kind: Kind,
    scenarios: Sequence[Scenario],
    make: Callable[[Stage], Any],
    *,
    level: Level,
    capabilities: Capabilities | None,
    only: str | Iterable[str] | None,
    seed: int | None = None,
) -> Report:
    """All scenarios of a level, in this process, each with a subject of its own."""
    claimed = Capabilities() if capabilities is None else capabilities
    chosen = selected(scenarios, level, only)

    def verdict(scenario: Scenario) -> Verdict:
        return guarded(scenario, lambda: play(scenario, make, level=level, capabilities=claimed, seed=seed))

    return Report(kind=kind, level=level, verdicts=tuple(map(verdict, chosen)))


def check_settle(
    wait: Callable[..., Any],
    *,
    level: Level = "upstream",
    capabilities: Capabilities | None = None,
    only: str | Iterable[str] | None = None,
    recording: Callable[[int], AbstractContextManager[Any]] | None = None,
    cancel: Callable[[], object] | None = None,
    lock: Any = None,
    injects_probe: bool = False,
    seed: int | None = None,
) -> Report:
    """Judge a settle wait, in this process; a coroutine function is run by asyncio.

    Args:
        wait: called as `wait(since_kill=time.monotonic() at the kill or 0.0, max_wait=seconds)`; it reaches its GPU
            through its own probe. With `injects_probe` it is given `probe`, which returns `[(index, free_mib), ...]`.
        recording: `recording(pid)` is entered around each kill, for waits that know what the dead held.
        cancel: ends the wait under way. `lock`: what it must not hold.
        seed: another order of threads.

    What never gives the processor back (a loop, a sleep in C) cannot be ended here: the suites and `vramsettle
    conform` play in a worker process that can be killed. Raises ConformanceError for an unknown level or scenario,
    and for what cannot be called.
    """
    from pytest_vramsettle.conformance.settle_verified import SETTLE
    from pytest_vramsettle.conformance.subjects import settle_subject

    subject = settle_subject(wait, recording=recording, cancel=cancel, lock=lock, injects_probe=injects_probe)
    return check("settle", SETTLE, lambda _: subject, level=level, capabilities=capabilities, only=only, seed=seed)


def check_kill_record(
    routine: KillRoutine | Callable[[], KillRoutine],
    *,
    level: Level = "upstream",
    capabilities: Capabilities | None = None,
    only: str | Iterable[str] | None = None,
    seed: int | None = None,
) -> Report:
    """Judge a kill routine and its stamp, in this process; else as `check_settle`.

    `routine` is what makes a KillRoutine, for every scenario a new one: stamps stay from kill to kill. Raises
    ConformanceError.
    """
    from pytest_vramsettle.conformance.kill_scenarios import KILLS
    from pytest_vramsettle.conformance.subjects import kill_subject

    return check(
        "kills", KILLS, lambda _: kill_subject(routine), level=level, capabilities=capabilities, only=only, seed=seed
    )


def check_probe(
    probe: Callable[[], Any],
    *,
    level: Level = "upstream",
    capabilities: Capabilities | None = None,
    only: str | Iterable[str] | None = None,
    seed: int | None = None,
) -> Report:
    """Judge a probe, in this process; else as `check_settle`.

    `probe()` returns `[(index or UUID, free MiB), ...]` or a mapping of them; it raises, or returns nothing, where it
    cannot tell. Raises ConformanceError.
    """
    from pytest_vramsettle.conformance.probe_scenarios import PROBE
    from pytest_vramsettle.conformance.subjects import probe_subject

    subject = probe_subject(probe)
    return check("probe", PROBE, lambda _: subject, level=level, capabilities=capabilities, only=only, seed=seed)


def check_reload(
    factory: Any,
    *,
    level: Level = "upstream",
    capabilities: Capabilities | None = None,
    only: str | Iterable[str] | None = None,
    seed: int | None = None,
) -> Report:
    """Judge a whole backend, in this process; else as `check_settle`.

    `factory(server_command)` makes one, for every scenario a new one: with load(model, *, context=, cache_type=),
    unload(), cancel() and status(), and close() where it has such a thing; coroutines have one event loop. It starts
    its servers with that command, a list. Raises ConformanceError.
    """
    from pytest_vramsettle.conformance.reload_scenarios import RELOAD
    from pytest_vramsettle.conformance.subjects import reload_subject

    if not callable(factory):
        raise ConformanceError(f"{factory!r} cannot be called: check_reload takes what makes a backend of a command")

    def make(stage: Stage) -> Any:
        return reload_subject(factory, stage.server_command)

    return check("reload", RELOAD, make, level=level, capabilities=capabilities, only=only, seed=seed)
