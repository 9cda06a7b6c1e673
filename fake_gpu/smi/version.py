"""`--version`: four lines."""

from __future__ import annotations

from fake_gpu.smi.run import Output, Run


def render(run: Run) -> Output:
    """The executable's, NVML's, the driver's and CUDA's version. NVML's has two parts."""
    version = run.driver_version
    cuda = "{}.{}".format(*run.driver.cuda_version)
    return Output(
        f"NVIDIA-SMI version  : {version}\n"
        f"NVML version        : {'.'.join(version.split('.')[:2])}\n"
        f"DRIVER version      : {version}\n"
        f"CUDA Version        : {cuda}\n"
    )
