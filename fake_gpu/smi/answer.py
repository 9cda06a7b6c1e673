"""What nvidia-smi prints, without running it: for tools that compare and for tests of the layouts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fake_gpu.smi import modes
from fake_gpu.smi.arguments import RefusedError, parse
from fake_gpu.smi.failures import NO_DEVICES, NO_DEVICES_TEXT
from fake_gpu.smi.run import Output, Run
from fake_gpu.smi.selection import select

if TYPE_CHECKING:
    from fake_gpu.driver import Driver


def answer(driver: Driver, *arguments: str, header: bool = True) -> Output:
    """The first output of a run with these arguments. No fault meets it, and the log of calls does not have it."""
    refusal: RefusedError | None = None
    try:
        request = parse(arguments)
    except RefusedError as refused:
        return Output(refused.text, refused.code)
    try:
        modes.check(request)
    except RefusedError as refused:
        refusal = refused
    if not header:
        request = replace(request, header=False)
    now = driver.sync()
    counted = driver.enumerated
    needs_gpus = request.mode not in modes.NEED_NO_GPU
    run = Run(driver, request, counted, select(counted, request.ids) if needs_gpus else (), now, {})
    if refusal is not None and not (request.mode == "query-gpu" and modes.cards_know(run)):
        return Output(refusal.text, refusal.code)
    if needs_gpus and not run.gpus:
        return Output(NO_DEVICES_TEXT, NO_DEVICES)
    return modes.render(run)
