"""`verified` with one constant changed, to see what each constant is good for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from pytest_vramsettle._quantities import MIB, MILLISECOND, SECOND
from pytest_vramsettle.policies import Verified

CHANGED: Mapping[str, Mapping[str, Any]] = {
    "settled_after_ns=100ms": {"settled_after_ns": 100 * MILLISECOND},
    "settled_after_ns=600ms": {"settled_after_ns": 600 * MILLISECOND},
    "settled_after_ns=2s": {"settled_after_ns": 2 * SECOND},
    "still=8MiB": {"still": 8 * MIB},
    "still=128MiB": {"still": 128 * MIB},
    "margin_share=0.05": {"margin_share": 0.05},
    "margin_share=0.1": {"margin_share": 0.1},
    "the same, after 10s": {"margin_share": 0.1, "margin_after_ns": 10 * SECOND},
    "the same, after 20s": {"margin_share": 0.1, "margin_after_ns": 20 * SECOND},
    "margin_after_ns=2s": {"margin_after_ns": 2 * SECOND},
    "first_pause_ns=10ms": {"first_pause_ns": 10 * MILLISECOND},
    "first_pause_ns=100ms": {"first_pause_ns": 100 * MILLISECOND},
    "pause_growth=5/4": {"pause_growth": (5, 4)},
    "pause_growth=2": {"pause_growth": (2, 1)},
    "no pauses below 250ms": {"first_pause_ns": 250 * MILLISECOND},
}
"""What is changed, by how the table calls it."""

OF = SimpleNamespace(
    **{
        f"v{number}": replace(Verified(), name=name, **changed)
        for number, (name, changed) in enumerate(CHANGED.items())
    }
)
"""The policies, as attributes, so that processes find them by name."""

NAMES = {f"bench.variations:OF.v{number}": name for number, name in enumerate(CHANGED)}
"""How a subject is named, and how the table calls it."""
