"""The one place that says which clock rules this process. Time is the process's, so there can be only one."""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vramsettle.clock.children import Children
    from pytest_vramsettle.clock.engine import Engine


class Slot:
    __slots__ = ("children", "engine", "replaced", "resident")

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.children: Children | None = None
        # What the clock put its own in place of: owner, originals by name.
        self.replaced: list[tuple[object, Mapping[str, object]]] = []
        # It stays in place between clocks, for names that are bound while none is active.
        self.resident = False


slot = Slot()


def mine() -> Engine | None:
    """The engine that the calling thread belongs to, None where it lives in real time."""
    engine = slot.engine
    if engine is not None and get_ident() in engine.idents:
        return engine
    return None


def my_children() -> Children | None:
    """The child processes of the calling thread's clock, None where it lives in real time."""
    return None if mine() is None else slot.children
