"""Scenarios of the kill record: whether, when and on which clock a kill is stamped."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fake_gpu import Fault, Process, Ramp
from pytest_vramsettle.conformance.model import LEVELS, SECOND, Check, Observation, Scenario, seconds
from pytest_vramsettle.conformance.settle_checks import AT_ONCE, sees_it_back, within
from pytest_vramsettle.conformance.settle_upstream import card, one_card, smi
from pytest_vramsettle.conformance.stage import Stage

_MICROSECOND = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class KillRoutine:
    """A kill routine under judgement, as the few calls that a scenario needs."""

    adopt: Callable[[Any], object]
    """`adopt(popen)`: this `subprocess.Popen` is what the next kill ends; `adopt(None)`: there is nothing to kill."""
    kill: Callable[[], object]
    """The routine itself; may return an awaitable."""
    stamp: Callable[[], float | None]
    """`time.monotonic()` at the last kill; 0.0 or None when there was none."""
    reap: Callable[[Sequence[int]], object] | None = None
    """`reap(pids)`: ends these orphans of an earlier run."""
    load: Callable[[], object] | None = None
    """The load path up to where it reads free memory, so with its wait."""


def _stamp_ns(stage: Stage, subject: KillRoutine) -> int | None:
    """Since the beginning, by the monotonic clock. Raises TypeError for what is no time."""
    stamp = subject.stamp()
    if stamp is None or stamp == 0:
        return None
    if isinstance(stamp, bool) or not isinstance(stamp, int | float):
        raise TypeError(f"stamp() returned {stamp!r}: seconds of time.monotonic() are wanted, or 0.0 or None for never")
    return round(stamp * SECOND) - stage.zero_ns


def kill_play(
    *, then: Callable[[Stage], None] | None = None, process: bool = True, before: str = "", breaks: str = ""
) -> Callable[[Stage, KillRoutine], Observation]:
    """Adopt the victim (or nothing), kill, look at the stamp. `before`: "kill": one 3 s earlier.

    `breaks`: this method of the victim's Popen does its work and then raises.
    """

    def play(stage: Stage, subject: KillRoutine) -> Observation:
        victims = list(stage.victims)
        if before:
            subject.adopt(victims.pop(0).popen)
            stage.call(subject.kill, allowed=30.0, label="kill")
            stage.clock.sleep(3.0)
        popen = victims[0].popen if process else None
        reaped = _watched(popen) if popen is not None else []
        if popen is not None and breaks:
            _break(popen, breaks)
        if process or not before:  # after a kill the routine has to know by itself that there is nothing left
            subject.adopt(popen)
        stage.begin()
        earlier = _stamp_ns(stage, subject)
        if then is not None:
            then(stage)
        seen = stage.call(subject.kill, allowed=30.0, label="kill")
        if popen is not None:
            for name in ("wait", "poll", breaks):  # one that was never called would break the clearing up
                vars(popen).pop(name, None)
        seen = _with_facts(stage, subject, seen, victims if process else [], earlier)
        return replace(seen, notes=(*seen.notes, ("reaped", bool(reaped))))

    return play


def reap_play(*, orphans: bool) -> Callable[[Stage, KillRoutine], Observation]:
    """The victims are orphans of an earlier run; or there are none."""

    def play(stage: Stage, subject: KillRoutine) -> Observation:
        victims = stage.victims if orphans else []
        pids = [victim.pid for victim in victims]
        stage.begin()
        reap = subject.reap or (lambda _pids: None)
        seen = stage.call(lambda: reap(pids), allowed=30.0, label="reap")
        return _with_facts(stage, subject, seen, victims, None)

    return play


def load_play(*, killed: bool) -> Callable[[Stage, KillRoutine], Observation]:
    """A kill in one request, a load in the next; or a load alone."""

    def play(stage: Stage, subject: KillRoutine) -> Observation:
        load = subject.load or (lambda: None)
        subject.adopt(stage.victims[0].popen if killed else None)
        stage.begin()
        if killed:
            unloaded = stage.call(subject.kill, allowed=30.0, label="unload")
            if not unloaded.returned:
                return unloaded
            subject.adopt(None)
        return stage.call(load, allowed=30.0)

    return play


def _watched(popen: subprocess.Popen[bytes]) -> list[str]:
    """Grows by what learns from this process how it ended, and so reaps it."""
    asked: list[str] = []

    def noted(name: str, real: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        status = real(*arguments, **keywords)
        if status is not None:  # terminate() itself polls, before
            asked.append(name)
        return status

    for name in ("wait", "poll"):
        setattr(popen, name, functools.partial(noted, name, getattr(popen, name)))
    return asked


def _break(popen: subprocess.Popen[bytes], method: str) -> None:
    real = getattr(popen, method)

    def broken(*arguments: Any, **keywords: Any) -> Any:
        vars(popen).pop(method, None)  # once
        real(*arguments, **keywords)
        if method != "wait":
            popen.wait()
        raise OSError(5, f"{method} of the process raised, after it had its effect")

    setattr(popen, method, broken)


def _with_facts(
    stage: Stage, subject: KillRoutine, seen: Observation, victims: Sequence[Process], earlier: int | None
) -> Observation:
    stage.driver.await_deaths()
    died = [victim.died_ns for victim in victims]
    last = max((one for one in died if one is not None), default=None)
    first = victims[0].popen if victims else None
    facts = (
        ("earlier_ns", earlier),
        ("stamp_ns", _stamp_ns(stage, subject)),
        ("died_ns", None if last is None else last - stage.zero_ns),
        ("alive", tuple(victim.pid for victim, when in zip(victims, died, strict=True) if when is None)),
        ("exit_status", None if first is None else first.poll()),
    )
    return replace(seen, notes=(*seen.notes, *facts))


# -- what is asked


def _no_new_stamp(seen: Observation) -> str | None:
    before, after = seen.note("earlier_ns"), seen.note("stamp_ns")
    if before == after:
        return None
    return f"nothing was killed, and the stamp went from {_told(before)} to {_told(after)}: the next load waits for it"


def _stamped(seen: Observation) -> str | None:
    stamp, died = seen.note("stamp_ns"), seen.note("died_ns")
    if stamp is None or stamp == seen.note("earlier_ns"):
        return "the kill was not stamped: the next load does not wait"
    if abs(stamp) > 10**6 * SECOND:
        return f"the stamp is {_told(stamp)} from now: that is another clock than time.monotonic()"
    if died is not None and stamp < died - _MICROSECOND:
        return f"the stamp is {_told(stamp)}, before the death at {_told(died)}: the time it took to die is lost"
    if stamp > seen.ended_ns + _MICROSECOND:
        return f"the stamp is {_told(stamp)}, in the future of the return at {_told(seen.ended_ns)}"
    return None


def _dead(seen: Observation) -> str | None:
    alive = seen.note("alive")
    return f"PID {', '.join(map(str, alive))} still lives" if alive else None


def _reaped(seen: Observation) -> str | None:
    # The fake reaps what has died, and finds 0 where somebody else did so by its PID.
    if seen.note("reaped") or seen.note("exit_status") in (None, 0):
        return None
    return "it left a zombie: the process is dead and was not reaped, by wait() or poll()"


def _asked_first(seen: Observation) -> str | None:
    status = seen.note("exit_status")
    return None if status == -15 else f"the process ended with status {status}, not by SIGTERM (-15)"


def _died_within(most: float) -> Check:
    def judge(seen: Observation) -> str | None:
        died = seen.note("died_ns")
        if died is None or died <= most * SECOND:
            return None
        return f"the process died only {_told(died)} after the call"

    return Check(f"has the process dead within {most:g} s", judge)


def _told(instant: int | None) -> str:
    return "none" if instant is None else seconds(instant)


_NO_STAMP = Check("leaves the stamp alone", _no_new_stamp)
_STAMPS = Check("stamps the kill on time.monotonic(), after the death and before it returns", _stamped)
_KILLS = Check("ends the process", _dead)
_REAPS = Check("reaps the process", _reaped)
_ASKS = Check("asks with SIGTERM first", _asked_first)

_kills = functools.partial(Scenario, kind="kills", levels=LEVELS)
_SERVER = one_card("24 GiB", "8 GiB", Ramp.linear("1s"))


def _servers(stage: Stage, *, count: int = 2, stubborn: bool = False) -> None:
    gpu = card(stage, "24 GiB")
    for _ in range(count):
        stage.victims.append(stage.driver.spawn(gpu, used="8 GiB", reclaim=Ramp.linear("1s"), ignores_sigterm=stubborn))


def _dies_late(stage: Stage) -> None:
    stage.driver.at("2s", stage.victims[0].kill)


_STUBBORN = functools.partial(_servers, count=1, stubborn=True)

KILLS: tuple[Scenario, ...] = (
    _kills(
        name="kills-and-stamps",
        about="a load that comes after a kill has to know of it",
        scripted="a server that obeys SIGTERM",
        machine=_SERVER,
        play=kill_play(),
        checks=(_KILLS, _REAPS, _ASKS, _STAMPS),
    ),
    _kills(
        name="nothing-to-kill",
        about="an unload without a process must not make the next load wait",
        scripted="there is no process",
        machine=_SERVER,
        play=kill_play(process=False),
        checks=(AT_ONCE, _NO_STAMP),
    ),
    _kills(
        name="nothing-left-to-kill",
        about="a second unload must not renew the stamp of the first",
        scripted="a server was killed 3 s ago, and nothing was started since",
        machine=_SERVER,
        play=kill_play(process=False, before="kill"),
        checks=(AT_ONCE, _NO_STAMP),
    ),
    _kills(
        name="sigterm-ignored",
        about="a server that ignores SIGTERM has to be killed, and that is a kill as well",
        scripted="a server that ignores SIGTERM",
        machine=_STUBBORN,
        play=kill_play(),
        checks=(_KILLS, within(12.0, least=1.0), _STAMPS),
    ),
    _kills(
        name="dies-late",
        about="reclaim begins at the death, not when it was asked for",
        scripted="a server that goes on for 2 s after SIGTERM",
        machine=_STUBBORN,
        play=kill_play(then=_dies_late),
        checks=(_KILLS, within(12.0), _STAMPS),
    ),
    _kills(
        name="terminate-raises",
        about="the stamp belongs where every way out passes it",
        scripted="terminate() ends the server and then raises OSError",
        machine=_SERVER,
        play=kill_play(breaks="terminate"),
        checks=(_STAMPS,),
        may_raise=True,
    ),
    _kills(
        name="wait-raises",
        about="the stamp belongs where every way out passes it",
        scripted="wait() reaps the server and then raises OSError",
        machine=_SERVER,
        play=kill_play(breaks="wait"),
        checks=(_REAPS, _STAMPS),
        may_raise=True,
    ),
    _kills(
        name="killed-again",
        about="each kill begins a reclaim of its own",
        scripted="a server was killed 3 s ago; another one is killed now",
        machine=_servers,
        play=kill_play(before="kill"),
        checks=(_KILLS, _STAMPS),
    ),
    _kills(
        name="orphans-reaped",
        about="what an earlier run left behind holds memory as well, and gives it back as slowly",
        scripted="two servers of an earlier run",
        machine=_servers,
        play=reap_play(orphans=True),
        checks=(_KILLS, _STAMPS),
        part="reap",
    ),
    _kills(
        name="no-orphans",
        about="a start-up that finds nothing must not make the first load wait",
        scripted="there are no orphans",
        machine=_SERVER,
        play=reap_play(orphans=False),
        checks=(_NO_STAMP,),
        part="reap",
    ),
    _kills(
        name="unload-then-load",
        about="the load asks the stamp, not whether it has killed something itself",
        scripted="a server is killed by an unload; a load follows at once; 1.5 GiB come back in two steps by 0.4 s",
        machine=one_card(
            "11550 MiB", "1550 MiB", Ramp.points([(0, 0), (0.2, 0), (0.2, 0.968), (0.4, 0.968), (0.4, 1)])
        ),
        play=load_play(killed=True),
        checks=(within(3.0), sees_it_back()),
        part="load",
    ),
    _kills(
        name="first-load",
        about="nothing was ever killed: a first load must not wait",
        scripted="there is no process, and never was one",
        machine=_SERVER,
        play=load_play(killed=False),
        checks=(AT_ONCE,),
        part="load",
    ),
    _kills(
        name="wedged-probe",
        levels=("verified",),
        about="a reading before the kill is worth a moment, not a hang",
        scripted="every probe hangs; a server that obeys SIGTERM",
        machine=_SERVER,
        play=kill_play(then=smi(Fault.hang())),
        checks=(_KILLS, _died_within(1.0), _STAMPS),
        needs="kills_in_time",
    ),
)
