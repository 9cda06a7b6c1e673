"""Imports every module of NVML functions, so that they are registered."""

from __future__ import annotations


def load() -> None:
    """Registers all implemented functions. Cheap after the first time."""
    from fake_gpu.nvml import life  # noqa: F401  # imported for its registrations
