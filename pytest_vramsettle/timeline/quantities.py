"""Quantities as people read them."""

from __future__ import annotations

_GIB, _MIB = 1 << 30, 1 << 20


def size(amount: int) -> str:
    """'1.5 GiB', '300 MiB'."""
    return f"{amount / _GIB:.1f} GiB" if amount >= _GIB else f"{amount / _MIB:.0f} MiB"


def seconds(value: float) -> str:
    """'1.5 s'; below a hundredth, milliseconds."""
    if value == 0:
        return "0 s"
    return f"{value:.3g} s" if abs(value) >= 0.01 else f"{value * 1000:.3g} ms"
