"""Finds in the usual layout what a real output shows: which field each value is, and its name in the other format."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fake_gpu.capture.entries import Entry
from fake_gpu.smi.columns import has_no_value
from fake_gpu.smi.layout import OLDER, Node, columns, shape, template, usual


@dataclass(frozen=True, slots=True)
class Said:
    """What an entry says of a field. `text` None: its value is not of the form that the field is printed in."""

    name: str
    text: str | None
    entry: Entry


def matched(entries: list[Entry], *, xml: bool) -> tuple[list[Node], list[Said]]:
    """The entries as nodes with names in both formats and with fields for values; and what those fields say.

    What only the other format has comes from the usual layout, in its place.
    """
    said: list[Said] = []
    return _level(entries, usual(), xml, said), said


def fields_of(said: list[Said]) -> dict[str, str]:
    """By field, what is said of it first."""
    fields: dict[str, str] = {}
    for one in said:
        if one.text is not None:
            fields.setdefault(one.name, one.text)
    return fields


def _level(entries: list[Entry], known: list[Node], xml: bool, said: list[Said]) -> list[Node]:
    found: list[Node] = []
    done: list[Node] = []
    for entry in entries:
        like = _counterpart(entry, known, xml)
        if like is not None:
            found += _only_elsewhere(known, like, done, xml)
            done.append(like)
        found.append(_translated(entry, like, xml, said))
    return found + _only_elsewhere(known, None, done, xml)


def _counterpart(entry: Entry, known: list[Node], xml: bool) -> Node | None:
    alike = [one for one in known if (one.tag if xml else one.label) == entry.label]
    for one in alike:
        if (entry.value is None) == (one.value is None):
            return one
    return alike[0] if alike else None


def _only_elsewhere(known: list[Node], up_to: Node | None, done: list[Node], xml: bool) -> list[Node]:
    """Nodes before `up_to` that this format does not have, which have not been taken over yet."""
    taken: list[Node] = []
    for one in known:
        if one is up_to:
            break
        if one.condition == OLDER or any(one is other for other in done):
            continue
        if not (one.tag if xml else one.label) or (one.value or "").startswith("@"):
            taken.append(_whole(one))
            done.append(one)
    return taken


def _whole(node: Node) -> Node:
    copy = shape(node)
    copy.condition = ""
    copy.children = [_whole(child) for child in node.children if child.condition != OLDER]
    return copy


def _translated(entry: Entry, like: Node | None, xml: bool, said: list[Said]) -> Node:
    if like is None:
        label = _spelled(entry.label) if xml else entry.label
        tag = entry.label if xml else _tag(entry.label)
        return Node(label, tag, entry.value, children=_level(entry.children, [], xml, said))
    value = entry.value
    if value is None and like.value is not None and (not xml or any(child.tag for child in like.children)):
        value = like.value  # a value in one format, a section in the other
    elif value is not None and like.value is not None:
        value = _bound(entry, value, like.value, said)
    return Node(like.label, like.tag, value, children=_level(entry.children, like.children, xml, said))


def _bound(entry: Entry, value: str, usual_value: str, said: list[Said]) -> str:
    """The value with a field in it, where the usual one has one; what the field says is noted."""
    pattern = template(usual_value)
    if pattern is None:
        return value
    text = pattern.find(value)
    before = next((one.text for one in said if one.name == pattern.name and one.text is not None), None)
    if text is not None:
        column = columns()[pattern.name]
        if has_no_value(text):
            text = f"[{text}]"
        elif pattern.bare and column.unit:
            text = f"{text} {column.unit}"
    said.append(Said(pattern.name, text, entry))
    return usual_value if text is not None and before in (None, text) else value


def _tag(label: str) -> str:
    """What an element of that label would be called; "" where there is one, which comes from the usual layout."""
    tag = re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")
    return "" if any(one.tag == tag and not one.label for one in usual()) else tag


def _spelled(tag: str) -> str:
    return " ".join(word.upper() if len(word) < 4 else word.capitalize() for word in tag.split("_"))
