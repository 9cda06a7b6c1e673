"""What the names in a contract match."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pytest_vramsettle.contracts.analysis.relevance import COMMON
from pytest_vramsettle.contracts.analysis.values import ClassVal, Ext, Func, Local, Obj, Path, Result, Unknown, Value
from pytest_vramsettle.contracts.source import ClassInfo, Parts

Sure = Literal["yes", "maybe"]


@dataclass(frozen=True, slots=True)
class Pattern:
    """A call ('_process.terminate', 'subprocess.Popen'), an attribute written, or a `recording` around something.

    Names are those of `self` or of the module: `_process.terminate` is `self._process.terminate` in a class.
    """

    kind: Literal["call", "write", "recording"]
    parts: Parts
    value: Parts = ()

    @property
    def is_call(self) -> bool:
        return self.kind != "write"

    @property
    def text(self) -> str:
        name = ".".join(self.parts)
        if self.kind == "write":
            return f"{name} = {'.'.join(self.value)}()" if self.value else f"{name} = ..."
        return f"{name}.recording(...)" if self.kind == "recording" else f"{name}()"

    @property
    def names(self) -> tuple[str, ...]:
        """Words that any code which does this has to say."""
        last = self.parts[-1]
        return (last,) if len(self.parts) == 1 or last not in COMMON else (self.parts[-2],)

    def match(self, value: Value, is_family: Callable[[ClassInfo], bool]) -> Sure | None:
        """How sure it is that a callee, or an attribute's path, is the one that is meant."""
        if isinstance(value, Func):
            unit = value.unit
            if value.node is not unit.node or unit.name != self.parts[-1]:
                return None
            if unit.cls is None:
                return "yes" if len(self.parts) == 1 or self.parts[:-1] == tuple(unit.module.name.split(".")) else None
            owner = next((each for each in value.bound if isinstance(each, Obj)), None)
            if owner is not None and owner.site == "other" and is_family(owner.cls):
                return "maybe"  # of another object of the class
            if len(self.parts) == 1:
                return "yes" if is_family(unit.cls) or (owner is not None and is_family(owner.cls)) else None
            return "yes" if self.parts[-2] in (unit.cls.name,) else "maybe"
        if isinstance(value, ClassVal):
            return "yes" if self.parts[-1] == value.cls.name else None
        if isinstance(value, Path):
            return self._match_path(value, is_family)
        return None

    def _match_path(self, path: Path, is_family: Callable[[ClassInfo], bool]) -> Sure | None:
        attrs, parts = path.attrs, self.parts
        if not attrs or attrs[-1] != parts[-1]:
            return None
        if isinstance(path.root, Ext):
            return "yes" if attrs == parts or len(parts) == 1 else None
        if isinstance(path.root, Obj):
            if not is_family(path.root.cls):
                if len(parts) > 1:
                    return "maybe" if attrs[-len(parts) :] == parts else None
                # What another object has may be one of the class: `service.backend._wait()`.
                return "maybe" if len(attrs) > 1 and parts[-1] not in COMMON else None
            if attrs == parts:
                return "yes"
            return "maybe" if attrs[-len(parts) :] == parts and parts[-1] not in COMMON else None
        if isinstance(path.root, Local | Unknown):
            if attrs[-len(parts) :] == parts and len(parts) > 1:
                return "maybe"
            return "maybe" if parts[-1] not in COMMON else None
        return None


def value_matches(pattern: Pattern, value: Value) -> bool | None:
    """Whether a written value is the one that the contract names; None where that is not known."""
    if not pattern.value:
        return True
    if isinstance(value, Result):
        return value.path.attrs == pattern.value
    return None if isinstance(value, Unknown | Path) else False
