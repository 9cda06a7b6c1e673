"""What a failing test's report says about the fake machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fake_gpu.units import format_size, to_mib

if TYPE_CHECKING:
    from fake_gpu import Call, Driver

LAST_CALLS = 20
LONGEST_RAMP = 160
"""Characters."""


def describe_driver(driver: Driver) -> str:
    """GPUs, who holds their memory, what has not come back, and the last calls with their times."""
    now = driver.sync()
    lines = [repr(driver)]
    for gpu in driver.enumerated:
        memory = gpu.memory_at(now)
        lines.append(
            f"  {gpu!r}: {to_mib(memory.free)} MiB free of {to_mib(memory.total)}, {to_mib(memory.reserved)} reserved"
        )
    for process in driver.processes:
        state = "alive" if process.alive_in_model else f"died {(now - (process.died_ns or now)) / 1e9:.3f} s ago"
        held = ", ".join(f"{format_size(size)} on GPU {gpu.uuid[:12]}…" for gpu, size in process.used.items())
        lines.append(
            f"  {process.describe()}, {process.kind}, {state}: {held}; {_shortened(process.describe_reclaim())}"
        )
    calls = driver.calls
    shown = calls[-LAST_CALLS:]
    lines.append(f"  {len(calls)} calls" + (f", the last {len(shown)}:" if len(calls) > len(shown) else ":"))
    lines.extend(f"    {_describe_call(call, now)}" for call in shown)
    return "\n".join(lines)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_RAMP else f"{text[:LONGEST_RAMP]}…"  # a recorded ramp has thousands of points


def _describe_call(call: Call, now_ns: int) -> str:
    text = f"{(call.at_ns - now_ns) / 1e9:+.3f} s  {call.via} {call.name}"
    text += f" -> {call.code}" if call.code is not None else " -> no answer"
    if call.faults:
        text += f"  {', '.join(map(repr, call.faults))}"
    return text if call.covered else text + "  (not covered by the fake)"
