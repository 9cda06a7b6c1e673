"""From nvidia-smi's command line to what it is asked: a value, made once for each command line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

BAD_ARGUMENT: Final = 2
"""Exit status: an argument or option is invalid (nvidia-smi(1), RETURN VALUE)."""

BAD_COMBINATION: Final = "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n\n"

TABLE, LIST, EXCLUDED, VERSION, HELP, LOG = "table", "list", "list-excluded", "version", "help", "query"
"""Modes: what one run prints. A selective query's mode is the name of its option, a subcommand's its own name."""

QUERIES: Final = frozenset(
    [
        "query-gpu",
        "query-compute-apps",
        "query-accounted-apps",
        "query-retired-pages",
        "query-remapped-rows",
        "query-supported-clocks",
    ]
)
HELP_QUERIES: Final = frozenset(f"help-{query}" for query in QUERIES)

DISPLAYS: Final = frozenset(
    [
        "MEMORY",
        "UTILIZATION",
        "ECC",
        "TEMPERATURE",
        "POWER",
        "CLOCK",
        "COMPUTE",
        "PIDS",
        "PERFORMANCE",
        "SUPPORTED_CLOCKS",
        "PAGE_RETIREMENT",
        "ACCOUNTING",
        "ENCODER_STATS",
        "SUPPORTED_GPU_TARGET_TEMP",
        "VOLTAGE",
        "FBC_STATS",
        "ROW_REMAPPER",
        "GSP_FIRMWARE_VERSION",
        "POWER_SMOOTHING",
        "POWER_PROFILES",
    ]
)
"""What -d takes."""

_SECOND_NS: Final = 10**9
_MILLISECOND_NS: Final = 10**6
_LOOP_SECONDS: Final = "5"
"""What -l means without a number (nvidia-smi(1), --loop)."""
_MODIFIERS: Final = frozenset({"id", "format", "loop", "loop-ms", "filename", "xml", "display"})
_WITH_MODIFIERS: Final[dict[str, frozenset[str]]] = {
    TABLE: frozenset({"id", "loop", "loop-ms", "filename"}),
    LOG: frozenset({"id", "loop", "loop-ms", "filename", "xml", "display"}),
    LIST: frozenset({"id"}),
    **dict.fromkeys(QUERIES, frozenset({"id", "format", "loop", "loop-ms", "filename"})),
}


class RefusedError(Exception):
    """nvidia-smi says this and ends with this status instead of doing anything.

    `covered`: False where the fake does not know an option, so that the real one might well have done something.
    """

    def __init__(self, text: str, code: int = BAD_ARGUMENT, *, covered: bool = True) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.covered = covered


@dataclass(frozen=True, slots=True)
class Request:
    """One run's wish. `ids`: what -i was given, None where every GPU is meant."""

    mode: str = TABLE
    ids: tuple[str, ...] | None = None
    fields: tuple[str, ...] = ()
    header: bool = True
    units: bool = True
    xml: bool = False
    display: tuple[str, ...] = ()
    """The sections that -d leaves, in capitals; empty: all."""
    every_ns: int | None = None
    """The time from one output to the next; None: there is one only."""
    count: int | None = None
    """Outputs until it ends by itself; None: for ever."""
    filename: str | None = None
    """Where the output goes instead of stdout."""
    options: tuple[str, ...] = ()
    """A subcommand's own."""


class _Option(NamedTuple):
    name: str
    takes_value: bool
    default: str | None = None
    """What it means without a value, where it may have none."""


_OPTIONS: Final = {
    "-h": _Option(HELP, False),
    "--help": _Option(HELP, False),
    "--version": _Option(VERSION, False),
    "-L": _Option(LIST, False),
    "--list-gpus": _Option(LIST, False),
    "-B": _Option(EXCLUDED, False),
    "--list-excluded-gpus": _Option(EXCLUDED, False),
    "-q": _Option(LOG, False),
    "--query": _Option(LOG, False),
    "-a": _Option(LOG, False),  # what it was called before; drivers of 535 still take it
    "-x": _Option("xml", False),
    "--xml-format": _Option("xml", False),
    "-d": _Option("display", True),
    "--display": _Option("display", True),
    "-i": _Option("id", True),
    "--id": _Option("id", True),
    "-f": _Option("filename", True),
    "--filename": _Option("filename", True),
    "-l": _Option("loop", True, _LOOP_SECONDS),
    "--loop": _Option("loop", True, _LOOP_SECONDS),
    "-lms": _Option("loop-ms", True),
    "--loop-ms": _Option("loop-ms", True),
    "--format": _Option("format", True),
    **{f"--{name}": _Option(name, True) for name in QUERIES},
    **{f"--{name}": _Option(name, False) for name in HELP_QUERIES},
}


def parse(arguments: tuple[str, ...]) -> Request:
    """What is asked. Raises RefusedError for what the real one refuses, and for what is not covered."""
    from fake_gpu.smi import commands  # which takes its words from here

    if arguments and arguments[0] in commands.COMMANDS:
        return commands.parse(arguments[0], arguments[1:])
    return _combine(_read(arguments))


def _read(arguments: tuple[str, ...]) -> dict[str, str]:
    given: dict[str, str] = {}
    rest = list(reversed(arguments))
    while rest:
        argument = rest.pop()
        # "--format=csv", "--format csv", "-i 0" and "-i=0" are all the same to it.
        spelled, equals, value = argument.partition("=")
        option = _OPTIONS.get(spelled)
        if option is None or (equals and not option.takes_value):
            # As users of real ones have quoted it: only behind another argument does it offer help.
            help_ = " for help" if len(rest) + 1 < len(arguments) else ""
            raise RefusedError(
                f"ERROR: Option {argument} is not recognized. Please run 'nvidia-smi -h'{help_}.\n\n", covered=False
            )
        if option.takes_value and not equals:
            if option.default is not None and (not rest or rest[-1].startswith("-")):
                value = option.default
            else:
                value = rest.pop() if rest else ""
        if option.takes_value and not value:
            raise RefusedError(
                f"ERROR: Option {spelled} is missing its value. Please run 'nvidia-smi -h' for help.\n\n"
            )
        if option.name in given:
            raise RefusedError(BAD_COMBINATION)
        given[option.name] = value
    return given


def _combine(given: dict[str, str]) -> Request:
    if HELP in given:  # it wins over everything else
        return Request(HELP)
    modes = [name for name in given if name not in _MODIFIERS]
    mode = modes[0] if modes else TABLE
    if len(modes) > 1 or not _MODIFIERS.intersection(given) <= _WITH_MODIFIERS.get(mode, frozenset()):
        raise RefusedError(BAD_COMBINATION)
    if ("loop" in given and "loop-ms" in given) or ("xml" in given and "display" in given):
        raise RefusedError(BAD_COMBINATION)
    request = Request(
        mode,
        words(given["id"]) if "id" in given else None,
        xml="xml" in given,
        display=_display(given.get("display", "")),
        every_ns=_interval(given),
        filename=given.get("filename"),
    )
    if mode not in QUERIES:
        return request
    if "format" not in given:
        raise RefusedError("\"--format=\" switch is missing. Please run 'nvidia-smi -h' for help.\n\n")
    # What the real one says to commas alone was not seen; without a field there is nothing to print.
    return _formatted(replace(request, fields=words(given[mode]) or ("",)), words(given["format"]))


def _formatted(request: Request, formats: tuple[str, ...]) -> Request:
    for word in formats:
        if word not in ("csv", "noheader", "nounits"):
            raise RefusedError(f"\"{word}\" is not a valid format option. Please run 'nvidia-smi -h' for help.\n\n")
    if "csv" not in formats:
        raise RefusedError("\"csv\" format is mandatory. Please run 'nvidia-smi -h' for help.\n\n")
    return replace(request, header="noheader" not in formats, units="nounits" not in formats)


def _display(value: str) -> tuple[str, ...]:
    wanted = tuple(word.upper() for word in words(value))
    for word in wanted:
        if word not in DISPLAYS:
            raise RefusedError(f"ERROR: Option --display={value} is not valid. Please run 'nvidia-smi -h'.\n\n")
    return wanted


def _interval(given: dict[str, str]) -> int | None:
    if "loop" in given:
        return number("-l", given["loop"]) * _SECOND_NS
    if "loop-ms" in given:
        return number("-lms", given["loop-ms"]) * _MILLISECOND_NS
    return None


def number(option: str, value: str) -> int:
    """A whole number above 0. Raises RefusedError."""
    if not value.isascii() or not value.isdigit() or int(value) == 0:
        raise RefusedError(f"ERROR: Option {option} has an invalid argument {value}. Please run 'nvidia-smi -h'.\n\n")
    return int(value)


def words(value: str) -> tuple[str, ...]:
    """What stands between the commas."""
    return tuple(word.strip() for word in value.split(",") if word.strip())
