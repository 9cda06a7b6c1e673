"""Corners of what nvidia-smi prints: time stamps, names of processes, older drivers, options of dmon, full disks."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from xml.etree import ElementTree

import pynvml
import pytest
from native_client import nvidia_smi

from fake_gpu import Driver, platforms
from fake_gpu.clock import RealClock
from pytest_vramsettle.clock import VirtualClock
from pytest_vramsettle.clock.wall import frozen_wall

STAMP = ("--query-gpu=timestamp", "--format=csv,noheader")
DATE, SHORT_DATE = "%Y/%m/%d %H:%M:%S", "%Y%m%d %H:%M:%S"


def seconds(text: str, form: str = DATE) -> float:
    """Since the epoch, of a local time without what is behind its second."""
    return time.mktime(time.strptime(text.split(".")[0].strip(), form))


def stamps_an_hour_apart() -> tuple[float, float]:
    first = seconds(nvidia_smi(*STAMP).stdout)
    time.sleep(3600)
    return first, seconds(nvidia_smi(*STAMP).stdout)


def test_stamps_follow_the_virtual_clock() -> None:
    with VirtualClock() as clock, Driver(clock=clock) as driver:
        driver.add_gpu("t4")
        begun = time.time()
        first, second = stamps_an_hour_apart()
        assert second - first == 3600
        assert abs(first - begun) < 60
        rows = nvidia_smi("dmon", "-c", "3", "-d", "10", "-o", "DT").stdout.splitlines()[2:]
        assert [seconds(" ".join(row.split()[:2]), SHORT_DATE) - second for row in rows] == [0, 10, 20]
        for command in ((), ("-q",)):
            said = nvidia_smi(*command).stdout
            line = next(line for line in said.splitlines() if ":" in line).removeprefix("Timestamp").lstrip(" :")
            assert seconds(line, "%a %b %d %H:%M:%S %Y") - second == 20


def test_stamps_are_those_of_frozen_wall_time() -> None:
    with VirtualClock() as clock, frozen_wall(clock, "2026-01-01"), Driver(clock=clock) as driver:
        driver.add_gpu("t4")
        assert stamps_an_hour_apart() == (1_767_225_600, 1_767_225_600 + 3600)
        assert time.time() == 1_767_225_600 + 3600


def test_stamps_are_real_without_a_virtual_clock() -> None:
    with Driver(clock=RealClock()) as driver:
        driver.add_gpu("t4")
        before = time.time()
        stamp = seconds(nvidia_smi(*STAMP).stdout)
        assert int(before) <= stamp <= time.time()


NAMES = ["a <b> & c", "tab\there", "bell\a", "pipe | in | name", "]]>", "\x1b[31mred", "nel\x85", "no\ufffecharacter"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_processes_break_nothing(driver: Driver, name: str) -> None:
    driver.process(driver.add_gpu("t4"), "1 GiB", name=name, pid=4_200_000)
    root = ElementTree.fromstring(nvidia_smi("-q", "-x").stdout)
    shown = "".join("?" if ord(letter) < 32 or letter in "\x85\ufffe" else letter for letter in name)
    assert root.findtext("gpu/processes/process_info/process_name") == shown
    table = [line for line in nvidia_smi().stdout.split("\n") if line.startswith(("|", "+"))]
    assert {len(line) for line in table} == {91}
    assert len(nvidia_smi("--query-compute-apps=pid,name", "--format=csv,noheader").stdout.splitlines()) == 1
    assert len(nvidia_smi("pmon", "-c", "1").stdout.splitlines()) == 3


def test_reasons_have_one_source(driver: Driver) -> None:
    gpu = driver.add_gpu("t4")
    fields = "clocks_event_reasons.active,clocks_throttle_reasons.gpu_idle,clocks_event_reasons.hw_slowdown"
    query = (f"--query-gpu={fields}", "--format=csv,noheader")
    assert nvidia_smi(*query).stdout == "0x0000000000000001, Active, Not Active\n"
    gpu.activity.said["clocks_event_reasons.hw_slowdown"] = "Active"
    assert nvidia_smi(*query).stdout == "0x0000000000000009, Active, Active\n"
    gpu.activity.said = {"clocks_event_reasons.active": "0x0000000000000008"}
    assert nvidia_smi(*query).stdout == "0x0000000000000008, Not Active, Active\n"
    assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(pynvml.nvmlDeviceGetHandleByIndex(0)) == 8
    gpu.activity.said = {"clocks_event_reasons.active": "[N/A]"}
    assert nvidia_smi(*query).stdout == "[N/A], Active, Not Active\n"


@pytest.mark.parametrize(
    ("version", "refused", "known"),
    [
        ("590.48.01", "kmd_version", "platform.host_id"),
        ("535.129.03", "platform.host_id", "fabric.state"),
        ("535.129.03", "remapped_rows.pending", "clocks_event_reasons.active"),
        ("515.105.01", "clocks_event_reasons.active", "clocks_throttle_reasons.active"),
    ],
)
def test_fields_that_a_driver_does_not_have_yet(version: str, refused: str, known: str) -> None:
    with Driver(driver_version=version) as driver:
        driver.add_gpu("t4")
        done = nvidia_smi(f"--query-gpu=name,{refused}", "--format=csv")
        assert (done.returncode, done.stdout) == (2, f'Field "{refused}" is not a valid field to query.\n\n')
        assert nvidia_smi(f"--query-gpu={known}", "--format=csv").stdout.startswith(f"{known}\n")
        offered = nvidia_smi("--help-query-gpu").stdout
        assert f'"{known}"' in offered
        assert f'"{refused}"' not in offered


def test_a_query_of_commas_alone_is_refused(driver: Driver) -> None:
    driver.add_gpu("t4")
    for fields in (",", " , "):
        done = nvidia_smi(f"--query-gpu={fields}", "--format=csv")
        assert (done.returncode, done.stdout) == (2, 'Field "" is not a valid field to query.\n\n')


def dmon(*options: str) -> list[str]:
    done = nvidia_smi("dmon", "-c", "1", *options)
    assert done.returncode == 0
    return done.stdout.splitlines()


def test_dmon_as_csv(driver: Driver) -> None:
    driver.add_gpu("t4").activity.gpu_percent = 88
    assert dmon("-s", "u", "--format", "csv") == [
        "#gpu, sm, mem, enc, dec, jpg, ofa",
        "#Idx, %, %, %, %, %, %",
        "0, 88, 0, 0, 0, 0, 0",
    ]
    assert dmon("-s", "u", "--format=csv,nounit")[1] == "0, 88, 0, 0, 0, 0, 0"
    assert dmon("-s", "pucvmet", "--format=csv,noheader,nounit")[0].count(",") == 21


def test_dmon_has_the_columns_in_the_order_in_which_they_are_asked_for(driver: Driver) -> None:
    driver.add_gpu("t4")
    names = ["fb", "bar1", "ccpm", "sm", "mem", "enc", "dec", "jpg", "ofa", "rxpci", "txpci", "mclk", "pclk"]
    assert dmon("-s", "mutc")[0].split() == ["#", "gpu", *names]
    headings, units, row = dmon("-s", "mutc", "-o", "TD")
    assert headings.startswith("#Date       Time        gpu     fb   bar1")
    assert units.startswith("#YYYYMMDD   HH:MM:SS    Idx     MB     MB")
    assert len(headings) == len(units) == len(row)


def test_dmon_with_metrics_of_gpm(driver: Driver) -> None:
    driver.add_gpu("h200").activity.gpu_percent = 40
    driver.add_gpu("rtx-4090")
    headings, units, first, second = dmon("-s", "c", "--gpm-metrics=1,20")
    assert headings == "# gpu   mclk   pclk      gract     pcitx"
    assert units == "# Idx    MHz    MHz      GPM:% GPM:MiB/s"
    assert first.split() == ["0", "3201", "345", "40", "0"]
    assert second.split()[-2:] == ["-", "-"]


@pytest.mark.parametrize("command", [("-L", ">"), ("-q", "-f", "/dev/full"), ("dmon", "-f", "/dev/full")])
def test_output_that_cannot_be_written(driver: Driver, command: tuple[str, ...]) -> None:
    driver.add_gpu("t4")
    redirected = command[-1] == ">"
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            ["nvidia-smi", *command[: -1 if redirected else None]],
            stdout=full if redirected else subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 255
    assert done.stderr == "ERROR: Could not write the output: No space left on device\n"


def test_devices_of_a_partitioned_card_share_its_bar1(driver: Driver) -> None:
    gpu = driver.add_gpu("h200")
    platforms.partition(gpu, "3g.71gb", "1g.18gb")
    root = ElementTree.fromstring(nvidia_smi("-q", "-x").stdout)
    totals = [text.text for text in root.iterfind("gpu/mig_devices/mig_device/bar1_memory_usage/total")]
    spare = gpu.profile.memory.bar1_mib - gpu.profile.memory.total_mib
    assert totals == [f"{spare // 2} MiB", f"{spare // 8} MiB"]
    assert f"0MiB / {spare // 2}MiB" in nvidia_smi().stdout
