"""`nvidia-smi -q` and `-q -x` as trees of entries, each with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from fake_gpu.errors import InvalidValue

_LINE: Final = re.compile(r"( *)(.*?)(?: *:(?: (.*))?)?")
"""Indentation, label, value. An editor may have cut the blank behind the colon of an empty value."""
_ROOT: Final = "nvidia_smi_log"


@dataclass(slots=True)
class Entry:
    """A line of the text with those below it; an element of the XML in the same form.

    `label`: what stands before the colon, or the element's name. `value` None: a section. `line`: from 1.
    """

    label: str
    value: str | None
    line: int
    children: list[Entry] = field(default_factory=list)

    def find(self, *labels: str) -> Entry | None:
        """The first child with one of these labels."""
        return next((child for child in self.children if child.label in labels), None)

    def below(self) -> Iterator[Entry]:
        """Every entry below, in the order of lines."""
        for child in self.children:
            yield child
            yield from child.below()

    def first(self, *labels: str) -> Entry | None:
        """The first entry anywhere below with one of these labels."""
        return next((entry for entry in self.below() if entry.label in labels), None)

    @property
    def last_line(self) -> int:
        """The line of the last entry below, or its own."""
        return max((entry.line for entry in self.below()), default=self.line)


def tree_of_text(text: str) -> Entry:
    """The output of `-q`, below an entry without a label."""
    top = Entry("", None, 1)
    open_: list[tuple[int, Entry]] = [(-1, top)]
    for number, line in enumerate(text.split("\n"), 1):
        found = _LINE.fullmatch(line.rstrip("\r"))
        if found is None or not line.strip() or line.startswith("="):
            continue
        indent = len(found[1])
        while open_[-1][0] >= indent:
            open_.pop()
        value = found[3] if found[3] is not None or not line.rstrip().endswith(":") else ""
        entry = Entry(found[2], value, number)
        open_[-1][1].children.append(entry)
        open_.append((indent, entry))
    return top


class _Reader:
    """Takes what expat finds. ElementTree would not tell the lines."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate("utf-8")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.EntityDeclHandler = self._entity
        self.root: Entry | None = None
        self.open: list[Entry] = []
        self.identities: list[str] = []

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        entry = Entry(name, "", self.parser.CurrentLineNumber)
        if self.open:
            self.open[-1].children.append(entry)
        else:
            self.root = entry
        if name == "gpu" and len(self.open) == 1:
            self.identities.append(attributes.get("id", ""))
        self.open.append(entry)

    def _end(self, name: str) -> None:
        entry = self.open.pop()
        if entry.children or not (entry.value or "").strip():
            entry.value = None  # an empty element is a section without entries
        elif entry.value and "\n" in entry.value:
            entry.value = entry.value.strip()  # indented by whoever published it

    def _text(self, text: str) -> None:
        if self.open and not self.open[-1].children:
            self.open[-1].value = (self.open[-1].value or "") + text

    def _entity(self, *_: object) -> None:
        raise InvalidValue("this XML declares entities, which nvidia-smi never does")


def tree_of_xml(text: str, first: int = 1) -> Entry:
    """The root element of `-q -x`. Raises InvalidValue where it is no XML, or is cut: where it ends, and in what.

    `first`: the line of the file on which the text begins, for the error's lines alone.
    """
    reader = _Reader()
    try:
        reader.parser.Parse(text.encode("utf-8"), True)
    except expat.ExpatError as error:
        if reader.root is not None and reader.root.label == _ROOT and f"</{_ROOT}>" not in text:
            raise InvalidValue(_cut(reader, first + text.rstrip("\n").count("\n"))) from error
        raise InvalidValue(
            f"this is no XML: {expat.ErrorString(error.code)} in line {first + error.lineno - 1}"
        ) from error
    if reader.root is None:
        raise InvalidValue("this is no XML: it has no element")
    return reader.root


def _cut(reader: _Reader, end: int) -> str:
    inside = [f"<{entry.label}>" for entry in reader.open[1:]]
    attached = reader.root.find("attached_gpus") if reader.root else None
    where = f"the output is cut: it ends at line {end}, in {' '.join(inside) or f'<{_ROOT}>'}"
    if reader.identities:
        of = f" of {attached.value}" if attached is not None else ""
        where += f" (GPU {reader.identities[-1]}, {len(reader.identities)}{of})"
    return f"{where}; the rest up to </{_ROOT}> is missing: run nvidia-smi -q -x again"
