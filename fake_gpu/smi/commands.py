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
_SECOND_NS: Final = 10**9
_SWITCHES: Final = {"topo": {"-m": "matrix", "--matrix": "matrix"}, "nvlink": {"-s": "status", "--status": "status"}}


def parse(command: str, arguments: tuple[str, ...]) -> Request:
    """What is asked. Raises RefusedError."""
    if "-h" in arguments or "--help" in arguments:
        return Request(HELP)
    return _monitor(command, arguments) if command in MONITORS else _display(command, arguments)


def _monitor(command: str, arguments: tuple[str, ...]) -> Request:
    given: dict[str, str] = {}
    rest = list(reversed(arguments))
    names = {"--id": "-i", "--delay": "-d", "--count": "-c", "--select": "-s", "--options": "-o", "--filename": "-f"}
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
    seconds = number("-d", given.get("-d", "1"))
    metrics = given.get("-s", _USUAL_METRICS[command])
    stamps = given.get("-o", "")
    if seconds > _LONGEST_S or set(metrics) - set(METRICS[command]) or set(stamps) - set("DT"):
        raise RefusedError(f"ERROR: An option has an invalid argument. Please run 'nvidia-smi {command} -h'.\n\n")
    return Request(
        command,
        words(given["-i"]) if "-i" in given else None,
        every_ns=seconds * _SECOND_NS,
        count=number("-c", given["-c"]) if "-c" in given else None,
        filename=given.get("-f"),
        options=(metrics, stamps),
    )


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
