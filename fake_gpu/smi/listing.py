"""`-L`: one line for each GPU."""

from __future__ import annotations

from fake_gpu.smi.failures import report
from fake_gpu.smi.run import Output, Run


def render(run: Run) -> Output:
    """Index, name and UUID. A GPU that fails has its line replaced by what is wrong with it."""
    lines = []
    code = 0
    for gpu in run.gpus:
        failed = run.failure(gpu)
        if failed:
            text, code = report(gpu, failed)
            lines.append(text)
        else:
            lines.append(f"GPU {run.index(gpu)}: {gpu.name} (UUID: {gpu.uuid})\n")
    return Output("".join(lines), code)
