"""What a driver's life and a settle wait in virtual time cost."""

from __future__ import annotations

from statistics import median
from time import perf_counter_ns

from bench.measure import Goal, Measured, Section, alternate, compare, timed
from bench.smi import TRUE, spawned
from fake_gpu import Driver, Ramp
from pytest_vramsettle.clock import VirtualClock
from pytest_vramsettle.deaths import Follower
from pytest_vramsettle.kills import KillRecord
from pytest_vramsettle.probes import NvidiaSmiProbe
from pytest_vramsettle.settle import wait_for_vram_settle


def _enter_and_leave() -> None:
    with Driver():
        pass


def driver_section() -> Section:
    """Enter and leave, bare and with what a test usually has."""

    def with_a_process() -> None:
        with Driver() as driver:
            driver.spawn(driver.add_gpu("rtx-4090"), used="20 GiB")

    taken = alternate(
        {
            TRUE: timed(spawned(TRUE)),
            "enter and leave": timed(_enter_and_leave),
            "the same with a GPU and a real process": timed(with_a_process),
        },
        150,
    )
    goals = {"enter and leave": Goal("seconds", 5e-3)}
    return Section(
        "Driver",
        f"a run of {TRUE} ({median(taken[TRUE]) * 1e3:.2f} ms)",
        tuple(compare(name, taken[name], taken[TRUE], goals.get(name)) for name in taken if name != TRUE),
    )


class Example:
    """The first example of the README, without pytest."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        """Real seconds of each settle()."""
        self.virtual = 0.0
        self.runs = 0

    def __call__(self) -> None:
        with VirtualClock() as clock, Driver(clock=clock) as driver:
            record = KillRecord()
            Follower(record).follow(driver)
            server = driver.process(driver.add_gpu("rtx-4090"), used="20 GiB")
            server.kill(reclaim=Ramp.linear("600ms", after="150ms"))
            start = perf_counter_ns()
            result = wait_for_vram_settle(record, probe=NvidiaSmiProbe())
            self.waits.append((perf_counter_ns() - start) / 1e9)
            if result.outcome != "settled":
                raise RuntimeError(f"the example did not settle: {result}")
            self.virtual = clock.elapsed
            self.runs = sum(call.via == "nvidia-smi" for call in driver.calls)


def settle_section() -> Section:
    """The wait itself, and the whole test body around it."""
    example = Example()
    variants: dict[str, Measured] = {TRUE: timed(spawned(TRUE)), "whole": timed(example)}
    taken = alternate(variants, 40)
    true, waits = taken[TRUE], example.waits[1:]  # the first was the warming-up
    return Section(
        "settle() in the README's first example",
        f"a run of {TRUE} ({median(true) * 1e3:.2f} ms)",
        (
            compare(f"settle(): {example.virtual:.2f} virtual seconds, {example.runs} runs of nvidia-smi", waits, true),
            compare("of that, for each run of nvidia-smi", [wait / example.runs for wait in waits], true),
            compare("the example, with its driver and clock", taken["whole"], true),
        ),
    )
