"""`dmon` and `pmon`: a line for each GPU or process, again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from fake_gpu.derived import bar1_used, clock_mhz
from fake_gpu.process import Process
from fake_gpu.smi import fields_load, log_groups
from fake_gpu.smi.columns import Column
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
_ENGINES: Final = ("sm", "mem", "enc", "dec", "jpg", "ofa")


def render(run: Run) -> Output:
    """One round."""
    metrics, stamps = run.request.options
    render_round = _device_round if run.request.mode == "dmon" else _process_round
    return render_round(run, metrics, _stamp(run, stamps), stamps)


def _stamp(run: Run, stamps: str) -> str:
    now = time.localtime(run.wall_time)
    date = f" {time.strftime('%Y%m%d', now)} " if "D" in stamps else ""
    return date + (f" {time.strftime('%H:%M:%S', now)} " if "T" in stamps else "")


def _stamp_headings(stamps: str) -> tuple[str, str]:
    first = ("#Date     " if "D" in stamps else "") + ("#Time     " if "T" in stamps else "")
    second = ("#YYYYMMDD " if "D" in stamps else "") + ("#HH:MM:SS " if "T" in stamps else "")
    return first, second


def _device_round(run: Run, metrics: str, stamp: str, stamps: str) -> Output:
    chosen = [metric for letter in _DMON if letter in metrics for metric in _DMON[letter]]
    first, second = _stamp_headings(stamps)
    header = (
        f"{first}# gpu{''.join(f'{metric.heading:>7}' for metric in chosen)} \n"
        f"{second}# Idx{''.join(f'{metric.unit:>7}' for metric in chosen)} \n"
    )

    def row(reading: Reading) -> str:
        return f"{stamp}{run.index(reading.gpu):5d}{''.join(f'{metric.read(reading):>7}' for metric in chosen)} \n"

    return line_by_line(run, lambda gpu: row(Reading(run, gpu)), header if run.request.header else "")


def _process_round(run: Run, metrics: str, stamp: str, stamps: str) -> Output:
    first, second = _stamp_headings(stamps)
    engines = _ENGINES if "u" in metrics else ()
    memory = ("fb", "ccpm") if "m" in metrics else ()
    header = (
        f"{first}# gpu         pid   type{''.join(f'{name:>7}' for name in engines + memory)}    command \n"
        f"{second}# Idx           #    C/G{'      %' * len(engines)}{'     MB' * len(memory)}    name \n"
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
