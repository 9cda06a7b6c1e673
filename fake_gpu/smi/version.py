"""`--version`: four lines."""

from __future__ import annotations

from fake_gpu.smi.run import Output, Run, library_version


def render(run: Run) -> Output:
    """The executable's, NVML's, the driver's and CUDA's version."""
    version = run.driver_version
    return Output(
        f"NVIDIA-SMI version  : {version}\n"
        f"NVML version        : {library_version(version)}\n"
        f"DRIVER version      : {version}\n"
        f"CUDA Version        : {run.cuda_version}\n"
    )
