"""`dmon` and `pmon`: a line for each GPU or process, again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from fake_gpu.derived import bar1_used, clock_mhz, is_at_least
from fake_gpu.gpu import Gpu
from fake_gpu.process import Process
from fake_gpu.smi import fields_load, log_groups
from fake_gpu.smi.columns import Column
from fake_gpu.smi.commands import GPM_METRICS
from fake_gpu.smi.failures import line_by_line
from fake_gpu.smi.run import Output, Reading, Run

_NAME_WIDTH: Final = 15
_COLUMNS: Final[dict[str, Column]] = {
    column.name: column for column in (*fields_load.MEMORY, *fields_load.POWER, *fields_load.CLOCKS)
}


class _Metric(NamedTuple):
    heading: str
    unit: str
    read: Callable[[Reading], str]


def _of_field(heading: str, unit: str, name: str) -> _Metric:
    def read(reading: Reading) -> str:
        cell = _COLUMNS[name].cell(reading, False)
        return cell.split(".")[0] if cell[:1].isdigit() else "-"

    return _Metric(heading, unit, read)


_DMON: Final[dict[str, tuple[_Metric, ...]]] = {
    "p": (
        _of_field("pwr", "W", "power.draw"),
        _of_field("gtemp", "C", "temperature.gpu"),
        _of_field("mtemp", "C", "temperature.memory"),
    ),
    "u": (
        _of_field("sm", "%", "utilization.gpu"),
        _of_field("mem", "%", "utilization.memory"),
        _of_field("enc", "%", "utilization.encoder"),
        _of_field("dec", "%", "utilization.decoder"),
        _of_field("jpg", "%", "utilization.jpeg"),
        _of_field("ofa", "%", "utilization.ofa"),
    ),
    "c": (
        _Metric("mclk", "MHz", lambda r: str(clock_mhz(r.gpu, "memory"))),
        _Metric("pclk", "MHz", lambda r: str(clock_mhz(r.gpu, "graphics"))),
    ),
    "v": (_Metric("pviol", "%", lambda r: "0"), _Metric("tviol", "bool", lambda r: "0")),
    "m": (
        _of_field("fb", "MB", "memory.used"),
        _Metric("bar1", "MB", lambda r: str(r.run.mib(bar1_used(r.gpu)))),
        _Metric("ccpm", "MB", lambda r: "0"),
    ),
    "e": (
        _Metric("sbecc", "errs", lambda r: "0" if r.profile.ecc else "-"),
        _Metric("dbecc", "errs", lambda r: "0" if r.profile.ecc else "-"),
        _Metric("pci", "errs", lambda r: "0"),
    ),
    "t": (
        _Metric("rxpci", "MB/s", lambda r: str(r.gpu.activity.pcie_rx_kib_s // 1024)),
        _Metric("txpci", "MB/s", lambda r: str(r.gpu.activity.pcie_tx_kib_s // 1024)),
    ),
}
ENGINES: Final = ("sm", "mem", "enc", "dec", "jpg", "ofa")
"""What a process uses, by the headings of `pmon`."""


def render(run: Run) -> Output:
    """One round."""
    metrics, stamps, formats, gpm = run.request.options
    if run.request.mode == "pmon":
        return _process_round(run, metrics, stamps)
    chosen = [metric for letter in metrics for metric in _DMON[letter]]  # in the order in which they are asked for
    watched = [_gpm_metric(number) for number in gpm.split(",") if number]
    if formats:
        return _csv_round(run, chosen + watched, stamps, frozenset(formats.split(",")))
    return _device_round(run, chosen, watched, stamps)


def _stamps(run: Run, stamps: str) -> list[tuple[str, str, str]]:
    """Heading, unit and value of date and time."""
    now = time.localtime(run.wall_time)
    known = {"D": ("Date", "YYYYMMDD", time.strftime("%Y%m%d", now)), "T": ("Time", "HH:MM:SS", _clock(now))}
    return [known[letter] for letter in "DT" if letter in stamps]


def _clock(now: time.struct_time) -> str:
    return time.strftime("%H:%M:%S", now)


def _beginnings(run: Run, stamps: str) -> tuple[str, str, str]:
    """How the two lines of headings and each row begin, as driver 535 prints `-o TD`."""
    columns = _stamps(run, stamps)
    if not columns:
        return "# gpu", "# Idx", ""
    heading, unit, value = ("".join(f" {cell:<10}" for cell in cells) for cells in zip(*columns, strict=True))
    return f"#{heading[1:]}  gpu", f"#{unit[1:]}  Idx", value


def _gpm_metric(number: str) -> _Metric:
    heading, unit = GPM_METRICS[number]

    def read(reading: Reading) -> str:
        if not is_at_least(reading.profile, "hopper"):
            return "-"
        activity = reading.gpu.activity
        known = {"1": activity.gpu_percent, "2": activity.gpu_percent, "10": activity.memory_percent}
        known |= {"20": activity.pcie_tx_kib_s // 1024, "21": activity.pcie_rx_kib_s // 1024}
        return str(known.get(number, 0))

    return _Metric(heading, f"GPM:{unit}", read)


def _device_round(run: Run, chosen: list[_Metric], watched: list[_Metric], stamps: str) -> Output:
    first, second, stamp = _beginnings(run, stamps)

    def cells(of: Callable[[_Metric], str]) -> str:
        usual = "".join(f"{of(metric):>7}" for metric in chosen)
        return f"{usual} {''.join(f'{of(metric):>10}' for metric in watched)}\n"

    header = f"{first}{cells(lambda metric: metric.heading)}{second}{cells(lambda metric: metric.unit)}"

    def row(gpu: Gpu) -> str:
        reading = Reading(run, gpu)
        return f"{stamp}{run.index(gpu):5d}{cells(lambda metric: metric.read(reading))}"

    return line_by_line(run, row, header if run.request.header else "")


def _csv_round(run: Run, chosen: list[_Metric], stamps: str, formats: frozenset[str]) -> Output:
    """Values with commas between; so it is parsed in the wild, and the words of its headings were not seen."""
    columns = _stamps(run, stamps)
    names = [heading for heading, _, _ in columns] + ["gpu"] + [metric.heading for metric in chosen]
    units = [unit for _, unit, _ in columns] + ["Idx"] + [metric.unit for metric in chosen]
    header = "" if "noheader" in formats else f"#{', '.join(names)}\n"
    if not formats & {"noheader", "nounit"}:
        header += f"#{', '.join(units)}\n"

    def row(gpu: Gpu) -> str:
        reading = Reading(run, gpu)
        values = [value for _, _, value in columns] + [str(run.index(gpu))]
        return ", ".join(values + [metric.read(reading) for metric in chosen]) + "\n"

    return line_by_line(run, row, header if run.request.header else "")


def _process_round(run: Run, metrics: str, stamps: str) -> Output:
    first, second, stamp = _beginnings(run, stamps)
    engines = ENGINES if "u" in metrics else ()
    memory = ("fb", "ccpm") if "m" in metrics else ()
    header = (
        f"{first}         pid   type{''.join(f'{name:>7}' for name in engines + memory)}    command \n"
        f"{second}           #    C/G{'      %' * len(engines)}{'     MB' * len(memory)}    name \n"
    )

    def rows(reading: Reading) -> Iterator[str]:
        index = run.index(reading.gpu)
        listed = log_groups.listed(reading)
        for one, held in listed:
            shown = [_percent(one.process, name) for name in engines]
            shown += [held.split()[0] if held[0].isdigit() else "-", "0"][: len(memory)]
            yield _process_line(stamp, index, str(one.pid), one.process.compute_type, shown, one.name)
        if not listed:
            yield _process_line(stamp, index, "-", "-", ["-"] * len(engines + memory), "-")

    return line_by_line(run, lambda gpu: "".join(rows(Reading(run, gpu))), header if run.request.header else "")


def _percent(process: Process, engine: str) -> str:
    percent = process.percent.get(engine)
    return "-" if percent is None else str(percent)


def _process_line(stamp: str, index: int, pid: str, kind: str, shown: list[str], name: str) -> str:
    command = name.rpartition("/")[2][:_NAME_WIDTH]
    values = "".join(f"{value:>7}" for value in shown)
    return f"{stamp}{index:5d}{pid:>11}{kind:>6}{values}    {command:<{_NAME_WIDTH}}\n"
