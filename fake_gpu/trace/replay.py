"""A trace played again on the fake driver: its GPUs, the dead, the co-tenants, to the byte at every sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from fake_gpu.errors import DriverStateError, InvalidValue
from fake_gpu.gpu import Gpu
from fake_gpu.process import Death, Process
from fake_gpu.profile import Profile, load_profile, profile_names
from fake_gpu.ramp import Ramp
from fake_gpu.trace.format import TracedGpu
from fake_gpu.trace.story import UNKNOWN_PID, Frame, Story, shares

if TYPE_CHECKING:
    from fake_gpu.driver import Driver
    from fake_gpu.trace.trace import ReclaimTrace


@dataclass(slots=True)
class _Moment:
    """What changes at one time of the trace."""

    t_ns: int
    frames: list[tuple[Gpu, Frame]] = field(default_factory=list)
    lost: list[Gpu] = field(default_factory=list)
    restored: list[Gpu] = field(default_factory=list)


class Replay:
    """A trace's machine on a driver. Made by `ReclaimTrace.replay`.

    It is added to the driver's GPUs as it was in the instant of the death, and stands still. With `kill`, or when
    anything else ends one of `dead`, it plays on from there: memory, co-tenants and lost GPUs, on the driver's clock.
    `whole=True` plays the whole trace instead, from its first sample, which is now; the dead die when they did.
    `spawn=True` makes the dead real processes (`Driver.spawn`), for a backend to kill.

    Free memory is exactly what the trace says at each sample. In between, what the dead give back comes evenly, and
    all else stays as it was in the sample before. Raises InvalidValue where nobody dies in the trace or where nothing
    is known of what the dead held.
    """

    def __init__(self, driver: Driver, trace: ReclaimTrace, *, whole: bool = False, spawn: bool = False) -> None:
        if whole and spawn:
            raise InvalidValue(
                "replay(whole=True, spawn=True): a real process does not die at an exact time; leave one of them out"
            )
        self.driver = driver
        self.trace = trace
        self._death_ns = trace.death_ns
        held = [story for story in trace.stories if sum(story.held.values())]
        if not held:
            raise InvalidValue(f"{trace!r}: the dead held nothing that is known of, and nothing came back")
        self._began_ns: int | None = None
        self._whole = whole
        self.gpus: tuple[Gpu, ...] = tuple(_add(driver, one, trace.stories) for one in trace.header.gpus)
        """In the order of the trace's header."""
        by_index = dict(zip([one.index for one in trace.header.gpus], self.gpus, strict=True))
        self._stories = [(by_index[story.gpu.index], story) for story in trace.stories]
        start_ns = self._death_ns
        if whole:
            start_ns = min(start_ns, *(story.readings[0].t_ns for story in trace.stories))
        self._others: dict[int, Process] = {}
        self._dead = self._make_dead(start_ns, driver.spawn if spawn else driver.process)
        self.dead: tuple[Process, ...] = tuple(self._dead.values())
        """The processes that die: those of the killed tree that held memory."""
        self._apply([(gpu, story.frame_at(start_ns)) for gpu, story in self._stories], alive=False)
        self._moments = self._moments_after(start_ns)
        for gpu in self._unreadable_at(start_ns, by_index):
            gpu.lose()
        self._forget = driver.on_death(self._on_death)
        if whole:
            driver.at(0, partial(self._begin, start_ns))
            driver.sync()

    @property
    def others(self) -> dict[int, Process]:
        """The co-tenants that are there now, by their PIDs in the trace."""
        self.driver.sync()
        return dict(self._others)

    @property
    def died_ns(self) -> int | None:
        """The instant of the death on the driver's clock; None before it."""
        times = [time for process in self.dead if (time := process.died_ns) is not None]
        return min(times, default=None)

    @property
    def settled_after(self) -> float:
        """Seconds from the death until memory was back: `ReclaimTrace.settled_after`."""
        return self.trace.settled_after

    @property
    def never_back(self) -> int:
        """Bytes that do not come back by the trace's end, all GPUs together."""
        return self.trace.never_back

    def kill(self) -> None:
        """All of `dead` die now. Raises DriverStateError where they are dead, or where the trace says when they die."""
        if self._whole:
            raise DriverStateError("this replay plays the whole trace, in which the death has its time: whole=False")
        living = [process for process in self.dead if process.alive]
        if not living:
            raise DriverStateError("all the processes of this replay that die are dead already")
        for process in living:
            process.kill()

    # -- the dead

    def _make_dead(self, start_ns: int, make: Callable[..., Process]) -> dict[int, Process]:
        made: dict[int, Process] = {}
        pids = dict.fromkeys(pid for _, story in self._stories for pid in story.held if story.held[pid])
        for pid in pids:
            held = {
                gpu: story.frame_at(start_ns).dead.get(pid, 0) for gpu, story in self._stories if story.held.get(pid)
            }
            name = "killed" if pid == UNKNOWN_PID else f"killed-{pid}"
            process = made[pid] = make(held, name=name, reclaim=Ramp.never())
            for gpu, story in self._stories:
                if story.held.get(pid):
                    process.reclaim_on(gpu, self._ramp(story, pid))
        return made

    def _ramp(self, story: Story, pid: int) -> Ramp:
        death = self._death_ns
        held = story.frame_at(death).dead.get(pid, 0)
        if held == 0:
            return Ramp.immediate()
        after = [(one.t_ns - death, one.dead.get(pid, 0)) for one in story.frames if one.t_ns > death]
        return Ramp.points(shares(held, [(0, held), *after]))

    def _on_death(self, death: Death) -> None:
        if self._whole or self._began_ns is not None or all(death.pid != process.pid for process in self.dead):
            return
        self._began_ns = death.when_ns
        self._forget()
        self._schedule(death.when_ns - self._death_ns)

    def _die(self) -> None:
        for process in self.dead:
            if process.alive:  # the test may have been faster
                process.kill()

    # -- time

    def _moments_after(self, start_ns: int) -> list[_Moment]:
        """All that changes after a time, the last first."""
        moments: dict[int, _Moment] = {}
        for gpu, story in self._stories:
            last, readable = story.frame_at(start_ns), _readable_at(story, start_ns)
            frames = iter([frame for frame in story.frames if frame.t_ns > start_ns])
            for reading in story.readings:
                if reading.t_ns <= start_ns:
                    continue
                moment = moments.setdefault(reading.t_ns, _Moment(reading.t_ns))
                if reading.free is None:
                    if readable:
                        moment.lost.append(gpu)
                else:
                    frame = next(frames)
                    if not readable:
                        moment.restored.append(gpu)
                    if self._differs(frame, last):
                        moment.frames.append((gpu, frame))
                        last = frame
                readable = reading.free is not None
        changing = [one for one in moments.values() if one.frames or one.lost or one.restored]
        if self._whole and all(one.t_ns != self._death_ns for one in changing):
            changing.append(_Moment(self._death_ns))
        return sorted(changing, key=lambda moment: moment.t_ns, reverse=True)

    def _differs(self, frame: Frame, last: Frame) -> bool:
        if (frame.others, frame.unlisted) != (last.others, last.unlisted):
            return True
        return frame.t_ns <= self._death_ns and frame.dead != last.dead  # after it, the ramps know

    def _unreadable_at(self, t_ns: int, by_index: dict[int, Gpu]) -> Iterable[Gpu]:
        told = {gpu for gpu, _ in self._stories}
        yield from (gpu for gpu, story in self._stories if not _readable_at(story, t_ns))
        yield from (gpu for gpu in by_index.values() if gpu not in told)

    def _begin(self, start_ns: int) -> None:
        self._began_ns = self.driver.sync()
        self._schedule(self._began_ns - start_ns)

    def _schedule(self, zero_ns: int) -> None:
        """Has the next moment played when it is due; `zero_ns` is the time of the driver at which the trace's is 0."""
        if self._moments:
            due_ns = zero_ns + self._moments[-1].t_ns
            self.driver.at(f"{max(0, due_ns - self.driver.sync())}ns", partial(self._play, zero_ns))

    def _play(self, zero_ns: int) -> None:
        moment = self._moments.pop()
        for gpu in moment.restored:
            gpu.restore()
        self._apply(moment.frames, alive=self._whole and moment.t_ns <= self._death_ns)
        for gpu in moment.lost:
            gpu.lose()
        if self._whole and moment.t_ns == self._death_ns:
            self._die()
        self._schedule(zero_ns)

    # -- memory

    def _apply(self, frames: list[tuple[Gpu, Frame]], *, alive: bool) -> None:
        """Has everybody hold what the frames say; first who gives, then who takes. `alive`: the dead as well."""
        changes: list[tuple[int, Callable[[int], None], int, Gpu]] = []
        for gpu, frame in frames:
            changes.append((frame.unlisted - gpu.unlisted, gpu.hold_unlisted, frame.unlisted, gpu))
            here = [pid for pid, process in self._others.items() if gpu in process.used and pid not in frame.others]
            for pid, size in (*frame.others.items(), *((pid, 0) for pid in here)):
                process = self._co_tenant(pid, gpu)
                changes.append((size - process.used.get(gpu, 0), partial(process.hold, gpu=gpu), size, gpu))
            if alive:
                for pid, process in self._dead.items():
                    if not process.alive:
                        continue
                    size = frame.dead.get(pid, 0)
                    changes.append((size - process.used.get(gpu, 0), partial(process.hold, gpu=gpu), size, gpu))
        for growth, hold, size, gpu in sorted(changes, key=lambda change: change[0]):
            # Where the dead did not die together there may be less room than there was.
            hold(size - max(0, growth - gpu.memory.free))
        self._part_with(frames)

    def _co_tenant(self, pid: int, gpu: Gpu) -> Process:
        if pid not in self._others:
            self._others[pid] = self.driver.process({gpu: 0}, name=f"co-tenant-{pid}")
        return self._others[pid]

    def _part_with(self, frames: list[tuple[Gpu, Frame]]) -> None:
        now = {gpu: frame.others for gpu, frame in frames}
        for pid, process in list(self._others.items()):
            gone = [gpu for gpu in process.used if gpu in now and pid not in now[gpu]]
            for gpu in gone:
                process.leave(gpu)
            if not process.used:
                del self._others[pid]

    def __repr__(self) -> str:
        state = "not begun" if self._began_ns is None else "playing" if self._moments else "over"
        return f"<Replay of {self.trace!r}: {state}>"


def _readable_at(story: Story, t_ns: int) -> bool:
    return next((one for one in reversed(story.readings) if one.t_ns <= t_ns), story.readings[0]).free is not None


def _add(driver: Driver, traced: TracedGpu, stories: tuple[Story, ...]) -> Gpu:
    reserved = next((story.reserved for story in stories if story.gpu.index == traced.index), traced.reserved or 0)
    profile = _profile_named(traced.name)
    return driver.add_gpu(
        profile,
        name=traced.name or None if profile is None else None,
        memory=traced.total,
        reserved=reserved,
        uuid=traced.uuid,
    )


def _profile_named(name: str) -> Profile | None:
    profiles = map(load_profile, profile_names())
    return next((profile for profile in profiles if name and profile.name == name), None)
