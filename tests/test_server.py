"""The socket: garbage, torn frames, clients that vanish, delays and hangs."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_client import free_seen_by_child, nvidia_smi, run_python

from fake_gpu import Driver, Fault
from fake_gpu.nvml.abi import checksum, functions

HELLO = struct.pack("<4sBBHIi", b"FGPU", 1, ord("N"), 0, checksum(), 0)
INIT = next(function.index for function in functions() if function.name == "nvmlInit_v2")
COUNT = next(function.index for function in functions() if function.name == "nvmlDeviceGetCount_v2")


def frame(payload: bytes) -> bytes:
    return struct.pack("<I", len(payload)) + payload


def connect(driver: Driver) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(5)
    client.connect(driver.environment["FAKE_GPU_SOCKET"])
    return client


def is_dropped(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0" * 64,
        HELLO[:4] + b"\x07" + HELLO[5:],
        HELLO[:5] + b"X" + HELLO[6:],
        HELLO + frame(b"abc"),
        HELLO + struct.pack("<I", 0),
        HELLO + struct.pack("<I", 0xFFFFFFFF),
        HELLO + frame(struct.pack("<I", 999_999)),
        HELLO + frame(struct.pack("<I", COUNT) + b"too short"),
        HELLO + frame(struct.pack("<II", COUNT, 4) + b"\0" * 100),
        struct.pack("<4sBBHIi", b"FGPU", 1, ord("S"), 0, 0, 0) + frame(b"\xff\xff\xff\xff"),
        struct.pack("<4sBBHIi", b"FGPU", 1, ord("S"), 0, 0, 0) + frame(b"\x01\0\0\0" + b"\xff" * 8),
    ],
)
def test_garbage_costs_its_sender_the_connection_and_nobody_else(garbage: bytes) -> None:
    with Driver() as driver:
        gpu = driver.add_gpu("t4")
        with connect(driver) as client:
            client.sendall(garbage)
            assert is_dropped(client)
        assert free_seen_by_child() == [gpu.memory.free]


def test_no_bytes_end_the_server() -> None:
    with Driver() as driver:

        @settings(max_examples=60, deadline=None)
        @given(st.binary(max_size=200), st.booleans())
        def send(noise: bytes, greet: bool) -> None:
            with connect(driver) as client:
                client.sendall(HELLO + frame(noise or b"x") if greet else noise)
            with connect(driver) as client:
                client.sendall(HELLO + frame(struct.pack("<I", INIT)))
                assert client.recv(64) == frame(struct.pack("<I", 0))

        send()


def test_a_library_built_from_another_table_is_told_so() -> None:
    with Driver() as driver, connect(driver) as client:
        client.sendall(struct.pack("<4sBBHIi", b"FGPU", 1, ord("N"), 0, checksum() ^ 1, 0))
        client.sendall(frame(struct.pack("<I", INIT)))
        assert client.recv(64) == frame(struct.pack("<I", 18))  # LIB_RM_VERSION_MISMATCH


def test_a_client_that_goes_away_at_any_byte() -> None:
    whole = HELLO + frame(struct.pack("<I", INIT)) + frame(struct.pack("<II", COUNT, 4))
    with Driver() as driver:
        driver.add_gpu("t4")
        for length in range(len(whole) + 1):
            with connect(driver) as client:
                client.sendall(whole[:length])
        assert len(free_seen_by_child()) == 1
        with connect(driver) as client:  # and one that sends byte by byte is understood
            for byte in whole:
                client.sendall(bytes([byte]))
            assert client.recv(8, socket.MSG_WAITALL) == frame(struct.pack("<I", 0))
            assert client.recv(16, socket.MSG_WAITALL) == frame(struct.pack("<III", 0, 4, 1))


def test_a_slow_answer_comes_late_and_holds_up_nobody_else() -> None:
    with Driver() as driver:
        driver.add_gpu("t4")
        driver.inject(Fault.slow("300ms"), via="nvidia-smi", times=1)
        start = time.monotonic()
        with subprocess.Popen(["nvidia-smi", "-L"], stdout=subprocess.PIPE) as slow:
            while not driver.calls:
                time.sleep(0.001)
            quick = time.monotonic()
            assert nvidia_smi("-L").returncode == 0
            quick = time.monotonic() - quick
            out, _ = slow.communicate(timeout=10)
        took = time.monotonic() - start
    assert out.startswith(b"GPU 0")
    assert took >= 0.3
    assert quick < took / 2


def test_a_hung_client_is_let_go_when_the_driver_stops() -> None:
    client = "import pynvml\ntry: pynvml.nvmlInit()\nexcept pynvml.NVMLError as e: print(e.value)"
    with contextlib.ExitStack() as stack:
        driver = stack.enter_context(Driver())
        driver.add_gpu("t4")
        driver.inject(Fault.hang())
        hung, child = (
            stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            for command in (["nvidia-smi"], [sys.executable, "-c", client])
        )
        stack.callback(hung.kill)
        stack.callback(child.kill)
        while len(driver.calls) < 2:
            time.sleep(0.001)
        assert hung.poll() is None
        assert all(call.code is None and call.faults == (Fault.hang(),) for call in driver.calls)
        driver.stop()
        assert "has failed because it couldn't communicate" in hung.communicate(timeout=10)[0]
        assert hung.returncode == 9
        assert child.communicate(timeout=10)[0] == "9\n"


def test_a_hung_call_in_the_drivers_own_process_is_let_go_too() -> None:
    code = """
import threading, time, pynvml
from fake_gpu import Driver, Fault
with Driver() as driver:
    driver.inject(Fault.hang(), via="nvmlInitWithFlags")
    answers = []
    def call():
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            answers.append(error.value)
    thread = threading.Thread(target=call)
    thread.start()
    while not driver.calls:
        time.sleep(0.001)
    assert answers == []
thread.join(5)
print(answers)
"""
    assert run_python(code).stdout == "[9]\n"


def test_an_interrupted_call_interrupts_the_test_once_it_is_back() -> None:
    code = """
import os, signal, threading, time, pynvml
from fake_gpu import Driver, Fault
try:
    with Driver() as driver:
        driver.inject(Fault.hang(), via="nvmlInitWithFlags", times=1)
        def interrupt():
            while not driver.calls:
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        while True:
            try:
                pynvml.nvmlInit()
            except pynvml.NVMLError:
                pass
except KeyboardInterrupt:
    print("interrupted")
"""
    done = run_python(code)
    assert done.stdout == "interrupted\n"
    assert done.stderr == ""


def test_the_log_says_who_asked_what() -> None:
    with Driver() as driver:
        driver.add_gpu("t4")
        nvidia_smi("--query-gpu=memory.free", "--format=csv")
        run_python("import pynvml; pynvml.nvmlInit()")
        first, second = driver.calls
    assert (first.via, first.name, first.code) == ("nvidia-smi", "nvidia-smi --query-gpu=memory.free --format=csv", 0)
    assert (second.via, second.name, second.code) == ("nvml", "nvmlInitWithFlags", 0)
    assert os.getpid() not in {first.pid, second.pid}
