"""From nvidia-smi's command line to what it is asked: a value, made once for each command line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

BAD_ARGUMENT: Final = 2
"""Exit status: an argument or option is invalid (nvidia-smi(1), RETURN VALUE)."""

BAD_COMBINATION: Final = "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n\n"

TABLE, LIST, VERSION, HELP = "table", "list", "version", "help"
"""Modes: what one run prints. A query's mode is the name of its option."""

QUERIES: Final = frozenset({"query-gpu", "query-compute-apps"})
HELP_QUERIES: Final = frozenset({"help-query-gpu", "help-query-compute-apps"})


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


class _Option(NamedTuple):
    name: str
    takes_value: bool


_OPTIONS: Final = {
    "-h": _Option(HELP, False),
    "--help": _Option(HELP, False),
    "--version": _Option(VERSION, False),
    "-L": _Option(LIST, False),
    "--list-gpus": _Option(LIST, False),
    "-i": _Option("id", True),
    "--id": _Option("id", True),
    "--format": _Option("format", True),
    **{f"--{name}": _Option(name, True) for name in QUERIES},
    **{f"--{name}": _Option(name, False) for name in HELP_QUERIES},
}


def parse(arguments: tuple[str, ...]) -> Request:
    """What is asked. Raises RefusedError for what the real one refuses, and for what is not covered."""
    given: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        # "--format=csv", "--format csv", "-i 0" and "-i=0" are all the same to it.
        spelled, equals, value = argument.partition("=")
        option = _OPTIONS.get(spelled)
        if option is None or (equals and not option.takes_value):
            raise RefusedError(
                f"ERROR: Option {argument} is not recognized. Please run 'nvidia-smi -h'.\n\n", covered=False
            )
        if option.takes_value and not equals:
            value = next(rest, "")
        if option.takes_value and not value:
            raise RefusedError(f"ERROR: Option {spelled} requires an argument. Please run 'nvidia-smi -h'.\n\n")
        if option.name in given:
            raise RefusedError(BAD_COMBINATION)
        given[option.name] = value
    return _combine(given)


def _combine(given: dict[str, str]) -> Request:
    if HELP in given:  # it wins over everything else
        return Request(HELP)
    modes = [name for name in given if name not in ("id", "format")]
    ids = _words(given["id"]) if "id" in given else None
    if len(modes) > 1 or (ids is not None and modes and modes[0] not in QUERIES | {LIST}):
        raise RefusedError(BAD_COMBINATION)
    mode = modes[0] if modes else TABLE
    request = Request(mode, ids)
    if mode not in QUERIES:
        if "format" in given:
            raise RefusedError(BAD_COMBINATION)
        return request
    if "format" not in given:
        raise RefusedError("\"--format=\" switch is missing. Please run 'nvidia-smi -h' for help.\n\n")
    return _formatted(replace(request, fields=_words(given[mode])), _words(given["format"]))


def _formatted(request: Request, words: tuple[str, ...]) -> Request:
    for word in words:
        if word not in ("csv", "noheader", "nounits"):
            raise RefusedError(f"\"{word}\" is not a valid format option. Please run 'nvidia-smi -h' for help.\n\n")
    if "csv" not in words:
        raise RefusedError("\"csv\" format is mandatory. Please run 'nvidia-smi -h' for help.\n\n")
    return replace(request, header="noheader" not in words, units="nounits" not in words)


def _words(value: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in value.split(",") if word.strip())
