"""Selectors on the clock, and so asyncio and `Popen.communicate`. What is ready wins over any jump."""

from __future__ import annotations

import functools
import select
import selectors
from collections.abc import Callable
from typing import Any

from pytest_vramsettle.clock import real
from pytest_vramsettle.clock.active import mine
from pytest_vramsettle.clock.threads import deadline_after
from pytest_vramsettle.clock.waits import HALF_NS, READY, PollWaiter

Ready = list[tuple[selectors.SelectorKey, int]]


def _fds(selector: Any) -> list[tuple[int, int]]:
    if isinstance(selector, selectors.EpollSelector):
        # An epoll object is itself ready when one of its descriptors is.
        return [(selector.fileno(), select.POLLIN)]
    return [
        (
            key.fd,
            (select.POLLIN if key.events & selectors.EVENT_READ else 0)
            | (select.POLLOUT if key.events & selectors.EVENT_WRITE else 0),
        )
        for key in list(selector._fd_to_key.values())
    ]


def _on_the_clock(real_select: Callable[..., Ready]) -> Callable[..., Ready]:
    @functools.wraps(real_select)
    def select_on_the_clock(self: Any, timeout: float | None = None) -> Ready:
        engine = mine()
        if engine is None:
            return real_select(self, timeout)
        ready = real_select(self, 0)
        if ready:
            return ready
        if timeout is not None and timeout < HALF_NS:
            # An event loop does so in each of its rounds with work to do: that is no busy loop.
            engine.instant(timeout, counts=False)
            return []
        waiter = PollWaiter(engine, "select", _fds(self), self._fd_to_key)
        if engine.park(waiter, deadline_after(engine, timeout)) is READY:
            return real_select(self, 0)
        # Nothing came in time, or the clock was left: a selector may always return early.
        return []

    return select_on_the_clock


poll_select = _on_the_clock(real.poll_select)
epoll_select = _on_the_clock(real.epoll_select)
select_select = _on_the_clock(real.select_select)
