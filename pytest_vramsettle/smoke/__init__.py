"""The smoke run: load, load again, reload, unload, load, status and cancel, over HTTP, against any server."""

from pytest_vramsettle.smoke.report import Report, Step, as_json, as_text, count_as_text, step_as_text
from pytest_vramsettle.smoke.run import run_smoke
from pytest_vramsettle.smoke.spec import Spec, SpecError, demo_spec, read_spec

__all__ = [
    "Report",
    "Spec",
    "SpecError",
    "Step",
    "as_json",
    "as_text",
    "count_as_text",
    "demo_spec",
    "read_spec",
    "run_smoke",
    "step_as_text",
]
