"""What `nvidia-smi -q` prints of a GPU: a tree of labels and elements, read from layout.txt or from a profile."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

from fake_gpu.errors import InvalidValue
from fake_gpu.smi.columns import Column, has_no_value, plain

ABSENT: Final = "-"
OLDER: Final = "older"
CONDITIONS: Final = frozenset({"", "tlimit", "absolute", "remapped", "no-remapped", "595", OLDER})
"""When a line of layout.txt is printed; see `log.holds`."""
GROUPS: Final = frozenset({"@mig_devices", "@processes", "@supported_clocks"})

_INDENT: Final = 4
_BETWEEN: Final = re.compile(r" \|(?= )")
_FIELD: Final = re.compile(r"(.*?)\{(-?)([\w.]+)\}(.*)", re.DOTALL)


@dataclass(slots=True)
class Node:
    """One entry. `label` is what -q prints, `tag` what -q -x does; "" where it does not. `value` None: a section."""

    label: str
    tag: str
    value: str | None
    condition: str = ""
    children: list[Node] = field(default_factory=list)

    @property
    def field(self) -> str:
        """The field of the driver's state that the value shows; "" for a text."""
        found = _FIELD.fullmatch(self.value or "")
        return found[3] if found else ""


@dataclass(frozen=True, slots=True)
class Template:
    """A value with a field in it. `bare`: the field without its unit."""

    before: str
    name: str
    bare: bool
    after: str

    def fill(self, cell: str) -> str:
        """The value; a field that is not available stands alone."""
        shown = plain(cell)
        return shown if cell != shown or shown == "N/A" else f"{self.before}{shown}{self.after}"

    def find(self, text: str) -> str | None:
        """What the field says where this value is printed as `text`; None where it cannot have been."""
        if has_no_value(text):
            return text
        if not text.startswith(self.before) or not text.endswith(self.after):
            return None
        return text[len(self.before) : len(text) - len(self.after)]


def template(value: str) -> Template | None:
    """The template in a value; None for a text."""
    found = _FIELD.fullmatch(value)
    return Template(found[1], found[3], bool(found[2]), found[4]) if found else None


def parse(text: str) -> list[Node]:
    """The tree in a text of the form of layout.txt. Raises InvalidValue with the number of a line that is not."""
    top: list[Node] = []
    levels = [top]
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        depth, rest = divmod(len(line) - len(line.lstrip(" ")), _INDENT)
        if rest or depth >= len(levels):
            raise InvalidValue(f"line {number} of the log is indented too far or not by fours: {line.strip()!r}")
        node = _node(line.strip(" "), number)
        del levels[depth + 1 :]
        levels[depth].append(node)
        levels.append(node.children)
    return top


def _node(line: str, number: int) -> Node:
    parts = [_unquoted(part.strip(" ")) for part in _BETWEEN.split(f"{line} ")]
    if not 2 <= len(parts) <= 4:
        raise InvalidValue(f"line {number} of the log is not `label | element | value`: {line!r}")
    label, tag, *rest = parts
    value = rest[0] if rest and (rest[0] or '""' in line) else None
    node = Node(label.replace(ABSENT, "") if label == ABSENT else label, "" if tag == ABSENT else tag, value)
    node.condition = rest[1] if len(rest) > 1 else ""
    if node.condition not in CONDITIONS:
        raise InvalidValue(f"line {number} of the log has the condition {node.condition!r}, which is none")
    if value is not None and value.startswith("@") and value not in GROUPS:
        raise InvalidValue(f"line {number} of the log: {value} is none of {', '.join(sorted(GROUPS))}")
    return node


def _unquoted(part: str) -> str:
    return part[1:-1] if len(part) >= 2 and part[0] == part[-1] == '"' else part


def _quoted(part: str) -> str:
    return f'"{part}"' if part != part.strip(" ") or not part else part


def write(nodes: list[Node], depth: int = 0) -> Iterator[str]:
    """The lines that `parse` reads."""
    for node in nodes:
        cells = [_quoted(node.label or ABSENT), node.tag or ABSENT]
        if node.value is not None or node.condition:
            cells.append("" if node.value is None else _quoted(node.value))
        if node.condition:
            cells.append(node.condition)
        yield " " * (_INDENT * depth) + " | ".join(cells)
        yield from write(node.children, depth + 1)


@cache
def usual() -> list[Node]:
    """What cards print for which no profile says otherwise."""
    return parse((Path(__file__).parent / "layout.txt").read_text(encoding="utf-8"))


@lru_cache(maxsize=64)
def of_log(log: str | None) -> list[Node]:
    """A profile's own layout, or the usual one."""
    return usual() if log is None else parse(log)


def walk(nodes: list[Node], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Node]]:
    """Every node, with the labels (or elements, where there is none) that lead to it."""
    for node in nodes:
        path = (*above, node.label or node.tag)
        yield path, node
        yield from walk(node.children, path)


def shape(node: Node) -> Node:
    """The node without what is below it."""
    return replace(node, children=[])


def fault_in_texts(smi: Mapping[str, str], log: str | None) -> tuple[tuple[str, ...], str] | None:
    """The key and the reason of what cannot be in a profile's quotations of nvidia-smi; None where all can."""
    known = columns()
    for name in smi:
        if name not in known:
            return ("smi", name), f"smi has {name!r}, which is no field of --query-gpu (see --help-query-gpu)"
    if log is None:
        return None
    try:
        nodes = parse(log)
    except InvalidValue as error:
        return ("log",), str(error)
    for path, node in walk(nodes):
        if node.field and node.field not in known:
            return ("log",), f"the log shows {node.field!r} as {' / '.join(path)}, and there is no such field"
    return None


@cache
def columns() -> dict[str, Column]:
    """Every field that a value can show: those of --query-gpu, and those that only -q has."""
    from fake_gpu.smi import fields_log, query_gpu

    return {column.name: column for column in (*query_gpu.COLUMNS, *fields_log.COLUMNS)}
