"""One reload on the virtual clock: a wait that is run for real, over a probe that is scripted."""

from __future__ import annotations

import inspect
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from pytest_vramsettle._quantities import MIB, SECOND, to_seconds
from pytest_vramsettle.clock import VirtualClock
from pytest_vramsettle.kills import KillRecord
from pytest_vramsettle.probes import ProbeBudget, Reading
from pytest_vramsettle.score.scenarios import Group, Scenario
from pytest_vramsettle.score.subjects import FunctionSubject, PolicySubject, Subject
from pytest_vramsettle.settle import wait_for_vram_settle

EPOCH_NS = 2**27 * SECOND
"""Every reload begins at this reading of the monotonic clock, some four years: what a wait of somebody's reckons in
floating point then does not depend on how long the machine has been up."""

PATIENCE_NS = 300 * SECOND
"""After so long, in virtual time, a wait of somebody's own is said never to return."""

UPSTREAM_DEFAULTS = {"max_wait": 2.0, "interval": 0.25, "tolerance_mib": 256}
"""For a wait that has no defaults of its own."""

RAISED = "raised"
NEVER_RETURNED = "never returned"
RETURNED = "returned"


@dataclass(frozen=True, slots=True)
class Reload:
    """What came of one wait in one scenario.

    `outcome` is a settle outcome, or `returned`, `raised`, `never returned` for a wait of somebody's own. `flagged`: it
    said itself that its reading is not to be trusted. `misread_mib` is what the dead held and was not back when it
    returned, all GPUs together, without what never comes back. `waste_ns` is how much later than that it returned; 0
    where it returned before, None where nothing comes back. `note` says what was raised.
    """

    scenario: str
    kind: str
    group: Group
    policy: str
    outcome: str
    flagged: bool
    misread_mib: int
    waste_ns: int | None
    elapsed_ns: int
    probes: int
    note: str = ""

    @property
    def broken(self) -> bool:
        """It raised, or did not return."""
        return self.outcome in (RAISED, NEVER_RETURNED)


@dataclass(slots=True)
class ScriptedProbe:
    """Answers as the scenario says, after the time that it says. `spans` are (begin, end) of each, since the death."""

    scenario: Scenario
    death_ns: int
    spans: list[tuple[int, int]] = field(default_factory=list)

    def read(self, budget: ProbeBudget, *, holders: bool) -> Reading:
        """As a Probe: by the deadline, or when the interrupts say so."""
        end_ns = self._begin(holders)
        until_ns = min(end_ns, budget.deadline_ns)
        if budget.interrupts is not None:
            budget.interrupts.sleep_until(until_ns)
        self._end()
        budget.check()
        return self.scenario.reading(time.monotonic_ns() - self.death_ns, holders=holders)

    def __call__(self) -> list[tuple[int, float]]:
        """As the plain callable of an upstream wait."""
        time.sleep(to_seconds(self._begin(False) - time.monotonic_ns()))
        self._end()
        reading = self.scenario.reading(time.monotonic_ns() - self.death_ns, holders=False)
        return [(gpu.index or 0, (gpu.free or 0) // MIB) for gpu in reading.gpus]

    def _begin(self, holders: bool) -> int:
        now = time.monotonic_ns()
        self.spans.append((now - self.death_ns, now - self.death_ns))
        return now + self.scenario.probe_ns(holders)

    def _end(self) -> None:
        self.spans[-1] = (self.spans[-1][0], time.monotonic_ns() - self.death_ns)


@dataclass(slots=True)
class _Ended:
    outcome: str
    flagged: bool = False
    note: str = ""
    at_ns: int = 0


def play(subject: Subject, scenario: Scenario) -> Reload:
    """One reload. Raises nothing that the wait raises."""
    return replay(subject, scenario)[0]


def replay(subject: Subject, scenario: Scenario) -> tuple[Reload, tuple[tuple[int, int], ...]]:
    """One reload, and the (begin, end) of its probes, in nanoseconds since the death."""
    with VirtualClock() as clock:
        _sleep_until(clock, EPOCH_NS)
        probe = ScriptedProbe(scenario, EPOCH_NS)
        _sleep_until(clock, EPOCH_NS + scenario.load_ns)
        ended = _run_policy(subject, probe) if isinstance(subject, PolicySubject) else _run_function(subject, probe)
    return _judged(subject, scenario, ended, len(probe.spans)), tuple(probe.spans)


def _sleep_until(clock: VirtualClock, instant_ns: int) -> None:
    while (rest := instant_ns - clock.monotonic_ns()) > 0:
        # Whole seconds first: years in floating point are off by some nanoseconds.
        clock.sleep(rest // SECOND if rest > SECOND else rest / SECOND)


def _run_policy(subject: PolicySubject, probe: ScriptedProbe) -> _Ended:
    kills = KillRecord(probe=probe)
    kills.add(probe.scenario.kill(probe.death_ns))
    try:
        result = wait_for_vram_settle(kills, probe=probe, policy=subject.policy)
    except Exception as error:  # a policy of somebody's own may raise anything
        ended = _Ended(RAISED, note=f"{type(error).__name__}: {error}")
    else:
        ended = _Ended(result.outcome, flagged=not result)
    ended.at_ns = time.monotonic_ns() - probe.death_ns
    return ended


def _run_function(subject: FunctionSubject, probe: ScriptedProbe) -> _Ended:
    """In a thread of its own, which the clock ends when it waits for too long."""
    ended = _Ended(NEVER_RETURNED)

    def run() -> None:
        try:
            result = subject.function(**_arguments(subject, probe))
        except BaseException as error:  # whatever it is, it is the wait's
            answer = _Ended(RAISED, note=f"{type(error).__name__}: {error}")
        else:
            answer = _Ended(str(getattr(result, "outcome", RETURNED)), flagged=_says_no(result))
        if not late.is_set():
            answer.at_ns = time.monotonic_ns() - probe.death_ns
            answers.append(answer)

    answers: list[_Ended] = []
    late = threading.Event()
    thread = threading.Thread(target=run, name=f"wait {subject.name}", daemon=True)
    thread.start()
    thread.join(to_seconds(PATIENCE_NS))
    late.set()
    if answers:
        return answers[0]
    ended.at_ns = time.monotonic_ns() - probe.death_ns
    ended.note = f"for {PATIENCE_NS // SECOND} s of virtual time"
    return ended


def _arguments(subject: FunctionSubject, probe: ScriptedProbe) -> dict[str, Any]:
    given: dict[str, Any] = {"probe": probe, "since_kill": probe.death_ns / SECOND}
    for name, value in UPSTREAM_DEFAULTS.items():
        parameter = inspect.signature(subject.function).parameters.get(name)
        if parameter is not None and parameter.default is parameter.empty:
            given[name] = value
    return {name: value for name, value in given.items() if name in subject.takes}


def _says_no(result: object) -> bool:
    """Upstream's wait returns None, which says nothing; False and a SettleResult say something."""
    return result is False or (hasattr(result, "outcome") and not result)


def _judged(subject: Subject, scenario: Scenario, ended: _Ended, probes: int) -> Reload:
    back_ns = scenario.back_ns
    return Reload(
        scenario=scenario.name,
        kind=scenario.kind,
        group=scenario.group,
        policy=subject.name,
        outcome=ended.outcome,
        flagged=ended.flagged,
        misread_mib=scenario.missing(ended.at_ns) // MIB,
        waste_ns=None if back_ns is None else max(0, ended.at_ns - max(back_ns, scenario.load_ns)),
        elapsed_ns=ended.at_ns - scenario.load_ns,
        probes=probes,
        note=ended.note,
    )
