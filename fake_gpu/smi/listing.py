"""`-L`: one line for each GPU."""

from __future__ import annotations

from fake_gpu.smi.failures import line_by_line
from fake_gpu.smi.run import Output, Run


def render(run: Run) -> Output:
    """Index, name and UUID."""
    return line_by_line(run, lambda gpu: f"GPU {run.index(gpu)}: {gpu.name} (UUID: {gpu.uuid})\n")
