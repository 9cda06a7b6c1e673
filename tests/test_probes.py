"""The probes: NVML, with a module that stands in for pynvml; callables; and which one is chosen."""

from __future__ import annotations

import sys
import threading
import time
import types
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from smi_stand_in import MIB, TWO_GPUS, Smi, ask, budget, nothing_is_left, smi

from pytest_vramsettle._interrupts import Interrupts
from pytest_vramsettle.probes import (
    CallableProbe,
    FirstInstalled,
    GpuLost,
    GpuReading,
    NvidiaSmiProbe,
    NvmlProbe,
    ProbeFailed,
    ProbeInterrupted,
    ProbeMissing,
    ProbeTimeout,
    Reading,
    as_probe,
    baseline_probe,
    default_probe,
)
from pytest_vramsettle.settle import wait_for_vram_settle

__all__ = ["nothing_is_left", "smi"]  # fixtures


class NvmlError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"code {value}")
        self.value = value


class NotSupportedError(NvmlError):
    pass


class NoPermissionError(NvmlError):
    pass


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module with what the NVML probe uses of pynvml; two cards."""
    module: Any = types.ModuleType("pynvml")
    module.NVMLError, module.NVMLError_NotSupported, module.NVMLError_NoPermission = (
        NvmlError,
        NotSupportedError,
        NoPermissionError,
    )
    module.initialised = 0

    def count(step: int) -> None:
        module.initialised += step

    def process(pid: int, used: int | None) -> types.SimpleNamespace:
        return types.SimpleNamespace(pid=pid, usedGpuMemory=used)

    module.nvmlInit = lambda: count(1)
    module.nvmlShutdown = lambda: count(-1)
    module.nvmlDeviceGetCount = lambda: 2
    module.nvmlDeviceGetHandleByIndex = lambda index: index
    module.nvmlDeviceGetUUID = lambda handle: f"GPU-{handle}" if handle else b"GPU-0"
    module.nvmlDeviceGetMemoryInfo = lambda handle: types.SimpleNamespace(free=1000 + handle, total=5000)
    module.nvmlDeviceGetComputeRunningProcesses = lambda handle: [
        process(7, 10),
        process(7, 5),
        process(8, None if handle else 1),
    ]
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*args: object) -> Any:
        raise error

    return fail


class TestNvml:
    def test_a_reading(self, nvml: Any) -> None:
        assert ask(NvmlProbe(), holders=True).gpus == (
            GpuReading(0, "GPU-0", 1000, 5000, {7: 15, 8: 1}),
            GpuReading(1, "GPU-1", 1001, 5000, {7: 15, 8: None}),
        )
        assert nvml.initialised == 0

    def test_holders_only_on_request(self, nvml: Any) -> None:
        nvml.nvmlDeviceGetComputeRunningProcesses = failing(AssertionError("asked"))
        assert [gpu.holders for gpu in ask(NvmlProbe()).gpus] == [None, None]

    @pytest.mark.parametrize("error", [NotSupportedError(3), NoPermissionError(4)])
    def test_what_a_card_does_not_tell(self, nvml: Any, error: Exception) -> None:
        nvml.nvmlDeviceGetMemoryInfo = nvml.nvmlDeviceGetComputeRunningProcesses = failing(error)
        assert [(gpu.free, gpu.holders) for gpu in ask(NvmlProbe(), holders=True).gpus] == [(None, None)] * 2

    @pytest.mark.parametrize(("code", "kind"), [(12, ProbeMissing), (15, GpuLost), (9, ProbeFailed)])
    def test_errors(self, nvml: Any, code: int, kind: type[ProbeFailed]) -> None:
        nvml.nvmlInit = failing(NvmlError(code))
        with pytest.raises(ProbeFailed, match=f"code {code}") as caught:
            ask(NvmlProbe())
        assert type(caught.value) is kind

    def test_an_error_half_way_shuts_down(self, nvml: Any) -> None:
        nvml.nvmlDeviceGetUUID = failing(NvmlError(15))
        with pytest.raises(GpuLost):
            ask(NvmlProbe())
        assert nvml.initialised == 0

    def test_without_the_module(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", None)
        with pytest.raises(ProbeMissing, match="nvidia-ml-py"):
            ask(NvmlProbe())

    def test_a_call_that_hangs_is_left_behind_once(self, nvml: Any) -> None:
        release, calls = threading.Event(), []

        def hang() -> None:
            calls.append(1)
            release.wait(20)

        nvml.nvmlInit = hang
        with pytest.raises(ProbeTimeout):
            ask(NvmlProbe(), seconds=0.1)
        started = time.monotonic()
        with pytest.raises(ProbeFailed, match="abandoned"):
            ask(NvmlProbe())
        assert time.monotonic() - started < 8
        assert len(calls) == 1
        release.set()
        while any(thread.name == "vram-probe" for thread in threading.enumerate()):
            time.sleep(0.001)


class TestCallables:
    def test_by_index_and_by_uuid(self) -> None:
        assert ask(CallableProbe(lambda: [(0, 1000), (1, 1.5)])).gpus == (
            GpuReading(0, None, 1000 * MIB),
            GpuReading(1, None, MIB * 3 // 2),
        )
        assert ask(CallableProbe(lambda: iter([("GPU-a", Fraction(1, 2))]))).gpus == (
            GpuReading(None, "GPU-a", MIB // 2),
        )
        assert ask(CallableProbe(lambda: Reading())) == Reading()

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            ([(0, float("nan"))], "nan MiB of free memory for GPU 0"),
            ([(0, float("inf"))], "inf MiB"),
            ([(0, -1)], "-1 MiB"),
            ([(0, "1000")], "'1000' MiB"),
            ([(0, None)], "None MiB"),
            ([(0, 1), (0, 2)], "twice"),
            ([("GPU-a", 1), ("GPU-a", 2)], "twice"),
            ([(-1, 1)], "-1 where a GPU's index"),
            ([(0.5, 1)], "0.5 where a GPU's index"),
            ([5], "5 where a pair"),
            ([(0, 1, 2)], "where a pair"),
        ],
    )
    def test_answers_that_are_none(self, answer: Any, message: str) -> None:
        with pytest.raises(ProbeFailed, match=message):
            ask(CallableProbe(lambda: answer))

    def test_what_it_raises_is_passed_on(self) -> None:
        with pytest.raises(ZeroDivisionError):
            ask(CallableProbe(failing(ZeroDivisionError())))

    def test_an_interrupt_while_it_runs(self) -> None:
        release, interrupts = threading.Event(), Interrupts()
        threading.Timer(0.05, interrupts.supersede).start()
        with pytest.raises(ProbeInterrupted):
            CallableProbe(lambda: [(0, int(release.wait(20)))]).read(budget(interrupts=interrupts), holders=False)
        release.set()

    def test_two_callers_of_one_probe_take_turns(self) -> None:
        class Backend:
            running = most = 0

            def free(self) -> list[tuple[int, int]]:
                self.running += 1
                self.most = max(self.most, self.running)
                time.sleep(0.02)
                self.running -= 1
                return [(0, 1000)]

        backend = Backend()
        answers: list[Reading] = []
        threads = [threading.Thread(target=lambda: answers.append(ask(CallableProbe(backend.free)))) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(answers), backend.most) == (5, 1)

    def test_a_callable_that_cannot_be_hashed(self) -> None:
        class Free:
            __hash__ = None  # type: ignore[assignment]

            def __call__(self) -> list[tuple[int, int]]:
                return [(0, 1000)]

        assert len(ask(CallableProbe(Free())).gpus) == 1


class TestChoice:
    def test_a_probe_a_callable_and_neither(self) -> None:
        probe = NvidiaSmiProbe()
        assert as_probe(probe) is probe
        assert isinstance(as_probe(list), CallableProbe)
        with pytest.raises(TypeError, match="no probe"):
            as_probe("nvidia-smi")  # type: ignore[arg-type]

    def test_a_wait_asks_nvidia_smi_and_a_kill_record_nvml(self, smi: Smi, nvml: Any) -> None:
        smi(TWO_GPUS)
        assert ask(default_probe()).gpus[0].uuid == "GPU-a"
        assert ask(baseline_probe()).gpus[0].uuid == "GPU-0"

    def test_what_is_missing_is_passed_over(self, smi: Smi, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", None)
        with pytest.raises(ProbeMissing, match=r"PATH.*nvidia-ml-py"):
            ask(default_probe())
        smi(TWO_GPUS)
        assert ask(baseline_probe()).gpus[0].uuid == "GPU-a"

    def test_what_fails_has_answered(self, smi: Smi, nvml: Any) -> None:
        smi("exit 9")
        with pytest.raises(ProbeFailed, match="status 9"):
            ask(default_probe())

    def test_names(self) -> None:
        assert repr(FirstInstalled(NvmlProbe())) == "FirstInstalled(NvmlProbe())"
        assert repr(default_probe()) == "FirstInstalled(NvidiaSmiProbe('nvidia-smi'), NvmlProbe())"


@pytest.mark.parametrize(
    ("gpus", "told"),
    [
        ([(99, 24)], "cannot have 99 bytes free out of 24"),
        ([(-1, 24)], "0 or more|not negative"),
        ([(float("nan"), 24)], "whole bytes"),
        ([(1.5, None)], "whole bytes"),
        ([(1, 24), (2, 24)], "twice"),
    ],
)
def test_a_reading_that_cannot_be(gpus, told) -> None:
    with pytest.raises(ValueError, match=told):
        Reading(tuple(GpuReading(0, "GPU-one", free, total) for free, total in gpus))


def test_a_probe_that_answers_no_reading_has_failed() -> None:
    class Wrong:
        def read(self, budget: object, *, holders: bool) -> object:
            return "much"

    result = wait_for_vram_settle(since_kill=time.monotonic(), max_wait=0.05, probe=Wrong())
    assert result.outcome == "timed_out"
    assert "'much', which is no Reading" in str(result.failures[0])
