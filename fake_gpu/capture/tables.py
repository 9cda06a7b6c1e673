"""Reads what nvidia-smi prints in rows: queries, the table, the monitors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fake_gpu.capture.files import Shot
from fake_gpu.capture.findings import Findings, OutputFindings
from fake_gpu.capture.logs import when
from fake_gpu.capture.quantities import form_of
from fake_gpu.capture.seen import KINDS, Place, Seen, SeenCard, SeenProcess, number, tells_nothing
from fake_gpu.smi import query_apps, query_gpu
from fake_gpu.smi.layout import columns

QUERY_TIME: Final = "%Y/%m/%d %H:%M:%S.%f"
_GPU_ROW: Final = re.compile(
    r"^\| *(?P<fan>\S+) +(?P<temperature>\d+|N/A)C? +(?P<pstate>P\d+|N/A) +(?P<power>\d+W|N/A) / +(?P<limit>\S+) *\|"
    r" *(?P<used>\d+MiB|[^|]*?)(?: / +\S+)? *\| *(?P<percent>\S+) +\S.*\|$",
    re.MULTILINE,
)
_PROCESS_ROW: Final = re.compile(
    r"^\| +(?P<gpu>\d+) +(?P<gi>\S+) +(?P<ci>\S+) +(?P<pid>\d+) +(?P<type>C\+G|C|G)   (?P<name>.*?) +"
    r"(?P<memory>\d+MiB|N/A) +\|$",
    re.MULTILINE,
)
_MIG_ROW: Final = re.compile(
    r"^\| +\d+ +(?P<gi>\d+) +(?P<ci>\d+) +\d+ +\| +(?P<used>\d+)MiB / +\d+MiB +\|.*\n\|[ ]+\| +(?P<bar1>\d+)MiB",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class _Csv:
    """A query's output. `rows`: by the fields that were asked for, each with its line of the output."""

    rows: list[tuple[int, dict[str, str]]]
    header: list[str]
    """What stands above the rows; nothing with `noheader`."""
    cut: list[tuple[int, int, int]]
    """Lines of rows that have fewer cells than were asked for: the line, its cells, the cells asked for."""


def _csv(shot: Shot, aliases: Mapping[str, str]) -> _Csv:
    """The rows are none where the output is not of that form."""
    asked = next((one.partition("=")[2] for one in shot.arguments if one.startswith(f"{shot.option}=")), "")
    names = [name.strip() for name in asked.split(",")]
    lines = list(enumerate(shot.text.split("\n"), 1))
    header = [] if "noheader" in _format(shot) else lines.pop(0)[1].split(", ")
    known = [aliases.get(name, name) for name in names]
    rows, cut = [], []
    for place, line in lines:
        cells = _joined(line.split(", "), names)
        if len(cells) == len(names) and line:
            rows.append((place, dict(zip(known, cells, strict=True))))
        elif 1 < len(cells) < len(names):
            cut.append((place, len(cells), len(names)))
    return _Csv(rows, header, cut)


def _format(shot: Shot) -> list[str]:
    said = next((one.partition("=")[2] for one in shot.arguments if one.startswith("--format=")), "")
    return [one.strip() for one in said.split(",")]


def _joined(row: list[str], names: list[str]) -> list[str]:
    """As many cells as there are names: a process's name may have commas in it."""
    more = len(row) - len(names)
    place = next((index for index, name in enumerate(names) if name in ("process_name", "name")), -1)
    if more > 0 and "pid" in names and place >= 0:
        return [*row[:place], ", ".join(row[place : place + more + 1]), *row[place + more + 1 :]]
    return row


def read_query_gpu(shot: Shot, findings: Findings) -> Seen:
    """`--query-gpu`, in csv. Values that are not what their fields can be are told to `findings`."""
    csv = _csv(shot, query_gpu.ALIASES)
    of_output = findings.of_output(shot.line)
    for line, cells, asked in csv.cut:
        of_output.refuse(
            line, f"this row of --query-gpu has {cells} of {asked} values: the output is cut: take it again"
        )
    units = "nounits" not in _format(shot)
    cards = tuple(_card_of_row(line, row, csv.header, units, of_output) for line, row in csv.rows)
    stamp = csv.rows[0][1].get("timestamp") if csv.rows else None
    return Seen(cards, None if stamp is None else _moment(stamp, csv.rows[0][0], of_output))


def _card_of_row(line: int, row: dict[str, str], header: list[str], units: bool, findings: OutputFindings) -> SeenCard:
    faulty = set()
    for name, text in row.items():
        form = form_of(name)
        fault = None if form is None else form.fault(text, bare=not units)
        if fault is not None:
            findings.refuse(line, f"{name} is {text!r}: {fault}")
            faulty.add(name)
    more = {above: text for above, (name, text) in zip(header, row.items(), strict=False) if name not in columns()}
    fields = {name: text if units else _with_unit(name, text) for name, text in row.items() if name not in faulty}
    return SeenCard(fields, more=more, places={name: Place(findings.line(line), name) for name in row})


def _with_unit(name: str, text: str) -> str:
    column = columns().get(name)
    return f"{text} {column.unit}" if column is not None and column.unit and not tells_nothing(text) else text


def _moment(stamp: str, line: int, findings: OutputFindings) -> float | None:
    try:
        return when(stamp, QUERY_TIME)
    except ValueError:
        findings.refuse(line, f"timestamp is {stamp!r}: expected such as '2026/07/14 09:00:27.792'")
        return None


def read_query_apps(shot: Shot, cards: int) -> Seen:
    """`--query-compute-apps`, in csv with units. Its rows are all taken to be of the first GPU where there is one."""
    csv = _csv(shot, query_apps.ALIASES)
    by_uuid: dict[str, list[SeenProcess]] = {}
    for _, row in csv.rows:
        if not row.get("pid", "").isdigit():
            continue
        memory = row.get("used_gpu_memory", "")
        process = SeenProcess(
            int(row["pid"]), row.get("process_name", ""), "C", number(memory) if memory[:1].isdigit() else None
        )
        by_uuid.setdefault(row.get("gpu_uuid", "") if cards > 1 else "", []).append(process)
    stamp = csv.rows[0][1].get("timestamp") if csv.rows else None
    seen = [SeenCard({"uuid": uuid} if uuid else {}, tuple(listed)) for uuid, listed in by_uuid.items()]
    return Seen(tuple(seen) or (SeenCard({}),), when(stamp, QUERY_TIME) if stamp else None)


def read_stamp(text: str) -> float | None:
    """The time in the first row of any query; None where there is none."""
    found = re.search(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{3}", text, re.MULTILINE)
    return when(found[0], QUERY_TIME) if found else None


def read_table(text: str) -> Seen:
    """The table: watts and MiB as it rounds them."""
    processes: dict[int, list[SeenProcess]] = {}
    for row in _PROCESS_ROW.finditer(text):
        memory = row["memory"].removesuffix("MiB")
        place = (int(row["gi"]), int(row["ci"])) if row["gi"].isdigit() else None
        processes.setdefault(int(row["gpu"]), []).append(
            SeenProcess(
                int(row["pid"]), row["name"], KINDS[row["type"]], int(memory) if memory.isdigit() else None, place
            )
        )
    cards = tuple(
        SeenCard(_fields_of_row(row), tuple(processes.get(index, ())))
        for index, row in enumerate(_GPU_ROW.finditer(text))
    )
    return Seen(cards, when(text.split("\n")[0]))


def instances_in_table(text: str) -> dict[tuple[int, int], tuple[int, int]]:
    """MiB in use, of memory and BAR1, by GPU instance and compute instance."""
    return {(int(row["gi"]), int(row["ci"])): (int(row["used"]), int(row["bar1"])) for row in _MIG_ROW.finditer(text)}


def _fields_of_row(row: re.Match[str]) -> dict[str, str]:
    fields = {
        "fan.speed": "[N/A]" if row["fan"] == "N/A" else row["fan"].replace("%", " %"),
        "temperature.gpu": row["temperature"],
        "pstate": row["pstate"],
        "utilization.gpu": "[N/A]" if row["percent"] == "N/A" else row["percent"].replace("%", " %"),
    }
    if row["power"] != "N/A":
        fields["power.draw"] = f"{row['power'].removesuffix('W')}.50 W"  # watts are cut
    if row["used"].endswith("MiB"):
        fields["memory.used"] = row["used"].replace("MiB", " MiB")
    return fields


def read_monitor(text: str) -> tuple[str, list[list[dict[str, str]]]]:
    """The headings of `dmon` or `pmon`, and its rounds: each a list of rows by heading."""
    lines = text.split("\n")
    headings = [line for line in lines if line.startswith("#")]
    names = headings[0].lstrip("# ").split() if headings else []
    rounds: list[list[dict[str, str]]] = []
    first = ""
    for line in lines:
        cells = line.split()
        if line.startswith("#") or len(cells) < len(names):
            continue
        key = " ".join(cells[:2]) if "pid" in names else cells[0]
        if not rounds or key == first:
            rounds.append([])
            first = key
        rounds[-1].append(dict(zip(names, cells, strict=False)))
    return "".join(f"{heading}\n" for heading in headings), rounds
