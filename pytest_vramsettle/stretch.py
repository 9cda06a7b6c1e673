"""A test's stretch of virtual time, from its setup to its teardown: a plugin, registered when a test has one.

Between setup, call and teardown the test's thread lives in real time, and the clock is held: reports are written there,
workers talk to their controller, a debugger has its prompt. What outlives a test is set up in real time too.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from pytest_vramsettle.clock import VirtualClock
from pytest_vramsettle.clock.left import left_behind
from pytest_vramsettle.left import LEFT_KEY, TITLE
from pytest_vramsettle.options import AWAY_KEY, CLOCK_KEY, options_of

_NAME = "vramsettle-stretch"


def register(config: pytest.Config) -> None:
    """Idempotent."""
    # By name: after a test that restores sys.modules, as pytester's do, this module is imported once more.
    if not config.pluginmanager.has_plugin(_NAME):
        config.pluginmanager.register(sys.modules[__name__], _NAME)


def stretch(item: pytest.Item) -> Iterator[VirtualClock]:
    """What the fixture does."""
    options = options_of(item)
    stash = item.config.stash
    register(item.config)
    with contextlib.ExitStack() as stack:
        clock = stack.enter_context(VirtualClock(seed=options.seed, child_grace=options.child_grace))
        if options.wall is not None:
            from pytest_vramsettle.clock.wall import frozen_wall

            stack.enter_context(frozen_wall(clock, options.wall))
        stash[CLOCK_KEY] = clock
        try:
            yield clock
        finally:
            del stash[CLOCK_KEY]
            left = left_behind(clock)
            if left:
                stash[LEFT_KEY] = [f"{item.nodeid}: {line}" for line in left]


@contextlib.contextmanager
def _phase(item: pytest.Item) -> Iterator[None]:
    stash = item.config.stash
    _come_back(stash)
    try:
        yield
    except (KeyboardInterrupt, pytest.exit.Exception):
        # What follows is the teardown, called by nobody that could take the thread back.
        raise
    except BaseException:
        _go_away(stash)
        raise
    _go_away(stash)


def _go_away(stash: pytest.Stash) -> None:
    clock = stash.get(CLOCK_KEY, None)
    if clock is not None:
        away = stash[AWAY_KEY] = contextlib.ExitStack()
        away.enter_context(clock.real_time())


def _come_back(stash: pytest.Stash) -> None:
    away = stash.get(AWAY_KEY, None)
    if away is not None:
        del stash[AWAY_KEY]
        away.close()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    with _phase(item):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with _phase(item):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    with _phase(item):
        return (yield)


def _real_time(config: pytest.Config) -> contextlib.AbstractContextManager[None]:
    clock = config.stash.get(CLOCK_KEY, None)
    return contextlib.nullcontext() if clock is None else clock.real_time()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """A server that serves more than one test must not belong to the clock of the first."""
    if fixturedef.scope == "function":
        return (yield)
    with _real_time(request.config):
        return (yield)


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item) -> Generator[None, object, object]:
    """pytest-timeout guards in real time; with func_only, and a thread for its method, it would start one of ours."""
    with _real_time(item.config):
        return (yield)


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> Generator[None, object, object]:
    with _real_time(item.config):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    left = item.config.stash.get(LEFT_KEY, None)
    if left is not None and call.when == "teardown":
        del item.config.stash[LEFT_KEY]
        report.sections.append((TITLE, "\n".join(left)))
    return report
