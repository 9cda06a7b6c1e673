"""Capture files: the output of many nvidia-smi commands in one, each under a heading with the command."""

from __future__ import annotations

import codecs
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fake_gpu.errors import InvalidValue

_HEADING: Final = re.compile(r"^#{80}\n# (.+)\n(?:# \$ (.*)\n)?(?:#(?!#).*\n)*#{80}\n", re.MULTILINE)
_TEXT_START: Final = re.compile(r"(?:^\n)?^=+NVSMI LOG=+$", re.MULTILINE)
_XML_START: Final = re.compile(
    r"(?:<\?xml[^>]*>\s*)?(?:<!DOCTYPE nvidia_smi_log [^\[>]*(?:\[.*?\]\s*)?>\s*)?<nvidia_smi_log\b", re.DOTALL
)
_XML_END: Final = "</nvidia_smi_log>"
_INPUT: Final = "-"
_NAMES_OF_LOG: Final = frozenset({"-q", "--query", "-a"})
NO_STATE: Final = "capabilities"


@dataclass(frozen=True, slots=True)
class Shot:
    """One command's output. `state`: what the machine did meanwhile, such as "idle" or "load".

    `line`: of the file, from 1, on which `text` begins. `outputs`: how many there were, one after the other, as of
    `nvidia-smi -q -l`; `text` is the first that is complete.
    """

    state: str
    arguments: tuple[str, ...]
    text: str
    line: int = 1
    outputs: int = 1

    @property
    def command(self) -> str:
        """Without the long lists of fields."""
        return " ".join(["nvidia-smi", *(argument.partition("=")[0] for argument in self.arguments)])

    @property
    def option(self) -> str:
        """The first argument without its value, "-q" for all of its names; "" for none."""
        option = self.arguments[0].partition("=")[0] if self.arguments else ""
        return "-q" if option in _NAMES_OF_LOG else option

    @property
    def is_partial(self) -> bool:
        """Whether -q was asked for parts alone."""
        return any(argument.startswith(("-d", "--display")) for argument in self.arguments)


def read_file(path: Path) -> str:
    """The text of a file, or of standard input for "-". Raises InvalidValue where it cannot be read.

    UTF-8, or UTF-16 as `>` writes it in Windows' own PowerShell.
    """
    try:
        data = sys.stdin.buffer.read() if str(path) == _INPUT else path.read_bytes()
    except OSError as error:
        raise InvalidValue(f"{path} cannot be read: {error.strerror}") from error
    try:
        text = data.decode(_encoding(data))
    except UnicodeDecodeError as error:
        raise InvalidValue(
            f"{path} cannot be read: it is neither UTF-8 nor UTF-16 (byte {error.start}: {error.reason})"
        ) from error
    return text.replace("\r\n", "\n")


def _encoding(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-16-le" if data[1:2] == b"\0" else "utf-8-sig"


def shots_of(text: str, what: str) -> tuple[Shot, ...]:
    """Each command's output in a text. Raises InvalidValue for a text that is neither -q, -q -x nor a capture file."""
    if not text.strip():
        raise InvalidValue(f"{what} is empty: give what `nvidia-smi -q -x` or `nvidia-smi -q` has printed")
    start = text.lstrip()[:400]
    if "<nvidia_smi_log" in start or start.startswith("<?xml"):
        return (_first_complete(Shot("", ("-q", "-x"), text)),)
    shots = tuple(_headed(text))
    if shots:
        return shots
    if "NVSMI LOG" in start:
        return (_first_complete(Shot("", ("-q",), text)),)
    raise InvalidValue(
        f"{what} is nothing that can be read: give what `nvidia-smi -q -x` or `nvidia-smi -q` has printed, or a "
        f"capture file, in which each output stands under a heading with `# $ nvidia-smi ...`"
    )


def _headed(text: str) -> list[Shot]:
    """The outputs of a capture file, which stand each under a heading."""
    shots = []
    headings = list(_HEADING.finditer(text))
    for place, heading in enumerate(headings):
        title, command = heading.groups()
        if command is None or command.split(" ")[0] not in ("nvidia-smi", "nvidia-smi.exe"):
            continue
        end = headings[place + 1].start() if place + 1 < len(headings) else len(text)
        output = _trimmed(text[heading.end() : end])
        line = text.count("\n", 0, heading.end()) + 1
        shots.append(_first_complete(Shot(title.partition(" :: ")[0], _words(command), output, line)))
    return shots


def _words(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command)[1:])
    except ValueError:  # a quotation that does not end
        return tuple(command.split()[1:])


def _first_complete(shot: Shot) -> Shot:
    """Of several outputs of -q, one after the other, the first that has its end."""
    if shot.option != "-q":
        return shot
    xml = "-x" in shot.arguments
    starts = [found.start() for found in (_XML_START if xml else _TEXT_START).finditer(shot.text)]
    if not starts or (len(starts) == 1 and not xml):
        return shot
    outputs = [(start, shot.text[start:end]) for start, end in zip(starts, [*starts[1:], None], strict=True)]
    start, text = next((one for one in outputs if not xml or _XML_END in one[1]), outputs[0])
    if xml and _XML_END in text:
        text = text[: text.index(_XML_END) + len(_XML_END)] + "\n"
    line = shot.line + shot.text.count("\n", 0, start)
    return Shot(shot.state, shot.arguments, text, line, len(outputs))


def _trimmed(output: str) -> str:
    """Without the two blank lines that stand before the next heading."""
    if output.endswith("\n\n\n"):
        return output[:-2]
    return output
