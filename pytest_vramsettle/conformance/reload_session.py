"""A backend under judgement while a scenario plays: its calls, and what there was in truth after each."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fake_gpu.llama import RunningServer
from pytest_vramsettle.conformance.model import Observation, seconds, short
from pytest_vramsettle.conformance.stage import Stage, described
from pytest_vramsettle.timeline import WaitLog

MODEL = "model.gguf"
CONTEXT, OTHER_CONTEXT = 8192, 16384

_PATIENCE = 150.0
"""Virtual seconds after which a call is given up."""
_CHILD_LOOKS = 1000
_LOOK = 0.05
"""Virtual seconds from one look at the servers to the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadSubject:
    """A whole backend under judgement."""

    backend: Any
    """`load(model, *, context=, cache_type=)`, `unload()`, `cancel()`, `status()`; `close()`, where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call of the backend, and what there was when it was over. Instants as in an Observation."""

    called: str
    began_ns: int
    ended_ns: int
    result: Any = None
    error: str | None = None
    servers: tuple[RunningServer, ...] = ()
    """Those that served at its end, loaded or not."""
    probes: int = 0
    """Calls of nvidia-smi and NVML since it began."""

    @property
    def elapsed_ns(self) -> int:
        """From the call to its end."""
        return self.ended_ns - self.began_ns

    @property
    def server(self) -> RunningServer | None:
        """The one server; None where there are more, or none."""
        return self.servers[0] if len(self.servers) == 1 else None

    def __str__(self) -> str:
        how = f"raised {self.error}" if self.error else f"returned {short(self.result)}"
        there = ", ".join(map(str, self.servers)) or "no server"
        return f"called at {seconds(self.began_ns)}, {how} after {seconds(self.elapsed_ns)}; then there was {there}"


class Stopped(Exception):
    """A scenario cannot go on: a call did not end, or raised where it should not have."""

    def __init__(self, text: str, *, raised: bool) -> None:
        super().__init__(text)
        self.raised = raised


@dataclass(slots=True)
class Pending:
    """A call under way, in a thread of its own."""

    called: str
    began_ns: int
    calls_before: int
    thread: threading.Thread | None = None
    done: bool = False
    result: Any = None
    error: str | None = None
    ended_ns: int = 0
    servers: tuple[RunningServer, ...] = ()


class Session:
    """Calls the backend of a scenario as its users do. Coroutines, and all else beside them, have one event loop."""

    def __init__(self, stage: Stage, subject: ReloadSubject) -> None:
        self.stage = stage
        self.steps: dict[str, Step] = {}
        self.facts: dict[str, Any] = {}
        self._backend = subject.backend
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None
        names = ("load", "unload", "cancel", "status", "close")
        if any(inspect.iscoroutinefunction(getattr(self._backend, name, None)) for name in names):
            self._run_loop()

    # -- calls

    def load(
        self, name: str, *, context: int = CONTEXT, cache_type: str = "f16", model: str = MODEL, may_raise: bool = False
    ) -> Step:
        """A load, to its end. Its step is noted under `name`."""
        pending = self.begin_load(context=context, cache_type=cache_type, model=model)
        return self.finish(name, pending, may_raise=may_raise)

    def begin_load(self, *, context: int = CONTEXT, cache_type: str = "f16", model: str = MODEL) -> Pending:
        """A load that goes on beside."""
        called = f"load({model!r}, context={context}, cache_type={cache_type!r})"
        return self._begin(called, lambda: self._backend.load(model, context=context, cache_type=cache_type))

    def ask(self, name: str, method: str, *, may_raise: bool = False) -> Step:
        """unload, cancel or status, to its end."""
        return self.finish(name, self._begin(f"{method}()", getattr(self._backend, method)), may_raise=may_raise)

    def finish(self, name: str, pending: Pending, *, may_raise: bool = False) -> Step:
        """Waits for its end. Raises Stopped where there is none, and where it raises and may not."""
        if pending.thread is not None:
            pending.thread.join(_PATIENCE)
        if not pending.done:
            raise Stopped(f"{pending.called} had not returned {_PATIENCE:g} s after the call", raised=False)
        step = self.steps[name] = Step(
            called=pending.called,
            began_ns=pending.began_ns,
            ended_ns=pending.ended_ns,
            result=pending.result,
            error=pending.error,
            servers=pending.servers,
            probes=len(self.stage.driver.calls) - pending.calls_before,
        )
        self.stage.called(pending.called.partition("(")[0], step.began_ns, step.ended_ns, **_drawn(step))
        if step.error is not None and not may_raise:
            raise Stopped(f"{step.error}, from {pending.called}", raised=True)
        return step

    def _begin(self, called: str, function: Callable[[], Any]) -> Pending:
        pending = Pending(called, self.stage.now_ns, len(self.stage.driver.calls))
        pending.thread = threading.Thread(target=self._run, args=(pending, function), name=called, daemon=True)
        pending.thread.start()
        return pending

    def _run(self, pending: Pending, function: Callable[[], Any]) -> None:
        try:
            pending.result = self._called(function)
        except BaseException as error:  # SystemExit and all: it is the backend's
            pending.error = described(error)
        pending.ended_ns, pending.servers, pending.done = self.stage.now_ns, self.servers(), True

    def _called(self, function: Callable[[], Any]) -> Any:
        if self._loop is None:
            result = function()
            if not inspect.isawaitable(result):
                return result
            self._run_loop()
            function = lambda: result  # noqa: E731  # it is called already

        async def call() -> Any:
            made = function()
            return await made if inspect.isawaitable(made) else made

        if self._loop is None:
            raise RuntimeError("the event loop has ended")
        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    def _run_loop(self) -> None:
        loop = self._loop = asyncio.new_event_loop()
        self._loop_thread = threading.Thread(target=loop.run_forever, name="event-loop", daemon=True)
        self._loop_thread.start()

    # -- what there is

    def servers(self) -> tuple[RunningServer, ...]:
        """The servers that live now, without children that they have left."""
        return tuple(one for one in self.stage.driver.llama.running if not one.is_child)

    def until(self, what: Callable[[], bool], limit: float = 20.0) -> bool:
        """Lets time pass until that is so, so many virtual seconds at most."""
        for _ in range(round(limit / _LOOK)):
            if what():
                return True
            self.stage.clock.sleep(_LOOK)
        return what()

    def until_killed(self, after: float = 0.3) -> bool:
        """Until a load that is under way has killed the server that there was; and a little later, when it waits."""
        killed = self.until(lambda: not self.servers())
        self.stage.clock.sleep(after)
        return killed

    def await_child(self) -> None:
        """Until the child that a server leaves behind holds its memory. That takes real time alone."""
        for _ in range(_CHILD_LOOKS):
            children = {one.pid for one in self.stage.driver.llama.running if one.is_child}
            if children & {process.pid for process in list(self.stage.driver.processes)}:
                return
            self.stage.clock.real_sleep(0.005)
        raise Stopped("the scenario's server has left no child: it cannot be played", raised=True)

    # -- the end

    def give_up(self) -> None:
        """Closes what has raised, as far as it can be."""
        with suppress(Stopped):
            self.end()

    def end(self) -> None:
        """Closes the backend, or unloads where it has no close()."""
        name = "close" if callable(getattr(self._backend, "close", None)) else "unload"
        try:
            self.ask("the end", name)
        finally:
            self._end_loop()

    def _end_loop(self) -> None:
        loop, thread = self._loop, self._loop_thread
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_PATIENCE)
            if not thread.is_alive():
                with suppress(RuntimeError, concurrent.futures.CancelledError):
                    loop.run_until_complete(loop.shutdown_default_executor())
                loop.close()
            self._loop = None


def told(status: object, name: str) -> Any:
    """A field of a status: of a mapping, or an attribute. None where it has none."""
    return status.get(name) if isinstance(status, Mapping) else getattr(status, name, None)


def _drawn(step: Step) -> dict[str, Any]:
    """How a call is told in the drawing: a load by what became of the layers."""
    outcome = f"raised {step.error.partition(':')[0]}" if step.error else short(step.result, 40)
    server = step.server
    wrong = ""
    if step.called.startswith("load") and server is not None and server.loaded and server.layers_on_cpu:
        wrong = f"{server.layers_on_cpu} layers are on the CPU"
    return {"outcome": outcome, "trusted": step.error is None, "about_memory": False, "wrong": wrong}


@dataclass(frozen=True, slots=True)
class ReloadPlay:
    """`script` calls the backend; then it is closed, and what is left is named and ended."""

    script: Callable[[Session], None]

    def __call__(self, stage: Stage, subject: ReloadSubject) -> Observation:
        """What was seen. The steps are notes by their names."""
        stage.note_what_is_there()
        threads = frozenset(threading.enumerate())
        session = Session(stage, subject)
        stage.begin()
        stopped: Stopped | None = None
        with stage.recorded() as logs, WaitLog(stage.clock) as waits:
            try:
                self.script(session)
                session.end()
            except Stopped as reason:
                stopped = reason
                if reason.raised:
                    session.give_up()
        stage.waits += waits.waits
        ended_ns = stage.now_ns
        left = (*_servers_left(stage), *stage.left(), *_threads_left(stage, threads)) if stopped is None else ()
        last = next(reversed(session.steps.values()), None)
        return Observation(
            began_ns=0,
            ended_ns=ended_ns,
            returned=stopped is None,
            result=None if last is None else last.result,
            error=str(stopped) if stopped is not None and stopped.raised else None,
            probes=stage.sightings(),
            missing=stage.unreturned(),
            logs=tuple(logs),
            left=left,
            notes=(*session.steps.items(), *session.facts.items()),
        )


def _servers_left(stage: Stage) -> tuple[str, ...]:
    """The driver ends them."""
    return tuple(f"{one}, after the end" for one in stage.driver.llama.running)


def _threads_left(stage: Stage, before: frozenset[threading.Thread]) -> tuple[str, ...]:
    """Threads that are still there a virtual second after the end; a worker of an executor ends with its loop."""
    if _strangers(before):
        stage.clock.sleep(1.0)
    return tuple(f"thread {one.name!r}" for one in _strangers(before))


def _strangers(before: frozenset[threading.Thread]) -> list[threading.Thread]:
    # A thread that was not started by `threading` gets a Dummy- when it asks who it is, such as to log: the driver's.
    return [one for one in threading.enumerate() if one not in before and not one.name.startswith("Dummy-")]
