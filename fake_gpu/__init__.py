"""A fake NVIDIA driver that unmodified programs talk to: real libnvidia-ml.so.1, real nvidia-smi, scripted memory."""

from fake_gpu.activity import Activity
from fake_gpu.calls import Call
from fake_gpu.clock import Clock, RealClock
from fake_gpu.driver import Driver
from fake_gpu.errors import DriverStateError, FakeGpuError, InvalidValue, NativesMissing
from fake_gpu.fault import Fault
from fake_gpu.gpu import Gpu, Memory, Presence
from fake_gpu.nvml.inprocess import RealDriverInUse
from fake_gpu.process import Death, Process
from fake_gpu.ramp import Ramp

__all__ = [
    "Activity",
    "Call",
    "Clock",
    "Death",
    "Driver",
    "DriverStateError",
    "FakeGpuError",
    "Fault",
    "Gpu",
    "InvalidValue",
    "Memory",
    "NativesMissing",
    "Presence",
    "Process",
    "Ramp",
    "RealClock",
    "RealDriverInUse",
]
