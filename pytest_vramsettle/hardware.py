"""Whether this machine has a real NVIDIA GPU."""

from __future__ import annotations

import os


def why_not_real_gpu() -> str:
    """The reason for which tests on real hardware cannot run here; empty where they can."""
    if not os.path.exists("/proc/driver/nvidia/version") and not os.path.exists("/dev/nvidiactl"):
        return "needs a real NVIDIA GPU: no NVIDIA kernel driver is loaded"
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"needs a real NVIDIA GPU: NVML says {error}"
    try:
        count = pynvml.nvmlDeviceGetCount()
    finally:
        pynvml.nvmlShutdown()
    return "" if count else "needs a real NVIDIA GPU: NVML counts none"
