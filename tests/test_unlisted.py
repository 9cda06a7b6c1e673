"""Memory that no process is listed for, ramps by GPU, and co-tenants that leave."""

from __future__ import annotations

import pytest
from native_client import nvidia_smi
from nvml_client import HandClock

from fake_gpu import Driver, InvalidValue, Ramp
from fake_gpu.units import GIB
from pytest_vramsettle.report import describe_driver


def test_memory_that_no_process_is_listed_for(driver: Driver) -> None:
    gpu = driver.add_gpu("l40s")
    free = gpu.memory.free
    gpu.hold_unlisted("4 GiB")
    assert (gpu.memory.used, gpu.memory.free, gpu.unlisted) == (4 * GIB, free - 4 * GIB, 4 * GIB)
    assert gpu.processes == []
    assert nvidia_smi("--query-gpu=memory.used", "--format=csv,noheader,nounits").stdout == "4096\n"
    with pytest.raises(InvalidValue, match=r"is free; no process listed: 4 GiB\."):
        driver.process(gpu, used=free)
    with pytest.raises(InvalidValue, match="is more than"):
        gpu.hold_unlisted("4 TiB")
    gpu.hold_unlisted(0)
    assert gpu.memory.free == free


def test_a_process_whose_gpus_give_back_at_different_times(driver: Driver, clock: HandClock) -> None:
    left, right = driver.add_gpu("t4"), driver.add_gpu("t4")
    process = driver.process({left: "4 GiB", right: "4 GiB"}, reclaim=Ramp.step("1s"))
    process.reclaim_on(right, Ramp.points([(n / 10, n / 100) for n in range(101)]))
    process.kill()
    clock.go(1)
    assert (left.memory.used, right.memory.used) == (0, 4 * GIB - 4 * GIB // 10)
    report = describe_driver(driver)
    assert "Ramp.step(after='1s') on GPU" in report
    assert max(map(len, report.splitlines())) < 400
    other = driver.process(left, used="1 GiB")
    other.reclaim_on(left, Ramp.never())
    other.kill(reclaim=Ramp.immediate())
    assert left.memory.used == 0


def test_a_co_tenant_leaves_without_a_death(driver: Driver) -> None:
    left, right = driver.add_gpu("t4"), driver.add_gpu("t4")
    process = driver.process({left: "4 GiB", right: "3 GiB"})
    process.leave(left)
    assert (left.memory.used, right.memory.used) == (0, 3 * GIB)
    assert (left.processes, right.processes) == ([], [process])
    process.hold("1 GiB", left)
    assert left.processes == [process]
    process.leave(left)
    process.leave(right)
    assert driver.deaths == []
