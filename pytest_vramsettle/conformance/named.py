"""Implementations by name, `module:factory`: what they are, and a scenario of theirs. Runs in a worker process."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytest_vramsettle.conformance.checking import ConformanceError, guarded, play, selected
from pytest_vramsettle.conformance.kill_scenarios import KILLS, KillRoutine
from pytest_vramsettle.conformance.model import Capabilities, Kind, Scenario, short
from pytest_vramsettle.conformance.probe_scenarios import PROBE
from pytest_vramsettle.conformance.reload_scenarios import RELOAD
from pytest_vramsettle.conformance.settle_checks import SettleSubject
from pytest_vramsettle.conformance.settle_verified import SETTLE
from pytest_vramsettle.conformance.stage import Stage
from pytest_vramsettle.conformance.subjects import (
    is_backend,
    kill_subject,
    probe_subject,
    reload_subject,
    settle_subject,
)
from pytest_vramsettle.score.subjects import SubjectError, imported

SCENARIOS: Mapping[Kind, Sequence[Scenario]] = {"settle": SETTLE, "kills": KILLS, "probe": PROBE, "reload": RELOAD}


def judged(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the parent asked: a scenario, answered by what is said of it; else the kind of `{"spec"}`.

    `{"error": text}` for what cannot be asked.
    """
    try:
        found = imported(request["spec"])
        if "scenario" not in request:
            return {} if request.get("only_import") else {"kind": kind_of(found)}
        kind, level = request["kind"], request["level"]
        scenario = selected(SCENARIOS[kind], level, request["scenario"])[0]
        capabilities = Capabilities.named(*request["without"])
    except (SubjectError, ConformanceError, ValueError) as error:
        return {"error": str(error)}
    make = maker(found, kind)
    verdict = guarded(scenario, lambda: play(scenario, make, level=level, capabilities=capabilities))
    return {**verdict.as_dict(), "text": verdict.describe()}


def kind_of(found: object) -> Kind:
    """What sort of implementation this is. Raises ConformanceError where that cannot be told.

    What takes `since_kill` is a wait; a KillRoutine says what it is; what takes `server_command` makes a whole backend;
    what returns readings is a probe. Anything else without arguments makes one of these, and is called on a machine
    with one GPU to see which.
    """
    if isinstance(found, KillRoutine):
        return "kills"
    if isinstance(found, SettleSubject) or _takes(found, "since_kill"):
        return "settle"
    if is_backend(found) or _takes(found, "server_command"):
        return "reload"
    made = _made_on_a_machine(found)
    if isinstance(made, KillRoutine):
        return "kills"
    if isinstance(made, SettleSubject) or _takes(made, "since_kill"):
        return "settle"
    if inspect.iscoroutine(made):
        made.close()
        return "probe"
    if callable(made) or isinstance(made, list | tuple | dict):
        return "probe"
    raise ConformanceError(
        f"{short(found)} made {short(made)}: a wait takes since_kill and max_wait, a kill routine is a KillRoutine, a "
        f"probe returns [(index, free MiB), ...]. --kind says which is meant"
    )


def _made_on_a_machine(found: object) -> object:
    from fake_gpu import Driver

    if not callable(found):
        raise ConformanceError(f"{short(found)} is no implementation, and does not make one: it cannot be called")
    with Driver() as driver:
        driver.add_gpu("t4")
        try:
            return found()
        except Exception as error:
            raise ConformanceError(
                f"{short(found)} was called to see what it makes and raised {type(error).__name__}: {error}. "
                f"--kind says what it is"
            ) from error


def maker(found: object, kind: Kind) -> Callable[[Stage], Any]:
    """What makes the subject, for every scenario a new one where `found` is a factory."""
    if kind == "settle":
        return lambda _: _settle(found)
    if kind == "kills":
        return lambda _: kill_subject(found)
    if kind == "reload":
        return lambda stage: reload_subject(found, stage.server_command)
    return lambda _: probe_subject(_probe(found))


def _settle(found: Any) -> SettleSubject:
    made = found if isinstance(found, SettleSubject) or _takes(found, "since_kill") or not callable(found) else found()
    if isinstance(made, SettleSubject):
        return settle_subject(made.wait, recording=made.recording, cancel=made.cancel, lock=made.lock)
    return settle_subject(made, injects_probe=_takes(made, "probe", required=True))


def _probe(found: Any) -> Any:
    """A factory of probes is called; a probe is not, but by the scenario."""
    if not callable(found) or inspect.iscoroutinefunction(found):
        return found

    def probe() -> Any:
        made = found()
        return made() if callable(made) else made

    return probe


def _takes(found: object, name: str, *, required: bool = False) -> bool:
    try:
        parameters = inspect.signature(found).parameters if callable(found) else {}
    except (TypeError, ValueError):
        return False
    if name in parameters:
        return not required or parameters[name].default is inspect.Parameter.empty
    return not required and any(one.kind is one.VAR_KEYWORD for one in parameters.values())
