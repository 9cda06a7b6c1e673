"""The run: seven requests in order, and a look for processes that were left.

A step that fails does not end it; a load or an unload that nobody answers does.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pytest_vramsettle import _procfs
from pytest_vramsettle.smoke.http_backend import UNANSWERED_S, Answer, HttpBackend, TimedOut, Unreachable
from pytest_vramsettle.smoke.processes import Processes
from pytest_vramsettle.smoke.report import Report, Step, Verdict
from pytest_vramsettle.smoke.spec import Call, Reply, Spec, demo_spec

_UNDER_WAY_WITHIN_S = 5.0
"""How long a load may take until status says that it is under way."""

_LOOK_S = 0.005


@dataclass(slots=True)
class _Findings:
    """What a step has found so far."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


_Look = Callable[[_Findings], None]


def run_smoke(
    url: str, spec: Spec | None = None, *, pid: int | None = None, tell: Callable[[Step], None] | None = None
) -> Report:
    """Runs all steps against the server at `url`. `spec`: how to talk to it (None: the demo backend's).

    `pid` is the server's own process, where its children are to be looked at too. What is loaded there is unloaded at
    the beginning. `tell` is called with each step as it ends. Raises ValueError for a URL or a PID that is none.
    """
    if pid is not None and _procfs.identify(pid) is None:
        raise ValueError(f"there is no process {pid}: give the PID of the server, or none")
    chosen = spec or demo_spec()
    backend = HttpBackend(url, chosen)
    return _Run(backend, chosen, Processes(backend.host, pid, chosen.gone_seconds)).all(url, tell)


class _Run:
    """One run, the PID that the server told of last, and what got no answer in time: nothing follows that."""

    def __init__(self, backend: HttpBackend, spec: Spec, processes: Processes) -> None:
        self._backend, self._spec, self._processes = backend, spec, processes
        self._server: int | None = None
        self._unanswered = ""

    def all(self, url: str, tell: Callable[[Step], None] | None) -> Report:
        steps = []
        for step in self._steps():
            steps.append(step)
            if tell is not None:
                tell(step)
        orphans = self._processes.step()
        if tell is not None:
            tell(orphans)
        return Report(url, tuple(steps), orphans)

    def _steps(self) -> Iterator[Step]:
        silence = self._clear()
        if silence is not None:
            name, self._unanswered = "unload, to begin with", "nobody answers in time"
            yield Step(name, _line(self._spec.unload), "an answer", "failed", UNANSWERED_S, (str(silence),))
        (first, other), (kind, other_kind) = self._spec.contexts, self._spec.cache_types
        replies = self._spec.replies
        yield self._load("cold load", first, kind, replies.loaded, restarts=True)
        yield self._load("identical load again", first, kind, replies.already_loaded, restarts=False)
        yield self._load("load, another context", other, kind, replies.loaded, restarts=True)
        yield self._unload()
        yield self._load("load, another cache type", first, other_kind, replies.loaded, restarts=True)
        yield from self._while_a_load_waits(other, other_kind)
        if not self._unanswered:
            self._clear()

    # -- steps

    def _load(self, name: str, context: int, cache_type: str, reply: Reply, *, restarts: bool) -> Step:
        def look(found: _Findings) -> None:
            if found.problems:
                return
            try:
                answer = self._backend.exchange(self._spec.status)
            except Unreachable as error:
                found.problems.append(f"status after it: {error}")
                return
            self._look_at_placement(answer, context, found)
            self._look_at_server(answer, restarts, found)

        def send() -> Answer:
            return self._backend.send_load(self._spec.model, context, cache_type)

        request = f"{_line(self._spec.load)} context={context} cache_type={cache_type}"
        return self._step(name, request, reply, send, look, "all layers on the GPU")

    def _unload(self) -> Step:
        def look(found: _Findings) -> None:
            found.problems += self._processes.left()
            self._server = None

        def send() -> Answer:
            return self._backend.exchange(self._spec.unload)

        wanted = "the server process is gone"
        return self._step("unload", _line(self._spec.unload), self._spec.replies.unloaded, send, look, wanted)

    def _while_a_load_waits(self, context: int, cache_type: str) -> Iterator[Step]:
        """Status and cancel, while a load that has to kill and wait first is under way."""
        load = _BackgroundLoad(lambda: self._backend.send_load(self._spec.model, context, cache_type))
        replies, limit = self._spec.replies, f"within {self._spec.answer_within}, while a load waits"

        def was_cancelled(found: _Findings) -> None:
            self._look_at_time(found)
            found.problems += load.misfits(replies.cancelled, self._spec.load_seconds)

        def cancel() -> Answer:
            return self._backend.exchange(self._spec.cancel)

        def status() -> Answer:
            load.start()
            return self._status_during(load)

        name, line = "status during a load", _line(self._spec.status)
        yield self._step(name, line, replies.waiting, status, self._look_at_time, limit, goes_on=True)
        name, line, limit = "cancel during a load", _line(self._spec.cancel), f"{limit}; the load ends"
        yield self._step(name, line, replies.cancel, cancel, was_cancelled, limit, goes_on=True)

    def _status_during(self, load: _BackgroundLoad) -> Answer:
        """The first status that tells of the load, with the time of the slowest up to then."""
        slowest, deadline = 0.0, time.monotonic() + _UNDER_WAY_WITHIN_S
        while True:
            is_over = load.is_over  # before the question: one that is over afterwards may have been under way
            answer = self._backend.exchange(self._spec.status)
            slowest = max(slowest, answer.seconds)
            if is_over or not answer.misfits(self._spec.replies.waiting) or time.monotonic() > deadline:
                return Answer(answer.status, answer.body, slowest)
            time.sleep(_LOOK_S)

    def _step(
        self,
        name: str,
        request: str,
        reply: Reply,
        send: Callable[[], Answer],
        look: _Look,
        also: str,
        *,
        goes_on: bool = False,
    ) -> Step:
        """One request. `goes_on`: others may be answered where this one is not, within its time."""
        values = [f"{at} = {value!r}" for at, value in reply.fields.items()]
        wanted = "; ".join([", ".join([f"HTTP {'/'.join(map(str, reply.status))}", *values]), also])
        if self._unanswered:
            return Step(name, request, wanted, "not checked", 0.0, notes=(f"not sent: {self._unanswered}",))
        found = _Findings()
        started = time.monotonic()
        try:
            answer = send()
            found.seconds = answer.seconds
            found.problems += answer.misfits(reply)
            look(found)
        except Unreachable as error:
            found.problems.append(str(error))
            found.seconds = time.monotonic() - started
            if isinstance(error, TimedOut) and not goes_on:
                self._unanswered = f"{name!r} got no answer in time"
        verdict: Verdict = "failed" if found.problems else "passed"
        return Step(name, request, wanted, verdict, found.seconds, tuple(found.problems), tuple(found.notes))

    # -- looks

    def _look_at_time(self, found: _Findings) -> None:
        if found.seconds > self._spec.answer_seconds:
            found.problems.append(f"it took {found.seconds * 1000:.1f} ms, not {self._spec.answer_within}")

    def _look_at_placement(self, answer: Answer, context: int, found: _Findings) -> None:
        fields = self._spec.fields
        fitted = answer.field(fields.context)
        if fitted is not None and fitted != context:
            found.problems.append(f"the context is {fitted}, not {context}: it was fitted to less memory")
        on_cpu = answer.field(fields.layers_on_cpu)
        if fields.layers_on_cpu is None:
            found.notes.append("where the layers are is not known: the spec has no fields.layers_on_cpu")
        elif on_cpu is None:
            found.problems.append(f"status does not tell {fields.layers_on_cpu}: {answer.excerpt()}")
        elif on_cpu:
            found.problems.append(f"{on_cpu} layers are on the CPU: the model was placed by too small a reading")

    def _look_at_server(self, answer: Answer, restarts: bool, found: _Findings) -> None:
        before, now = self._server, answer.field(self._spec.fields.pid)
        self._server = now if isinstance(now, int) else None
        if self._server is None:
            return
        self._processes.saw(self._server)
        if restarts and before == now:
            found.problems.append(f"process {now} was not restarted")
        elif not restarts and before is not None and before != now:
            found.problems.append(f"process {before} was replaced by {now}, for nothing")

    def _clear(self) -> TimedOut | None:
        """Unloads what is loaded. Returns the error where nobody answers; other errors the steps tell."""
        with contextlib.suppress(Unreachable):
            try:
                self._backend.exchange(self._spec.unload)
            except TimedOut as error:
                return error
        return None


class _BackgroundLoad:
    """A load in a thread of its own."""

    def __init__(self, send: Callable[[], Answer]) -> None:
        self._ended: Answer | Unreachable | None = None
        self._thread = threading.Thread(target=self._run, args=(send,), name="smoke-load", daemon=True)

    def start(self) -> None:
        """Sends it."""
        self._thread.start()

    def _run(self, send: Callable[[], Answer]) -> None:
        try:
            self._ended = send()
        except Unreachable as error:
            self._ended = error

    @property
    def is_over(self) -> bool:
        return self._ended is not None

    def misfits(self, reply: Reply, timeout: float) -> list[str]:
        """What is wrong with its reply, once it has one."""
        self._thread.join(timeout)
        if isinstance(self._ended, Answer):
            return [f"the load that was cancelled: {problem}" for problem in self._ended.misfits(reply)]
        return [f"the load that was cancelled: {self._ended or 'never answered'}"]


def _line(call: Call) -> str:
    return f"{call.method} {call.path}"
