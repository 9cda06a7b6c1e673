"""The table that nvidia-smi prints without arguments."""

from __future__ import annotations

import time

import msgspec
import pytest
from native_client import nvidia_smi

from fake_gpu import Driver, Gpu
from fake_gpu.profile import load_profile

WIDTH = 91

EXPECTED = """\
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 590.48.01              Driver Version: 590.48.01      CUDA Version: 13.1     |
+-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
|                                         |                        |               MIG M. |
|=========================================+========================+======================|
|   0  NVIDIA H200                    On  |   00000000:01:00.0 Off |                    0 |
| N/A   28C    P0             77W /  700W |       0MiB / 143771MiB |      0%      Default |
|                                         |                        |             Disabled |
+-----------------------------------------+------------------------+----------------------+
|   1  NVIDIA GeForce RTX 4090        Off |   00000000:02:00.0 Off |                  Off |
|  0%   36C    P8             21W /  450W |   20490MiB /  24564MiB |      0%      Default |
|                                         |                        |                  N/A |
+-----------------------------------------+------------------------+----------------------+

+-----------------------------------------------------------------------------------------+
| Processes:                                                                              |
|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |
|        ID   ID                                                               Usage      |
|=========================================================================================|
|    1   N/A  N/A            1234      G   /usr/lib/xorg/Xorg                       10MiB |
|    1   N/A  N/A         4200000    C+G   ...exec/xdg-desktop-portal-gnome      20480MiB |
+-----------------------------------------------------------------------------------------+
"""


def rows(gpu: Gpu) -> list[str]:
    """The three lines of a GPU."""
    lines = nvidia_smi("-i", str(gpu.index)).stdout.splitlines()
    assert {len(line) for line in lines[1:] if line} == {WIDTH}
    return lines[8:11]


def test_two_cards() -> None:
    with Driver() as driver:
        driver.add_gpu("h200")
        gpu = driver.add_gpu("rtx-4090")
        driver.process(gpu, "20 GiB", pid=4_200_000, name="/usr/libexec/xdg-desktop-portal-gnome", compute_type="C+G")
        driver.process(gpu, "10 MiB", pid=1234, name="/usr/lib/xorg/Xorg", compute_type="G")
        moment = time.mktime((2026, 7, 3, 22, 10, 45, 0, 0, -1))
        driver.wall_time = lambda: moment  # type: ignore[method-assign]
        first, rest = nvidia_smi().stdout.split("\n", 1)
        assert first == "Fri Jul  3 22:10:45 2026       "
        assert rest == EXPECTED
        alone = nvidia_smi("-i", "0").stdout
    assert "No running processes found" in alone
    assert "RTX 4090" not in alone


def test_names_are_cut_at_27_characters() -> None:
    with Driver() as driver:
        fits = driver.add_gpu("rtx-4090", name="NVIDIA GeForce RTX 3080 Ti.")
        cut = driver.add_gpu("rtx-4090", name="NVIDIA GeForce RTX 2080 SUPER")
        assert rows(fits)[0].startswith("|   0  NVIDIA GeForce RTX 3080 Ti.    Off |")
        assert rows(cut)[0].startswith("|   1  NVIDIA GeForce RTX 2080 ...    Off |")


def test_a_card_at_work() -> None:
    with Driver() as driver:
        gpu = driver.add_gpu("rtx-4090")
        activity = gpu.activity
        activity.fan_percent, activity.temperature, activity.power = 100, 83, 449.99
        activity.pstate, activity.gpu_percent = 12, 100
        assert rows(gpu)[1] == (
            "|100%   83C    P12           449W /  450W |       0MiB /  24564MiB |    100%      Default |"
        )


@pytest.mark.parametrize(("ecc", "shown"), [(None, "N/A"), (False, "Off"), (True, "0")])
def test_ecc(ecc: bool | None, shown: str) -> None:
    with Driver() as driver:
        gpu = driver.add_gpu(msgspec.structs.replace(load_profile("rtx-4090"), ecc=ecc, display=True))
        assert rows(gpu)[0].endswith(f"|   00000000:01:00.0  On |{shown:>21} |")
