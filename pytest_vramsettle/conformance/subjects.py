"""From what somebody has to what a scenario calls."""

from __future__ import annotations

import inspect
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from pytest_vramsettle.conformance.checking import ConformanceError
from pytest_vramsettle.conformance.kill_scenarios import KillRoutine
from pytest_vramsettle.conformance.model import short
from pytest_vramsettle.conformance.probe_scenarios import ProbeSubject
from pytest_vramsettle.conformance.reload_session import ReloadSubject
from pytest_vramsettle.conformance.settle_checks import SettleSubject

WAIT_LINES = """\
from pytest_vramsettle.conformance import SettleSuite

class TestOurSettle(SettleSuite):
    @pytest.fixture
    def wait(self):
        backend = Backend()
        return lambda *, since_kill, max_wait: backend.wait_for_vram(since_kill=since_kill, max_wait=max_wait)
"""

KILL_LINES = """\
from pytest_vramsettle.conformance import KillRecordSuite, KillRoutine

class TestOurKills(KillRecordSuite):
    @pytest.fixture
    def kills(self):
        backend = Backend()
        def adopt(process):
            backend._process = process
        return KillRoutine(adopt=adopt, kill=backend._kill_process, stamp=lambda: backend._last_kill_monotonic)
"""

PROBE_LINES = """\
from pytest_vramsettle.conformance import ProbeSuite

class TestOurProbe(ProbeSuite):
    @pytest.fixture
    def probe(self):
        return Backend()._get_gpu_free_memory      # returns [(index or UUID, free MiB), ...]
"""

RELOAD_LINES = """\
from pytest_vramsettle.conformance import ReloadSuite

class TestOurBackend(ReloadSuite):
    @pytest.fixture
    def backend(self, server_command):             # a list, which starts a fake llama-server
        return Backend(server_command)             # with load(), unload(), cancel(), status()
"""


def settle_subject(
    wait: Any,
    *,
    recording: Any = None,
    cancel: Any = None,
    lock: Any = None,
    injects_probe: bool = False,
) -> SettleSubject:
    """Checked. Raises ConformanceError with what to write instead."""
    if not callable(wait):
        raise ConformanceError(f"wait is {short(wait)}, which cannot be called. Ten lines are enough:\n\n{WAIT_LINES}")
    _takes(wait, ("probe", "since_kill", "max_wait") if injects_probe else ("since_kill", "max_wait"))
    for name, part in (("recording", recording), ("cancel", cancel)):
        if part is not None and not callable(part):
            raise ConformanceError(f"{name} is {short(part)}, which cannot be called")
    if lock is not None and not hasattr(lock, "acquire"):
        raise ConformanceError(f"lock is {short(lock)}, which has no acquire()")
    given = _with_probe(wait) if injects_probe else wait
    return SettleSubject(wait=given, recording=recording, cancel=cancel, lock=lock)


def kill_subject(routine: Any) -> KillRoutine:
    """A KillRoutine, or what makes one. Raises ConformanceError with what to write instead."""
    made = routine if isinstance(routine, KillRoutine) else routine() if callable(routine) else routine
    if not isinstance(made, KillRoutine):
        raise ConformanceError(f"{short(made)} is no KillRoutine. Ten lines are enough:\n\n{KILL_LINES}")
    for name in ("adopt", "kill", "stamp", "reap", "load"):
        part = getattr(made, name)
        if part is not None and not callable(part):
            raise ConformanceError(f"KillRoutine({name}={short(part)}): that cannot be called")
    return made


def probe_subject(probe: Any) -> ProbeSubject:
    """Checked. Raises ConformanceError with what to write instead."""
    if isinstance(probe, ProbeSubject):
        return probe
    if not callable(probe):
        raise ConformanceError(f"probe is {short(probe)}, which cannot be called. A few lines do:\n\n{PROBE_LINES}")
    return ProbeSubject(probe=probe)


def reload_subject(found: Any, server_command: Sequence[str]) -> ReloadSubject:
    """A backend, or what makes one of a server command. Raises ConformanceError with what to write instead."""
    made = found(list(server_command)) if callable(found) and not is_backend(found) else found
    if not is_backend(made):
        missing = [name for name in BACKEND_METHODS if not callable(getattr(made, name, None))]
        raise ConformanceError(
            f"{short(made)} is no backend: it has no {', '.join(missing)}. Six lines are enough:\n\n{RELOAD_LINES}"
        )
    return ReloadSubject(backend=made)


BACKEND_METHODS = ("load", "unload", "cancel", "status")


def is_backend(found: Any) -> bool:
    """Whether its methods can be called: of a class, only where they need no instance."""
    if isinstance(found, type):
        methods = [inspect.getattr_static(found, name, None) for name in BACKEND_METHODS]
        return all(isinstance(one, staticmethod | classmethod) for one in methods)
    return all(callable(getattr(found, name, None)) for name in BACKEND_METHODS)


def _with_probe(wait: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(wait):

        async def waiting(*, since_kill: float, max_wait: float) -> Any:
            return await wait(probe=nvidia_smi, since_kill=since_kill, max_wait=max_wait)

        return waiting
    return lambda *, since_kill, max_wait: wait(probe=nvidia_smi, since_kill=since_kill, max_wait=max_wait)


def _takes(wait: Callable[..., Any], names: tuple[str, ...]) -> None:
    try:
        inspect.signature(wait).bind(**dict.fromkeys(names))
    except TypeError as error:
        called = ", ".join(f"{name}=…" for name in names)
        raise ConformanceError(f"wait cannot be called as wait({called}): {error}. It is {short(wait)}") from None
    except ValueError:  # no signature to be had
        return


def nvidia_smi() -> list[tuple[int, int]]:
    """The probe for waits that are given one, as backends write it: [(index, free MiB)], 10 s for nvidia-smi.

    Raises what subprocess raises, and ValueError for an output that is none.
    """
    out = subprocess.run(
        ["nvidia-smi", "--query-gpu=index,memory.free", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    ).stdout
    return [(int(index), int(free)) for index, free in (line.split(",") for line in out.splitlines())]
