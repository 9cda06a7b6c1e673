"""Keys and texts as a TOML file has them."""

from __future__ import annotations

import re
from typing import Final

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def written_key(key: str) -> str:
    """The key, quoted where it has to be."""
    return key if _BARE_KEY.fullmatch(key) else written_text(key)


def written_text(text: str) -> str:
    """The text in quotation marks, in one line."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(one if one.isprintable() else f"\\U{ord(one):08X}" for one in escaped) + '"'
