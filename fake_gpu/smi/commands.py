"""Subcommands: `dmon`, `pmon`, `topo` and `nvlink`, and the options of each."""

from __future__ import annotations

from typing import Final

from fake_gpu.smi.arguments import HELP, RefusedError, Request, number, words

COMMANDS: Final = frozenset({"dmon", "pmon", "topo", "nvlink"})
MONITORS: Final = frozenset({"dmon", "pmon"})

METRICS: Final = {"dmon": "pucvmet", "pmon": "um"}
"""The letters that -s takes."""
_USUAL_METRICS: Final = {"dmon": "puc", "pmon": "u"}
_LONGEST_S: Final = 10
_MONITOR_OPTIONS: Final = {
    "--id": "-i",
    "--delay": "-d",
    "--count": "-c",
    "--select": "-s",
    "--options": "-o",
    "--filename": "-f",
}
_DMON_OPTIONS: Final = {**_MONITOR_OPTIONS, "--format": "--format", "--gpm-metrics": "--gpm-metrics"}
_FORMATS: Final = frozenset({"csv", "noheader", "nounit"})
GPM_METRICS: Final = {
    "1": ("gract", "%"),
    "2": ("smutil", "%"),
    "3": ("smocc", "%"),
    "4": ("intutil", "%"),
    "5": ("mmaact", "%"),
    "10": ("dram", "%"),
    "11": ("fp64", "%"),
    "12": ("fp32", "%"),
    "13": ("fp16", "%"),
    "20": ("pcitx", "MiB/s"),
    "21": ("pcirx", "MiB/s"),
    "60": ("nvlrx", "MiB/s"),
    "61": ("nvltx", "MiB/s"),
}
"""Heading and unit of what --gpm-metrics takes, as far as real output of them has been seen."""
_SECOND_NS: Final = 10**9
_SWITCHES: Final = {"topo": {"-m": "matrix", "--matrix": "matrix"}, "nvlink": {"-s": "status", "--status": "status"}}


def parse(command: str, arguments: tuple[str, ...]) -> Request:
    """What is asked. Raises RefusedError."""
    if "-h" in arguments or "--help" in arguments:
        return Request(HELP)
    return _monitor(command, arguments) if command in MONITORS else _display(command, arguments)


def _monitor(command: str, arguments: tuple[str, ...]) -> Request:
    given = _read(command, arguments)
    seconds = number("-d", given.get("-d", "1"))
    metrics = given.get("-s", _USUAL_METRICS[command])
    stamps = given.get("-o", "")
    formats = words(given.get("--format", ""))
    bad = set(metrics) - set(METRICS[command]) or set(stamps) - set("DT") or set(formats) - _FORMATS
    if seconds > _LONGEST_S or bad or ("--format" in given and not formats):
        raise RefusedError(f"ERROR: An option has an invalid argument. Please run 'nvidia-smi {command} -h'.\n\n")
    return Request(
        command,
        words(given["-i"]) if "-i" in given else None,
        every_ns=seconds * _SECOND_NS,
        count=number("-c", given["-c"]) if "-c" in given else None,
        filename=given.get("-f"),
        options=("".join(dict.fromkeys(metrics)), stamps, ",".join(formats), _gpm(given.get("--gpm-metrics", ""))),
    )


def _read(command: str, arguments: tuple[str, ...]) -> dict[str, str]:
    names = _DMON_OPTIONS if command == "dmon" else _MONITOR_OPTIONS
    given: dict[str, str] = {}
    rest = list(reversed(arguments))
    while rest:
        spelled, equals, value = rest.pop().partition("=")
        option = names.get(spelled, spelled)
        if option not in names.values():
            raise _refusal(command, spelled)
        if not equals:
            value = rest.pop() if rest else ""
        if not value:
            raise RefusedError(
                f"ERROR: Option {spelled} is missing its value. Please run 'nvidia-smi {command} -h'.\n\n"
            )
        given[option] = value
    return given


def _gpm(value: str) -> str:
    asked = words(value)
    for one in asked:
        if one not in GPM_METRICS:  # the real one knows more of them
            raise RefusedError(
                f"ERROR: Option --gpm-metrics has an invalid argument {one}. Please run 'nvidia-smi dmon -h'.\n\n",
                covered=False,
            )
    return ",".join(asked)


def _display(command: str, arguments: tuple[str, ...]) -> Request:
    ids: tuple[str, ...] | None = None
    asked = None
    rest = list(reversed(arguments))
    while rest:
        spelled, equals, value = rest.pop().partition("=")
        if spelled in ("-i", "--id"):
            ids = words(value if equals else (rest.pop() if rest else ""))
            continue
        asked = _SWITCHES[command].get(spelled)
        if asked is None:
            raise _refusal(command, spelled)
    if asked is None:
        return Request(HELP)
    return Request(command, ids, options=(asked,))


def _refusal(command: str, option: str) -> RefusedError:
    return RefusedError(
        f"ERROR: Option {option} is not recognized. Please run 'nvidia-smi {command} -h'.\n\n", covered=False
    )
