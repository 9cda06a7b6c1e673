"""--query-gpu, --query-compute-apps and -L through the real executable: layouts, selection, refusals, the log."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from native_client import nvidia_smi

from fake_gpu import Driver, Ramp
from fake_gpu.nvml.dispatch import BadRequest
from fake_gpu.smi.execution import execute

LOST = "Unable to determine the device handle for {}: GPU is lost.  Reboot the system to recover this GPU\n"
FREE = ("--query-gpu=index,memory.free,memory.total", "--format=csv,noheader,nounits")


@pytest.fixture
def driver() -> Iterator[Driver]:
    """Two cards: an H200 that is idle, and an RTX 4090 with 20 GiB in use."""
    with Driver() as driver:
        driver.add_gpu("h200", uuid="GPU-11111111-2222-3333-4444-555555555555")
        gpu = driver.add_gpu("rtx-4090", uuid="GPU-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee")
        driver.process(gpu, "20 GiB", pid=4_200_000)
        yield driver


def query(fields: str, *options: str, form: str = "csv,noheader") -> list[str]:
    done = nvidia_smi(f"--query-gpu={fields}", f"--format={form}", *options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_header_units_and_separator(driver: Driver) -> None:
    fields = "index,memory.used,utilization.gpu,power.draw,clocks.sm,temperature.gpu,fan.speed"
    assert query(fields, form="csv") == [
        "index, memory.used [MiB], utilization.gpu [%], power.draw [W], clocks.current.sm [MHz], temperature.gpu, "
        "fan.speed [%]",
        "0, 0 MiB, 0 %, 77.71 W, 345 MHz, 28, [N/A]",
        "1, 20480 MiB, 0 %, 21.50 W, 210 MHz, 36, 0 %",
    ]
    assert query(fields, form="nounits,csv") == [
        "index, memory.used [MiB], utilization.gpu [%], power.draw [W], clocks.current.sm [MHz], temperature.gpu, "
        "fan.speed [%]",
        "0, 0, 0, 77.71, 345, 28, [N/A]",
        "1, 20480, 0, 21.50, 210, 36, 0",
    ]


def test_memory_of_an_h200_is_rounded_up_like_a_real_one(driver: Driver) -> None:
    fields = "memory.total,memory.reserved,memory.used,memory.free"
    assert query(fields, "-i", "0") == ["143771 MiB, 614 MiB, 0 MiB, 143158 MiB"]


def test_identity(driver: Driver) -> None:
    fields = "name,gpu_name,uuid,gpu_uuid,pci.bus_id,gpu_bus_id,pci.bus,pci.device_id,driver_version,count,serial"
    assert query(fields, "-i", "1") == [
        "NVIDIA GeForce RTX 4090, NVIDIA GeForce RTX 4090, GPU-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee, "
        "GPU-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee, 00000000:02:00.0, 00000000:02:00.0, 0x02, 0x268410DE, 590.48.01, 2, "
        "[N/A]"
    ]


def test_what_a_card_does_not_have(driver: Driver) -> None:
    fields = "ecc.mode.current,mig.mode.current,temperature.memory,clocks.applications.graphics,display_mode"
    assert query(fields, form="csv,noheader,nounits") == [
        "Enabled, Disabled, 32, [Requested functionality has been deprecated], "
        "[Requested functionality has been deprecated]",
        "Disabled, [N/A], N/A, [Requested functionality has been deprecated], "
        "[Requested functionality has been deprecated]",
    ]


def test_activity_shows(driver: Driver) -> None:
    activity = driver.gpus[1].activity
    activity.gpu_percent, activity.power, activity.pstate, activity.busy = 97, 431.456, 2, True
    fields = "utilization.gpu,power.draw,pstate,clocks.gr,pcie.link.gen.current,clocks_throttle_reasons.active"
    assert query(fields, "-i", "1") == ["97 %, 431.46 W, P2, 3120 MHz, 4, 0x0000000000000000"]


def test_the_timestamp(driver: Driver) -> None:
    driver.wall_time = lambda: 1_783_116_646.1095  # type: ignore[method-assign]
    local = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(1_783_116_646))
    assert query("timestamp", "--id=0") == [f"{local}.109"]


def test_a_killed_process_leaves_the_list_before_its_memory_comes_back(driver: Driver) -> None:
    apps = ("--query-compute-apps=pid,name,used_memory,gpu_uuid", "--format=csv")
    assert nvidia_smi(*apps).stdout == (
        "pid, process_name, used_gpu_memory [MiB], gpu_uuid\n"
        "4200000, llama-server, 20480 MiB, GPU-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee\n"
    )
    driver.gpus[1].processes[0].kill(reclaim=Ramp.never())
    assert nvidia_smi(*apps).stdout == "pid, process_name, used_gpu_memory [MiB], gpu_uuid\n"
    assert query("memory.used", "-i", "1") == ["20480 MiB"]


def test_graphics_processes_are_no_compute_apps(driver: Driver) -> None:
    driver.process(driver.gpus[0], "100 MiB", name="Xorg", compute_type="G")
    driver.process(driver.gpus[0], "3 MiB", name="kwin", compute_type="C+G", pid=4_200_001)
    done = nvidia_smi("--query-compute-apps=name,used_memory", "--format=csv,noheader,nounits", "-i", "0")
    assert done.stdout == "kwin, 3\n"


def test_list_gpus(driver: Driver) -> None:
    assert (
        nvidia_smi("-L").stdout
        == nvidia_smi("--list-gpus").stdout
        == (
            "GPU 0: NVIDIA H200 (UUID: GPU-11111111-2222-3333-4444-555555555555)\n"
            "GPU 1: NVIDIA GeForce RTX 4090 (UUID: GPU-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee)\n"
        )
    )


@pytest.mark.parametrize(
    "options",
    [
        ("-i", "1"),
        ("-i=1",),
        ("--id=1",),
        ("--id", "1"),
        ("-i", "GPU-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"),
        ("-i", "00000000:02:00.0"),
        ("-i", "0000:02:00.0"),
        ("-i", "2:0"),
        ("-i", "02:00.0"),
    ],
)
def test_one_gpu_by_any_of_its_names(driver: Driver, options: tuple[str, ...]) -> None:
    assert query("index", *options) == ["1"]


def test_several_gpus_come_in_the_order_of_their_indices(driver: Driver) -> None:
    assert query("index", "-i", "1,0") == query("index", "-i", "0, 1") == ["0", "1"]
    driver.renumber([1, 0])
    assert query("index,name", "-i", "0") == ["0, NVIDIA GeForce RTX 4090"]


def test_the_serial_number_selects_too(driver: Driver) -> None:
    serial = driver.gpus[0].serial
    assert serial is not None
    assert query("index", "-i", serial) == ["0"]


def test_options_in_any_order_and_with_or_without_equals_signs(driver: Driver) -> None:
    expected = query("index,name")
    for command in (
        ("--format=csv,noheader", "--query-gpu=index,name"),
        ("--query-gpu", "index,name", "--format", "noheader,csv"),
        ("--format", "csv, noheader", "--query-gpu=index, name"),
    ):
        assert nvidia_smi(*command).stdout.splitlines() == expected


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("--query-gpu=foo", "--format=csv"), 'Field "foo" is not a valid field to query.\n\n'),
        (("--query-compute-apps=memory.free", "--format=csv"), 'Field "memory.free" is not a valid field'),
        (("--query-gpu=name", "--format=xml"), '"xml" is not a valid format option'),
        (("--query-gpu=name", "--format=noheader"), '"csv" format is mandatory'),
        (("--query-gpu=name",), '"--format=" switch is missing'),
        (("--query-gpu",), "ERROR: Option --query-gpu is missing its value. Please run 'nvidia-smi -h' for help."),
        (("--format=csv",), "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help."),
        (("-L", "--query-gpu=name", "--format=csv"), "Invalid combination of input arguments"),
        (("--version", "-i", "0"), "Invalid combination of input arguments"),
        (("-i", "0", "--id=1"), "Invalid combination of input arguments"),
    ],
)
def test_bad_arguments(driver: Driver, command: tuple[str, ...], said: str) -> None:
    done = nvidia_smi(*command)
    assert done.returncode == 2
    assert done.stdout.startswith(said)
    assert driver.calls[-1].code == 2
    assert driver.calls[-1].covered


@pytest.mark.parametrize("command", [("vgpu",), ("--nonsense",), ("-L=1",)])
def test_what_is_not_covered_is_refused_and_says_so_in_the_log(driver: Driver, command: tuple[str, ...]) -> None:
    done = nvidia_smi(*command)
    assert done.returncode == 2
    assert done.stdout == f"ERROR: Option {command[0]} is not recognized. Please run 'nvidia-smi -h'.\n\n"
    assert not driver.calls[-1].covered


def test_what_is_not_known_behind_another_argument(driver: Driver) -> None:
    done = nvidia_smi("--query-gpu=index", "-format=csv")
    assert done.returncode == 2
    assert done.stdout == "ERROR: Option -format=csv is not recognized. Please run 'nvidia-smi -h' for help.\n\n"


def test_unknown_gpus_and_no_gpus(driver: Driver) -> None:
    for identifier in ("7", "GPU-none", "00:1f.0", "0,7"):
        done = nvidia_smi(*FREE, "-i", identifier)
        assert (done.stdout, done.returncode) == ("No devices were found\n", 6)
    for gpu in driver.gpus:
        gpu.remove()
    for command in ((), ("-L",), FREE):
        done = nvidia_smi(*command)
        assert (done.stdout, done.returncode) == ("No devices were found\n", 6)
    assert nvidia_smi("--version").returncode == nvidia_smi("-h").returncode == 0


def test_a_lost_gpu_says_so_in_its_place(driver: Driver) -> None:
    driver.gpus[0].lose()
    lost = LOST.format("GPU0: 0000:01:00.0")
    done = nvidia_smi(*FREE)
    assert (done.stdout, done.returncode) == (f"{lost}1, 3635, 24564\n", 0)
    done = nvidia_smi("-L")
    assert (done.stdout.startswith(LOST.format("gpu 0000:01:00.0") + "GPU 1: "), done.returncode) == (True, 0)
    done = nvidia_smi()
    first, _, table = done.stdout.partition("\n")
    assert (f"{first}\n", done.returncode) == (lost, 0)
    assert "|   1  NVIDIA GeForce RTX 4090" in table
    assert "NVIDIA H200" not in table
    assert nvidia_smi(*FREE, "-i", "1").stdout == "1, 3635, 24564\n"
    for command in ((), ("-q", "-x"), FREE):
        done = nvidia_smi(*command, "-i", "0")
        assert (done.stdout, done.returncode) == (f"{lost}No devices were found\n", 6), command


@pytest.mark.parametrize(("version", "which"), [("520.61.05", "GPU 0000:01:00.0"), ("560.35.03", "GPU0000:01:00.0")])
def test_a_lost_gpu_of_an_older_driver(version: str, which: str) -> None:
    with Driver(driver_version=version) as driver:
        driver.add_gpu("t4").lose()
        driver.add_gpu("rtx-4090")
        done = nvidia_smi("--query-gpu=index", "--format=csv,noheader")
        assert (done.stdout, done.returncode) == (f"{LOST.format(which)}1\n", 15)
        done = nvidia_smi()
        assert (done.stdout, done.returncode) == (LOST.format(which), 15)


def test_a_removed_gpu_moves_the_others_up(driver: Driver) -> None:
    driver.gpus[0].remove()
    assert query("index,name,count") == ["0, NVIDIA GeForce RTX 4090, 1"]


def test_versions(driver: Driver) -> None:
    assert nvidia_smi("--version").stdout == (
        "NVIDIA-SMI version  : 590.48.01\n"
        "NVML version        : 590.48\n"
        "DRIVER version      : 590.48.01\n"
        "CUDA Version        : 13.1\n"
    )


def test_help(driver: Driver) -> None:
    assert nvidia_smi("-h").stdout == nvidia_smi("--help", "-L").stdout
    assert nvidia_smi("-h").stdout.startswith("NVIDIA System Management Interface -- v590.48.01\n")
    fields = nvidia_smi("--help-query-gpu").stdout
    names = re.findall(r'^"([\w.]+)"(?: or "[\w.]+")?$', fields, flags=re.MULTILINE)
    assert len(names) > 200
    assert '"uuid" or "gpu_uuid"' in fields.splitlines()
    assert len(query(",".join(names), "-i", "0")[0].split(", ")) == len(names)
    assert '"used_gpu_memory" or "used_memory"' in nvidia_smi("--help-query-compute-apps").stdout.splitlines()


def test_the_log_of_calls(driver: Driver) -> None:
    child = subprocess.Popen(["nvidia-smi", *FREE], stdout=subprocess.DEVNULL)
    assert child.wait(30) == 0
    (call,) = driver.calls
    assert (call.via, call.pid, call.code, call.covered, call.faults) == ("nvidia-smi", child.pid, 0, True, ())
    assert call.name == "nvidia-smi --query-gpu=index,memory.free,memory.total --format=csv,noheader,nounits"


def test_children_with_a_bare_environment(driver: Driver) -> None:
    expected = query("index")
    assert nvidia_smi(
        "--query-gpu=index", "--format=csv,noheader", env={"PATH": os.environ["PATH"]}
    ).stdout.split() == (expected)
    executable = Path(os.environ["FAKE_GPU_SOCKET"]).parent / "bin" / "nvidia-smi"
    done = subprocess.run(
        [executable, "--query-gpu=index", "--format=csv,noheader"], env={}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == expected


def test_cuda_visible_devices_changes_nothing(driver: Driver) -> None:
    assert len(nvidia_smi("-L", env={**os.environ, "CUDA_VISIBLE_DEVICES": "1"}).stdout.splitlines()) == 2


def test_names_that_are_no_utf_8_come_out_as_they_are(driver: Driver) -> None:
    driver.process(driver.gpus[0], "1 MiB", name=os.fsdecode(b"caf\xe9"))
    done = subprocess.run(
        ["nvidia-smi", "--query-compute-apps=name", "--format=csv,noheader", "-i", "0"],
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"caf\xe9\n"


def test_output_of_more_than_one_frame(driver: Driver) -> None:
    for _ in range(300):
        driver.process(driver.gpus[0], 1, name="x" * 5000)
    done = nvidia_smi("--query-compute-apps=process_name", "--format=csv,noheader", "-i", "0")
    assert done.stdout == ("x" * 5000 + "\n") * 300


def request(*arguments: bytes, count: int | None = None) -> bytes:
    texts = (*arguments, b"/", b"")
    number = len(arguments) if count is None else count
    return struct.pack("<I", number) + b"".join(struct.pack("<I", len(text)) + text for text in texts)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\1\0\0",
        request(b"nvidia-smi")[:-1],
        request(b"nvidia-smi")[:-4],
        request(b"nvidia-smi", count=2),
        struct.pack("<II", 1, 0xFFFF_FFFF),
    ],
)
def test_requests_that_the_executable_never_sends(driver: Driver, frame: bytes) -> None:
    with pytest.raises(BadRequest):
        execute(driver, frame, 1)
    assert driver.calls == []


def test_an_empty_argument_list_is_the_table(driver: Driver) -> None:
    execution = execute(driver, request(), 1)
    assert b"NVIDIA-SMI 590.48.01" in execution.orders
    assert driver.calls[0].name == "nvidia-smi"
