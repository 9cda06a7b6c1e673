"""Scenarios of the settle wait at level `upstream`: those whose answers are known of the common wait."""

from __future__ import annotations

import functools

from fake_gpu import Fault, Gpu, Process, Ramp
from fake_gpu.units import GIB
from pytest_vramsettle.conformance.model import LEVELS, Scenario
from pytest_vramsettle.conformance.settle_checks import (
    AT_ONCE,
    SLOW_SMI,
    at_most_probes,
    gives_up_or_tells,
    lock_play,
    lock_was_free,
    logs_failure,
    no_probe_from,
    only_upstream,
    probes,
    sees_it_back,
    settle_play,
    within,
)
from pytest_vramsettle.conformance.stage import Stage

_settle = functools.partial(Scenario, kind="settle")

_STEPS = ((0.0, 0.0), (0.2, 0.0), (0.2, 1500 / 1550), (0.4, 1500 / 1550), (0.4, 1.0))
STEPPED = Ramp.points(_STEPS)


def card(stage: Stage, memory: str, **arguments: str) -> Gpu:
    """A GPU with so much memory, all of it free."""
    return stage.driver.add_gpu(name="Test GPU", memory=memory, reserved=0, **arguments)


def victim(stage: Stage, gpu: Gpu, used: str, reclaim: Ramp) -> Process:
    """A real process that the scenario will kill, and how its memory comes back."""
    process = stage.driver.spawn(gpu, used=used, reclaim=reclaim)
    stage.victims.append(process)
    return process


def one_card(memory: str, used: str, reclaim: Ramp) -> functools.partial[None]:
    """One GPU, one victim."""
    return functools.partial(_one_card, memory=memory, used=used, reclaim=reclaim)


def _one_card(stage: Stage, *, memory: str, used: str, reclaim: Ramp) -> None:
    victim(stage, card(stage, memory), used, reclaim)


def _one_draining(stage: Stage) -> None:
    done, draining = card(stage, "16 GiB"), card(stage, "11550 MiB")
    victim(stage, done, "4 GiB", Ramp.immediate())
    victim(stage, draining, "1550 MiB", STEPPED)


def _one_fills(stage: Stage) -> None:
    filling, draining = card(stage, "16 GiB"), card(stage, "12050 MiB")
    stage.driver.process(filling, used="1 GiB", name="neighbour")
    victim(stage, draining, "2050 MiB", Ramp.points([(0, 0), (0.2, 0), (0.2, 0.732), (0.4, 0.732), (0.4, 1)]))


def _fill(stage: Stage) -> None:
    neighbour = next(one for one in stage.driver.processes if one.name == "neighbour")
    stage.driver.at("200ms", functools.partial(neighbour.hold, "2524 MiB"))


def _two_cards(stage: Stage) -> None:
    _one_card(stage, memory="24 GiB", used="8 GiB", reclaim=Ramp.linear("4s"))
    card(stage, "16 GiB")


def remove_the_other(stage: Stage) -> None:
    """The second GPU falls off the bus, 0.1 s after the kill."""
    stage.driver.at("100ms", stage.driver.gpus[1].remove)


def _beside_a_stranger(stage: Stage) -> None:
    stage.driver.process(card(stage, "24 GiB"), used="20 GiB")


def no_machine(stage: Stage) -> None:
    """No GPU; or the script sets up its own."""


def smi(fault: Fault, *, after: int = 0, times: int | None = None) -> functools.partial[None]:
    """From the kill on, probes go wrong, whichever way they go."""
    return functools.partial(_faulty, fault=fault, after=after, times=times)


def _faulty(stage: Stage, *, fault: Fault, after: int, times: int | None) -> None:
    if fault.nvidia_smi_only:
        stage.driver.inject(fault, via="nvidia-smi", after=after, times=times)
        # NVML's counterpart, for those that ask it: a client that initialises for each reading meets it once in each.
        stage.driver.inject(Fault.nvml("UNKNOWN"), via="nvmlDeviceGetMemoryInfo", after=after, times=times)
    else:
        stage.driver.inject(fault, via="nvidia-smi", after=after, times=times)
        stage.driver.inject(fault, via="nvmlDeviceGetMemoryInfo", after=after, times=times)


def _beside_a_taker(stage: Stage) -> None:
    gpu = card(stage, "24 GiB")
    stage.driver.process(gpu, used="1 GiB", name="neighbour")
    victim(stage, gpu, "8 GiB", Ramp.step(after="1100ms"))


def _take(stage: Stage) -> None:
    neighbour = next(one for one in stage.driver.processes if one.name == "neighbour")
    for number in range(20):
        stage.driver.at(0.02 + 0.05 * number, functools.partial(neighbour.hold, GIB + (number + 1) * GIB // 2))


def _late(pause: float) -> Ramp:
    """As STEPPED, so many seconds later."""
    begun = [(pause + at, share) for at, share in _STEPS[1:]]
    return Ramp.points([_STEPS[0], *begun])


DRIFTING = one_card("143158 MiB", "70 GiB", Ramp.linear("5s"))
_RAMP = one_card("11550 MiB", "1550 MiB", STEPPED)

UPSTREAM: tuple[Scenario, ...] = (
    _settle(
        name="ramp",
        levels=LEVELS,
        about="memory comes back in two steps; two readings that hardly differ are the end",
        scripted="free: 10000 MiB at the kill, 11500 from 0.2 s, 11550 from 0.4 s",
        machine=_RAMP,
        play=settle_play(),
        checks=(within(1.2), sees_it_back(), probes(3)),
    ),
    _settle(
        name="still",
        levels=LEVELS,
        about="memory was back before the first reading",
        scripted="8 GiB come back in the instant of the kill",
        machine=one_card("24 GiB", "8 GiB", Ramp.immediate()),
        play=settle_play(),
        checks=(within(1.2), probes(2)),
    ),
    _settle(
        name="two-gpus-one-draining",
        levels=LEVELS,
        about="every GPU has to be still, not the first, and not their sum",
        scripted="GPU 0: 4 GiB back at once. GPU 1: 10000 MiB free at the kill, 11500 from 0.2 s, 11550 from 0.4 s",
        machine=_one_draining,
        play=settle_play(),
        checks=(within(1.2), sees_it_back(), probes(3)),
    ),
    _settle(
        name="two-gpus-cancel-out",
        levels=LEVELS,
        about="what one GPU gives another takes: their sum stands still, and says nothing",
        scripted="GPU 0: a neighbour takes 1500 MiB at 0.2 s. GPU 1: free 10000 MiB, 11500 at 0.2 s, 12050 at 0.4 s",
        machine=_one_fills,
        play=settle_play(then=_fill),
        checks=(within(1.2), sees_it_back(), probes(4)),
    ),
    _settle(
        name="free-falls",
        levels=("upstream",),
        about="free memory that falls stands no more still than what grows",
        scripted="a neighbour takes 0.5 GiB every 50 ms until 1.0 s; the 8 GiB of the dead come back at 1.1 s",
        machine=_beside_a_taker,
        play=settle_play(then=_take),
        checks=(within(2.0), sees_it_back(), probes(7)),
    ),
    _settle(
        name="two-percent",
        levels=("upstream",),
        about="on a large card 256 MiB are noise: 2 % of what is free count as still",
        scripted="free: 80000 MiB at the kill, 80700 from 0.2 s",
        machine=one_card("80700 MiB", "700 MiB", Ramp.step(after="200ms")),
        play=settle_play(),
        checks=(within(1.2), sees_it_back(), probes(2)),
    ),
    _settle(
        name="cold-start",
        levels=LEVELS,
        about="nothing was killed: a first load must not wait, nor probe",
        scripted="a GPU, 20 GiB held by somebody; nothing was ever killed, since_kill=0.0",
        machine=_beside_a_stranger,
        play=settle_play(killed=False),
        checks=(AT_ONCE, at_most_probes(0)),
    ),
    _settle(
        name="stale-kill",
        levels=("upstream",),
        about="a kill of long ago is over: no wait and no probe",
        scripted="8 GiB are back 0.75 s after the kill; the load comes 20 s after it",
        machine=one_card("24 GiB", "8 GiB", Ramp.linear("600ms", after="150ms")),
        play=settle_play(pause=20.0),
        checks=(AT_ONCE, at_most_probes(0)),
    ),
    _settle(
        name="ten-seconds-later",
        levels=LEVELS,
        about="a load that comes 10 s after a slow kill has to wait as well",
        scripted="the load comes 10 s after the kill; free: 10000 MiB then, 11500 0.2 s later, 11550 0.4 s later",
        machine=one_card("11550 MiB", "1550 MiB", _late(10.0)),
        play=settle_play(pause=10.0),
        checks=(within(1.2), sees_it_back(), probes(3)),
    ),
    _settle(
        name="just-before-stale",
        levels=LEVELS,
        about="a kill is stale after 15 s, and not before",
        scripted="the load comes 14.9 s after the kill; free: 10000 MiB then, 11500 0.2 s later, 11550 0.4 s later",
        machine=one_card("11550 MiB", "1550 MiB", _late(14.9)),
        play=settle_play(pause=14.9),
        checks=(within(1.2), sees_it_back(), probes(3)),
    ),
    _settle(
        name="no-gpu",
        levels=LEVELS,
        about="a host without a GPU has nothing to wait for",
        scripted="nvidia-smi finds no device; something was killed just now",
        machine=no_machine,
        play=settle_play(),
        checks=(AT_ONCE, at_most_probes(1)),
    ),
    _settle(
        name="first-probe-fails",
        levels=("upstream",),
        about="without a first reading there is nothing to compare with: a load goes on",
        scripted="every probe fails (nvidia-smi exits 9)",
        machine=one_card("24 GiB", "8 GiB", Ramp.linear("4s")),
        play=settle_play(then=smi(Fault.exit(9))),
        checks=(AT_ONCE, at_most_probes(1)),
    ),
    _settle(
        name="probe-fails-later",
        levels=("upstream",),
        about="a probe that fails in the middle ends the wait; it is not raised at a load",
        scripted="one probe answers, all others fail (nvidia-smi exits 9); 8 GiB come back in 4 s",
        machine=one_card("24 GiB", "8 GiB", Ramp.linear("4s")),
        play=settle_play(then=smi(Fault.exit(9), after=1)),
        checks=(within(0.6), at_most_probes(2), probes(2)),
    ),
    _settle(
        name="failure-is-logged",
        levels=LEVELS,
        about="who looks for the reason of a bad placement finds nothing where its failure was swallowed",
        scripted="one probe answers, all others fail (nvidia-smi exits 9); 8 GiB come back in 4 s",
        machine=one_card("24 GiB", "8 GiB", Ramp.linear("4s")),
        play=settle_play(then=smi(Fault.exit(9), after=1)),
        checks=(within(2.0), logs_failure()),
        needs="logs_failures",
    ),
    _settle(
        name="garbled-probe",
        levels=LEVELS,
        about="nvidia-smi prints noise and exits 0: a load must not fail of it",
        scripted="one probe answers, all others print noise; 8 GiB come back in 4 s",
        machine=one_card("24 GiB", "8 GiB", Ramp.linear("4s")),
        play=settle_play(then=smi(Fault.garbled(), after=1)),
        checks=(within(2.0),),
    ),
    _settle(
        name="index-set-shrinks",
        levels=LEVELS,
        about="a GPU falls off the bus: readings of two sets of GPUs cannot be compared",
        scripted="two GPUs; the second is gone 0.1 s after the kill; 8 GiB come back in 4 s on the first",
        machine=_two_cards,
        play=settle_play(then=remove_the_other),
        checks=(*only_upstream(within(0.6), at_most_probes(6), probes(2)), within(2.0), gives_up_or_tells(0.6)),
    ),
    _settle(
        name="drifting",
        levels=LEVELS,
        about="memory that never stands still must not hold up a load beyond max_wait",
        scripted="70 GiB come back in 5 s, 3.5 GiB from reading to reading; max_wait=2.0",
        machine=DRIFTING,
        play=settle_play(),
        checks=(within(2.0, least=1.5), no_probe_from(2.0)),
    ),
    _settle(
        name="uneven-max-wait",
        levels=LEVELS,
        about="the last sleep has to be the rest of the time, not a whole interval",
        scripted="70 GiB come back in 5 s; max_wait=1.1",
        machine=DRIFTING,
        play=settle_play(max_wait=1.1),
        checks=(within(1.1, least=0.6), no_probe_from(1.1)),
    ),
    _settle(
        name="called-late",
        levels=LEVELS,
        about="max_wait counts from the call: a load that comes 3 s after the kill has all of it",
        scripted="70 GiB come back in 6 s; the load comes 3 s after the kill; max_wait=2.0",
        machine=one_card("143158 MiB", "70 GiB", Ramp.linear("6s")),
        play=settle_play(pause=3.0),
        checks=(within(2.0, least=1.5), no_probe_from(2.0)),
    ),
    _settle(
        name="slow-probe",
        levels=LEVELS,
        about="the time that probes take counts: a slow nvidia-smi must not stretch the wait",
        scripted="a probe takes 0.9 s; 70 GiB come back in 20 s; max_wait=2.0",
        machine=one_card("143158 MiB", "70 GiB", Ramp.linear("20s")),
        play=settle_play(then=smi(SLOW_SMI)),
        checks=(within(2.9, least=0.9), no_probe_from(2.0)),
    ),
    _settle(
        name="holds-no-lock",
        levels=LEVELS,
        about="unload, cancel and status need the load lock while a load waits",
        scripted="70 GiB come back in 5 s; 0.1 s after the call somebody asks for the lock",
        machine=DRIFTING,
        play=lock_play(after=0.1, max_wait=2.0),
        checks=(lock_was_free(),),
        part="lock",
    ),
)
