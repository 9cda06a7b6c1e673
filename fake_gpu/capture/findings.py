"""What is wrong with an output, and what a reader of it should know: by line, all of it at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from fake_gpu.errors import InvalidValue

_MOST: Final = 20
"""Problems that one error tells; an output in another language would have hundreds."""


@dataclass(slots=True)
class Findings:
    """Of one file. `problems` keep it from being read, `notes` do not; each as "FILE:LINE: what"."""

    what: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def refuse(self, line: int, text: str) -> None:
        """Notes a problem on a line of the file."""
        self.problems.append(f"{self.what}:{line}: {text}")

    def note(self, line: int, text: str) -> None:
        """Notes what is no problem, on a line of the file."""
        self.notes.append(f"{self.what}:{line}: {text}")

    def of_output(self, first: int) -> OutputFindings:
        """Those of one output that begins on the line `first` of the file."""
        return OutputFindings(self, first)

    def end(self) -> None:
        """Raises InvalidValue with all problems, where there are any."""
        found = list(dict.fromkeys(self.problems))
        if found:
            raise InvalidValue("\n".join([*found[:_MOST], *_more(found[_MOST:])]))


@dataclass(frozen=True, slots=True)
class OutputFindings:
    """Of one output in a file; lines are given as the output has them, from 1."""

    all: Findings
    first: int

    def line(self, line: int) -> int:
        """The line of the file."""
        return self.first + line - 1

    @property
    def has_problems(self) -> bool:
        """Whether anything of the file was refused already."""
        return bool(self.all.problems)

    def refuse(self, line: int, text: str) -> None:
        """Notes a problem."""
        self.all.refuse(self.line(line), text)

    def note(self, line: int, text: str) -> None:
        """Notes what is no problem."""
        self.all.note(self.line(line), text)


def _more(rest: Iterable[str]) -> list[str]:
    count = len(list(rest))
    return [f"and {count} more"] if count else []


def counted(count: int, noun: str) -> str:
    """Such as "1 GPU", "2 GPUs"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
