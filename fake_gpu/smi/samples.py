"""What `-q -d POWER`, `UTILIZATION` and `CLOCK` add: the last samples, which here are all alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fake_gpu.derived import clock_mhz
from fake_gpu.smi.run import Reading
from fake_gpu.smi.texts import line

_COUNT: Final = 119
_DURATION: Final = "2.36 sec"
"""119 samples, one each 20 ms: what NVML's buffers hold."""


def text(wanted: tuple[str, ...], reading: Reading) -> Iterator[str]:
    """The sections, in the order in which they are printed."""
    activity, column = reading.gpu.activity, reading.run.label_column
    if "POWER" in wanted:
        yield from _section(column, "Power", f"{activity.power:.2f} W")
    if "UTILIZATION" in wanted:
        for name, percent in (
            ("GPU Utilization", activity.gpu_percent),
            ("Memory Utilization", activity.memory_percent),
            ("ENC Utilization", activity.encoder_percent),
            ("DEC Utilization", activity.decoder_percent),
        ):
            yield from _section(column, name, f"{percent} %")
    if "CLOCK" in wanted:
        yield from _section(column, "SM Clock", f"{clock_mhz(reading.gpu, 'sm')} MHz")
        yield from _section(column, "Memory Clock", f"{clock_mhz(reading.gpu, 'memory')} MHz")


def _section(column: int, name: str, value: str) -> Iterator[str]:
    yield f"    {name} Samples\n"
    for label, said in (
        ("Duration", _DURATION),
        ("Number of Samples", str(_COUNT)),
        ("Max", value),
        ("Min", value),
        ("Avg", value),
    ):
        yield line(2, label, said, column)
