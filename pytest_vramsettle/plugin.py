"""The hooks of the pytest plugin, and nothing else: a test run that does not use it pays for this file alone."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_vramsettle.fixtures import DRIVER_KEY, fake_driver, kill_record, monotonic_clock, settle

__all__ = ["fake_driver", "kill_record", "monotonic_clock", "settle"]


def pytest_configure(config: pytest.Config) -> None:
    """Registers the markers."""
    config.addinivalue_line(
        "markers",
        "virtual_clock: run this test on the virtual monotonic clock, as if it asked for the monotonic_clock fixture.",
    )
    config.addinivalue_line(
        "markers", "real_gpu: this test needs a real NVIDIA GPU and its driver; without them it is skipped."
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives tests marked virtual_clock the clock, before every other fixture."""
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("virtual_clock"):
            marker = item.get_closest_marker("virtual_clock")
            if marker is not None and (marker.args or marker.kwargs):
                raise pytest.UsageError(f"{item.nodeid}: @pytest.mark.virtual_clock takes no arguments")
            if "monotonic_clock" not in item.fixturenames:
                item.fixturenames.insert(0, "monotonic_clock")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests marked real_gpu where there is none."""
    if item.get_closest_marker("real_gpu"):
        from pytest_vramsettle.hardware import why_not_real_gpu

        reason = why_not_real_gpu()
        if reason:
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the state of the fake machine and the last calls to the report of a test that failed."""
    report = yield
    driver = item.stash.get(DRIVER_KEY, None)
    if report.failed and driver is not None and call.when == "call":
        from pytest_vramsettle.report import describe_driver

        report.sections.append(("fake NVIDIA driver", describe_driver(driver)))
    return report
