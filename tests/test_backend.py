"""The demo backend, on the virtual clock and in real time: nothing of it is patched."""

from __future__ import annotations

import gc
import subprocess
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from fake_gpu import Driver, Fault, Ramp
from pytest_vramsettle import _procfs
from pytest_vramsettle.clock import VirtualClock
from pytest_vramsettle.demo.backend import Backend
from pytest_vramsettle.demo.server import Server
from pytest_vramsettle.settle import SettleResult, wait_for_vram_settle
from pytest_vramsettle.whole_backend import BackendError, BackendStatus, WholeBackend

if TYPE_CHECKING:
    from pytest_vramsettle.contracts.tracing import TracedLocks

ALL = "all layers on the GPU"
SLOW = Ramp.linear("3s", after="1s")


@pytest.fixture
def card(fake_driver: Driver, monotonic_clock: VirtualClock) -> Driver:
    """A driver with one card, on the virtual clock."""
    fake_driver.add_gpu("rtx-4090")
    return fake_driver


def serve(driver: Driver, wait: Callable[..., object] = wait_for_vram_settle, **arguments: object) -> Backend:
    command = driver.llama_server(**{"weights": "18 GiB", "reclaim": SLOW, **arguments})  # type: ignore[arg-type]  # as given
    return Backend(command, wait=wait)


def no_wait(kills: object, *, cancel: object) -> None:
    pass


def pid_of(backend: WholeBackend) -> int:
    pid = backend.status().pid
    assert pid is not None
    return pid


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    results: list[object] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


# -- loads


def test_in_real_time_it_works_as_well(fake_driver: Driver) -> None:
    fake_driver.add_gpu("rtx-4090")
    backend = serve(fake_driver, load_time="10ms", reclaim=Ramp.linear("60ms", after="30ms"))
    assert backend.load("a.gguf") == "loaded"
    assert backend.load("a.gguf", context=32768) == "loaded"
    assert backend.placement == ALL
    backend.close()


def test_a_load_serves_what_was_asked_for(card: Driver) -> None:
    backend = serve(card)
    assert backend.status() == BackendStatus()
    assert backend.placement == "nothing loaded"
    assert backend.load("a.gguf", context=16384, cache_type="q8_0") == "loaded"
    status = backend.status()
    assert (status.phase, status.model, status.context, status.cache_type) == ("serving", "a.gguf", 16384, "q8_0")
    assert (status.gpu, status.layers, status.layers_on_gpu) == (card.gpus[0].uuid, 48, 48)
    assert [process.pid for process, _ in card.gpus[0].processes_at(card.sync())] == [status.pid]


def test_an_identical_load_restarts_nothing(card: Driver, monotonic_clock: VirtualClock) -> None:
    backend = serve(card)
    backend.load("a.gguf")
    before, pid = monotonic_clock.elapsed_ns, pid_of(backend)
    assert backend.load("a.gguf") == "already_loaded"
    assert (pid_of(backend), monotonic_clock.elapsed_ns) == (pid, before)


@pytest.mark.parametrize(
    "settings", [{"context": 4096}, {"cache_type": "q4_0"}, {"model": "b.gguf"}], ids=["context", "cache", "model"]
)
def test_a_change_waits_for_the_memory(
    card: Driver, monotonic_clock: VirtualClock, settings: dict[str, object]
) -> None:
    backend = serve(card)
    backend.load("a.gguf")
    pid, begun = pid_of(backend), monotonic_clock.elapsed
    assert backend.load(**{"model": "a.gguf", **settings}) == "loaded"  # type: ignore[arg-type]  # as given
    assert pid_of(backend) != pid
    assert backend.placement == ALL
    assert 4.0 < monotonic_clock.elapsed - begun < 5.0  # the ramp, and the load


def test_what_unload_kills_the_next_load_waits_for(card: Driver, monotonic_clock: VirtualClock) -> None:
    backend = serve(card)
    backend.load("a.gguf")
    begun = monotonic_clock.elapsed
    assert backend.unload()
    assert not backend.unload()
    assert monotonic_clock.elapsed == begun  # it does not wait itself
    backend.load("a.gguf", cache_type="q8_0")
    assert backend.placement == ALL
    assert monotonic_clock.elapsed - begun > 4.0


def test_without_the_wait_layers_go_to_the_cpu(card: Driver) -> None:
    backend = serve(card, no_wait)
    backend.load("a.gguf")
    assert backend.placement == ALL
    backend.load("a.gguf", context=32768)
    # 24115 free, less 19968 of the dead: 3635 after 256 of margin and 512 of buffers, at 394.67 a layer.
    assert backend.placement == "8 of 48 layers on the GPU, 40 on the CPU"
    assert backend.status().context == 4096


def test_the_context_gives_way_before_layers_do(card: Driver) -> None:
    backend = serve(card, weights="20 GiB")
    backend.load("a.gguf", context=32768)
    assert backend.placement == ALL
    assert 4096 < (backend.status().context or 0) < 32768
    assert backend.load("a.gguf", context=32768) == "already_loaded"


def test_a_model_that_does_not_fit_is_split(card: Driver) -> None:
    backend = serve(card, weights="40 GiB")
    backend.load("a.gguf")
    status = backend.status()
    assert status.layers_on_gpu is not None
    assert 0 < status.layers_on_gpu < 48
    assert status.placement == f"{status.layers_on_gpu} of 48 layers on the GPU, {status.layers_on_cpu} on the CPU"


def test_the_roomiest_card_is_taken(card: Driver) -> None:
    card.process(card.gpus[0], "2 GiB")
    other = card.add_gpu("rtx-4090")
    backend = serve(card)
    backend.load("a.gguf")
    assert backend.status().gpu == other.uuid


def test_a_machine_without_a_card(fake_driver: Driver, monotonic_clock: VirtualClock) -> None:
    fake_driver.inject(Fault.exit(9), via="nvidia-smi")
    backend = serve(fake_driver)
    with pytest.raises(BackendError, match="free GPU memory cannot be read"):
        backend.load("a.gguf")
    assert backend.status() == BackendStatus()


# -- beside a load


def test_status_and_cancel_answer_while_a_load_waits(card: Driver, monotonic_clock: VirtualClock) -> None:
    backend = serve(card, reclaim=Ramp.never())
    backend.load("a.gguf")
    assert not backend.cancel()
    load, results = in_thread(lambda: backend.load("a.gguf", context=32768))
    monotonic_clock.advance(2)
    before = monotonic_clock.elapsed_ns
    status = backend.status()
    assert (status.phase, status.loading, status.context) == ("settling", True, 32768)
    assert backend.cancel()
    assert monotonic_clock.elapsed_ns == before
    load.join()
    assert (results, monotonic_clock.elapsed_ns) == (["cancelled"], before)
    assert backend.status() == BackendStatus()


def test_unload_gets_in_while_a_load_waits(card: Driver, monotonic_clock: VirtualClock) -> None:
    backend = serve(card, reclaim=Ramp.never())
    backend.load("a.gguf")
    load, results = in_thread(lambda: backend.load("a.gguf", context=32768))
    monotonic_clock.advance(2)
    before = monotonic_clock.elapsed_ns
    assert not backend.unload()  # the load has killed the server already
    load.join()
    assert (results, monotonic_clock.elapsed_ns) == (["cancelled"], before)


@pytest.mark.parametrize("how", ["cancel", "unload"])
def test_a_load_that_loads_already_is_ended(card: Driver, monotonic_clock: VirtualClock, how: str) -> None:
    backend = serve(card, load_time="1h")
    load, results = in_thread(lambda: backend.load("a.gguf"))
    monotonic_clock.advance(60)
    assert backend.status().phase == "starting"
    (holder,) = card.gpus[0].processes_at(card.sync())
    assert getattr(backend, how)()
    load.join()
    assert results == ["cancelled"]
    assert not holder[0].alive
    assert backend.status() == BackendStatus()


def test_loads_queue_up(card: Driver) -> None:
    backend = serve(card)
    first, one = in_thread(lambda: backend.load("a.gguf"))
    second, two = in_thread(lambda: backend.load("b.gguf"))
    third, three = in_thread(lambda: backend.load("b.gguf"))
    for thread in (first, second, third):
        thread.join()
    assert sorted(str(result) for result in (*one, *two, *three)) == ["already_loaded", "loaded", "loaded"]
    assert sum(process.alive for process in card.processes) == 1


def test_nobody_waits_under_the_lock(card: Driver, traced_locks: TracedLocks) -> None:
    backend = serve(card)
    trace = traced_locks(backend, "_lock", watch="_wait")
    backend.load("a.gguf")
    backend.load("a.gguf", context=4096)
    trace.assert_not_held(during="_wait")
    trace.assert_free(during="_wait", lock="_lock")


# -- what goes wrong


def test_a_server_that_hangs_on_sigterm_is_killed(card: Driver, monotonic_clock: VirtualClock) -> None:
    backend = serve(card, ignores_sigterm=True)
    backend.load("a.gguf")
    begun = monotonic_clock.elapsed
    assert backend.load("a.gguf", context=4096) == "loaded"
    assert backend.placement == ALL
    assert monotonic_clock.elapsed - begun > 9.0  # 5 s of patience, then the ramp


def test_a_crash_is_noticed_and_its_memory_waited_for(card: Driver, monotonic_clock: VirtualClock) -> None:
    backend = serve(card, crash="10s")
    backend.load("a.gguf")
    time.sleep(10)
    assert backend.status() == BackendStatus()
    begun = monotonic_clock.elapsed
    assert backend.load("a.gguf") == "loaded"
    assert backend.placement == ALL
    assert monotonic_clock.elapsed - begun > 3.0


def test_a_server_that_dies_while_it_loads_is_told_with_its_last_words(card: Driver) -> None:
    backend = serve(card, crash="1s", load_time="2s")
    with pytest.raises(BackendError, match=r"(?s)could not be loaded.*offloaded 48/48"):
        backend.load("a.gguf")
    assert backend.status() == BackendStatus()
    assert sum(process.alive for process in card.processes) == 0


def test_a_model_that_takes_too_long_is_ended(card: Driver, monotonic_clock: VirtualClock) -> None:
    backend = Backend(card.llama_server(load_time="1h"), ready_timeout=5)
    with pytest.raises(BackendError, match="could not be loaded"):
        backend.load("a.gguf")
    assert 5 <= monotonic_clock.elapsed < 6
    assert sum(process.alive for process in card.processes) == 0


def test_what_an_interrupted_load_leaves_is_not_taken_for_what_was_there(
    card: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = serve(card)
    backend.load("a.gguf")

    def interrupt(*arguments: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Server, "wait_until_ready", interrupt)
        with pytest.raises(KeyboardInterrupt):
            backend.load("b.gguf")
    assert backend.status().phase == "idle"
    assert backend.load("a.gguf") == "loaded"
    assert sum(process.alive for process in card.processes) == 1


def test_a_server_that_cannot_be_started(card: Driver) -> None:
    with pytest.raises(BackendError, match="/nowhere/llama-server cannot be started: No such file"):
        Backend("/nowhere/llama-server").load("a.gguf")


def test_a_backend_that_nobody_has_any_more_leaves_no_process(card: Driver) -> None:
    backend = serve(card)
    backend.load("a.gguf")
    (server,) = _procfs.tree(pid_of(backend))
    del backend
    gc.collect()
    assert not _procfs.is_alive(server)


def test_an_older_llama_cpp_without_fit_params_fits_by_itself(card: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    run = subprocess.run

    def without(command: list[str], **arguments: object) -> object:
        if command[0].endswith("llama-fit-params"):
            raise FileNotFoundError(command[0])
        return run(command, **arguments)  # type: ignore[call-overload]  # as given

    monkeypatch.setattr(subprocess, "run", without)
    backend = serve(card)
    backend.load("a.gguf")
    assert backend.placement == ALL


def test_the_wait_is_given_the_record_and_the_cancel(card: Driver) -> None:
    seen: list[SettleResult] = []
    backend = serve(card, lambda kills, *, cancel: seen.append(wait_for_vram_settle(kills, cancel=cancel)))
    backend.load("a.gguf")
    backend.load("b.gguf")
    assert [result.outcome for result in seen] == ["no_recent_kill", "settled"]
    assert seen[1].expected_mib == 18 * 1024 + 1024 + 512
