"""What nvidia-smi's text looks like by the driver's version, and outputs of older drivers read back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fake_gpu import Driver, platforms
from fake_gpu.capture import read_machine
from fake_gpu.capture.compare import compared
from fake_gpu.smi.answer import answer

RULE = "#" * 80

TABLE_535 = """\
Wed Mar  6 09:10:11 2024       $
+---------------------------------------------------------------------------------------+
| NVIDIA-SMI 535.161.08             Driver Version: 535.161.08   CUDA Version: 12.2     |
|-----------------------------------------+----------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id        Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |         Memory-Usage | GPU-Util  Compute M. |
|                                         |                      |               MIG M. |
|=========================================+======================+======================|
|   0  NVIDIA GeForce RTX 4090        Off | 00000000:01:00.0 Off |                  Off |
| 31%   52C    P2             123W / 450W |   3000MiB / 24564MiB |     64%      Default |
|                                         |                      |                  N/A |
+-----------------------------------------+----------------------+----------------------+
                                                                                         $
+---------------------------------------------------------------------------------------+
| Processes:                                                                            |
|  GPU   GI   CI        PID   Type   Process name                            GPU Memory |
|        ID   ID                                                             Usage      |
|=======================================================================================|
|    0   N/A  N/A      4321      C   ...opt/an/invented/place/of/bin/worker     2900MiB |
+---------------------------------------------------------------------------------------+
""".replace("$", "")  # which keeps the blanks before it

TABLE_525 = """\
Wed Mar  6 09:10:11 2024       $
+-----------------------------------------------------------------------------+
| NVIDIA-SMI 525.147.05   Driver Version: 525.147.05   CUDA Version: 12.0     |
|-------------------------------+----------------------+----------------------+
| GPU  Name        Persistence-M| Bus-Id        Disp.A | Volatile Uncorr. ECC |
| Fan  Temp  Perf  Pwr:Usage/Cap|         Memory-Usage | GPU-Util  Compute M. |
|                               |                      |               MIG M. |
|===============================+======================+======================|
|   0  NVIDIA GeForce ...  Off  | 00000000:01:00.0 Off |                  Off |
| 31%   52C    P2   123W / 450W |   3000MiB / 24564MiB |     64%      Default |
|                               |                      |                  N/A |
+-------------------------------+----------------------+----------------------+
                                                                               $
+-----------------------------------------------------------------------------+
| Processes:                                                                  |
|  GPU   GI   CI        PID   Type   Process name                  GPU Memory |
|        ID   ID                                                   Usage      |
|=============================================================================|
|    0   N/A  N/A      4321      C   ...ted/place/of/bin/worker       2900MiB |
+-----------------------------------------------------------------------------+
""".replace("$", "")
NAME = "/opt/an/invented/place/of/bin/worker"


def log_of(version: str, cuda: str, column: int) -> str:
    """A text of -q with the colon where it is asked for, whatever this fake would do with that version."""
    with Driver() as driver:
        gpu = driver.add_gpu("rtx-4090")
        driver.process(gpu, "2900 MiB", pid=4321, name=f"/home/{NAME}")
        gpu.activity.temperature, gpu.activity.fan_percent, gpu.activity.gpu_percent = 52, 31, 64
        text = answer(driver, "-q").text
    listed = re.compile(r"(?<=^    Processes\n)(?: {8}.*\n)+", re.MULTILINE)
    (processes,) = listed.findall(text)  # there it is at 42 in every driver
    moved = re.sub(r"^( *\S.*?) *: ", lambda found: f"{found[1]:<{column}}: ", text, flags=re.MULTILINE)
    moved = listed.sub(lambda _: processes, moved)
    return moved.replace("590.48.01", version).replace(": 13.1\n", f": {cuda}\n")


def capture_of(version: str, cuda: str, table: str, path: Path) -> Path:
    log = log_of(version, cuda, 42)
    parts = ((log, " -q"), (table, ""))
    path.write_text("".join(f"{RULE}\n# load :: it\n# $ nvidia-smi{how}\n{RULE}\n{text}\n\n" for text, how in parts))
    return path


@pytest.mark.parametrize(
    ("version", "cuda", "table"),
    [
        ("535.161.08", "12.2", TABLE_535),
        ("525.147.05", "12.0", TABLE_525),
    ],
)
def test_an_older_drivers_output_comes_out_again(version: str, cuda: str, table: str, tmp_path: Path) -> None:
    machine = read_machine(capture_of(version, cuda, table, tmp_path / "capture.txt"))
    log, shown = compared(machine)
    assert (log.different, log.share) == ((), 1.0)
    assert (shown.different, shown.share) == ((), 1.0)


@pytest.mark.parametrize(("version", "column"), [("535.161.08", 42), ("580.105.08", 42), ("590.48.01", 55)])
def test_the_colon_follows_the_version(version: str, column: int) -> None:
    driver = Driver(driver_version=version)
    driver.add_gpu("h200")
    lines = answer(driver, "-q").text.splitlines()
    assert {line.index(": ") for line in lines if line.startswith(("    Product", "Driver V", "Attached"))} == {column}
    assert answer(driver, "-a").text.splitlines()[4:] == lines[4:]


def test_the_colon_of_an_output_that_was_read_counts(tmp_path: Path) -> None:
    output = tmp_path / "log.txt"
    output.write_text(log_of("585.01", "13.0", 48))
    machine = read_machine(output)
    (log,) = compared(machine)
    assert log.different == ()
    assert f"{'Driver Version':<48}: 585.01\n" in answer(machine.driver(), "-q").text


def test_a_quotation_without_its_blanks_has_the_versions_column(tmp_path: Path) -> None:
    output = tmp_path / "log.txt"
    output.write_text(re.sub(r" +: ", ": ", log_of("535.161.08", "12.2", 42)))
    assert f"{'Driver Version':<42}: 535.161.08\n" in answer(read_machine(output).driver(), "-q").text


@pytest.mark.parametrize(
    "version", ["470.57.02", "530.30.02", "535.161.08", "550.54.14", "570.124.04", "590.48.01", "610.57.04"]
)
@pytest.mark.parametrize("windows", [False, True])
def test_every_line_is_as_long_as_the_frame(version: str, windows: bool) -> None:
    driver = Driver(driver_version=version)
    card, empty = driver.add_gpu("rtx-4090"), Driver(driver_version=version)
    if not windows:
        platforms.partition(driver.add_gpu("h200"), "1g.18gb")
    driver.process(card, "1 GiB", name="x" * 60)
    empty.add_gpu("t4")
    if windows:
        platforms.wddm(driver)
    for one in (driver, empty):
        lines = answer(one).text.splitlines()[1:]
        # A frame before 550 has no room for a total of six digits.
        wide = {len(line) for line in lines if line.strip() and "143771MiB" not in line}
        assert len(wide) == 1
        assert {line[-1] for line in lines if line.strip()} == {"+", "|"}


def test_the_words_of_610() -> None:
    driver = Driver(driver_version="610.57.04", cuda_version=(13, 3))
    driver.add_gpu("h200")
    assert (
        "| NVIDIA-SMI 610.57.04              KMD Version: 610.57.04     CUDA UMD Version: 13.3     |\n"
        in answer(driver).text
    )
    head = [re.split(" +: ", line) for line in answer(driver, "-q").text.splitlines()[4:8]]
    note = "[Deprecated; will be removed in CUDA 14.0. Use {} Version instead]"
    assert head == [
        ["Driver Version", f"610.57.04 {note.format('KMD')}"],
        ["CUDA Version", f"13.3 {note.format('CUDA UMD')}"],
        ["KMD Version", "610.57.04"],
        ["CUDA UMD Version", "13.3"],
    ]
    assert 'DRIVER version      : Deprecated, see "KMD version" instead\n' in answer(driver, "--version").text


def test_610_is_read_back(tmp_path: Path) -> None:
    driver = Driver(driver_version="610.57.04", cuda_version=(13, 3))
    driver.add_gpu("h200")
    output = tmp_path / "log.txt"
    output.write_text(answer(driver, "-q").text)
    machine = read_machine(output)
    assert (machine.driver_version, machine.cuda_version) == ("610.57.04", (13, 3))
    (log,) = compared(machine)
    assert log.different == ()
