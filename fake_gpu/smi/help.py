"""`-h`, and the lists of fields: in our words, in the shape that scripts look for."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Final

from fake_gpu.smi import query_apps, query_gpu, query_lists
from fake_gpu.smi.arguments import DISPLAYS, HELP
from fake_gpu.smi.columns import Column
from fake_gpu.smi.run import Output, Run
from fake_gpu.smi.since import has_field

_USAGE: Final = """\
NVIDIA System Management Interface -- v{version}

This nvidia-smi belongs to a fake driver. What is listed here answers as the real
one does; anything else is refused like a bad option, and the driver's log of calls
says so.

nvidia-smi [OPTION1 [ARG1]] [OPTION2 [ARG2]] ...

    -h,   --help                Print this text and exit.

          --version             Print the versions of driver, NVML and CUDA and exit.

  LIST OPTIONS:

    -L,   --list-gpus           One line for each GPU: index, name, UUID; and one for
                                each MIG device.

    -B,   --list-excluded-gpus  GPUs that the driver leaves alone: none.

  SUMMARY OPTIONS:

    <no arguments>              A table of the GPUs and of the processes on them.

    [plus any of]

    -i,   --id=                 Only these GPUs: index, UUID, serial number or PCI
                                bus id, or several of them with commas between.
    -f,   --filename=           Into this file instead of stdout.
    -l,   --loop=               Again each so many seconds (5), until it is ended.

  QUERY OPTIONS:

    -q,   --query               Everything about each GPU.

    [plus any of]

    -i,   --id=                 Only these GPUs, as above.
    -f,   --filename=           Into this file instead of stdout.
    -x,   --xml-format          As XML.
    -d,   --display=            Only these parts, with commas between:
{displays}
                                Not with -x.
    -l,   --loop=               Again each so many seconds (5), until it is ended.
    -lms, --loop-ms=            Again each so many milliseconds.

  SELECTIVE QUERY OPTIONS:

    [one of]

    --query-gpu=                The named properties of each GPU.
                                --help-query-gpu lists the names.
    --query-compute-apps=       The named properties of each compute process.
                                --help-query-compute-apps lists the names.
    --query-accounted-apps=     Of each process that was accounted: accounting is off.
                                --help-query-accounted-apps lists the names.
    --query-retired-pages=      Of each page of memory that is retired.
                                --help-query-retired-pages lists the names.
    --query-remapped-rows=      Of the remapped rows of each GPU.
                                --help-query-remapped-rows lists the names.
    --query-supported-clocks=   Of each clock that a GPU can be set to.
                                --help-query-supported-clocks lists the names.

    [mandatory]

    --format=                   csv, and with commas between any of
                                  noheader - without the line of names
                                  nounits - numbers without their units

    [plus any of]

    -i,   --id=                 Only these GPUs, as above.
    -f,   --filename=           Into this file instead of stdout.
    -l,   --loop=               Again each so many seconds (5), until it is ended.
    -lms, --loop-ms=            Again each so many milliseconds.

 Monitoring, a line for each GPU (dmon) or process (pmon) each second:
    dmon, pmon                  [-i GPUS] [-d SECONDS] [-c COUNT] [-s METRICS]
                                [-o D|T] [-f FILE]; dmon also
                                [--format csv,noheader,nounit] [--gpm-metrics N,N]

 How the GPUs are connected:
    topo -m                     A matrix.
    nvlink -s                   The NVLinks of each GPU.
"""

_LIST: Final = 'List of valid properties to query for the switch "--{switch}":\n'

_UNITS: Final = {
    "MiB": "Memory in MiB.",
    "%": "A percentage.",
    "W": "Power in watts.",
    "MHz": "A clock in MHz.",
    "us": "A time in microseconds.",
    "ms": "A time in milliseconds.",
}

_MEANINGS: Final = {
    "timestamp": "Local time of the query, such as 2026/07/03 22:10:46.109.",
    "driver_version": "Version of the display driver.",
    "kmd_version": "Version of the kernel's part of the driver.",
    "count": "How many GPUs there are.",
    "index": "Place in the enumeration, from 0. It can change at a reboot.",
    "name": "Product name.",
    "gpu_name": "Product name.",
    "serial": "Serial number of the board.",
    "gpu_serial": "Serial number of the board.",
    "uuid": "Identifier of the GPU that never changes.",
    "gpu_uuid": "Identifier of the GPU that never changes.",
    "pci.bus_id": "PCI address as domain:bus:device.function, in hexadecimal digits.",
    "gpu_bus_id": "PCI address as domain:bus:device.function, in hexadecimal digits.",
    "pstate": "Performance state, from P0 (fastest) to P15.",
    "memory.total": "All of the memory in MiB.",
    "memory.reserved": "What the driver and firmware keep for themselves, in MiB.",
    "memory.used": "What contexts hold, in MiB.",
    "memory.free": "What can be allocated, in MiB.",
    "compute_cap": "CUDA compute capability as major.minor.",
    "temperature.gpu": "Degrees Celsius of the core.",
    "temperature.memory": "Degrees Celsius of the memory.",
    "temperature.gpu.tlimit": "Degrees Celsius left until the card slows down.",
    "pid": "Process ID.",
    "process_name": "Name of the process.",
    "used_gpu_memory": "What the process holds on this GPU, in MiB.",
}


def render(run: Run) -> Output:
    """The text that is asked for."""
    if run.request.mode == HELP:
        return Output(_USAGE.format(version=run.driver_version, displays=_displays()))
    if run.request.mode == "help-query-gpu":
        return Output(_query_gpu(run.major))
    if run.request.mode == "help-query-compute-apps":
        return Output(_fields("query-compute-apps", query_apps.COLUMNS, query_apps.ALIASES))
    query = run.request.mode.removeprefix("help-")
    return Output(_fields(query, query_lists.COLUMNS[query], query_lists.ALIASES[query]))


def _query_gpu(branch: int) -> str:
    aliases = {alias: name for alias, name in query_gpu.ALIASES.items() if has_field(branch, alias)}
    columns = []
    for column in query_gpu.COLUMNS:
        old = column.name.replace("clocks_event_reasons.", "clocks_throttle_reasons.")
        if has_field(branch, column.name):
            columns.append(column)
        elif old in aliases:  # which is the only name then
            columns.append(column._replace(name=old))
    return _fields("query-gpu", columns, aliases)


def _displays() -> str:
    return textwrap.fill(
        ", ".join(sorted(DISPLAYS)), 84, initial_indent=" " * 36, subsequent_indent=" " * 36, break_long_words=False
    )


def _fields(switch: str, columns: Iterable[Column], aliases: Mapping[str, str]) -> str:
    second = {name: alias for alias, name in aliases.items()}
    blocks = []
    for column in columns:
        names = f'"{column.name}"' + (f' or "{second[column.name]}"' if column.name in second else "")
        meaning = _MEANINGS.get(column.name) or _UNITS.get(column.unit) or f"The card's {_spoken(column.name)}."
        blocks.append(f"\n{names}\n{meaning}\n")
    return _LIST.format(switch=switch) + "".join(blocks) + "\n"


def _spoken(name: str) -> str:
    return name.replace(".", ", ").replace("_", " ")
