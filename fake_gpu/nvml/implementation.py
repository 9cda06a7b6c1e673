"""Imports every module of NVML functions, so that they are registered."""

from __future__ import annotations


def load() -> None:
    """Registers all implemented functions. Cheap after the first time."""
    from fake_gpu.nvml import (  # noqa: F401  # imported for their registrations
        absent,
        activity,
        clocks,
        errors,
        events,
        field_values,
        identity,
        life,
        links,
        memory,
        mig,
        power,
        processes,
        system,
    )


def implemented() -> frozenset[str]:
    """The names of the functions that answer as a real driver would; others say NOT_SUPPORTED, and the log says why."""
    from fake_gpu.nvml.dispatch import registered

    load()
    return registered()
