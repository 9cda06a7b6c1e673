"""The examples of the README and of the documentation, as a user would write them. They run as written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fake_gpu import Ramp
from pytest_vramsettle.demo.backend import Backend

if TYPE_CHECKING:
    from fake_gpu import Driver
    from pytest_vramsettle.clock import VirtualClock
    from pytest_vramsettle.fixtures import Settle


def test_reload_sees_the_memory_come_back(fake_driver: Driver, monotonic_clock: VirtualClock, settle: Settle) -> None:
    gpu = fake_driver.add_gpu("rtx-4090")
    server = fake_driver.process(gpu, used="20 GiB")
    server.kill(reclaim=Ramp.linear("600ms", after="150ms"))  # the PID is gone now; its memory is not

    result = settle()  # the real wait, over the real nvidia-smi

    assert result.outcome == "settled"
    assert result.missing_mib == 0
    assert 0.75 <= monotonic_clock.elapsed < 1.5  # virtual seconds; the test takes milliseconds


def test_a_gpu_that_falls_off_the_bus(fake_driver: Driver, monotonic_clock: VirtualClock, settle: Settle) -> None:
    left, right = fake_driver.add_gpu("l40s"), fake_driver.add_gpu("l40s")
    fake_driver.process(left, used="30 GiB").kill(reclaim=Ramp.linear("2s"))
    fake_driver.at("300ms", right.remove)
    assert settle().outcome == "gpu_set_changed"


@pytest.mark.parametrize(
    "ramp",
    [
        Ramp.immediate(),
        Ramp.step(after="400ms"),
        Ramp.linear("600ms", after="150ms"),
        Ramp.exponential(half_life="120ms"),
        Ramp.points([(0.0, 0.0), (0.2, 0.3), (1.4, 0.3), (1.6, 1.0)]),
    ],
)
def test_every_ramp_settles_with_nothing_missing(
    fake_driver: Driver, monotonic_clock: VirtualClock, settle: Settle, ramp: Ramp
) -> None:
    gpu = fake_driver.add_gpu("rtx-4090")
    fake_driver.process(gpu, used="20 GiB").kill(reclaim=ramp)
    result = settle()
    assert result.outcome in ("settled", "already_released")
    assert result.missing_mib <= 256
    assert gpu.memory.used <= 256 * 2**20


def test_a_ramp_that_never_ends_times_out(fake_driver: Driver, monotonic_clock: VirtualClock, settle: Settle) -> None:
    gpu = fake_driver.add_gpu("rtx-4090")
    fake_driver.process(gpu, used="20 GiB").kill(reclaim=Ramp.never())
    result = settle(max_wait=4.0)
    assert result.outcome == "timed_out"
    assert result.missing_mib == 20 * 1024
    assert monotonic_clock.elapsed == 4.0


def test_apply_reload_keeps_the_model_on_the_gpu(fake_driver: Driver, monotonic_clock: VirtualClock) -> None:
    fake_driver.add_gpu("rtx-4090")
    backend = Backend(server_command=fake_driver.llama_server(weights="18 GiB"))
    backend.load("a.gguf")
    backend.load("a.gguf", context=32768)  # kills for real, waits, spawns again
    assert backend.placement == "all layers on the GPU"
    assert [call.via for call in fake_driver.calls].count("nvidia-smi") >= 3
