"""How to talk to a server: its paths, bodies and fields, from a small TOML file."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import msgspec

from fake_gpu.errors import InvalidValue
from fake_gpu.units import parse_duration

_Pointer = Annotated[str, msgspec.Meta(pattern="^(/.*)?$")]
_Path = Annotated[str, msgspec.Meta(pattern="^/")]


_DEMO = Path(__file__).with_name("demo.toml")
_WHOLE = ("body", "headers", "fields")


class SpecError(Exception):
    """A smoke file that cannot be used; the text names the file and the key."""


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table in which an unknown key is an error."""


class Call(_Table, frozen=True, kw_only=True):
    """One kind of request. Texts that are {model}, {context} or {cache_type} stand for what is asked for."""

    path: _Path
    method: Annotated[str, msgspec.Meta(pattern="^[A-Z]+$")] = "POST"
    headers: dict[str, str] = {}
    body: dict[str, Any] | None = None


class Reply(_Table, frozen=True, kw_only=True):
    """What a reply has to be: one of the statuses, and these values at these JSON pointers; of a list, one of them."""

    status: tuple[int, ...] = (200,)
    fields: dict[_Pointer, Any] = {}


class Replies(_Table, frozen=True, kw_only=True):
    """By what has happened. `cancelled`: the reply of a cancelled load; `waiting`: of status while a load waits."""

    loaded: Reply
    already_loaded: Reply
    cancelled: Reply
    unloaded: Reply = Reply()
    cancel: Reply = Reply()
    waiting: Reply = Reply()


class Fields(_Table, frozen=True, kw_only=True):
    """JSON pointers into the reply of status; None: the server does not tell."""

    pid: _Pointer | None = None
    context: _Pointer | None = None
    layers_on_cpu: _Pointer | None = None


class Spec(_Table, frozen=True, kw_only=True):
    """A server, and what is asked of it. `contexts` and `cache_types` are the first and the other value.

    `answer_within` is for status and cancel, `load_within` for a load, `gone_within` for a process that was ended.
    """

    load: Call
    unload: Call
    cancel: Call
    status: Call
    replies: Replies
    model: str = "a.gguf"
    contexts: Annotated[tuple[int, ...], msgspec.Meta(min_length=2, max_length=2)] = (8192, 32768)
    cache_types: Annotated[tuple[str, ...], msgspec.Meta(min_length=2, max_length=2)] = ("f16", "q8_0")
    answer_within: str = "50ms"
    load_within: str = "10min"
    gone_within: str = "5s"
    fields: Fields = Fields()

    @property
    def answer_seconds(self) -> float:
        """`answer_within` in seconds."""
        return parse_duration(self.answer_within) / 1e9

    @property
    def load_seconds(self) -> float:
        """`load_within` in seconds."""
        return parse_duration(self.load_within) / 1e9

    @property
    def gone_seconds(self) -> float:
        """`gone_within` in seconds."""
        return parse_duration(self.gone_within) / 1e9


@cache
def demo_spec() -> Spec:
    """The demo backend's."""
    return read_spec(_DEMO)


def read_spec(path: Path) -> Spec:
    """A spec from a file, which may say `extends = "demo"`: what it leaves out is the demo's. Raises SpecError."""
    try:
        spec = msgspec.convert(_extended(tomllib.loads(path.read_text(encoding="utf-8"))), Spec)
        if min(spec.answer_seconds, spec.load_seconds, spec.gone_seconds) <= 0:
            raise InvalidValue("answer_within, load_within and gone_within have to be above 0")
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.ValidationError, tomllib.TOMLDecodeError, UnicodeDecodeError, InvalidValue) as error:
        raise SpecError(
            f'{path} is no smoke file: {error}. Its keys are those of docs/backend.md; with extends = "demo" the rest '
            f"is taken from the demo backend's"
        ) from error
    return spec


def _extended(given: dict[str, Any]) -> dict[str, Any]:
    base = given.pop("extends", None)
    if base is None:
        return given
    if base != "demo":
        raise InvalidValue(f'extends = {base!r}: there is "demo" to extend')
    return _overlaid(tomllib.loads(_DEMO.read_text(encoding="utf-8")), given)


def _overlaid(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`given` over `base`, table by table. What is sent or looked for belongs together, and is replaced as a whole."""
    found = dict(base)
    for key, value in given.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict) and key not in _WHOLE
        found[key] = _overlaid(base[key], value) if both else value
    return found


def filled(template: Any, values: dict[str, Any]) -> Any:
    """A body with the placeholders replaced; one that is a whole text keeps its value's type."""
    if isinstance(template, dict):
        return {key: filled(value, values) for key, value in template.items()}
    if isinstance(template, list):
        return [filled(value, values) for value in template]
    if not isinstance(template, str):
        return template
    for name, value in values.items():
        if template == f"{{{name}}}":
            return value
        template = template.replace(f"{{{name}}}", str(value))
    return template


def at_pointer(document: Any, pointer: str) -> Any:
    """What is at a JSON pointer (RFC 6901). Raises LookupError where nothing is."""
    found = document
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isdigit():
            found = found[int(key)]
        elif isinstance(found, dict):
            found = found[key]
        else:
            raise LookupError(pointer)
    return found
