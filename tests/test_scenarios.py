"""The upstream policy's scenarios with known answers, through the fake driver: ramps and processes.

Each runs over nvidia-smi, over NVML, and with an injected probe callable. Times are virtual and exact.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pynvml
import pytest

from fake_gpu import Driver, Fault, Gpu, Process, Ramp
from fake_gpu.units import GIB, MIB
from pytest_vramsettle.clock import VirtualClock
from pytest_vramsettle.kills import KillRecord
from pytest_vramsettle.probes import NvidiaSmiProbe, NvmlProbe
from pytest_vramsettle.settle import SettleResult, wait_for_vram_settle

PROBE_CALLS = {"nvidia-smi": "nvidia-smi", "nvml": "nvmlDeviceGetCount_v2", "callable": "nvmlDeviceGetCount_v2"}


def read_free_memory() -> list[tuple[int, int]]:
    """What a backend would write: [(index, free MiB)]."""
    pynvml.nvmlInit()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [(index, pynvml.nvmlDeviceGetMemoryInfo(handle).free // MIB) for index, handle in enumerate(handles)]
    finally:
        pynvml.nvmlShutdown()


@dataclass
class Bench:
    """A fake machine on a virtual clock, and the wait over one way of probing it."""

    way: str
    driver: Driver
    clock: VirtualClock
    kills: KillRecord
    extra_probes: list[Callable[[], object]] = field(default_factory=list)

    def gpu(self, free_mib: int) -> Gpu:
        """A card with this much free while nobody holds anything."""
        return self.driver.add_gpu(memory=(free_mib + 512) * MIB, reserved="512 MiB")

    def wait(self, **arguments: object) -> SettleResult:
        probes = {"nvidia-smi": NvidiaSmiProbe(), "nvml": NvmlProbe(), "callable": self.call}
        return wait_for_vram_settle(  # type: ignore[call-overload, no-any-return, unused-ignore]
            self.kills, policy="two-samples", probe=probes[self.way], **arguments
        )

    def call(self) -> list[tuple[int, int]]:
        for extra in self.extra_probes:
            extra()
        return read_free_memory()

    @property
    def probes(self) -> int:
        name = PROBE_CALLS[self.way]
        return sum(call.name.startswith(name) for call in self.driver.calls)

    def fail_second_probe(self) -> None:
        if self.way == "nvidia-smi":
            self.driver.inject(Fault.exit(255), via="nvidia-smi", after=1)
        else:
            self.driver.inject(Fault.nvml("UNKNOWN"), via="nvmlDeviceGetCount_v2", after=1)

    def fail_every_probe(self) -> None:
        self.driver.inject(Fault.nvml("UNKNOWN"))
        self.driver.inject(Fault.exit(255), via="nvidia-smi")

    def slow_every_probe(self, seconds: float) -> None:
        if self.way == "callable":
            self.extra_probes.append(lambda: time.sleep(seconds))
        else:
            name = "nvidia-smi" if self.way == "nvidia-smi" else "nvmlDeviceGetCount_v2"
            self.driver.inject(Fault.slow(seconds), via=name)


@pytest.fixture(params=sorted(PROBE_CALLS))
def bench(
    request: pytest.FixtureRequest, fake_driver: Driver, monotonic_clock: VirtualClock, kill_record: KillRecord
) -> Bench:
    return Bench(request.param, fake_driver, monotonic_clock, kill_record)


def free_mib_at(ramp_mib: list[tuple[float, int]]) -> Ramp:
    """A ramp by the free MiB at times in seconds, in steps; from the first figure to the last all is reclaimed."""
    first, last = ramp_mib[0][1], ramp_mib[-1][1]
    points: list[tuple[float, float]] = []
    for t, free in ramp_mib:
        if points:
            points.append((t, points[-1][1]))
        points.append((t, (free - first) / (last - first)))
    return Ramp.points(points)


def killed(bench: Bench, gpu: Gpu, held_mib: int, ramp: Ramp) -> Process:
    process = bench.driver.process(gpu, used=held_mib * MIB)
    process.kill(reclaim=ramp)
    return process


def test_a_ramp_settles_at_the_third_probe(bench: Bench) -> None:
    gpu = bench.gpu(11550)
    killed(bench, gpu, 1550, free_mib_at([(0, 10000), (0.2, 11500), (0.4, 11550)]))
    result = bench.wait()
    assert [list(sample.free_mib.values()) for sample in result.samples] == [[10000], [11500], [11550]]
    assert (result.outcome, bench.probes, bench.clock.elapsed) == ("settled", 3, 0.5)


def test_two_gpus_of_which_one_still_drains_settle_at_the_third_probe(bench: Bench) -> None:
    still, draining = bench.gpu(20000), bench.gpu(20000)
    bench.driver.process(still, used=4000 * MIB)
    killed(bench, draining, 10000, free_mib_at([(0, 10000), (0.2, 19900), (0.4, 20000)]))
    result = bench.wait()
    assert (result.outcome, bench.probes, bench.clock.elapsed) == ("settled", 3, 0.5)


def test_two_percent_of_what_is_free_count_as_still(bench: Bench) -> None:
    gpu = bench.gpu(90000)
    killed(bench, gpu, 10000, free_mib_at([(0, 80000), (0.1, 80700), (9, 90000)]))
    result = bench.wait()
    assert (result.outcome, bench.probes) == ("settled", 2)
    assert gpu.memory.free == 80700 * MIB  # and 9300 MiB are missed


def test_a_probe_that_fails_at_the_second_call_ends_the_wait(bench: Bench) -> None:
    killed(bench, bench.gpu(20000), 10000, Ramp.linear("1s"))
    bench.fail_second_probe()
    result = bench.wait()
    assert (result.outcome, bench.probes, bench.clock.elapsed) == ("probe_failed", 2, 0.25)
    assert not result


def test_a_probe_that_fails_at_the_first_call_ends_the_wait(bench: Bench) -> None:
    killed(bench, bench.gpu(20000), 10000, Ramp.linear("1s"))
    bench.fail_every_probe()
    result = bench.wait()
    assert (result.outcome, bench.clock.elapsed) == ("probe_failed", 0.0)
    assert len(result.failures) == 1


def test_an_index_set_that_shrinks_ends_the_wait(bench: Bench) -> None:
    left, right = bench.gpu(20000), bench.gpu(20000)
    killed(bench, left, 10000, Ramp.linear("1s"))
    bench.driver.at("200ms", right.remove)
    result = bench.wait()
    assert (result.outcome, bench.probes, bench.clock.elapsed) == ("gpu_set_changed", 2, 0.25)


def test_a_cold_start_does_not_probe(bench: Bench) -> None:
    bench.gpu(20000)
    result = bench.wait()
    assert (result.outcome, bench.probes, bench.clock.elapsed) == ("no_recent_kill", 0, 0.0)
    assert result


def test_a_stale_kill_does_not_probe(bench: Bench) -> None:
    killed(bench, bench.gpu(20000), 10000, Ramp.immediate())
    bench.clock.advance(15.1)
    result = bench.wait()
    assert (result.outcome, bench.probes) == ("stale_kill", 0)


def test_a_kill_of_fifteen_seconds_ago_is_not_stale(bench: Bench) -> None:
    killed(bench, bench.gpu(20000), 10000, Ramp.immediate())
    bench.clock.advance(15.0)
    assert (bench.wait().outcome, bench.probes) == ("settled", 2)


def test_a_host_without_gpus_is_probed_once(bench: Bench) -> None:
    bench.kills.stamp()
    result = bench.wait()
    assert (result.outcome, bench.probes, bench.clock.elapsed) == ("no_gpu", 1, 0.0)


def test_memory_that_always_drifts_ends_at_max_wait(bench: Bench) -> None:
    killed(bench, bench.gpu(100_000), 80_000, Ramp.linear("10s"))
    result = bench.wait()
    assert (result.outcome, bench.probes, result.elapsed) == ("timed_out", 8, 2.0)
    assert bench.clock.elapsed == 2.0


def test_a_slow_probe_does_not_stretch_the_wait(bench: Bench) -> None:
    killed(bench, bench.gpu(100_000), 80_000, Ramp.linear("10s"))
    bench.slow_every_probe(1.2)
    result = bench.wait()
    assert (result.outcome, result.elapsed) == ("timed_out", 2.0)
    assert bench.clock.elapsed == 2.0


def test_the_upstream_signature_is_a_drop_in(fake_driver: Driver, monotonic_clock: VirtualClock) -> None:
    gpu = fake_driver.add_gpu("rtx-4090")
    fake_driver.process(gpu, used=20 * GIB).kill(reclaim=Ramp.linear("400ms"))
    result = wait_for_vram_settle(
        max_wait=2.0,
        interval=0.25,
        tolerance_mib=256,
        since_kill=time.monotonic(),
        probe=read_free_memory,
        policy="two-samples",
    )
    assert (result.outcome, len(result.samples), monotonic_clock.elapsed) == ("settled", 4, 0.75)
    cold = wait_for_vram_settle(max_wait=2.0, since_kill=0.0, probe=read_free_memory, policy="two-samples")
    assert cold.outcome == "no_recent_kill"


# -- where the upstream policy misreads, and the verified one does not

MISREADS = {
    "late start": Ramp.linear("400ms", after="600ms"),
    "plateau": Ramp.points([(0.0, 0.0), (0.05, 0.1), (0.8, 0.1), (1.2, 1.0)]),
    "slow drip": Ramp.linear("26s"),
}


@pytest.mark.parametrize("shape", sorted(MISREADS))
def test_verified_misses_nothing_where_upstream_does(
    fake_driver: Driver, monotonic_clock: VirtualClock, settle: Callable[..., SettleResult], shape: str
) -> None:
    gpu = fake_driver.add_gpu("h200")
    process = fake_driver.process(gpu, used="20 GiB")
    process.kill(reclaim=MISREADS[shape])
    upstream = settle(policy="two-samples")
    assert upstream.outcome == "settled"
    assert gpu.memory.used > 10 * GIB
    verified = settle()
    assert verified.outcome == "settled"
    assert gpu.memory.used <= 256 * MIB


def test_one_gpu_done_and_another_not_started(
    fake_driver: Driver, monotonic_clock: VirtualClock, settle: Callable[..., SettleResult]
) -> None:
    done, late = fake_driver.add_gpu("l40s"), fake_driver.add_gpu("l40s")
    fake_driver.process(done, used="20 GiB").kill(reclaim=Ramp.immediate())
    fake_driver.process(late, used="20 GiB").kill(reclaim=Ramp.linear("300ms", after="700ms"))
    assert settle(policy="two-samples").outcome == "settled"
    assert late.memory.used == 20 * GIB
    assert settle().outcome == "settled"
    assert late.memory.used == 0


def test_a_wedged_nvidia_smi_costs_max_wait_and_no_more(
    fake_driver: Driver, monotonic_clock: VirtualClock, settle: Callable[..., SettleResult]
) -> None:
    gpu = fake_driver.add_gpu("h200")
    fake_driver.inject(Fault.hang(), via="nvidia-smi", after=1)  # one run answers, the next never does
    fake_driver.process(gpu, used="70 GiB").kill()
    result = settle(max_wait=2.0)
    assert result.outcome == "timed_out"
    assert monotonic_clock.elapsed == 2.0


@pytest.mark.parametrize("way", ["popen", "os.kill"])
def test_a_death_is_stamped_before_the_clock_leaves_its_instant(
    fake_driver: Driver, monotonic_clock: VirtualClock, way: str
) -> None:
    gpu = fake_driver.add_gpu("rtx-4090")
    for _ in range(10):
        process = fake_driver.spawn(gpu, used="20 GiB", reclaim=Ramp.linear("500ms"))
        killed_ns = monotonic_clock.monotonic_ns()
        if way == "popen":
            assert process.popen is not None
            process.popen.kill()
            process.popen.wait()
        else:
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.95)  # nobody has asked the driver since
        assert process.died_ns == killed_ns
        assert gpu.memory.used == 0


def test_waits_of_two_threads_at_once(
    fake_driver: Driver, monotonic_clock: VirtualClock, settle: Callable[..., SettleResult]
) -> None:
    results: list[SettleResult] = []
    gpu = fake_driver.add_gpu("rtx-4090")
    fake_driver.process(gpu, used="8 GiB").kill(reclaim=Ramp.never())
    cancel = threading.Event()
    waiter = threading.Thread(target=lambda: results.append(settle(max_wait=30, cancel=cancel)))
    waiter.start()
    monotonic_clock.advance(0.6)  # runs every timer due on the way, in order
    cancel.set()
    waiter.join()
    assert results[0].outcome == "cancelled"
    assert monotonic_clock.elapsed == 0.6
