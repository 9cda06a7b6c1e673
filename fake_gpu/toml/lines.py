"""Where the values of a TOML file begin. tomllib keeps no positions, and a reader that does is one dependency more."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from fake_gpu.toml.table import Step

Path = tuple[Step, ...]

_SPACE: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY: Final = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_SCALAR: Final = re.compile(
    r'"""(?:[^\\]|\\[\s\S])*?"""(?:"{1,2}(?!"))?'
    r"|'''[\s\S]*?'''(?:'{1,2}(?!'))?"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|[^\s,\]}#]+(?: [0-9][^\s,\]}#]*)?"  # a number, a boolean, a time with a space between its date and its hour
)


def line_of(text: str, steps: Sequence[Step]) -> int | None:
    """The line, counted from 1, on which the value at `steps` begins, or else what is nearest of what holds it.

    `text` is valid TOML. None where it has nothing of it, not even that element of an array.
    """
    lines = _Lines(text).found
    least = 2 if len(steps) > 1 and isinstance(steps[1], int) else 1
    return next((lines[at] for n in range(len(steps), least - 1, -1) if (at := tuple(steps[:n])) in lines), None)


class _Lines:
    """One reading of a file: the line of each key, table and element of an array, by its path."""

    def __init__(self, text: str) -> None:
        self.found: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._ends = [match.start() for match in re.finditer("\n", text)]
        self._counts: dict[Path, int] = {}
        self._document()

    def _document(self) -> None:
        table: Path = ()
        while self._more():
            if self._takes("[["):
                table = self._table(is_array=True)
                self._expect("]]")
            elif self._takes("["):
                table = self._table(is_array=False)
                self._expect("]")
            else:
                self._pair(table)

    def _table(self, *, is_array: bool) -> Path:
        """Where a header leads, counting the elements of the arrays of tables on the way."""
        *above, last = self._keys()
        at: Path = ()
        for key in above:
            at = (*at, key)
            self._note(at)
            if at in self._counts:
                at = (*at, self._counts[at])
        at = (*at, last)
        self._note(at)
        if is_array:
            self._counts[at] = self._counts.get(at, -1) + 1
            at = (*at, self._counts[at])
            self._note(at)
        return at

    def _pair(self, table: Path) -> None:
        for key in self._keys():
            table = (*table, key)
            self._note(table)
        self._expect("=")
        self._value(table)

    def _value(self, path: Path) -> None:
        if self._takes("["):
            for place in self._until("]"):
                self._note((*path, place))
                self._value((*path, place))
        elif self._takes("{"):
            for _ in self._until("}"):
                self._pair(path)
        else:
            self._match(_SCALAR)

    def _until(self, end: str) -> Iterator[int]:
        """One after another of what commas separate, counted from 0, up to `end`."""
        place = 0
        while self._more() and not self._takes(end):
            yield place
            place += 1
            self._takes(",")

    def _keys(self) -> Iterator[str]:
        while True:
            key = self._match(_KEY)
            yield msgspec.toml.decode(f"key = {key}")["key"] if key[:1] in ('"', "'") else key
            if not self._takes("."):
                return

    # -- characters

    def _more(self) -> bool:
        self._match(_SPACE)
        return self._at < len(self._text)

    def _takes(self, mark: str) -> bool:
        self._match(_SPACE)
        if not self._text.startswith(mark, self._at):
            return False
        self._at += len(mark)
        return True

    def _expect(self, mark: str) -> None:
        if not self._takes(mark):
            raise ValueError(f"not TOML: {mark!r} is missing in line {self._line()}")

    def _match(self, pattern: re.Pattern[str]) -> str:
        if pattern is not _SPACE:
            self._match(_SPACE)
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError(f"not TOML: line {self._line()}")
        self._at = found.end()
        return found[0]

    def _line(self) -> int:
        return bisect_left(self._ends, self._at) + 1

    def _note(self, path: Path) -> None:
        self._match(_SPACE)
        self.found.setdefault(path, self._line())
