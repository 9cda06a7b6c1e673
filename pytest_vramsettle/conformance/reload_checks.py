"""What is asked of a whole backend: of the steps of a scenario, by their names."""

from __future__ import annotations

from collections.abc import Callable

from fake_gpu.llama import RunningServer
from pytest_vramsettle.conformance.model import SECOND, Check, Observation, seconds, short
from pytest_vramsettle.conformance.reload_session import CONTEXT, Step, told

LOAD_TIME = 0.3
"""Seconds that the fake server takes to load its model."""


def placed(step: str, context: int = CONTEXT) -> Check:
    """After it one server serves, with all its layers on the GPU, and the context that was asked for."""

    def judge(after: Step) -> str | None:
        server = after.server
        if server is None or not server.loaded:
            return _no_server(step, after)
        problems = []
        if server.layers_on_cpu:
            problems.append(f"{server.layers_on_cpu} of {server.layers} layers are on the CPU")
        if server.context != context:
            problems.append(f"the context is {server.context}, not {context}")
        return f"after {step!r}: {', and '.join(problems)}" if problems else None

    return Check(f"has all layers on the GPU, and the whole context, after {step!r}", _of(step, judge))


def _no_server(step: str, after: Step) -> str:
    if len(after.servers) > 1:
        return f"after {step!r} there are {len(after.servers)} servers: {', '.join(map(str, after.servers))}"
    return f"after {step!r} no server serves its model: {', '.join(map(str, after.servers)) or 'there is none'}"


def nothing_runs(step: str) -> Check:
    """After it there is no server."""

    def judge(after: Step) -> str | None:
        return f"after {step!r} there is {', '.join(map(str, after.servers))}" if after.servers else None

    return Check(f"has no server after {step!r}", _of(step, judge))


def restarted(first: str, second: str) -> Check:
    """Another process serves, and the old one is gone."""

    def judge(seen: Observation) -> str | None:
        before, after = _pids(seen, first), _pids(seen, second)
        still = before & after
        return (
            f"PID {', '.join(map(str, sorted(still)))} of {first!r} is still there after {second!r}" if still else None
        )

    return Check(f"has ended the server of {first!r} after {second!r}", judge)


def same(first: str, second: str) -> Check:
    """The same process serves, and nothing was waited for."""

    def judge(seen: Observation) -> str | None:
        if _pids(seen, first) != _pids(seen, second):
            return f"{second!r} restarted the server, and nothing was to change"
        took = _step(seen, second).elapsed_ns
        return f"{second!r} took {seconds(took)}, and nothing was to do" if took > SECOND // 2 else None

    return Check(f"restarts nothing in {second!r}", judge)


def took(step: str, most: float) -> Check:
    """It ended so many seconds after its call, at most."""

    def judge(after: Step) -> str | None:
        if after.elapsed_ns <= most * SECOND:
            return None
        return f"{step!r} took {seconds(after.elapsed_ns)}, which is more than {most:g} s"

    return Check(f"ends {step!r} within {most:g} s", _of(step, judge))


def ends_soon_after(step: str, other: str, most: float) -> Check:
    """It ended so many seconds after the other one's call, at most."""

    def judge(seen: Observation) -> str | None:
        late = _step(seen, step).ended_ns - _step(seen, other).began_ns
        return f"{step!r} went on for {seconds(late)} after {other!r}" if late > most * SECOND else None

    return Check(f"ends {step!r} within {most:g} s of {other!r}", judge)


def says_so(step: str, good: str) -> Check:
    """It raises, or returns something else than a load that went well."""

    def judge(seen: Observation) -> str | None:
        failed, well = _step(seen, step), _step(seen, good)
        if failed.error is not None or failed.result != well.result:
            return None
        return f"{step!r} returned {short(failed.result)}, as {good!r} did, which went well"

    return Check(f"says that {step!r} did not load: raises, or returns something else", judge, "tells_outcome")


def goes_on_or_says_so(step: str, good: str) -> Check:
    """It serves, or says that it does not."""
    other = says_so(step, good)

    def judge(seen: Observation) -> str | None:
        server = _step(seen, step).server
        return None if server is not None and server.loaded else other.judge(seen)

    return Check(f"serves after {step!r}, or says that it does not", judge, "tells_outcome")


def waited(fact: str) -> Check:
    """The load had killed the old server, and had not returned, when it was spoken to."""

    def judge(seen: Observation) -> str | None:
        return None if seen.note(fact) else "there was nothing to ask beside: the load did not wait, or killed nothing"

    return Check("waits between the kill and the start", judge)


def status_is_true(*steps: str) -> Check:
    """Of what a status tells, the PID, the context and the layers are so."""

    def judge(seen: Observation) -> str | None:
        problems = (problem for step in steps for problem in _lies(step, _step(seen, step)))
        return next(problems, None)

    return Check("tells the truth in status(): pid, context, layers_on_gpu, layers_on_cpu, where it has them", judge)


def _lies(step: str, after: Step) -> list[str]:
    server = after.server or RunningServer(0)
    truth = {
        "pid": None if after.server is None else server.pid,
        "context": server.context,
        "layers_on_gpu": server.layers_on_gpu,
        "layers_on_cpu": server.layers_on_cpu,
    }
    said = {name: told(after.result, name) for name in truth}
    return [
        f"{step!r} says {name}={value}, and in truth it is {truth[name]}"
        for name, value in said.items()
        if value is not None and value != truth[name]
    ]


def _of(step: str, judge: Callable[[Step], str | None]) -> Callable[[Observation], str | None]:
    return lambda seen: judge(_step(seen, step))


def _step(seen: Observation, name: str) -> Step:
    found: Step = seen.note(name)
    return found


def _pids(seen: Observation, name: str) -> set[int]:
    return {one.pid for one in _step(seen, name).servers}
