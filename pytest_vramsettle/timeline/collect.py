"""From a fake driver, the waits and the traced locks of a test to its timeline."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fake_gpu.gpu import Presence
from pytest_vramsettle.timeline.model import Card, Death, Event, Hold, Probe, Timeline, Wait

if TYPE_CHECKING:
    from fake_gpu import Call, Driver, Gpu
    from pytest_vramsettle.contracts.holds import Hold as LockHold
    from pytest_vramsettle.contracts.holds import LockTrace

SAMPLES = 240
"""Moments at which free memory is told, besides those at which it changed."""

LONGEST = 400
"""Entries of one kind; the last ones are kept."""

_TOGETHER_NS = 1_000_000
"""NVML calls of one process that follow each other within this are one probe: one reading asks several questions."""

_SECOND = 1_000_000_000
_LEAST_NS = 1_000_000
_LONG_TAIL = 1.5
"""Reclaim that takes so many times as long as everything else is not shown to its end."""


def collect(
    driver: Driver,
    waits: Sequence[Wait] = (),
    locks: LockTrace | None = None,
    *,
    events: Sequence[Event] = (),
    until_ns: int | None = None,
) -> Timeline:
    """What has happened on this driver's machine, on its clock; `events`: what else there is to tell.

    `until_ns` is when the driver was stopped; None: it runs, and everything until now counts.
    """
    now = driver.sync() if until_ns is None else until_ns
    labels = {gpu.uuid: f"GPU {index}" for index, gpu in enumerate(driver.enumerated)}
    cards = [*driver.enumerated, *(gpu for gpu in driver.handles.values() if gpu.uuid not in labels)]
    for gpu in cards:
        labels.setdefault(gpu.uuid, gpu.uuid[:12])
    deaths = [_death(driver, each, labels) for each in list(driver.deaths)]
    probes = _probes(driver.calls)
    holds = [_hold(hold) for hold in (locks.holds if locks is not None else ())]
    presences = [(gpu, at, how) for gpu in cards for at, how in driver.history.presences(gpu)]
    happened = [*events, *(Event(at, f"{labels[gpu.uuid]} {how.value}") for gpu, at, how in presences)]
    happened.sort(key=lambda event: event.at_ns)
    zero = deaths[0].at_ns if deaths else None
    begin, end = _window(now, [*driver.history.changes(), *_times(deaths, probes, waits, holds, happened)])
    end = _until_back(driver, begin, end)
    moments = _moments(driver, begin, end, [death.at_ns for death in deaths])
    kept = [each[-LONGEST:] for each in (deaths, probes, list(waits), holds, happened)]
    return Timeline(
        begin_ns=begin,
        end_ns=end,
        zero_ns=begin if zero is None else zero,
        moments=tuple(moments),
        cards=tuple(_card(driver, gpu, labels[gpu.uuid], moments) for gpu in cards),
        deaths=tuple(deaths[-LONGEST:]),
        probes=tuple(probes[-LONGEST:]),
        waits=tuple(_judged(driver, wait) for wait in waits[-LONGEST:]),
        holds=tuple(holds[-LONGEST:]),
        events=tuple(happened[-LONGEST:]),
        omitted=len(deaths) + len(probes) + len(waits) + len(holds) + len(happened) - sum(map(len, kept)),
    )


def _judged(driver: Driver, wait: Wait) -> Wait:
    return replace(wait, missing=_missing(driver, wait.end_ns)) if wait.about_memory else wait


def _missing(driver: Driver, at_ns: int) -> int:
    """Bytes of the dead that were not back at a time."""
    return sum(
        process.held_at(gpu, at_ns)
        for process in list(driver.processes)
        if process.death_in_model is not None and process.death_in_model <= at_ns
        for gpu in driver.handles.values()
    )


def _death(driver: Driver, death: Any, labels: dict[str, str]) -> Death:
    named = [process.name for process in driver.processes if process.pid == death.pid]
    held = {labels[uuid]: size for uuid, size in death.held.items()}
    return Death(death.when_ns, death.pid, named[-1] if named else "", held)


def _probes(calls: Iterable[Call]) -> list[Probe]:
    """Each run of nvidia-smi; NVML calls gathered to readings."""
    found: list[Probe] = []
    latest: dict[int, int] = {}  # the place in `found` of each process's last NVML reading
    for call in calls:
        faults = ", ".join(dict.fromkeys(map(repr, call.faults)))
        probe = Probe(call.at_ns, call.delay_ns, call.via, call.name, call.pid, 1, call.code, faults)
        place = latest.get(call.pid) if call.via == "nvml" else None
        before = None if place is None else found[place]
        if place is not None and before is not None and _belongs(before, call):
            found[place] = _joined(before, probe)
        else:
            if call.via == "nvml":
                latest[call.pid] = len(found)
            found.append(probe)
    return found


def _belongs(before: Probe, call: Call) -> bool:
    return before.took_ns is not None and call.at_ns - (before.at_ns + before.took_ns) <= _TOGETHER_NS


def _joined(first: Probe, more: Probe) -> Probe:
    took = None if more.took_ns is None else more.at_ns - first.at_ns + more.took_ns
    faults = first.faults if more.faults in first.faults else ", ".join(filter(None, (first.faults, more.faults)))
    code = first.code if first.code != 0 else more.code
    return Probe(first.at_ns, took, first.via, first.name, first.pid, first.count + 1, code, faults)


def _hold(hold: LockHold) -> Hold:
    holder = hold.holder
    name = holder.name if isinstance(holder, threading.Thread) else getattr(holder, "get_name", lambda: str(holder))()
    return Hold(hold.start_ns, hold.end_ns, hold.lock, name, hold.where)


def _times(
    deaths: list[Death], probes: list[Probe], waits: Sequence[Wait], holds: list[Hold], events: list[Event]
) -> list[int]:
    points: list[Death | Probe | Event] = [*deaths, *probes, *events]
    times = [point.at_ns for point in points]
    times += [probe.at_ns + (probe.took_ns or 0) for probe in probes]
    spans: list[Wait | Hold] = [*waits, *holds]
    return [*times, *(span.begin_ns for span in spans), *(span.end_ns for span in spans)]


def _window(now: int, times: list[int]) -> tuple[int, int]:
    """From the first to the last of what happened, with a margin."""
    first, last = (min(times), max(times)) if times else (now, now)
    margin = (last - first) // 20
    return first - margin, max(last + margin, first + _LEAST_NS)


def _until_back(driver: Driver, begin: int, end: int) -> int:
    """A later end, where memory comes back soon after everything else: the reader sees what was missed."""
    furthest = end + round(_LONG_TAIL * max(end - begin, _SECOND // 2))
    back = [process.back_ns for process in driver.processes]
    soon = [at for at in back if at is not None and end < at <= furthest]
    return max(soon) + (max(soon) - begin) // 12 if soon else end


def _moments(driver: Driver, begin: int, end: int, deaths: list[int]) -> list[int]:
    """Evenly, and on both sides of every change, so that a step stays a step."""
    even = {begin + (end - begin) * step // SAMPLES for step in range(SAMPLES + 1)}
    changes = [at for at in (*driver.history.changes(), *deaths) if begin <= at <= end][-2 * LONGEST :]
    return sorted(even | set(changes) | {max(begin, at - 1) for at in changes})


def _card(driver: Driver, gpu: Gpu, label: str, moments: list[int]) -> Card:
    changes = driver.history.presences(gpu)
    begun = min(one.added_ns for one in driver.handles.values())  # the margin before that shows how it begins
    free: list[int | None] = []
    for at, memory in zip(moments, driver.history.memory(gpu, [max(at, begun) for at in moments]), strict=True):
        so_far = [presence for since, presence in changes if since <= at]
        there = not so_far or so_far[-1] is Presence.PRESENT
        free.append(memory.free if there and max(at, begun) >= gpu.added_ns else None)
    return Card(label, gpu.name, gpu.uuid, gpu.memory_at(moments[-1]).total, tuple(free))
