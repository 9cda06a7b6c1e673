"""What all tests share: hypothesis without deadlines, and a driver on a clock that is set by hand."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings
from nvml_client import HandClock, initialised

from fake_gpu import Driver

pytest_plugins = ["pytester"]

# A shell's background job, and so some CI, starts with Ctrl-C ignored, and so would what the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("project", deadline=None)
settings.load_profile("project")


@pytest.fixture
def clock() -> HandClock:
    """A clock that the test sets."""
    return HandClock()


@pytest.fixture
def driver(clock: HandClock) -> Iterator[Driver]:
    """An active driver on that clock, with NVML initialised in this process."""
    with initialised(Driver(clock=clock)) as driver:
        yield driver


@pytest.fixture(autouse=True)
def _light_runs(request: pytest.FixtureRequest) -> None:
    """Runs of pytest inside tests do without plugins that they have no use for: hypothesis' alone doubles the time."""
    if "pytester" in request.fixturenames:
        request.getfixturevalue("pytester")  # it takes these options away, so first it
        environment = request.getfixturevalue("monkeypatch")
        environment.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest -p no:anyio")
        for variable in ("CI", "BUILD_NUMBER"):  # pytest repeats whole messages in its summary where one is set
            environment.delenv(variable, raising=False)
