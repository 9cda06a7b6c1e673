"""Starting and stopping: what a process and its children find, and what is left when it ends, however it ends."""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest
from native_client import INIT, free_seen_by_child, nvidia_smi, run_python

import fake_gpu.activation
from fake_gpu import Driver, DriverStateError, InvalidValue, NativesMissing
from fake_gpu.units import GIB

VARIABLES = ("PATH", "LD_LIBRARY_PATH", "FAKE_GPU_SOCKET")


def environment() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in VARIABLES}


@pytest.fixture(autouse=True)
def private_temporary_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """A short one of our own: other tests have drivers in the common one at the same time."""
    tmp_path_factory.getbasetemp()  # which outlives this test
    with tempfile.TemporaryDirectory(prefix="act-") as made:
        monkeypatch.setattr(tempfile, "tempdir", made)
        yield


def directories() -> set[str]:
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith(f"fgpu-{os.getuid()}-")}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_nothing_is_left() -> None:
    with Driver():
        pass  # the first time loads the library, which stays
    before = environment(), directories(), descriptors()
    for _ in range(3):
        with Driver() as driver:
            gpu = driver.add_gpu("t4")
            driver.spawn(gpu, used="1 GiB")
            nvidia_smi("-L")
            assert environment() != before[0]
    assert (environment(), directories(), descriptors()) == before


def test_nothing_is_left_after_an_error_or_a_keyboard_interrupt() -> None:
    before = environment(), directories()
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), Driver() as driver:  # noqa: PT012 - the end of the block is what is tested
            driver.spawn(driver.add_gpu("t4"), used="1 GiB")
            raise error
        assert (environment(), directories()) == before


def test_the_directory_is_private() -> None:
    with Driver() as driver:
        directory = Path(driver.environment["FAKE_GPU_SOCKET"]).parent
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert sorted(path.name for path in directory.iterdir()) == ["bin", "lib", "lock", "socket"]


def test_what_a_test_changes_in_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    with Driver():
        os.environ["PATH"] = "/opt/mine:" + os.environ["PATH"]
        os.environ["LD_LIBRARY_PATH"] += ":/opt/lib"
    assert os.environ["PATH"] == "/opt/mine:/usr/bin:/bin"
    assert os.environ["LD_LIBRARY_PATH"] == "/opt/lib"
    assert "FAKE_GPU_SOCKET" not in os.environ


def test_a_second_activation_in_one_process_is_refused() -> None:
    with Driver() as driver:
        second = Driver()
        with pytest.raises(DriverStateError, match="a fake driver is active in this process already"):
            second.start()
        driver.add_gpu("t4")
        assert len(free_seen_by_child()) == 1
    with second:
        assert free_seen_by_child() == []
    with pytest.raises(DriverStateError, match="was stopped; make a new one"):
        second.start()


def test_a_socket_path_that_is_too_long(tmp_path: Path) -> None:
    before = environment()
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    with (
        pytest.raises(InvalidValue, match=r"has 107 at most: set TMPDIR to a shorter directory"),
        Driver(directory=deep),
    ):
        pass
    assert list(deep.iterdir()) == []
    assert environment() == before
    with pytest.raises(InvalidValue, match="is not a directory"), Driver(directory=tmp_path / "none"):
        pass
    with Driver():
        pass  # a failed start leaves nothing in the way


def test_natives_that_were_not_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fake_gpu.activation, "_NATIVES", tmp_path)
    with pytest.raises(NativesMissing, match="need Linux, glibc and a C compiler"), Driver():
        pass


def test_a_missing_compiler_is_named() -> None:
    hook = Path(__file__).parent.parent / "build_natives.py"
    for env, complaint in [
        ({"PATH": "/nonexistent"}, "none of cc, gcc and clang is on PATH. Install one"),
        ({"PATH": os.environ["PATH"], "CC": "no-such-cc"}, "CC='no-such-cc' is set, but there is no such program"),
        ({"PATH": os.environ["PATH"], "CC": "false"}, "failed with exit status 1"),
    ]:
        done = subprocess.run(
            [sys.executable, str(hook)], env=env, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 1
        assert complaint in done.stderr
        assert "Traceback" not in done.stderr


# -- clients without a driver


def test_clients_without_a_driver_get_what_the_real_ones_say() -> None:
    installed = Path(fake_gpu.activation.native("libnvidia-ml.so.1")).parent
    for extra in ({}, {"FAKE_GPU_SOCKET": "/nonexistent/socket"}, {"FAKE_GPU_SOCKET": "x" * 200}):
        env = os.environ | {"LD_LIBRARY_PATH": str(installed)} | extra
        assert run_python(INIT, env=env).stdout == "9 Driver Not Loaded\n"
    done = subprocess.run([fake_gpu.activation.native("nvidia-smi")], capture_output=True, text=True, check=False)
    assert done.returncode == 9
    assert done.stdout.startswith("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
    assert done.stderr == ""
    with pytest.raises(pynvml.NVMLError) as caught:
        pynvml.nvmlInit()
    assert caught.value.value == pynvml.NVML_ERROR_DRIVER_NOT_LOADED


def test_not_activated_nothing_is_on_a_default_path() -> None:
    installed = Path(fake_gpu.activation.native("nvidia-smi")).parent
    assert str(installed) not in os.environ["PATH"].split(":")
    done = run_python("import ctypes, fake_gpu, pytest_vramsettle; ctypes.CDLL('libnvidia-ml.so.1')", check=False)
    assert done.returncode != 0 or os.path.exists("/proc/driver/nvidia/version")


def test_a_child_with_a_bare_environment_finds_the_driver() -> None:
    with Driver() as driver:
        driver.add_gpu("t4")
        done = nvidia_smi("-L", env={"PATH": driver.environment["PATH"]})
        assert done.stdout.startswith("GPU 0: Tesla T4")
        lib = driver.environment["LD_LIBRARY_PATH"].split(":")[0]
        assert len(free_seen_by_child(env={"LD_LIBRARY_PATH": lib})) == 1
        code = "import ctypes; ctypes.CDLL('libnvidia-ml.so').nvmlDeviceGetMemoryInfo"
        run_python(code, env={"LD_LIBRARY_PATH": lib})


def test_every_loading_of_nvml_in_the_process_gets_the_same_library() -> None:
    with Driver() as driver:
        driver.add_gpu("t4")
        library = ctypes.CDLL("libnvidia-ml.so.1")
        count = ctypes.c_uint()
        assert library.nvmlInit_v2() == 0
        assert library.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0
        assert count.value == 1
        assert library.nvmlShutdown() == 0


# -- the real library comes back


def test_leaving_gives_the_process_back_its_real_library(tmp_path: Path) -> None:
    source = tmp_path / "real.c"
    source.write_text(
        "unsigned nvmlInitWithFlags(unsigned f) { (void)f; return 0; } unsigned nvmlShutdown(void) { return 0; }\n"
        "unsigned nvmlDeviceGetCount_v2(unsigned *n) { *n = 77; return 0; }\n"
    )
    subprocess.run(
        [
            "cc",
            "-shared",
            "-fPIC",
            "-Wl,-soname,libnvidia-ml.so.1",
            str(source),
            "-o",
            str(tmp_path / "libnvidia-ml.so.1"),
        ],
        check=True,
    )
    code = """
import pynvml
from fake_gpu import Driver
with Driver() as driver:
    driver.add_gpu("t4")
    pynvml.nvmlInit()
    print(pynvml.nvmlDeviceGetCount())
pynvml.nvmlInit()
print(pynvml.nvmlDeviceGetCount())
with Driver() as driver:
    print(pynvml.nvmlDeviceGetCount())
"""
    done = run_python(code, env=os.environ | {"LD_LIBRARY_PATH": str(tmp_path)})
    assert done.stdout.split() == ["1", "77", "0"]
    first = """
import pynvml, warnings
pynvml.nvmlInit()
from fake_gpu import Driver
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with Driver() as driver:
        pass
print(*(str(warning.message) for warning in caught))
"""
    done = run_python(first, env=os.environ | {"LD_LIBRARY_PATH": str(tmp_path)})
    assert "NVML calls of this process reach the real driver" in done.stdout


# -- fork and violent ends


def test_a_forked_child_joins_through_the_socket() -> None:
    code = """
import os, pynvml
from fake_gpu import Driver, DriverStateError
with Driver() as driver:
    gpu = driver.add_gpu("t4")
    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(read, 1)
        print(pynvml.nvmlDeviceGetMemoryInfo(handle).free, flush=True)   # initialised by the parent
        try:
            gpu.memory
        except DriverStateError as error:
            print("its NVML calls and nvidia-smi runs reach the driver" in str(error), flush=True)
        driver.stop()
        os._exit(0)
    process = driver.process(gpu, used="4 GiB")
    os.write(write, b"x")
    os.waitpid(child, 0)
    print(gpu.memory.free)
    print(sorted({call.pid == child for call in driver.calls}))
"""
    lines = run_python(code).stdout.split("\n")
    assert lines[:2] == [lines[2], "True"]
    assert lines[3] == "[False, True]"


def test_the_next_run_sweeps_what_a_killed_owner_left(tmp_path: Path) -> None:
    code = """
import sys, time
from fake_gpu import Driver
Driver(directory=sys.argv[1]).start()
print("started", flush=True)
time.sleep(30)
"""
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        (living,) = tmp_path.iterdir()
        with Driver(directory=tmp_path):
            assert living.exists()  # its owner lives
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    assert living.exists()
    with Driver(directory=tmp_path):
        assert not living.exists()
    assert list(tmp_path.iterdir()) == []


def test_clients_of_a_killed_owner_find_no_driver(tmp_path: Path) -> None:
    code = """
import sys, time
from fake_gpu import Driver
driver = Driver(directory=sys.argv[1]).start()
driver.add_gpu("t4")
print(driver.environment["FAKE_GPU_SOCKET"], flush=True)
time.sleep(30)
"""
    client = """
import pynvml, sys
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(0)
print("ready", flush=True)
sys.stdin.read(1)
try:
    pynvml.nvmlDeviceGetMemoryInfo(handle)
except pynvml.NVMLError as error:
    print(error.value)
"""
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        socket = owner.stdout.readline().strip()
        lib = str(Path(socket).parent / "lib")
        with subprocess.Popen(
            [sys.executable, "-c", client],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"LD_LIBRARY_PATH": lib},
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            owner.kill()
            owner.wait()
            out, _ = child.communicate("x", timeout=10)
    assert out == "9\n"
    assert nvidia_smi("-L", env={"PATH": str(Path(socket).parent / "bin")}).returncode == 9


def test_memory_agrees_for_every_way_of_asking() -> None:
    with Driver() as driver:
        gpu = driver.add_gpu("h200")
        driver.process(gpu, used="70 GiB")
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        free = gpu.memory.free
        assert pynvml.nvmlDeviceGetMemoryInfo(handle).free == free
        assert free_seen_by_child() == [free]
        printed = nvidia_smi("--query-gpu=memory.free", "--format=csv,noheader,nounits").stdout
        assert int(printed) == -(-free // 2**20)
        assert gpu.memory.used == 70 * GIB
        pynvml.nvmlShutdown()


def test_ctrl_c_while_it_starts_comes_when_it_can_be_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the worst moment: the directory is there, and nobody has it yet."""
    real = tempfile.mkdtemp

    def interrupted(*arguments: object, **keywords: object) -> str:
        made = real(*arguments, **keywords)  # type: ignore[call-overload]  # whatever it was called with
        signal.raise_signal(signal.SIGINT)
        return str(made)

    monkeypatch.setattr(tempfile, "mkdtemp", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Driver():
        pytest.fail("it was entered all the same")
    assert directories() == set()
    assert signal.getsignal(signal.SIGINT) is handler
    monkeypatch.undo()
    with Driver():
        pass
