"""`-L`: one line for each GPU, and one for each instance of a partitioned one."""

from __future__ import annotations

from fake_gpu.gpu import Gpu
from fake_gpu.smi.failures import line_by_line
from fake_gpu.smi.run import Output, Run


def render(run: Run) -> Output:
    """Index, name and UUID."""
    return line_by_line(run, lambda gpu: _lines(run, gpu), listing=True)


def _lines(run: Run, gpu: Gpu) -> str:
    parts = "".join(
        f"  MIG {part.facts.name:<12}Device {part.index:>2}: (UUID: {part.uuid})\n" for part in gpu.instances
    )
    return f"GPU {run.index(gpu)}: {gpu.name} (UUID: {gpu.uuid})\n{parts}"
