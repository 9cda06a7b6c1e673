"""The same test bodies on the fake and on real hardware: what is asserted of one has to hold for the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pynvml
import pytest
from native_client import free_seen_by_child, nvidia_smi

from fake_gpu import Driver
from pytest_vramsettle.probes import NvidiaSmiProbe, NvmlProbe, ProbeBudget
from pytest_vramsettle.settle import wait_for_vram_settle

MIB = 2**20


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.real_gpu)])
def machine(request: pytest.FixtureRequest) -> Iterator[str]:
    with Driver() if request.param == "fake" else nullcontext() as driver:
        if driver is not None:
            driver.process(driver.add_gpu("h200"), used="70 GiB")
            driver.spawn(driver.add_gpu("l40s"), used="12 GiB")
        yield request.param


def test_memory_adds_up_and_version_one_counts_reserved_as_used(machine: str) -> None:
    pynvml.nvmlInit()
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            second = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
            first = pynvml.nvmlDeviceGetMemoryInfo(handle)
            assert second.total == second.reserved + second.used + second.free
            assert first.total == first.used + first.free == second.total
            assert first.used >= second.reserved
            assert pynvml.nvmlDeviceGetIndex(handle) == index
    finally:
        pynvml.nvmlShutdown()


def test_every_probe_reads_the_same_cards_and_nearly_the_same_memory(machine: str) -> None:
    budget = ProbeBudget.lasting(10 * 10**9)
    by_smi, by_nvml = (probe.read(budget, holders=True) for probe in (NvidiaSmiProbe(), NvmlProbe()))
    assert [gpu.key for gpu in by_smi.gpus] == [gpu.key for gpu in by_nvml.gpus]
    for one, other in zip(by_smi.gpus, by_nvml.gpus, strict=True):
        assert one.free is not None
        assert other.free is not None
        assert abs(one.free - other.free) < 64 * MIB
    assert len(free_seen_by_child()) == len(by_nvml.gpus)


def test_a_query_has_a_line_for_each_card(machine: str) -> None:
    listed = nvidia_smi("-L").stdout.splitlines()
    rows = nvidia_smi("--query-gpu=index,uuid,memory.total,memory.free", "--format=csv,noheader,nounits").stdout
    assert len(listed) == len(rows.splitlines()) > 0
    for line, row in zip(listed, rows.splitlines(), strict=True):
        index, uuid, total, free = row.split(", ")
        assert line.startswith(f"GPU {index}: ")
        assert line.endswith(f"(UUID: {uuid})")
        assert int(total) >= int(free)


def test_without_a_kill_the_wait_does_not_probe(machine: str) -> None:
    assert wait_for_vram_settle(since_kill=0.0).outcome == "no_recent_kill"
