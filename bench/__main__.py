"""Measures everything and prints it. Figures are told, not asserted: the exit status is 0 unless something crashes."""

from __future__ import annotations

import os
import platform
import time

from bench import contracts, life, nvml, scoring, screen, smi, startup, turns
from bench.table import show


def machine() -> str:
    """What it was measured on."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    usable = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return f"{python}, {platform.machine()}, Linux {platform.release()}, {usable} CPUs, load {load:.1f}"


def main() -> None:
    """All sections, in order."""
    started = time.monotonic()
    print(machine())
    for measure in (
        smi.section,
        nvml.section,
        screen.section,
        startup.section,
        life.driver_section,
        turns.section,
        turns.scenarios_section,
        turns.idle_section,
        life.settle_section,
        scoring.section,
        contracts.source_section,
        contracts.tracing_section,
    ):
        show(measure())
    print(f"measured in {time.monotonic() - started:.0f} s; variants took turns, and each figure is a median")


if __name__ == "__main__":
    main()
