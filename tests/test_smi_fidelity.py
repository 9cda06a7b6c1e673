"""The fake beside real captures: what must be identical, and what differs, name by name."""

from __future__ import annotations

import re

import pytest
from native_client import nvidia_smi
from smi_captures import DIRECTORY, Capture, add_card, captures, fill, number, wall_time

from fake_gpu import Driver
from fake_gpu.process import ComputeType
from fake_gpu.smi import query_apps, query_gpu
from fake_gpu.units import MIB

CAPTURES = captures()
pytestmark = pytest.mark.skipif(not CAPTURES, reason=f"there are no captures of real cards in {DIRECTORY}")

every_capture = pytest.mark.parametrize("capture", CAPTURES, ids=str)
every_card = pytest.mark.parametrize("capture", CAPTURES[::2], ids=str)

PROCESS = re.compile(r"\| +(\d+) +(\S+) +(\S+) +(?P<pid>\d+) +(?P<type>C|G|C\+G)   (?P<name>.*?) +(?P<mib>\d+)MiB \|")

NOT_MODELLED = {"power.draw.instant"}
"""Another sample of the same power."""

POWER_CAPPED = {"clocks_event_reasons.active", "clocks_event_reasons.gpu_idle", "clocks_event_reasons.sw_power_cap"}
"""The RTX 2080 SUPER said that it was slowed down by its power limit while it idled."""


def driver_of(capture: Capture) -> Driver:
    version, cuda = capture.versions
    return Driver(driver_version=version, cuda_version=cuda)


def at(driver: Driver, seconds: float) -> None:
    driver.wall_time = lambda: seconds  # type: ignore[method-assign]


@every_capture
def test_query_gpu(capture: Capture) -> None:
    fields = capture.fields
    _, (header, line) = capture.of_state("query-gpu")
    with driver_of(capture) as driver:
        fill(driver, add_card(driver, fields), fields)
        at(driver, wall_time(fields["timestamp"], "%Y/%m/%d %H:%M:%S.%f"))
        printed = nvidia_smi(f"--query-gpu={','.join(fields)}", "--format=csv").stdout.split("\n")
    assert printed[0] == header
    assert printed[2:] == [""]
    ours = dict(zip(fields, printed[1].split(", "), strict=True))
    expected = set(NOT_MODELLED)
    if "2080" in str(capture) and capture.state == "idle":
        expected |= POWER_CAPPED
    different = {name for name in fields if ours[name] != fields[name]}
    assert {name: (ours[name], fields[name]) for name in different - expected} == {}
    if not different:
        assert printed[1] == line


@every_capture
def test_query_compute_apps(capture: Capture) -> None:
    fields = capture.fields
    command, lines = capture.of_state("query-compute-apps")
    with driver_of(capture) as driver:
        gpu = add_card(driver, fields)
        for line in lines[1:]:
            time, *_, pid, name, used = line.split(", ")
            at(driver, wall_time(time, "%Y/%m/%d %H:%M:%S.%f"))
            driver.process(gpu, used.replace(" ", ""), pid=int(pid), name=name)
        printed = nvidia_smi(*command.split()[1:]).stdout
    assert printed.split("\n") == [*lines, ""]


@every_capture
def test_table(capture: Capture) -> None:
    _, lines = capture.of_state("nvidia-smi (default table)")
    fields = dict(capture.fields)
    fields |= read_row(lines, fields)
    with driver_of(capture) as driver:
        gpu = add_card(driver, fields)
        listed = 0
        for found in filter(None, map(PROCESS.fullmatch, lines)):
            held = int(found["mib"]) * MIB
            driver.process(gpu, held, pid=int(found["pid"]), name=found["name"], compute_type=kind(found["type"]))
            listed += held
        fill(driver, gpu, fields, listed)
        at(driver, wall_time(lines[0].strip(), "%a %b %d %H:%M:%S %Y"))
        printed = nvidia_smi().stdout.split("\n")
    assert printed == [*without_instances(lines), ""]


def kind(text: str) -> ComputeType:
    kinds: dict[str, ComputeType] = {"C": "C", "G": "G", "C+G": "C+G"}
    return kinds[text]


def read_row(lines: list[str], fields: dict[str, str]) -> dict[str, str]:
    """What the GPU's row says: it was printed a moment before the query."""
    row = next(line for line in lines if "Default |" in line)
    fan, temperature, pstate, power, percent = re.findall(
        r"^\| *(\S+?)%? +(\d+)C +(P\d+) +(\d+)W .* (\S+)% +Default", row.replace("N/A      Def", "0%      Def")
    )[0]
    return {
        "fan.speed": fields["fan.speed"] if fan == "N/A" else f"{fan} %",
        "temperature.gpu": temperature,
        "pstate": pstate,
        "power.draw": f"{power}.99 W",  # watts are cut
        "utilization.gpu": f"{number(percent)} %",
    }


def without_instances(lines: list[str]) -> list[str]:
    """Without the box of MIG devices, and with N/A for their ids: partitions are not modelled."""
    if not any("MIG devices" in line for line in lines):
        return lines
    first = next(place for place, line in enumerate(lines) if "MIG devices" in line) - 1
    last = lines.index("", first)
    rest = [re.sub(r"^(\| {4}\d) {4}\d {4}\d ", r"\1   N/A  N/A", line) for line in lines[last + 1 :]]
    return lines[:first] + rest


@every_card
def test_list_and_version(capture: Capture) -> None:
    with driver_of(capture) as driver:
        add_card(driver, capture.fields)
        listed, version = nvidia_smi("-L").stdout, nvidia_smi("--version").stdout
    gpus = [line for line in capture.section("capabilities :: list")[1] if line.startswith("GPU")]
    assert listed.split("\n") == [*gpus, ""]
    assert version.split("\n") == [*capture.section("capabilities :: version")[1], ""]


@every_card
@pytest.mark.parametrize("switch", ["query-gpu", "query-compute-apps"])
def test_every_field_of_the_help_is_there_under_all_its_names(capture: Capture, switch: str) -> None:
    module = {"query-gpu": query_gpu, "query-compute-apps": query_apps}[switch]
    _, lines = capture.section(f"capabilities :: help-{switch}")
    named = [re.findall(r'"([\w.]+)"', line) for line in lines if re.fullmatch(r'"[\w.]+"( or "[\w.]+")?', line)]
    assert len(named) > 5
    ours = {column.name: column.name for column in module.COLUMNS} | module.ALIASES
    for first, *others in named:
        assert ours[first] == first
        assert all(ours[other] == first for other in others)
