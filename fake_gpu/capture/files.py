"""Capture files: the output of many nvidia-smi commands in one, each under a heading with the command."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fake_gpu.errors import InvalidValue

_HEADING: Final = re.compile(r"^#{80}\n# (.+)\n(?:# \$ (.*)\n)?(?:#(?!#).*\n)*#{80}\n", re.MULTILINE)
NO_STATE: Final = "capabilities"


@dataclass(frozen=True, slots=True)
class Shot:
    """One command's output. `state`: what the machine did meanwhile, such as "idle" or "load"."""

    state: str
    arguments: tuple[str, ...]
    text: str

    @property
    def command(self) -> str:
        """Without the long lists of fields."""
        return " ".join(["nvidia-smi", *(argument.partition("=")[0] for argument in self.arguments)])

    @property
    def option(self) -> str:
        """The first argument without its value; "" for none."""
        return self.arguments[0].partition("=")[0] if self.arguments else ""


def read_file(path: Path) -> str:
    """The text of a file. Raises InvalidValue where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def shots_of(text: str, what: str) -> tuple[Shot, ...]:
    """Each command's output in a text. Raises InvalidValue for a text that is neither -q, -q -x nor a capture file."""
    start = text.lstrip()[:400]
    if "<nvidia_smi_log" in start or start.startswith("<?xml"):
        return (Shot("", ("-q", "-x"), text),)
    parts = _HEADING.split(text)
    if len(parts) > 1:
        shots = tuple(
            Shot(heading.partition(" :: ")[0], tuple(shlex.split(command)[1:]), _trimmed(output))
            for heading, command, output in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
            if command is not None and command.split(" ")[0] in ("nvidia-smi", "nvidia-smi.exe")
        )
        if shots:
            return shots
    if "NVSMI LOG" in start:
        return (Shot("", ("-q",), text),)
    raise InvalidValue(
        f"{what} is nothing that can be read: give what `nvidia-smi -q -x` or `nvidia-smi -q` has printed, or a "
        f"capture file, in which each output stands under a heading with `# $ nvidia-smi ...`"
    )


def _trimmed(output: str) -> str:
    """Without the two blank lines that stand before the next heading."""
    if output.endswith("\n\n\n"):
        return output[:-2]
    return output
