"""What nvidia-smi prints, without running it: for tools that compare and for tests of the layouts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fake_gpu.smi.execution import output_of, plan_of
from fake_gpu.smi.run import Output, Run

if TYPE_CHECKING:
    from fake_gpu.driver import Driver


def answer(driver: Driver, *arguments: str, header: bool = True) -> Output:
    """The first output of a run with these arguments. No fault meets it, and the log of calls does not have it."""
    plan = plan_of(arguments)
    request = plan.request if header else replace(plan.request, header=False)
    now = driver.sync()
    counted = driver.enumerated
    return output_of(plan, Run(driver, request, counted, plan.selected(counted), now, {}))
