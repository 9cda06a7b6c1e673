"""The fixture torch_cuda: against a small stand-in of torch here; with the real one where that is installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest

from fake_gpu import Driver, Ramp
from fake_gpu.units import GIB
from pytest_vramsettle.clock import VirtualClock
from pytest_vramsettle.torch_cuda import SERVED, TorchCuda, visible


def refuse(*arguments: object) -> None:
    raise RuntimeError("Torch not compiled with CUDA enabled")


@pytest.fixture(autouse=True)
def torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module of that name whose functions refuse, as those of a torch without CUDA do."""
    stand_in = ModuleType("torch")
    stand_in.cuda = SimpleNamespace(**dict.fromkeys(SERVED, refuse))  # type: ignore[attr-defined]
    stand_in.cuda.memory = SimpleNamespace(mem_get_info=refuse)
    stand_in.cuda._exchange_device = stand_in.cuda._maybe_exchange_device = refuse
    monkeypatch.setitem(sys.modules, "torch", stand_in)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield stand_in
    assert {getattr(stand_in.cuda, name) for name in SERVED} == {refuse}
    assert stand_in.cuda.memory.mem_get_info is refuse
    assert {stand_in.cuda._exchange_device, stand_in.cuda._maybe_exchange_device} == {refuse}


def test_a_card_in_cudas_terms(torch_cuda: TorchCuda, fake_driver: Driver, torch: ModuleType) -> None:
    card, _ = fake_driver.add_gpu("h200"), fake_driver.add_gpu("t4")
    fake_driver.process(card, used="20 GiB")
    assert torch.cuda.is_available()
    assert torch.cuda.device_count() == 2
    memory = card.memory
    assert torch.cuda.mem_get_info() == (memory.free, memory.total - memory.reserved)
    assert memory.free == memory.total - memory.reserved - 20 * GIB
    assert torch.cuda.memory.mem_get_info(0) == torch.cuda.mem_get_info("cuda:0")
    properties = torch.cuda.get_device_properties(0)
    assert (properties.name, properties.major, properties.minor) == ("NVIDIA H200", 9, 0)
    assert (properties.total_memory, properties.multi_processor_count) == (memory.total - memory.reserved, 132)
    assert torch.cuda.get_device_properties("cuda:1").multi_processor_count == 40
    assert torch.cuda.get_device_name(1) == "Tesla T4"
    assert torch.cuda.get_device_capability(SimpleNamespace(type="cuda", index=1)) == (7, 5)
    torch.cuda.set_device(1)
    assert torch.cuda.current_device() == 1
    assert torch.cuda.mem_get_info() == torch.cuda.mem_get_info(1)


def test_memory_comes_back_on_the_clock(
    torch_cuda: TorchCuda, fake_driver: Driver, monotonic_clock: VirtualClock, torch: ModuleType
) -> None:
    card = fake_driver.add_gpu("rtx-4090")
    process = fake_driver.process(card, used="16 GiB", reclaim=Ramp.linear("2s"))
    free = torch.cuda.mem_get_info()[0]
    process.kill()
    assert torch.cuda.mem_get_info()[0] == free
    monotonic_clock.advance(1.0)
    assert torch.cuda.mem_get_info()[0] == free + 8 * GIB


def test_what_is_not_there(torch_cuda: TorchCuda, fake_driver: Driver, torch: ModuleType) -> None:
    card = fake_driver.add_gpu("t4")
    for device, error in ((1, RuntimeError), ("cpu", ValueError), (True, ValueError), ("cuda:x", ValueError)):
        with pytest.raises(error):
            torch.cuda.mem_get_info(device)
    card.lose()
    with pytest.raises(RuntimeError, match="does not answer"):
        torch.cuda.mem_get_info()
    card.restore()
    assert torch.cuda.mem_get_info()[0] == card.memory.free


def test_the_current_device_for_a_while(torch_cuda: TorchCuda, fake_driver: Driver, torch: ModuleType) -> None:
    """As torch's own context manager does it, `with torch.cuda.device(1):`."""
    fake_driver.add_gpu("h200"), fake_driver.add_gpu("t4")
    before = torch.cuda._exchange_device(1)
    assert (before, torch.cuda.get_device_name()) == (0, "Tesla T4")
    assert torch.cuda._exchange_device(-1) == -1
    torch.cuda.synchronize()
    torch.cuda.ipc_collect()
    assert torch.cuda._maybe_exchange_device(before) == 1
    assert torch.cuda.current_device() == 0
    with pytest.raises(RuntimeError, match="invalid device ordinal: 2"):
        torch.cuda._exchange_device(2)
    with pytest.raises(AssertionError, match="Invalid device id"):
        torch.cuda.get_device_name(2)


def test_without_gpus(torch_cuda: TorchCuda, torch: ModuleType) -> None:
    assert not torch.cuda.is_available()
    assert torch.cuda.device_count() == 0
    with pytest.raises(RuntimeError, match="No CUDA GPUs are available"):
        torch.cuda.mem_get_info()


@pytest.mark.parametrize(
    ("setting", "seen"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("2,0", [2, 0]),
        (" 1 , 7, 0", [1]),
        ("1,1", []),
        ("GPU-2", [2]),
        ("GPU-", []),
        ("0,GPU-1", [0, 1]),
    ],
)
def test_visible_devices(setting: str | None, seen: list[int]) -> None:
    driver = Driver()
    gpus = tuple(driver.add_gpu("t4", uuid=f"GPU-{number}") for number in range(3))
    assert [gpus.index(gpu) for gpu in visible(gpus, setting)] == seen


def test_devices_are_counted_once(torch_cuda: TorchCuda, fake_driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fake_driver.add_gpu("t4")
    fake_driver.add_gpu("h200")
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "1")
    assert torch_cuda.get_device_name() == "NVIDIA H200"
    first.remove()
    assert (torch_cuda.device_count(), torch_cuda.get_device_name(0)) == (1, "NVIDIA H200")
