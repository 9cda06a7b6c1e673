"""Writes profiles as the data files that `read_profile` reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from fake_gpu.profile import Profile
from fake_gpu.toml.write import written_key, written_text

_HEXADECIMAL: Final = frozenset({"device_id", "subsystem_id"})
_LOG_COMMENT: Final = "# nvidia-smi -q: label | element of -q -x | value; {field} is what the card says now."


def to_toml(profile: Profile, source: str) -> str:
    """The file's text. `source`: where the facts come from, told in its first line."""
    values: dict[str, Any] = msgspec.to_builtins(profile)
    log = values.pop("log", None)
    defaults: dict[str, Any] = {
        field.name: field.default for field in msgspec.structs.fields(Profile) if not field.required
    }
    values = {key: value for key, value in values.items() if value is not None and value != defaults.get(key, ...)}
    devices = values.pop("mig_devices", ())
    lines = [f"# {source}"]
    lines += [f"{key} = {_value(key, value)}" for key, value in values.items() if not isinstance(value, dict)]
    if log is not None:
        rows = log.rstrip("\n").split("\n")
        if "'''" not in log and all(row.isprintable() for row in rows):
            lines += [_LOG_COMMENT, "log = '''", *rows, "'''"]
        else:  # a text in one line, in which everything can be escaped
            lines += [_LOG_COMMENT, f"log = {written_text(log)}"]
    for key, value in values.items():
        if isinstance(value, dict) and value:
            lines += ["", f"[{key}]", *_table(value)]
    for device in devices:
        lines += ["", "[[mig_devices]]", *_table(device)]
    return "\n".join(lines) + "\n"


def _table(values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        if value is None or value in ((), []):
            continue
        if isinstance(value, dict):
            yield f"{key} = {{ {', '.join(f'{name} = {one}' for name, one in value.items())} }}"
        else:
            yield f"{written_key(key)} = {_value(key, value)}"


def _value(key: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"0x{value:08X}" if key in _HEXADECIMAL else str(value)
    if isinstance(value, float):
        return f"{value:g}" if value == round(value, 4) and abs(value) < 1e6 else repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(key, one) for one in value)}]"
    return written_text(str(value))
