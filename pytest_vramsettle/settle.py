"""The settle wait: after a GPU process was killed, wait until the driver has given its memory back.

result = wait_for_vram_settle(kills, cancel=cancel)     # holding no lock
if not result:
    log.warning("placing the model on a doubtful reading: %s", result)
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_vramsettle import _procfs
from pytest_vramsettle._interrupts import Interrupts
from pytest_vramsettle._procfs import ProcessIdentity
from pytest_vramsettle._quantities import MIB, SECOND, duration_ns, size_mib
from pytest_vramsettle.expectations import EXACT, Expectation, Kill, expectation_of
from pytest_vramsettle.kills import KillRecord
from pytest_vramsettle.policies import Decision, Outcome, Policy, ProbeFailure, Sample, Situation, policy_named
from pytest_vramsettle.probes import (
    ProbeBudget,
    ProbeFailed,
    ProbeInterrupted,
    ProbeLike,
    ProbeMissing,
    Reading,
    as_probe,
    default_probe,
)
from pytest_vramsettle.readings import GpuKey

if TYPE_CHECKING:
    import asyncio

__all__ = [
    "TRUSTED",
    "Outcome",
    "ProbeFailure",
    "Sample",
    "SettleResult",
    "async_wait_for_vram_settle",
    "wait_for_vram_settle",
]

_log = logging.getLogger(__name__)

TRUSTED: frozenset[Outcome] = frozenset({"no_recent_kill", "stale_kill", "no_gpu", "already_released", "settled"})
"""The outcomes after which a reading of free memory may be trusted."""


@dataclass(frozen=True, slots=True, repr=False)
class SettleResult:
    """How a wait ended. True when placement may trust the next reading of free memory: `outcome in TRUSTED`.

    `elapsed` is in seconds, `elapsed_ns` exact. `samples` are the answers of the probe in order, `failures` the probes
    that gave none. `missing_mib_by_gpu` is, by UUID, what the dead held and the last sample did not yet find free, in
    whole MiB rounded up, with what others took or gave since taken into account as far as the samples tell; up to 2 MiB
    are nvidia-smi's rounding and count as 0. `missing_mib` is the sum; None where nobody knows what was to come back,
    and where no sample was had. `expected_mib` is all that was to come back, None where nobody knows. `holding_pids`
    are the PIDs of the killed processes that live, or are still listed as holders of memory.
    """

    outcome: Outcome
    elapsed_ns: int
    policy: str
    samples: tuple[Sample, ...] = ()
    failures: tuple[ProbeFailure, ...] = ()
    missing_mib: int | None = None
    missing_mib_by_gpu: Mapping[GpuKey, int] = field(default_factory=dict)
    holding_pids: tuple[int, ...] = ()
    expected_mib: int | None = None

    @property
    def elapsed(self) -> float:
        """Seconds from the call to its return."""
        return self.elapsed_ns / SECOND

    def __bool__(self) -> bool:
        return self.outcome in TRUSTED

    def __repr__(self) -> str:
        return f"<SettleResult: {self}>"

    def __str__(self) -> str:
        parts = [f"{self.outcome} after {self.elapsed:.3f} s and {len(self.samples)} samples ({self.policy})"]
        if self.missing_mib is not None and self.expected_mib:
            parts.append(f"{self.missing_mib} of {self.expected_mib} MiB missing")
        elif self.expected_mib:
            parts.append(f"{self.expected_mib} MiB expected, none of them seen")
        if self.missing_mib and self.expected_mib:
            by_gpu = ", ".join(f"{gpu}: {mib} MiB" for gpu, mib in self.missing_mib_by_gpu.items() if mib)
            parts[-1] += f" ({by_gpu})"
        if self.holding_pids:
            parts.append(f"held by PID {', '.join(map(str, self.holding_pids))}")
        if self.failures:
            parts.append(f"{len(self.failures)} probes failed, the last with {self.failures[-1]}")
        return "; ".join(parts)


def wait_for_vram_settle(
    kills: KillRecord | None = None,
    *,
    max_wait: float | None = None,
    interval: float = 0.25,
    tolerance_mib: float = 256,
    since_kill: float | None = None,
    probe: ProbeLike | None = None,
    policy: str | Policy = "verified",
    cancel: threading.Event | None = None,
) -> SettleResult:
    """Wait until the memory of what was killed is free again, and say how that went. Call it holding no lock.

    Args:
        kills: the record of what was killed and what it held. A kill recorded in it while this waits supersedes the
            wait. When the memory is seen to be back, its kills are taken off the record.
        max_wait: seconds after which this returns whatever happens, however slow the probe; 30 by default, 2 under
            `two-samples`.
        interval: the longest pause between two probes, in seconds; under `two-samples` every pause.
        tolerance_mib: MiB by which readings may differ and still count as still; under `verified`, what may be missing
            where nothing moves any more, on all GPUs together.
        since_kill: in place of `kills`, `time.monotonic()` at the last kill; None or 0.0 for never.
        probe: a callable that returns `[(index, free_mib), ...]`, or a Probe; nvidia-smi by default, NVML without one.
        policy: `verified`, `two-samples`, the name of a peer's (see `peers`), or a Policy of your own.
        cancel: set it, from any thread, to end the wait: at once between probes, within 5 ms during one.

    An Exception of a probe ends the wait or is tried again, as the policy says; it is logged and in `failures`, not
    raised.
    Raises ValueError for durations and sizes that cannot be, for an unknown policy, and for both `kills` and
    `since_kill`; TypeError for a probe that is none.
    """
    return _Wait(kills, max_wait, interval, tolerance_mib, since_kill, probe, policy, cancel).run()


async def async_wait_for_vram_settle(
    kills: KillRecord | None = None,
    *,
    max_wait: float | None = None,
    interval: float = 0.25,
    tolerance_mib: float = 256,
    since_kill: float | None = None,
    probe: ProbeLike | None = None,
    policy: str | Policy = "verified",
    cancel: threading.Event | None = None,
) -> SettleResult:
    """`wait_for_vram_settle` for asyncio: the wait has a thread of its own, the event loop goes on.

    Cancelling the task ends the wait; its thread is gone shortly after.
    """
    import asyncio

    wait = _Wait(kills, max_wait, interval, tolerance_mib, since_kill, probe, policy, cancel)
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[SettleResult] = loop.create_future()

    def run() -> None:
        result: SettleResult | BaseException
        try:
            result = wait.run()
        except BaseException as error:  # it belongs to the task
            result = error
        with suppress(RuntimeError):  # the loop is closed, nobody waits
            loop.call_soon_threadsafe(_answer, answer, result)

    threading.Thread(target=run, name="vram-settle", daemon=True).start()
    try:
        return await answer
    except asyncio.CancelledError:
        wait.interrupts.abort()
        raise


def _answer(answer: asyncio.Future[SettleResult], result: SettleResult | BaseException) -> None:
    if answer.done():
        return
    if isinstance(result, BaseException):
        answer.set_exception(result)
    else:
        answer.set_result(result)


class _Wait:
    """One wait. Arguments are checked when it is made, time counts from `run`."""

    def __init__(
        self,
        kills: KillRecord | None,
        max_wait: float | None,
        interval: float,
        tolerance_mib: float,
        since_kill: float | None,
        probe: ProbeLike | None,
        policy: str | Policy,
        cancel: threading.Event | None,
    ) -> None:
        if kills is not None and not isinstance(kills, KillRecord):
            raise TypeError(f"kills has to be a KillRecord; got {kills!r} (a time stamp goes into since_kill=)")
        if cancel is not None and not isinstance(cancel, threading.Event):
            raise TypeError(f"cancel has to be a threading.Event; got {cancel!r}")
        if kills is not None and since_kill is not None:
            raise ValueError("give either the kill record or since_kill: the record knows when its last kill was")
        if since_kill is not None and (isinstance(since_kill, bool) or not isinstance(since_kill, int | float)):
            raise TypeError(f"since_kill has to be a reading of time.monotonic(); got {since_kill!r}")
        if since_kill is not None and not math.isfinite(since_kill):
            raise ValueError(f"since_kill has to be a reading of time.monotonic(); got {since_kill!r}")
        self._policy = policy_named(policy)
        self._max_wait_ns = (
            self._policy.max_wait_ns if max_wait is None else duration_ns("max_wait", max_wait, zero=True)
        )
        self._interval_ns = duration_ns("interval", interval)
        self._tolerance_mib = size_mib("tolerance_mib", tolerance_mib)
        self._probe = default_probe() if probe is None else as_probe(probe)
        self._kills = kills
        self._since_kill = since_kill
        self.interrupts = Interrupts(cancel)
        self._started_ns = self._deadline_ns = 0
        self._situation = Situation()
        self._processes: tuple[ProcessIdentity, ...] = ()
        self._samples: list[Sample] = []
        self._failures: list[ProbeFailure] = []

    def run(self) -> SettleResult:
        self._started_ns = time.monotonic_ns()
        self._deadline_ns = self._started_ns + self._max_wait_ns
        pending = () if self._kills is None else self._kills.begin_wait(self.interrupts)
        try:
            outcome = self._before_probing(pending) or self._probe_until_decided()
        finally:
            if self._kills is not None:
                self._kills.end_wait(self.interrupts)
            self.interrupts.close()
        if self._kills is not None and self._policy.wants_only_pending and outcome in ("already_released", "settled"):
            self._kills.forget(pending)
        result = self._result(outcome)
        if outcome == "timed_out":
            _log.warning("GPU memory did not settle: %s", result)
        else:
            _log.debug("GPU memory: %s", result)
        return result

    def _before_probing(self, pending: tuple[Kill, ...]) -> Outcome | None:
        reason = self.interrupts.reason()
        if reason is not None:
            return reason
        killed_ns = self._last_kill_ns(pending)
        if killed_ns is None:
            return "no_recent_kill"
        self._processes = tuple(process for kill in pending for process in kill.processes)
        self._situation = Situation(
            age_ns=self._started_ns - killed_ns,
            expectation=expectation_of(pending),
            pids=frozenset().union(*(kill.every_pid for kill in pending)),
            gpus=pending[-1].cards if pending else frozenset(),
            interval_ns=self._interval_ns,
            tolerance_mib=self._tolerance_mib,
        )
        return "stale_kill" if self._policy.is_stale(self._situation) else None

    def _last_kill_ns(self, pending: tuple[Kill, ...]) -> int | None:
        if self._kills is None:
            since = self._since_kill
            # 0.0 is how callers with a plain stamp say that there was no kill.
            return None if since is None or since <= 0 else round(since * SECOND)
        if self._policy.wants_only_pending:
            return max((kill.when_ns for kill in pending), default=None)
        return self._kills.last_kill_ns

    def _probe_until_decided(self) -> Outcome:
        while True:
            if time.monotonic_ns() >= self._deadline_ns:
                return "timed_out"
            decision = self._probe_once()
            if decision.outcome is not None:
                return decision.outcome
            self.interrupts.sleep_until(min(time.monotonic_ns() + decision.pause_ns, self._deadline_ns))
            reason = self.interrupts.reason()
            if reason is not None:
                return reason

    def _probe_once(self) -> Decision:
        started = time.monotonic_ns()
        deadline = self._deadline_ns
        if self._policy.attempt_ns is not None:
            deadline = min(deadline, started + self._policy.attempt_ns)
        try:
            budget = ProbeBudget(deadline, self.interrupts)
            reading: object = self._probe.read(budget, holders=self._policy.wants_holders(self._situation))
            if not isinstance(reading, Reading):
                raise ProbeFailed(f"the probe answered {reading!r}, which is no Reading")
        except ProbeInterrupted:
            return Decision(self.interrupts.reason() or "cancelled")
        except Exception as error:
            _log.debug("a probe of GPU memory failed", exc_info=True)
            return self._failed(started, error)
        self._samples.append(self._sample(started, reading))
        return self._policy.decide(self._situation, self._samples, self._failures)

    def _failed(self, started: int, error: Exception) -> Decision:
        now = time.monotonic_ns()
        first = not self._samples and not self._failures
        # Without the traceback, which would keep the probe's frames alive as long as the result.
        self._failures.append(ProbeFailure(now - self._started_ns, now - started, error.with_traceback(None)))
        if now >= self._deadline_ns:
            return Decision("timed_out")
        if isinstance(error, ProbeMissing) and first and not self._situation.gpus:
            return Decision("no_gpu")
        return self._policy.decide_failure(self._situation, self._samples, self._failures)

    def _sample(self, started: int, reading: Reading) -> Sample:
        now = time.monotonic_ns()
        return Sample(
            offset_ns=now - self._started_ns,
            cost_ns=now - started,
            gpus=reading.gpus,
            alive=frozenset(process.pid for process in self._processes if _procfs.is_alive(process)),
            reused=frozenset(process.pid for process in self._processes if _procfs.is_reused(process)),
        )

    def _result(self, outcome: Outcome) -> SettleResult:
        last = self._samples[-1] if self._samples else None
        expectation = self._situation.expectation
        missing: dict[GpuKey, int] | None = None
        holding: frozenset[int] = frozenset()
        if last is not None:
            holding = last.alive | last.listed(self._situation.pids)
            missing = _missing_mib(expectation, self._situation.pids, last)
        elif outcome == "no_recent_kill":
            missing = {}
        return SettleResult(
            outcome=outcome,
            elapsed_ns=time.monotonic_ns() - self._started_ns,
            policy=self._policy.name,
            samples=tuple(self._samples),
            failures=tuple(self._failures),
            missing_mib=None if missing is None else sum(missing.values()),
            missing_mib_by_gpu=missing or {},
            holding_pids=tuple(sorted(holding)),
            expected_mib=None if expectation is None else -(-sum(expectation.held.values()) // MIB),
        )


def _missing_mib(expectation: Expectation | None, pids: frozenset[int], sample: Sample) -> dict[GpuKey, int] | None:
    if expectation is None:
        return None
    missing: dict[GpuKey, int] = {}
    by_key = {gpu.key: gpu for gpu in sample.gpus}
    for key, held in expectation.held.items():
        short = expectation.short(by_key[key], pids - sample.reused) if key in by_key else None
        if held and short is None:
            return None
        if held and short is not None:
            missing[key] = 0 if short <= EXACT else -(-short // MIB)
    return missing
