"""`nvidia-smi -q`, as text and as XML, through the real executable."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from native_client import nvidia_smi

from fake_gpu import Driver, Fault, Ramp


@pytest.fixture
def cards(driver: Driver) -> Driver:
    """An H200, and an RTX 4090 with 3 GiB in use."""
    driver.add_gpu("h200")
    driver.process(driver.add_gpu("rtx-4090"), "3 GiB", name="a <b> & c", pid=4_200_000)
    return driver


def log(*arguments: str) -> str:
    done = nvidia_smi("-q", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def value(text: str, *labels: str) -> str:
    """What stands behind the last label, below the others, in the first place where they are."""
    pattern = ".*?".join(rf"^ *{re.escape(label)} *(?::|$)" for label in labels)
    found = re.search(rf"{pattern} (.*?)$", text, re.MULTILINE | re.DOTALL)
    assert found is not None, labels
    return found[1]


def test_text(cards: Driver) -> None:
    text = log("-i", "1")
    assert text.startswith("\n==============NVSMI LOG==============\n\nTimestamp  ")
    assert value(text, "Attached GPUs") == "2"
    name = f"{'    Product Name':<55}: NVIDIA GeForce RTX 4090"
    assert f"\nGPU 00000000:02:00.0\n{name}\n" in text
    assert value(text, "FB Memory Usage", "Used") == "3072 MiB"
    assert value(text, "Process ID") == "4200000"
    assert value(text, "Used GPU Memory") == "3072 MiB"
    assert value(log("-i", "0"), "Processes") == "None"


def test_memory_that_comes_back_shows(cards: Driver) -> None:
    cards.gpus[1].processes[0].kill(reclaim=Ramp.never())
    text = log("-i", "1")
    assert value(text, "FB Memory Usage", "Used") == "3072 MiB"
    assert value(text, "Processes") == "None"


def test_xml_is_the_same_tree(cards: Driver) -> None:
    root = ElementTree.fromstring(log("-x"))
    assert [gpu.get("id") for gpu in root.findall("gpu")] == ["00000000:01:00.0", "00000000:02:00.0"]
    gpu = root.findall("gpu")[1]
    assert gpu.findtext("fb_memory_usage/used") == "3072 MiB"
    assert gpu.findtext("pci/pci_device_id") == "268410DE"
    assert gpu.findtext("processes/process_info/process_name") == "a <b> & c"
    assert root.findtext("gpu/temperature/gpu_temp_tlimit") == "59 C"
    assert log("-x").splitlines()[1] == '<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v13.dtd">'


def test_labels_depend_on_the_card(cards: Driver) -> None:
    hopper, ada = log("-i", "0"), log("-i", "1")
    assert value(hopper, "GPU Shutdown T.Limit Temp") == "-8 C"
    assert value(ada, "GPU Shutdown Temp").endswith(" C")
    assert value(hopper, "Bank Remap Availability Histogram", "Max") == "3072 bank(s)"
    assert value(ada, "Remapped Rows") == "N/A"


def test_activity_shows(cards: Driver) -> None:
    activity = cards.gpus[1].activity
    activity.gpu_percent, activity.clocks_mhz["sm"] = 88, 1234
    activity.said["clocks_event_reasons.sw_power_cap"] = "Active"
    text = log("-i", "1")
    assert value(text, "Utilization", "GPU") == "88 %"
    assert value(text, "Clocks", "SM") == "1234 MHz"
    assert value(text, "SW Power Cap") == "Active"


def test_sections(cards: Driver) -> None:
    text = log("-d", "memory,UTILIZATION", "-i", "1")
    labels = re.findall(r"^    (\S.*?)$", text, re.MULTILINE)
    assert labels == [
        "FB Memory Usage",
        "BAR1 Memory Usage",
        "Conf Compute Protected Memory Usage",
        "Utilization",
        "GPU Utilization Samples",
        "Memory Utilization Samples",
        "ENC Utilization Samples",
        "DEC Utilization Samples",
    ]
    assert value(log("-d", "SUPPORTED_CLOCKS", "-i", "0"), "Supported Clocks", "Memory") == "3201 MHz"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-q", "-x", "-d", "MEMORY"), "Invalid combination of input arguments"),
        (("-x",), "Invalid combination of input arguments"),
        (("-q", "-d", "NONSENSE"), "ERROR: Option --display=NONSENSE is not valid"),
        (("-q", "-l", "0"), "ERROR: Option -l has an invalid argument 0"),
        (("-q", "-l", "1", "-lms", "1"), "Invalid combination of input arguments"),
        (("-q", "--format=csv"), "Invalid combination of input arguments"),
    ],
)
def test_bad_arguments(cards: Driver, options: tuple[str, ...], said: str) -> None:
    done = nvidia_smi(*options)
    assert done.returncode == 2
    assert done.stdout.startswith(said)


def test_a_lost_gpu_and_a_broken_driver(cards: Driver) -> None:
    cards.gpus[0].lose()
    done = nvidia_smi("-q", "-x")
    said, _, document = done.stdout.partition("\n")
    assert (done.returncode, said.startswith("Unable to determine the device handle for GPU0: ")) == (0, True)
    root = ElementTree.fromstring(document)
    assert (root.findtext("attached_gpus"), len(root.findall("gpu"))) == ("2", 1)
    cards.inject(Fault.nvml("DRIVER_NOT_LOADED"), via="nvidia-smi")
    assert nvidia_smi("-q").returncode == 9


def test_into_a_file(cards: Driver, tmp_path: Path) -> None:
    target = tmp_path / "log.xml"
    done = nvidia_smi("-q", "-x", "-f", str(target))
    assert (done.returncode, done.stdout) == (0, "")
    assert ElementTree.parse(target).getroot().findtext("attached_gpus") == "2"
    done = nvidia_smi("-f", str(tmp_path / "missing" / "log"))
    assert done.returncode == 255
    assert "missing" in done.stdout


def test_older_drivers_cut_mib_and_name_their_own_document(tmp_path: Path) -> None:
    with Driver(driver_version="535.54.03", cuda_version=(12, 2)) as driver:
        driver.process(driver.add_gpu("t4"), 1_500_000)
        text = log("-x")
    assert "nvsmi_device_v12.dtd" in text
    assert ElementTree.fromstring(text).findtext("gpu/fb_memory_usage/used") == "1 MiB"
