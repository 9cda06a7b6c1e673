"""Texts of others, made safe to show: a terminal obeys control characters, and a browser turns text around."""

from __future__ import annotations

import html
import re

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # all controls but tab and newline
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what changes the direction of text
    "\u2028\u2029\ufeff\ud800-\udfff]"  # separators, the byte order mark, halves of pairs
)


def visible(text: str) -> str:
    r"""`text` with what cannot be seen, or changes how the rest is seen, as an escape: `\x1b`, `\u202e`."""
    return _HIDDEN.sub(_escape, text)


def in_html(text: str) -> str:
    """The same as the text of an element, or the value of an attribute."""
    return html.escape(visible(text))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
