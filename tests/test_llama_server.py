"""The fake llama-server: what it holds and says, and how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_gpu import Driver, DriverStateError, InvalidValue, Ramp
from fake_gpu.llama import RunningServer, make_shape
from fake_gpu.llama.options import Options
from fake_gpu.llama.sizes import lay_out
from fake_gpu.units import GIB, MIB
from pytest_vramsettle import _procfs
from pytest_vramsettle.clock import VirtualClock
from tests.llama_process import CONTEXT, Llama, server

HELD = 18 * GIB + 512 * MIB + 512 * MIB  # weights, 4096 tokens of 128 KiB, overhead


@pytest.fixture
def driver() -> Iterator[Driver]:
    with Driver() as driver:
        driver.add_gpu("rtx-4090")
        yield driver


def held(driver: Driver, gpu: int = 0) -> int:
    return driver.gpus[gpu].memory.used


def apps() -> str:
    query = ["nvidia-smi", "--query-compute-apps=pid,name,used_memory", "--format=csv,noheader,nounits"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout


def is_alive(pid: int) -> bool:
    return _procfs.identify(pid) is not None


def await_death(pid: int) -> None:
    until = time.monotonic() + 10
    while is_alive(pid):
        assert time.monotonic() < until
        time.sleep(0.002)


# -- memory


def test_it_holds_what_it_says_as_the_process_that_it_is(driver: Driver) -> None:
    with Llama(server(driver), *CONTEXT) as llama:
        llama.ready()
        assert held(driver) == HELD
        assert apps() == f"{llama.pid}, llama-server, {HELD // MIB}\n"
        assert "offloaded 48/48 layers to GPU" in llama.log
        assert f"listening on http://127.0.0.1:{llama.port}" in llama.log


def test_the_dead_give_back_by_their_ramp(monotonic_clock: VirtualClock) -> None:
    with Driver(clock=monotonic_clock) as driver:
        driver.add_gpu("rtx-4090")
        with Llama(server(driver, reclaim=Ramp.linear("2s")), *CONTEXT) as llama:
            llama.ready()
            llama.popen.kill()
            llama.popen.wait()
            assert held(driver) == HELD
            time.sleep(1)
            assert held(driver) == HELD // 2
            time.sleep(1)
            assert held(driver) == 0


def test_a_load_takes_its_time_on_the_clock(monotonic_clock: VirtualClock) -> None:
    with Driver(clock=monotonic_clock) as driver:
        driver.add_gpu("rtx-4090")
        with Llama(server(driver, load_time="20s"), *CONTEXT) as llama:
            _ = llama.port
            begun = monotonic_clock.elapsed
            weights = held(driver)
            status, body = llama.ask("GET", "/health")
            assert (status, body["error"]) == (
                503,
                {"message": "Loading model", "type": "unavailable_error", "code": 503},
            )
            assert weights == 18 * GIB  # the cache comes last
            while llama.ask("GET", "/health")[0] != 200:
                time.sleep(1)
            assert 19 <= monotonic_clock.elapsed - begun <= 21
            assert held(driver) == HELD


@pytest.mark.parametrize(("kind", "bytes_per_value"), [("f16", 2), ("q8_0", 34 / 32), ("q4_0", 18 / 32)])
def test_the_cache_type_decides_its_size(driver: Driver, kind: str, bytes_per_value: float) -> None:
    with Llama(server(driver), *CONTEXT, "-ctk", kind, "--cache-type-v", kind) as llama:
        llama.ready()
        assert held(driver) == 18 * GIB + 512 * MIB + 4096 * 64 * 1024 * bytes_per_value


def test_layers_on_the_cpu_hold_nothing(driver: Driver) -> None:
    with Llama(server(driver), *CONTEXT, "-ngl", "12") as llama:
        llama.ready()
        assert held(driver) == 18 * GIB // 4 + 512 * MIB // 4 + 512 * MIB
        assert "offloaded 12/48 layers to GPU" in llama.log
    with Llama(server(driver), *CONTEXT, "-ngl", "0") as llama:
        llama.ready()
        assert str(llama.pid) not in apps()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-ngl", "all", "-c", "4096"), "llama_model_load: error loading model: unable to allocate CUDA0 buffer"),
        (("-ngl", "20", "-c", "131072"), "failed to allocate buffer for kv cache"),
    ],
)
def test_without_room_it_fails_as_the_real_one(driver: Driver, arguments: tuple[str, ...], says: str) -> None:
    driver.process(driver.gpus[0], "14 GiB")
    before = held(driver)
    with Llama(server(driver, reclaim=Ramp.immediate()), *arguments) as llama:
        assert llama.popen.wait(10) == 1
        assert "cudaMalloc failed: out of memory" in llama.log
        assert says in llama.log
    assert held(driver) == before


def test_what_is_left_open_is_fitted_to_the_free_memory(driver: Driver) -> None:
    driver.process(driver.gpus[0], "12 GiB")
    with Llama(server(driver), *CONTEXT) as llama:
        log = llama.ready().log
        assert "offloaded 26/48 layers to GPU" in log  # (24115 - 12288 - 1024 - 512) / (384 + 10.7)
        assert driver.gpus[0].memory.free >= GIB
    driver.add_gpu("h200")
    with Llama(server(driver), environment={"CUDA_VISIBLE_DEVICES": "1"}) as llama:
        assert llama.ready().ask("GET", "/props")[1]["default_generation_settings"]["n_ctx"] == 131_072


@pytest.mark.parametrize(
    ("visible", "used"),
    [
        ("1", [1]),
        ("1,0", [0, 1]),
        ("UUID", [1]),
        ("UUID-prefix", [1]),
        ("", []),
        ("-1", []),
        ("7", []),
        ("0,7,1", [0]),
        ("1,1", [1]),
    ],
)
def test_cuda_visible_devices_chooses(driver: Driver, visible: str, used: list[int]) -> None:
    other = driver.add_gpu("rtx-4090")
    visible = visible.replace("UUID-prefix", other.uuid[:12]).replace("UUID", other.uuid)
    environment = {"CUDA_VISIBLE_DEVICES": visible}
    with Llama(server(driver), *CONTEXT, "-ngl", "99", environment=environment) as llama:
        llama.ready()
        assert [gpu.index for gpu in driver.gpus if gpu.memory.used] == used


SIZES = st.integers(min_value=0, max_value=200 * GIB)


@given(
    free=st.lists(SIZES, min_size=1, max_size=4),
    weights=st.integers(min_value=1, max_value=300 * GIB),
    layers=st.integers(min_value=1, max_value=120),
    context=st.sampled_from([0, 512, 32_768]),
    kind=st.sampled_from(["f16", "q4_0", "q8_0"]),
)
def test_what_is_fitted_fits(free: list[int], weights: int, layers: int, context: int, kind: str) -> None:
    shape = make_shape(
        weights=weights,
        layers=layers,
        kv_bytes_per_token="128 KiB",
        overhead="512 MiB",
        train_context=131_072,
        load_time=0,
        crash=None,
        ignores_sigterm=False,
        leaves_child=False,
        reclaim=Ramp.immediate(),
    )
    layout = lay_out(shape, Options(context=context, type_k=kind, type_v=kind), free)
    assert 0 <= layout.on_gpu <= layers
    assert all(layout.total(gpu) <= max(0, size - GIB) for gpu, size in enumerate(free))
    assert layout.context == (context or layout.context)
    assert layout.context >= 4096 or context == 512
    if layout.on_gpu < layers and not context:
        assert layout.context == 4096  # no layer is given up for a longer context


def test_several_gpus_share_the_layers(driver: Driver) -> None:
    driver.add_gpu("rtx-4090")
    command = server(driver, overhead=0)
    with Llama(command, "-c", "256", "-ngl", "all", "-ts", "3,1") as llama:
        llama.ready()
        assert held(driver, 0) == 3 * held(driver, 1)
    with Llama(command, "-c", "256", "-ngl", "all", "-sm", "none", "-mg", "1", environment={}) as llama:
        llama.ready()
        assert "CUDA1 model buffer" in llama.log
        assert "CUDA0 model buffer" not in llama.log


# -- its end


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGKILL, -9), (signal.SIGSEGV, -11)],
)
def test_it_ends_by_real_signals(driver: Driver, number: signal.Signals, status: int) -> None:
    with Llama(server(driver, reclaim=Ramp.immediate()), *CONTEXT) as llama:
        llama.ready().popen.send_signal(number)
        assert llama.popen.wait(10) == status
        assert ("cleaning up before exit" in llama.log) == (status == 0)
        assert held(driver) == 0


def test_while_it_loads_sigterm_kills_it(driver: Driver) -> None:
    with Llama(server(driver, load_time="1h"), *CONTEXT) as llama:
        llama.await_line("offloaded")
        llama.popen.terminate()
        assert llama.popen.wait(10) == -signal.SIGTERM


def test_it_crashes_on_time(monotonic_clock: VirtualClock) -> None:
    with Driver(clock=monotonic_clock) as driver:
        driver.add_gpu("rtx-4090")
        for load_time in ("1s", "5s"):  # ready by then, or not
            with Llama(server(driver, load_time=load_time, crash="3s"), *CONTEXT) as llama:
                begun = monotonic_clock.elapsed
                assert llama.popen.wait() == -signal.SIGSEGV
                assert monotonic_clock.elapsed - begun == pytest.approx(3)
                assert ("main loop" in llama.log) == (load_time == "1s")
                time.sleep(2)  # its memory is back


def test_it_ignores_sigterm_until_it_is_killed(driver: Driver) -> None:
    with Llama(server(driver, ignores_sigterm=True), *CONTEXT) as llama:
        llama.ready().popen.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            llama.popen.wait(0.05)
        assert llama.ask("GET", "/health")[0] == 200
        llama.popen.kill()
        assert llama.popen.wait(10) == -signal.SIGKILL


def test_it_leaves_a_child_that_holds_memory_until_the_driver_stops(driver: Driver) -> None:
    with Llama(server(driver, leaves_child="2 GiB", reclaim=Ramp.immediate()), *CONTEXT) as llama:
        llama.ready()
        (child,) = [process for process in _procfs.tree(llama.pid) if process.pid != llama.pid]
        (loaded, *_) = driver.llama.running
        assert (loaded.pid, loaded.layers, loaded.layers_on_cpu, loaded.is_child) == (llama.pid, 48, 0, False)
        llama.popen.kill()
        llama.popen.wait()
        while not apps():  # it speaks to the driver when it comes to run
            assert _procfs.is_alive(child)
        assert driver.llama.running == (RunningServer(child.pid, is_child=True),)
        assert apps() == f"{child.pid}, llama-server-child, 2048\n"
    driver.stop()
    assert not _procfs.is_alive(child)


def test_what_a_test_forgot_is_dead_when_the_driver_has_stopped(driver: Driver) -> None:
    with Llama(server(driver, ignores_sigterm=True), *CONTEXT) as llama:
        llama.ready()
        driver.stop()
        assert not is_alive(llama.pid)


def test_nothing_survives_a_driver_that_was_killed() -> None:
    program = """
        import fake_gpu, signal, subprocess, os
        with fake_gpu.Driver() as driver:
            driver.add_gpu("rtx-4090")
            command = driver.llama_server(ignores_sigterm=True, leaves_child=True)
            llama = subprocess.Popen([*command, "-m", "a", "--port", "0"], stderr=subprocess.PIPE, text=True)
            for line in llama.stderr:
                if "main loop" in line:
                    break
            children = open(f"/proc/{llama.pid}/task/{llama.pid}/children").read().split()
            print(llama.pid, *children, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    pids = [int(pid) for pid in run.stdout.split()]
    assert (run.returncode, len(pids)) == (-signal.SIGKILL, 2)
    for pid in pids:
        await_death(pid)


# -- what a test hands over


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"weights": "0 GiB"}, "a model has some"),
        ({"weights": "much"}, "is not a size"),
        ({"layers": 0}, "layers=0"),
        ({"load_time": "soon"}, "is not a duration"),
        ({"crash": -1}, "cannot be negative"),
        ({"train_context": 1}, "train_context=1"),
        ({"leaves_child": "big"}, "is not a size"),
    ],
)
def test_what_cannot_be_is_refused_at_once(driver: Driver, arguments: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidValue, match=text):
        server(driver, **arguments)


def test_it_needs_an_active_driver() -> None:
    with pytest.raises(DriverStateError, match="not active"):
        Driver().llama_server()
