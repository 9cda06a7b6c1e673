"""Scenarios of the settle wait at level `verified`: the ways in which the common wait is fooled."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys

from fake_gpu import Fault, Gpu, Process, Ramp
from fake_gpu.units import GIB
from pytest_vramsettle.conformance.model import Observation, Scenario
from pytest_vramsettle.conformance.settle_checks import (
    SettleSubject,
    cancel_play,
    cancelled_within,
    not_misread,
    says,
    sees_it_back,
    settle_play,
    within,
)
from pytest_vramsettle.conformance.settle_upstream import (
    UPSTREAM,
    card,
    no_machine,
    one_card,
    remove_the_other,
    smi,
    victim,
)
from pytest_vramsettle.conformance.stage import Stage

_settle = functools.partial(Scenario, kind="settle", levels=("verified",))


def _one_done_another_not_started(stage: Stage) -> None:
    done, late = card(stage, "24 GiB"), card(stage, "24 GiB")
    process = stage.driver.spawn({done: "21 GiB", late: "21 GiB"}, reclaim=Ramp.immediate())
    process.reclaim_on(late, Ramp.linear("300ms", after="700ms"))
    stage.victims.append(process)


def _eight(stage: Stage) -> None:
    cards = [card(stage, "143158 MiB") for _ in range(8)]
    process = stage.driver.spawn(dict.fromkeys(cards, "122 GiB"), reclaim=Ramp.immediate())
    for number, gpu in enumerate(cards):
        process.reclaim_on(gpu, Ramp.linear(0.4, after=0.4 * number))
    stage.victims.append(process)


def _small_and_large(stage: Stage) -> None:
    small = card(stage, "16 GiB", uuid="GPU-11111111-1111-1111-1111-111111111111")
    card(stage, "24 GiB", uuid="GPU-22222222-2222-2222-2222-222222222222")
    victim(stage, small, "8 GiB", Ramp.step(after="300ms"))


def _renumber_again_and_again(stage: Stage) -> None:
    for number in range(1, 12):
        stage.driver.at(number * 0.25 - 0.1, functools.partial(stage.driver.renumber, [1, 0]))


def _beside_a_tenant(stage: Stage, *, used: str, tenant: str, reclaim: Ramp) -> None:
    gpu = card(stage, "143158 MiB")
    stage.driver.process(gpu, used=tenant, name="neighbour")
    victim(stage, gpu, used, reclaim)


def _tenant(stage: Stage) -> tuple[Process, Gpu]:
    process = next(one for one in stage.driver.processes if one.name == "neighbour")
    return process, stage.driver.gpus[0]


def _takes_what_comes_back(stage: Stage) -> None:
    tenant, _ = _tenant(stage)
    for number in range(1, 40):
        stage.driver.at(number * 0.1, functools.partial(tenant.hold, GIB + number * GIB // 2))


def _gives_while_it_waits(stage: Stage) -> None:
    tenant, _ = _tenant(stage)
    stage.driver.at("300ms", functools.partial(tenant.hold, "1 GiB"))


def _lost_card(stage: Stage) -> None:
    victim(stage, card(stage, "24 GiB"), "20 GiB", Ramp.never())
    card(stage, "16 GiB")


_LEADER = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def orphan_play(stage: Stage, subject: SettleSubject) -> Observation:
    """A leader is killed; its child lives on and holds 10 GiB."""
    gpu = card(stage, "24 GiB")
    with subprocess.Popen([sys.executable, "-S", "-c", _LEADER], stdout=subprocess.PIPE) as leader:
        stage.clock.detach(leader)
        if leader.stdout is None:
            raise RuntimeError("the leader has no output to read its child's PID from")
        orphan = int(leader.stdout.readline())
        try:
            stage.victims.append(
                stage.driver.attach(leader.pid, {gpu: "2 GiB"}, name="leader", reclaim=Ramp.immediate())
            )
            stage.driver.attach(orphan, {gpu: "10 GiB"}, name="child of the dead", reclaim=Ramp.immediate())
            stamp = stage.kill(subject.recording)
            leader.wait()
            return stage.call(lambda: subject.wait(since_kill=stamp, max_wait=2.0), allowed=2.0)
        finally:
            leader.kill()
            with contextlib.suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)


_PLATEAU = Ramp.points([(0.0, 0.0), (0.3, 0.1), (1.8, 0.1), (2.4, 1.0)])
_TWO_STAGES = Ramp.points([(0.0, 0.0), (0.1, 0.02), (0.9, 0.02), (1.0, 1.0)])
_TAIL = Ramp.points([(0.0, 0.0), (0.4, 0.85), (5.0, 0.85), (5.3, 1.0)])
_REST = Ramp.points([(0.0, 0.0), (0.6, 0.9)])
_LARGE = "143158 MiB"

VERIFIED: tuple[Scenario, ...] = (
    _settle(
        name="late-start",
        about="memory starts to come back after two readings have already agreed",
        scripted="21 GiB: nothing for 0.6 s, then all within 0.4 s",
        machine=one_card("24 GiB", "21 GiB", Ramp.linear("400ms", after="600ms")),
        play=settle_play(max_wait=30.0),
        checks=(within(3.0), not_misread()),
    ),
    _settle(
        name="plateau",
        about="a first small release, stillness, then the rest",
        scripted="20 GiB: a tenth by 0.3 s, nothing until 1.8 s, the rest by 2.4 s",
        machine=one_card("24 GiB", "20 GiB", _PLATEAU),
        play=settle_play(max_wait=30.0),
        checks=(within(5.0), not_misread()),
    ),
    _settle(
        name="two-stages",
        about="a context's 2 % come back at once, the weights much later",
        scripted="20 GiB: 2 % by 0.1 s, the rest between 0.9 and 1.0 s",
        machine=one_card("24 GiB", "20 GiB", _TWO_STAGES),
        play=settle_play(max_wait=30.0),
        checks=(within(3.0), not_misread()),
    ),
    _settle(
        name="one-gpu-not-started",
        about="one GPU is done and another has not begun: every reading is still",
        scripted="21 GiB on each of two GPUs: the first back at once, the second between 0.7 and 1.0 s",
        machine=_one_done_another_not_started,
        play=settle_play(max_wait=30.0),
        checks=(within(3.0), not_misread()),
    ),
    _settle(
        name="eight-gpus",
        about="eight cards, one after the other",
        scripted="122 GiB on each of 8 GPUs: 0.4 s each, the last one done 3.2 s after the kill",
        machine=_eight,
        play=settle_play(max_wait=30.0),
        checks=(within(6.0), not_misread()),
    ),
    _settle(
        name="slow-drip",
        about="the tolerance is a sample's: 0.8 GiB a second pass as still",
        scripted="5 GiB come back evenly in 6.5 s",
        machine=one_card("12 GiB", "5 GiB", Ramp.linear("6.5s")),
        play=settle_play(max_wait=30.0),
        checks=(within(9.5), not_misread()),
        needs="long_reclaims",
    ),
    _settle(
        name="fast-drip",
        about="2 % of what is free grow with the card: 4 GiB a second pass as still",
        scripted="40 GiB come back evenly in 10 s, beside 99 GiB that are free",
        machine=one_card(_LARGE, "40 GiB", Ramp.linear("10s")),
        play=settle_play(max_wait=30.0),
        checks=(within(13.0), not_misread()),
        needs="long_reclaims",
    ),
    _settle(
        name="five-seconds",
        about="70 GiB take 5 s: a wait of 2 s leaves 42 GiB missing",
        scripted="70 GiB come back evenly in 5 s; max_wait=30.0",
        machine=one_card(_LARGE, "70 GiB", Ramp.linear("5s")),
        play=settle_play(max_wait=30.0),
        checks=(within(8.0), not_misread()),
        needs="long_reclaims",
    ),
    _settle(
        name="pinned-tail",
        about="pinned host memory: most is back at once, the rest seconds later",
        scripted="70 GiB: 85 % by 0.4 s, nothing until 5.0 s, the rest by 5.3 s",
        machine=one_card(_LARGE, "70 GiB", _TAIL),
        play=settle_play(max_wait=30.0),
        checks=(within(9.0), not_misread()),
        needs="long_reclaims",
    ),
    _settle(
        name="old-kill-not-back",
        about="15 s are no age: a load that comes 16 s after the kill finds nothing back",
        scripted="70 GiB come back at once, 24 s after the kill; the load comes 16 s after it",
        machine=one_card(_LARGE, "70 GiB", Ramp.step(after="24s")),
        play=settle_play(max_wait=30.0, pause=16.0),
        checks=(within(12.0), not_misread()),
        needs="long_reclaims",
    ),
    _settle(
        name="wedged-probe",
        about="nvidia-smi hangs for good: a load would hang for its timeout, often 10 s, and its process stays",
        scripted="one probe answers, the next never does; 70 GiB come back in 5 s; max_wait=2.0",
        machine=one_card(_LARGE, "70 GiB", Ramp.linear("5s")),
        play=settle_play(then=smi(Fault.hang(), after=1)),
        checks=(within(2.0), not_misread()),
        needs="bounds_probe",
    ),
    _settle(
        name="stubborn-probe",
        about="a hung nvidia-smi that ignores SIGTERM has to be killed, not asked",
        scripted="one probe answers, the next never does and ignores SIGTERM; 70 GiB come back in 5 s; max_wait=2.0",
        machine=one_card(_LARGE, "70 GiB", Ramp.linear("5s")),
        play=settle_play(then=smi(Fault.ignores_sigterm(), after=1)),
        checks=(within(2.0), not_misread()),
        needs="bounds_probe",
    ),
    _settle(
        name="slow-probe-is-bounded",
        about="max_wait is a bound on the wait, not on the moment at which the last probe begins",
        scripted="a probe takes 1.2 s; nothing comes back; max_wait=2.0",
        machine=one_card(_LARGE, "70 GiB", Ramp.linear("30s")),
        play=settle_play(then=smi(Fault.slow("1200ms"))),
        checks=(within(2.0), not_misread()),
        needs="bounds_probe",
    ),
    _settle(
        name="one-probe-fails",
        about="one failure is no reason to place a model on nothing",
        scripted="the second probe fails (nvidia-smi exits 9), all others answer; 20 GiB come back in 1 s",
        machine=one_card("24 GiB", "20 GiB", Ramp.linear("1s")),
        play=settle_play(max_wait=30.0, then=smi(Fault.exit(9), after=1, times=1)),
        checks=(within(4.0), not_misread()),
    ),
    _settle(
        name="says-settled",
        about="a wait that trusts nothing is of no use either",
        scripted="20 GiB come back between 0.15 and 0.75 s",
        machine=one_card("24 GiB", "20 GiB", Ramp.linear("600ms", after="150ms")),
        play=settle_play(max_wait=30.0),
        checks=(within(3.0), sees_it_back(), says(True)),
        needs="tells_outcome",
    ),
    _settle(
        name="never-back",
        about="a leak, or an orphan: what is missing must not be called settled",
        scripted="20 GiB never come back; max_wait=2.0",
        machine=one_card("24 GiB", "20 GiB", Ramp.never()),
        play=settle_play(),
        checks=(within(2.0), says(False)),
        needs="tells_outcome",
    ),
    _settle(
        name="a-rest-stays",
        about="stillness is no proof: a tenth of the memory stays away",
        scripted="20 GiB: nine tenths by 0.6 s, the rest never; max_wait=5.0",
        machine=one_card("24 GiB", "20 GiB", _REST),
        play=settle_play(max_wait=5.0),
        checks=(within(5.0), says(False)),
        needs="tells_outcome",
    ),
    _settle(
        name="card-removed",
        about="after a GPU went away nobody knows what the reading is worth",
        scripted="two GPUs; the second is gone 0.1 s after the kill; 20 GiB never come back on the first",
        machine=_lost_card,
        play=settle_play(then=remove_the_other),
        checks=(within(2.0), says(False)),
        needs="tells_outcome",
    ),
    _settle(
        name="orphan",
        about="the killed leader's child lives on, and holds what everybody waits for",
        scripted="a leader is killed, its 2 GiB are back at once; its child lives and holds 10 GiB; max_wait=2.0",
        machine=no_machine,
        play=orphan_play,
        checks=(within(2.0), says(False)),
        needs="tells_outcome",
    ),
    _settle(
        name="renumbered",
        about="indices change while it waits: one card's memory is compared with another's",
        scripted="8 GiB on a 16 GiB card back at 0.3 s; the two indices are exchanged every 0.25 s",
        machine=_small_and_large,
        play=settle_play(then=_renumber_again_and_again),
        checks=(within(1.5), not_misread()),
        needs="by_uuid",
    ),
    _settle(
        name="tenant-takes",
        about="a neighbour allocates what comes back: free memory stands still while 15 GiB are missing",
        scripted="20 GiB come back in 4 s, and a neighbour takes 0.5 GiB every 0.1 s meanwhile",
        machine=functools.partial(_beside_a_tenant, used="20 GiB", tenant="1 GiB", reclaim=Ramp.linear("4s")),
        play=settle_play(max_wait=30.0, then=_takes_what_comes_back),
        checks=(within(8.0), not_misread()),
        needs="co_tenants",
    ),
    _settle(
        name="tenant-gives",
        about="a neighbour's release looks like the reclaim, which has not begun",
        scripted="20 GiB come back at 3.0 s; a neighbour releases 20 GiB at 0.3 s",
        machine=functools.partial(_beside_a_tenant, used="20 GiB", tenant="21 GiB", reclaim=Ramp.step(after="3s")),
        play=settle_play(max_wait=30.0, then=_gives_while_it_waits),
        checks=(within(6.0), not_misread()),
        needs="co_tenants",
    ),
    _settle(
        name="cancelled",
        about="an unload or a shutdown must not wait for a load that waits",
        scripted="nothing comes back; cancelled 0.6 s after the call; max_wait=30.0",
        machine=one_card("24 GiB", "8 GiB", Ramp.linear("100s")),
        play=cancel_play(after=0.6, max_wait=30.0),
        checks=(cancelled_within(0.3),),
        part="cancel",
        may_raise=True,
    ),
)

SETTLE: tuple[Scenario, ...] = (*UPSTREAM, *VERIFIED)
