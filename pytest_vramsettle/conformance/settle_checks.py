"""How a settle wait is called in a scenario, and what can be asked of it."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from fake_gpu import Fault
from pytest_vramsettle.conformance.model import MIB, SECOND, Check, Observation, seconds
from pytest_vramsettle.conformance.stage import Stage

MISREAD_MIB = 256
"""What may be missing unsaid: the tolerance of the common wait."""
_INSTANT_NS = SECOND // 1000
"""What counts as at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleSubject:
    """A settle wait under judgement."""

    wait: Callable[..., Any]
    """`wait(since_kill=time.monotonic() at the kill or 0.0, max_wait=seconds)`; may return an awaitable."""
    recording: Callable[[int], AbstractContextManager[Any]] | None = None
    """`recording(pid)` is entered around each kill, for implementations that look at memory before."""
    cancel: Callable[[], object] | None = None
    """Ends the wait that is under way; coroutines are cancelled as a task where this is None."""
    lock: Any = None
    """The load lock, which the wait must not hold."""


def settle_play(
    *,
    max_wait: float = 2.0,
    pause: float = 0.0,
    killed: bool = True,
    then: Callable[[Stage], None] | None = None,
) -> Callable[[Stage, SettleSubject], Observation]:
    """Kill, what happens afterwards, a pause, the wait. Not `killed`: since_kill is 0.0. All in seconds."""

    def play(stage: Stage, subject: SettleSubject) -> Observation:
        stamp = _killed(stage, subject, killed, then)
        if pause:
            stage.clock.sleep(pause)
        function = functools.partial(subject.wait, since_kill=stamp, max_wait=max_wait)
        return stage.call(function, allowed=max_wait)

    return play


def _killed(stage: Stage, subject: SettleSubject, killed: bool, then: Callable[[Stage], None] | None) -> float:
    stamp = 0.0
    if killed:
        stamp = stage.kill(subject.recording)
    else:
        stage.begin()
    if then is not None:
        then(stage)
    return stamp


def cancel_play(*, after: float, max_wait: float) -> Callable[[Stage, SettleSubject], Observation]:
    """As `settle_play`, and the wait is cancelled."""

    def play(stage: Stage, subject: SettleSubject) -> Observation:
        stamp = stage.kill(subject.recording)

        def cancel(call: Any) -> tuple[tuple[str, Any], ...]:
            stage.clock.advance(after)
            stage.mark("cancelled")
            at_ns = stage.now_ns
            task = call.cancel if subject.cancel is None else subject.cancel
            if task is not None:
                task()
            return (("cancelled_ns", at_ns), ("cancellable", task is not None))

        function = functools.partial(subject.wait, since_kill=stamp, max_wait=max_wait)
        return stage.call(function, allowed=max_wait, meanwhile=cancel)

    return play


def lock_play(*, after: float, max_wait: float) -> Callable[[Stage, SettleSubject], Observation]:
    """As `settle_play`, and somebody wants the load lock meanwhile."""

    def play(stage: Stage, subject: SettleSubject) -> Observation:
        stamp = stage.kill(subject.recording)

        def look(call: Any) -> tuple[tuple[str, Any], ...]:
            stage.clock.advance(after)
            free = _is_free(subject.lock)
            stage.mark("the load lock was free" if free else "the load lock was held")
            return (("lock_free", free), ("waiting", not call.done))

        function = functools.partial(subject.wait, since_kill=stamp, max_wait=max_wait)
        return stage.call(function, allowed=max_wait, meanwhile=look)

    return play


def _is_free(lock: Any) -> bool:
    if not isinstance(lock, type(threading.RLock())) and hasattr(lock, "locked"):
        return not lock.locked()
    if lock.acquire(False):
        lock.release()
        return True
    return False


# -- what is asked


def within(most: float, *, least: float = 0.0, needs: str | None = None) -> Check:
    """It took so many seconds at most, to the microsecond, and at least so many."""

    def judge(seen: Observation) -> str | None:
        if seen.elapsed_ns > most * SECOND + 1000:
            return f"it took {seconds(seen.elapsed_ns)}, which is more than {most:g} s"
        if seen.elapsed_ns < least * SECOND - 1000:
            return f"it took {seconds(seen.elapsed_ns)}, which is less than {least:g} s"
        return None

    text = f"ends within {most:g} s of the call" if most else "ends at once"
    return Check(text + (f", and not before {least:g} s" if least else ""), judge, needs)


def probes(count: int) -> Check:
    """So many probes, for those that probe at once and then every 0.25 s."""

    def judge(seen: Observation) -> str | None:
        made = len(seen.probes)
        if made == count:
            return None
        told = "1 probe" if made == 1 else f"{made} probes"
        return f"it made {told}, and {count} are known to be right{_why(seen, min(made, count))}"

    return Check(f"makes exactly {count} probes", judge, "cadence" if count > 1 else None, ("upstream",))


def _why(seen: Observation, last: int) -> str:
    """What the last two readings say that both made: whether to go on."""
    stopped = len(seen.probes) == last
    if last < 2:
        answered = last == 1 and not seen.probes[0].failed
        return ": it was answered, and compared with nothing later" if stopped and answered else ""
    before, now = seen.probes[last - 2], seen.probes[last - 1]
    if before.failed or now.failed or len(before.free) != len(now.free):
        return ""
    pairs = enumerate(zip(before.free, now.free, strict=True))
    moved = ", ".join(f"{(after - earlier) // MIB:+d} MiB on GPU {gpu}" for gpu, (earlier, after) in pairs)
    then = "it stopped there" if stopped else "it went on from there"
    return f": {then}, with {moved} since the reading before; less than 256 MiB or 2 % on every GPU is the end"


def at_most_probes(count: int) -> Check:
    """No more than so many probes."""

    def judge(seen: Observation) -> str | None:
        made = len(seen.probes)
        return None if made <= count else f"it made {made} probes where {count} are enough"

    return Check(f"makes no more than {count} probes", judge)


def sees_it_back(limit_mib: int = MISREAD_MIB) -> Check:
    """No more than that is missing at the return, whatever it says."""

    def judge(seen: Observation) -> str | None:
        if seen.missing <= limit_mib * MIB:
            return None
        return f"{seen.missing // MIB} MiB of the dead's memory were missing when it returned"

    return Check(f"returns when no more than {limit_mib} MiB are missing", judge)


def not_misread(limit_mib: int = MISREAD_MIB) -> Check:
    """No more than that is missing at the return, unless it says so."""

    def judge(seen: Observation) -> str | None:
        if seen.missing <= limit_mib * MIB or seen.trusted is False:
            return None
        how = "said that the reading may be trusted" if seen.trusted else "did not say so"
        return f"{seen.missing // MIB} MiB of the dead's memory were missing when it returned, and it {how}"

    return Check(f"returns when no more than {limit_mib} MiB are missing, or says that they are", judge)


def gives_up_or_tells(soon: float) -> Check:
    """So soon it need say nothing, but that all is well; later it has to tell what is missing."""
    later = not_misread()

    def judge(seen: Observation) -> str | None:
        if seen.elapsed_ns <= soon * SECOND and seen.trusted is None:
            return None
        return later.judge(seen)

    return Check(f"gives up within {soon:g} s, or {later.expects}", judge, levels=("verified",))


def only_upstream(*checks: Check) -> tuple[Check, ...]:
    """Asked at level `upstream` alone."""
    return tuple(replace(one, levels=("upstream",)) for one in checks)


def says(trust: bool) -> Check:
    """It says whether the next reading may be trusted."""

    def judge(seen: Observation) -> str | None:
        if seen.trusted is None:
            return f"{seen.said}: that does not say whether the next reading may be trusted"
        return None if seen.trusted is trust else f"{seen.said}"

    told = "may" if trust else "may not"
    return Check(f"returns what is {str(trust).lower()}: the reading {told} be trusted", judge, "tells_outcome")


def no_probe_from(deadline: float) -> Check:
    """None begins at or after that many seconds since the call."""

    def judge(seen: Observation) -> str | None:
        late = [one for one in seen.probes if one.at_ns - seen.began_ns >= deadline * SECOND]
        return f"a probe began {seconds(late[0].at_ns - seen.began_ns)} after the call" if late else None

    return Check(f"begins no probe {deadline:g} s after the call or later", judge)


_FAILURE = re.compile(r"fail|error|exit|exception|status|timed? ?out|could not|cannot|unable", re.IGNORECASE)


def logs_failure() -> Check:
    """A record with an exception, a warning, or a text that speaks of a failure."""

    def judge(seen: Observation) -> str | None:
        own = [record for record in seen.logs if record.name != "asyncio"]
        if any(one.exc_info or one.levelno >= 30 or _FAILURE.search(one.getMessage()) for one in own):
            return None
        if not any(one.failed for one in seen.probes):
            return f"the probe that fails was never made: it was over after {len(seen.probes)} that did not"
        return f"the probe failed and nothing was logged of it ({len(own)} records in all)"

    return Check("logs the probe's failure, at any level", judge, "logs_failures")


def cancelled_within(most: float) -> Check:
    """It ends so soon after it was cancelled, and does not say that the reading may be trusted."""

    def judge(seen: Observation) -> str | None:
        if not seen.note("cancellable"):
            return "there was nothing to cancel: it had not begun to wait"
        late = seen.ended_ns - seen.note("cancelled_ns")
        if late < 0:
            return f"it was over {seconds(-late)} before it was cancelled, with {seen.missing // MIB} MiB missing"
        if late > most * SECOND:
            return f"it went on for {seconds(late)} after it was cancelled"
        return f"cancelled, {seen.said}" if seen.trusted else None

    return Check(f"ends within {most:g} s of being cancelled", judge)


def lock_was_free() -> Check:
    """The load lock could be had while it waited."""

    def judge(seen: Observation) -> str | None:
        if not seen.note("waiting"):
            return "the wait was over before anybody could ask for the lock"
        return None if seen.note("lock_free") else "the load lock was held during the wait"

    return Check("holds no load lock while it waits", judge)


AT_ONCE = within(_INSTANT_NS / SECOND)
SLOW_SMI = Fault.slow("900ms")
