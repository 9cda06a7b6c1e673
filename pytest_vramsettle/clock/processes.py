"""`subprocess.Popen` on the clock: a child is known from its start, and its timeouts are exact."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Callable
from typing import Any

from pytest_vramsettle.clock import real
from pytest_vramsettle.clock.active import mine, my_children, slot
from pytest_vramsettle.clock.child import Child
from pytest_vramsettle.clock.children import Children
from pytest_vramsettle.clock.engine import Engine
from pytest_vramsettle.clock.threads import deadline_after
from pytest_vramsettle.clock.times import StandIn
from pytest_vramsettle.clock.waits import Waiter

AnyPopen = Any  # subprocess.Popen of either type of stream, with its private parts


def name_of(popen: AnyPopen) -> str:
    args = popen.args
    first = args if isinstance(args, (str, bytes, os.PathLike)) else next(iter(args), "")
    return os.path.basename(os.fsdecode(first).split(" ", 1)[0])  # may be bytes


@functools.wraps(real.popen_init)
def popen_init(self: AnyPopen, *args: Any, **kwargs: Any) -> None:
    children = my_children()
    if children is None:
        real.popen_init(self, *args, **kwargs)
        return
    with children.engine.unseen():
        real.popen_init(self, *args, **kwargs)
    # Until here the thread itself held the clock.
    children.track(self.pid, name_of(self))


def _its_child(children: Children, popen: AnyPopen) -> Child | None:
    """The child, also one that was started before the clock: who waits for it cares when it ends."""
    child = children.find(popen.pid)
    return children.track(popen.pid, name_of(popen)) if child is None else child


@functools.wraps(real.popen_wait)
def popen_wait(self: AnyPopen, timeout: float | None) -> int:
    children = my_children()
    child = None if children is None or self.returncode is not None else _its_child(children, self)
    if children is None or child is None:
        return int(real.popen_wait(self, timeout))
    engine = children.engine
    if timeout is not None and self._sigint_wait_secs == 0:
        # Ctrl-C came: this is the moment (0.25 s) that the child is given to end by it, or to go on for ever.
        with engine.outside():
            return int(real.popen_wait(self, timeout))
    deadline = deadline_after(engine, timeout)
    if timeout is not None and timeout <= 0:
        deadline = engine.now
    while self.poll() is None and child.alive:
        if timeout is not None and deadline is not None and engine.now >= deadline:
            raise subprocess.TimeoutExpired(self.args, timeout)
        _until_exit(engine, child, deadline)
    return int(real.popen_wait(self, None))


def _until_exit(engine: Engine, child: Child, deadline: int | None) -> None:
    waiter = Waiter(engine, f"wait for {child!r}")
    with engine.mu:
        if not child.alive:
            return
        child.exits.append(waiter)
    try:
        engine.block(waiter, deadline)
    finally:
        with engine.mu:
            child.exits.remove(waiter)


@functools.wraps(real.popen_communicate)
def popen_communicate(
    self: AnyPopen,
    input: Any = None,  # noqa: A002  # the name that Popen.communicate gives it
    timeout: float | None = None,
) -> tuple[Any, Any]:
    one_pipe = [self.stdin, self.stdout, self.stderr].count(None) == 2
    if mine() is None or timeout is not None or self._communication_started or not one_pipe:
        return real.popen_communicate(self, input, timeout)
    # The real one would block in a raw read here, where the clock cannot see that the thread waits. A child that asks
    # the driver meanwhile would never get its answer.
    try:
        stdout, stderr = self._communicate(input, None, None)
    finally:
        self._communication_started = True
    self.wait()
    return stdout, stderr


class Kill(StandIn):
    original: Callable[[int, int], None]

    def __call__(self, pid: int, signal: int, /) -> None:
        # -1 is everybody, 0 the own group: nothing that a test survives.
        _send(self.original, pid, signal, [pid] if pid > 0 else [], -pid if pid < -1 else None)


class KillGroup(StandIn):
    original: Callable[[int, int], None]

    def __call__(self, pgid: int, signal: int, /) -> None:
        _send(self.original, pgid, signal, [], pgid)


def _send(send: Callable[[int, int], None], target: int, signal: int, pids: list[int], group: int | None) -> None:
    """Any thread may send a signal: the driver's does."""
    children = slot.children
    if children is None or signal == 0:
        send(target, signal)
        return
    belongs = mine() is not None
    if group is not None:
        pids = children.in_group(group)
    take_back = [children.before_signal(pid, signal, belongs) for pid in pids]
    try:
        send(target, signal)
    except BaseException:
        for undo in take_back:
            undo()
        raise


class WaitPid(StandIn):
    original: Callable[[int, int], tuple[int, int]]

    def __call__(self, pid: int, options: int, /) -> tuple[int, int]:
        children = my_children()
        child = None if children is None or options else children.find(pid)
        if children is not None and child is not None:
            _until_exit(children.engine, child, None)
        return self.original(pid, options)


kill = Kill("os", real.kill)
killpg = KillGroup("os", real.killpg)
waitpid = WaitPid("os", real.waitpid)
