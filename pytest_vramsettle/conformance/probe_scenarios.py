"""Scenarios of a probe: a callable that reads free memory, [(index or UUID, free MiB), ...]."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fake_gpu import Fault, Ramp
from pytest_vramsettle.conformance.model import LEVELS, MIB, Check, Observation, Scenario, short
from pytest_vramsettle.conformance.settle_checks import AT_ONCE, within
from pytest_vramsettle.conformance.settle_upstream import card, one_card, victim
from pytest_vramsettle.conformance.stage import Stage

_BOUND = 15.0
"""Seconds within which a probe gives up: the usual timeout of 10 s, and the time to clean up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSubject:
    """A probe under judgement."""

    probe: Callable[[], Any]
    """Returns [(index or UUID, free MiB), ...], or a mapping of them; raises, or returns nothing, where it cannot tell.

    May return an awaitable.
    """


def probe_play(
    *, then: Callable[[Stage], None] | None = None, times: int = 1, pause: float = 0.0
) -> Callable[[Stage, ProbeSubject], Observation]:
    """Kill the victims, have something go wrong, probe `times` times, `pause` seconds apart; the last answer counts."""

    def play(stage: Stage, subject: ProbeSubject) -> Observation:
        stage.kill(None)
        if then is not None:
            then(stage)
        seen = stage.call(subject.probe, allowed=_BOUND, label="probe")
        pipes = _pipes()
        for _ in range(times - 1):
            if pause:
                stage.clock.sleep(pause)
            seen = stage.call(subject.probe, allowed=_BOUND, label="probe")
        stage.driver.sync()
        enumerated = stage.driver.enumerated
        truth = {gpu.index: gpu.memory.free for gpu in enumerated} | {gpu.uuid: gpu.memory.free for gpu in enumerated}
        facts = (("truth", truth), ("gpus", len(enumerated)), ("pipes", len(_pipes() - pipes)))
        return replace(seen, notes=facts)

    return play


def _pipes() -> frozenset[str]:
    found: set[str] = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    return frozenset(name for name in found if name.startswith("pipe:"))


def _pairs(result: Any) -> list[tuple[Any, Any]] | str:
    """What the probe returned, or what is wrong with its form."""
    if result is None:
        return []
    items: Iterable[Any] = result.items() if isinstance(result, Mapping) else result
    try:
        pairs = [(key, free) for key, free in items]
    except (TypeError, ValueError):
        return f"it returned {short(result)}: [(index or UUID, free MiB), ...] is wanted, or a mapping of them"
    for key, free in pairs:
        if isinstance(key, bool) or not isinstance(key, int | str):
            return f"it returned {key!r} where an index or a UUID belongs"
        if free is not None and (isinstance(free, bool) or not isinstance(free, int | float)):
            return f"it returned {free!r} where free MiB belong"
    return pairs


def _wrong(seen: Observation, *, complete: bool) -> str | None:
    if seen.error is not None:
        return None if not complete else f"it raised {seen.error}"
    pairs = _pairs(seen.result)
    if isinstance(pairs, str):
        return pairs
    truth: dict[Any, int] = seen.note("truth")
    for key, free in pairs:
        if key not in truth:
            return f"it returned {key!r}, and there is no such GPU"
        if free is not None and abs(float(free) - truth[key] / MIB) > 1.0:
            return f"it says that {free} MiB are free on GPU {key!r}; {truth[key] / MIB:.1f} MiB are"
    if complete and len({key for key, _ in pairs}) != seen.note("gpus"):
        return f"it returned {len(pairs)} GPUs, and there are {seen.note('gpus')}"
    return None


def _in_order(seen: Observation) -> str | None:
    pairs = _pairs(seen.result)
    keys = [] if isinstance(pairs, str) else [key for key, _ in pairs if isinstance(key, int)]
    return None if keys == sorted(keys) else f"its indices are {keys}"


def _says_nothing(seen: Observation) -> str | None:
    return None if seen.error is not None or not seen.result else f"it returned {short(seen.result)}"


def _no_pipes(seen: Observation) -> str | None:
    more = seen.note("pipes")
    return f"{more} pipes more are open than after the first reading" if more >= 4 else None


def _cut_off(seen: Observation) -> str | None:
    wrong = _wrong(seen, complete=False)
    if wrong is None:
        return None
    return f"{wrong}. The output ended without a newline, which nvidia-smi's never does: that tells that it was cut off"


def _lost(seen: Observation) -> str | None:
    pairs = [] if seen.error is not None else _pairs(seen.result)
    if isinstance(pairs, str):
        return pairs
    truth = seen.note("truth")
    uuids = [key for key in truth if isinstance(key, str)]
    told = [(key, free) for key, free in pairs if key in (1, uuids[1]) and free is not None]
    return f"it returned {told[0]!r} for the lost GPU" if told else None


_TRUTH = Check("returns every GPU with its free memory in MiB", functools.partial(_wrong, complete=True))
_NO_LIE = Check("raises, or returns only what is so", functools.partial(_wrong, complete=False))
_NOT_CUT = Check("raises, or returns only what is so", _cut_off)
_ORDER = Check("returns indices in order", _in_order)
_NOTHING = Check("raises, or returns nothing", _says_nothing)
_PIPES = Check("opens no pipe that stays open", _no_pipes)

_probe = functools.partial(Scenario, kind="probe", levels=LEVELS)
_ONE = one_card("24 GiB", "8 GiB", Ramp.never())


def _many(stage: Stage, *, count: int, used: int = 3) -> None:
    for number in range(count):
        gpu = card(stage, f"{16 + number} GiB")
        stage.driver.process(gpu, used=f"{used} GiB")


def _h200s(stage: Stage) -> None:
    for _ in range(8):
        victim(stage, stage.driver.add_gpu("h200"), "70 GiB", Ramp.never())


def _fault(fault: Fault, via: str | None = None) -> functools.partial[None]:
    return functools.partial(_inject, fault=fault, via=via)


def _inject(stage: Stage, *, fault: Fault, via: str | None) -> None:
    if fault.nvidia_smi_only:
        stage.driver.inject(fault, via="nvidia-smi")
        stage.driver.inject(Fault.nvml("UNKNOWN"), via="nvmlDeviceGetMemoryInfo")
    else:
        stage.driver.inject(fault, via=via)


def _lose_the_second(stage: Stage) -> None:
    stage.driver.gpus[1].lose()


def _exchange(stage: Stage) -> None:
    stage.driver.renumber([2, 0, 1])


PROBE: tuple[Scenario, ...] = (
    _probe(
        name="one-gpu",
        about="MiB, not MB and not bytes; memory that is not back is not free",
        scripted="one GPU of 24 GiB; the 8 GiB of a killed server never come back",
        machine=_ONE,
        play=probe_play(),
        checks=(AT_ONCE, _TRUTH),
    ),
    _probe(
        name="three-gpus",
        about="each GPU under its own name",
        scripted="three GPUs of 16, 17 and 18 GiB, 3 GiB held on each",
        machine=functools.partial(_many, count=3),
        play=probe_play(),
        checks=(AT_ONCE, _TRUTH, _ORDER),
    ),
    _probe(
        name="twelve-gpus",
        about="two digits: 10 does not come before 2",
        scripted="twelve GPUs of 16 to 27 GiB, 3 GiB held on each",
        machine=functools.partial(_many, count=12),
        play=probe_play(),
        checks=(_TRUTH, _ORDER),
    ),
    _probe(
        name="eight-h200",
        about="real cards keep a part of their memory for themselves",
        scripted="eight H200, 70 GiB not back on each",
        machine=_h200s,
        play=probe_play(),
        checks=(_TRUTH, _ORDER),
    ),
    _probe(
        name="renumbered",
        about="names are those of now",
        scripted="three GPUs of 16, 17 and 18 GiB, which have just been given other indices",
        machine=functools.partial(_many, count=3),
        play=probe_play(then=_exchange),
        checks=(_TRUTH,),
    ),
    _probe(
        name="no-gpu",
        about="a host without a GPU is no reason to fail at start-up, and has no free memory",
        scripted="nvidia-smi finds no device",
        machine=lambda stage: None,
        play=probe_play(),
        checks=(within(1.0), _NOTHING),
        may_raise=True,
    ),
    _probe(
        name="exits-9",
        about="no driver: nvidia-smi fails",
        scripted="nvidia-smi exits 9; NVML answers with an error",
        machine=_ONE,
        play=probe_play(then=_fault(Fault.exit(9))),
        checks=(within(_BOUND), _NOTHING),
        may_raise=True,
    ),
    _probe(
        name="garbled",
        about="noise is not memory",
        scripted="nvidia-smi prints noise and exits 0",
        machine=_ONE,
        play=probe_play(then=_fault(Fault.garbled())),
        checks=(within(_BOUND), _NO_LIE),
        may_raise=True,
    ),
    _probe(
        name="truncated",
        levels=("verified",),
        about="half a number is another number",
        scripted="nvidia-smi is cut off in the middle of its output and exits 0",
        machine=_ONE,
        play=probe_play(then=_fault(Fault.truncated())),
        checks=(within(_BOUND), _NOT_CUT),
        may_raise=True,
        needs="sees_truncation",
    ),
    _probe(
        name="not-available",
        about="some cards do not tell: [N/A] is not 0 MiB free",
        scripted="nvidia-smi prints [N/A]; NVML answers NOT_SUPPORTED",
        machine=_ONE,
        play=probe_play(then=_fault(Fault.nvml("NOT_SUPPORTED"))),
        checks=(within(_BOUND), _NO_LIE),
        may_raise=True,
    ),
    _probe(
        name="lost-gpu",
        about="a GPU that fell off the bus has no free memory to place a model on",
        scripted="two GPUs; the second answers GPU_IS_LOST, nvidia-smi exits 15",
        machine=functools.partial(_many, count=2),
        play=probe_play(then=_lose_the_second),
        checks=(within(_BOUND), Check("raises, or leaves out the GPU that is lost", _lost)),
        may_raise=True,
    ),
    _probe(
        name="hangs",
        about="a wedged driver must not hold up its caller for good",
        scripted="nvidia-smi and NVML never answer",
        machine=_ONE,
        play=probe_play(then=_fault(Fault.hang())),
        checks=(within(_BOUND), _NOTHING),
        may_raise=True,
        needs="bounds_probe",
    ),
    _probe(
        name="hangs-and-ignores-sigterm",
        about="a hung nvidia-smi has to be killed, not asked",
        scripted="nvidia-smi never answers and ignores SIGTERM; NVML answers with an error",
        machine=_ONE,
        play=probe_play(then=_fault(Fault.ignores_sigterm())),
        checks=(within(_BOUND), _NOTHING),
        may_raise=True,
        needs="bounds_probe",
    ),
    _probe(
        name="holds-pipe",
        about="nvidia-smi is gone and its pipe is not: a reader that waits for the end of it waits for ever",
        scripted="nvidia-smi answers and exits, and leaves a process that keeps its output open; NVML fails",
        machine=_ONE,
        play=probe_play(then=_fault(Fault.holds_pipe())),
        checks=(within(_BOUND), _NO_LIE),
        may_raise=True,
        leaves=True,
    ),
    _probe(
        name="slow",
        about="slow is not wrong",
        scripted="an answer takes 1.2 s",
        machine=_ONE,
        play=probe_play(then=_fault(Fault.slow("1200ms"), via="nvidia-smi")),
        checks=(within(_BOUND), _TRUTH),
    ),
    _probe(
        name="second-reading",
        about="each reading is of now: one that was kept, or cached, is of then",
        scripted="8 GiB come back 0.1 s after the kill; one reading at the kill, another 0.25 s later, which counts",
        machine=one_card("24 GiB", "8 GiB", Ramp.step(after="100ms")),
        play=probe_play(times=2, pause=0.25),
        checks=(AT_ONCE, _TRUTH),
    ),
    _probe(
        name="six-readings",
        about="a descriptor left open in each reading ends a server within a day",
        scripted="six readings of one GPU",
        machine=_ONE,
        play=probe_play(times=6),
        checks=(_TRUTH, _PIPES),
    ),
)
