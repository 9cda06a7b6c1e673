"""Texts of others, names of processes for one, such that they do not break what is printed around them."""

from __future__ import annotations

import re
from typing import Final
from xml.sax.saxutils import escape

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NOT_IN_XML: Final = re.compile(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML 1.0 document may have, not even as a reference; and carriage returns, which come back as newlines."""


def in_one_line(text: str) -> str:
    """The text with a question mark for each control character: a line, and a table's frame, stay whole."""
    return _CONTROL.sub("?", text)


def in_xml(text: str) -> str:
    """The text as the content of an element."""
    return escape(_NOT_IN_XML.sub("?", text))
