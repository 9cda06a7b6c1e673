"""Lines of `-q`; and texts of others, names of processes for one, such that they do not break what is around them."""

from __future__ import annotations

import re
from typing import Final
from xml.sax.saxutils import escape

from fake_gpu.values import CONTROLS

_NOT_IN_XML: Final = re.compile(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML 1.0 document may have, not even as a reference; and carriage returns, which come back as newlines."""


def labelled(depth: int, label: str, column: int) -> str:
    """The beginning of one line of `-q`, up to its value; `column`: where the colon stands, from 0."""
    return f"{' ' * (4 * depth) + label:<{column}}: "


def line(depth: int, label: str, value: str, column: int) -> str:
    """One line of `-q`."""
    return f"{labelled(depth, label, column)}{value}\n"


def in_one_line(text: str) -> str:
    """The text with a question mark for each control character: a line, and a table's frame, stay whole."""
    return CONTROLS.sub("?", text)


def in_xml(text: str) -> str:
    """The text as the content of an element."""
    return escape(_NOT_IN_XML.sub("?", text))
