"""Reads what nvidia-smi prints in rows: queries, the table, the monitors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from fake_gpu.capture.logs import when
from fake_gpu.capture.seen import Seen, SeenCard, SeenProcess
from fake_gpu.process import ComputeType
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
    r"(?P<memory>\d+MiB|N/A) \|$",
    re.MULTILINE,
)
_MIG_ROW: Final = re.compile(
    r"^\| +\d+ +(?P<gi>\d+) +(?P<ci>\d+) +\d+ +\| +(?P<used>\d+)MiB / +\d+MiB +\|.*\n\|[ ]+\| +(?P<bar1>\d+)MiB",
    re.MULTILINE,
)
_KINDS: Final[Mapping[str, ComputeType]] = {"C": "C", "G": "G", "C+G": "C+G"}


def _rows(arguments: Iterable[str], text: str, switch: str) -> list[dict[str, str]]:
    """Each row by the fields that were asked for; none where the output is not of that form."""
    asked = next((one.partition("=")[2] for one in arguments if one.startswith(f"{switch}=")), "")
    names = [name.strip() for name in asked.split(",")]
    rows = [line.split(", ") for line in text.split("\n")[1:] if line]
    return [dict(zip(names, row, strict=True)) for row in (_joined(row, names) for row in rows) if row]


def _joined(row: list[str], names: list[str]) -> list[str]:
    """As many cells as there are names: a process's name may have commas in it. None where that does not come out."""
    more = len(row) - len(names)
    place = next((number for number, name in enumerate(names) if name in ("process_name", "name")), -1)
    if more > 0 and "pid" in names and place >= 0:
        row = [*row[:place], ", ".join(row[place : place + more + 1]), *row[place + more + 1 :]]
    return row if len(row) == len(names) else []


def read_query_gpu(arguments: tuple[str, ...], text: str) -> Seen:
    """`--query-gpu`, in csv with units."""
    rows = [
        {query_gpu.ALIASES.get(name, name): value for name, value in row.items()}
        for row in _rows(arguments, text, "--query-gpu")
    ]
    header = text.split("\n")[0].split(", ")
    more = [
        {above: value for above, (name, value) in zip(header, row.items(), strict=False) if name not in columns()}
        for row in rows
    ]
    stamp = rows[0].get("timestamp") if rows else None
    cards = tuple(SeenCard(row, more=unknown) for row, unknown in zip(rows, more, strict=True))
    return Seen(cards, when(stamp, QUERY_TIME) if stamp else None)


def read_query_apps(arguments: tuple[str, ...], text: str, cards: int) -> Seen:
    """`--query-compute-apps`, in csv with units. Its rows are all taken to be of the first GPU where there is one."""
    rows = [
        {query_apps.ALIASES.get(name, name): value for name, value in row.items()}
        for row in _rows(arguments, text, "--query-compute-apps")
    ]
    by_uuid: dict[str, list[SeenProcess]] = {}
    for row in rows:
        if not row.get("pid", "").isdigit():
            continue
        memory = row.get("used_gpu_memory", "")
        process = SeenProcess(
            int(row["pid"]), row.get("process_name", ""), "C", int(memory.split()[0]) if memory[:1].isdigit() else None
        )
        by_uuid.setdefault(row.get("gpu_uuid", "") if cards > 1 else "", []).append(process)
    stamp = rows[0].get("timestamp") if rows else None
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
                int(row["pid"]), row["name"], _KINDS[row["type"]], int(memory) if memory.isdigit() else None, place
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
