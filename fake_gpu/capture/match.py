"""Finds in the usual layout what a real output shows: which field each value is, and its name in the other format."""

from __future__ import annotations

import re

from fake_gpu.smi.layout import OLDER, Node, columns, shape, template, usual


def matched(nodes: list[Node], *, xml: bool) -> tuple[list[Node], dict[str, str]]:
    """The nodes with names in both formats and with fields for values; and what those fields say.

    What only the other format has comes from the usual layout, in its place.
    """
    fields: dict[str, str] = {}
    return _level(nodes, usual(), xml, fields), fields


def _level(nodes: list[Node], known: list[Node], xml: bool, fields: dict[str, str]) -> list[Node]:
    found: list[Node] = []
    done: list[Node] = []
    for node in nodes:
        like = _counterpart(node, known, xml)
        if like is not None:
            found += _only_elsewhere(known, like, done, xml)
            done.append(like)
        found.append(_translated(node, like, xml, fields))
    return found + _only_elsewhere(known, None, done, xml)


def _counterpart(node: Node, known: list[Node], xml: bool) -> Node | None:
    alike = [one for one in known if (one.tag == node.tag if xml else one.label == node.label)]
    for one in alike:
        if (node.value is None) == (one.value is None):
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


def _translated(node: Node, like: Node | None, xml: bool, fields: dict[str, str]) -> Node:
    if like is None:
        label = node.label or _spelled(node.tag)
        tag = node.tag or re.sub(r"[^a-z0-9]+", "_", node.label.lower()).strip("_")
        children = _level(node.children, [], xml, fields)
        return Node(label, tag, node.value, children=children)
    value = node.value
    if value is None and like.value is not None and (not xml or any(child.tag for child in like.children)):
        value = like.value  # a value in one format, a section in the other
    elif value is not None and like.value is not None:
        value = _bound(value, like.value, fields)
    return Node(like.label, like.tag, value, children=_level(node.children, like.children, xml, fields))


def _bound(value: str, usual_value: str, fields: dict[str, str]) -> str:
    """The value with a field in it, where the usual one has one; what the field says is noted."""
    pattern = template(usual_value)
    said = None if pattern is None else pattern.find(value)
    if pattern is None or said is None:
        return value
    column = columns()[pattern.name]
    if said == "N/A" or said.startswith("Requested functionality"):
        said = f"[{said}]"
    elif pattern.bare and column.unit:
        said = f"{said} {column.unit}"
    before = fields.setdefault(pattern.name, said)
    return usual_value if before == said else value


def _spelled(tag: str) -> str:
    return " ".join(word.upper() if len(word) < 4 else word.capitalize() for word in tag.split("_"))
