"""Both ends of the protocol and nvidia-smi's arguments under noise; crowds of clients.

Cases that noise has found are kept beside it. `make sanitize` runs these with natives that tell of every bad access.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_client import free_seen_by_child

from fake_gpu import Driver
from fake_gpu.activation import native
from fake_gpu.nvml.abi import checksum, functions
from fake_gpu.nvml.codes import CODES
from fake_gpu.nvml.dispatch import BadRequest, Session
from fake_gpu.smi.execution import execute

U32 = struct.Struct("<I")
HELLO = struct.Struct("<4sBBHIi")
INDEX = {function.name: function.index for function in functions()}


def hello(role: str) -> bytes:
    return HELLO.pack(b"FGPU", 1, ord(role), 0, checksum() if role == "N" else 0, 0)


def frame(payload: bytes) -> bytes:
    return U32.pack(len(payload)) + payload


def smi_frame(*arguments: bytes) -> bytes:
    texts = [b"nvidia-smi", *arguments, b"/", b""]
    return U32.pack(len(arguments) + 1) + b"".join(map(frame, texts))


# -- the driver's end


def test_requests_of_noise_are_refused_or_answered() -> None:
    with Driver() as driver:
        driver.process(driver.add_gpu("h200"), used="1 GiB")
        session = Session(1, initialised=1)

        @settings(max_examples=300, deadline=None)
        @given(st.sampled_from(functions()), st.binary(max_size=120), st.integers(0, 2**32 - 1))
        def ask(function: object, noise: bytes, word: int) -> None:
            index = function.index  # type: ignore[attr-defined]  # a Function
            handle = struct.pack("<Q", driver.gpus[0].handle)
            for request in (noise, handle + noise, handle + U32.pack(word) + noise, handle + frame(noise)):
                try:
                    reply, _ = driver.nvml.call(index, request, session)
                except BadRequest:
                    continue
                assert U32.unpack_from(reply)[0] in CODES.values()
                session.initialised = 1  # nvmlShutdown was among them, perhaps

        ask()


def test_nvidia_smi_leaves_at_any_byte() -> None:
    whole = hello("S") + frame(smi_frame(b"--query-gpu=memory.free", b"--format=csv"))
    with Driver() as driver:
        gpu = driver.add_gpu("t4")
        for length in range(len(whole) + 1):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(driver.environment["FAKE_GPU_SOCKET"])
                client.sendall(whole[:length])
        assert free_seen_by_child() == [gpu.memory.free]


WORDS = st.sampled_from(
    [
        *("-q", "-x", "-L", "-i", "-l", "-lms", "-f", "-d", "-h", "-a", "-u", "-B", "-pm", "--id", "--loop", "--help"),
        *("--query-gpu", "--query-compute-apps", "--format", "--display", "--version", "--filename", "--xml-format"),
        *("--help-query-gpu", "--list-gpus", "pmon", "dmon", "topo", "mig", "-m", "-c", "-s", "-o", "=", ",", "", "--"),
        *("csv", "noheader", "nounits", "MEMORY", "0", "1", "-1", "99999999999999999999", "GPU-", "00000000:01:00.0"),
        *("memory.free", "memory.used,name", "pid,used_memory", "nonsense", "\x00", "ä", "\udcff", "\n"),
    ]
)
ARGUMENT = st.one_of(WORDS, st.tuples(WORDS, st.just("="), WORDS).map("".join), st.text(max_size=6))


def test_nvidia_smi_has_an_answer_to_all_arguments() -> None:
    with Driver() as driver:
        driver.spawn(driver.add_gpu("h200"), used="1 GiB")
        driver.add_gpu("rtx-4090")

        @settings(max_examples=120, deadline=None)
        @given(st.lists(ARGUMENT, max_size=5))
        def run(arguments: list[str]) -> None:
            sent = [argument.encode("utf-8", "surrogateescape") for argument in arguments if "\0" not in argument]
            answer = execute(driver, smi_frame(*sent), 1)
            assert answer.orders or answer.delay_ns

        run()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80))
def test_nvidia_smi_frames_of_noise(noise: bytes) -> None:
    driver = Driver()
    for request in (noise, smi_frame(noise.replace(b"\0", b"")), smi_frame(b"-L")[: len(noise)]):
        try:
            assert execute(driver, request, 1).orders
        except BadRequest:
            continue


# -- the clients' end: a driver that answers nonsense


Answer = Callable[[bytes], tuple[bytes, bool]]
"""From a request to what is sent, and whether the connection goes on after it."""


@contextmanager
def stand_in(place: Path, answer: Answer) -> Iterator[str]:
    """A socket that takes connections as a driver does, one after another."""
    path = str(place / "s")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                try:
                    talk(client)
                except OSError:
                    continue

    def talk(client: socket.socket) -> None:
        client.recv(HELLO.size, socket.MSG_WAITALL)
        goes_on = True
        while goes_on:
            head = client.recv(4, socket.MSG_WAITALL)
            if len(head) < 4:
                return
            data, goes_on = answer(client.recv(U32.unpack(head)[0], socket.MSG_WAITALL))
            client.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield path
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def spoiled(noise: random.Random, reply: bytes) -> tuple[bytes, bool]:
    """A reply, changed in one of the ways in which one can be wrong; often enough it is left as it is."""
    data = bytearray(reply)
    match noise.randrange(10):
        case 0:
            for _ in range(noise.randrange(1, 4)):
                data[noise.randrange(len(data))] = noise.randrange(256)
        case 1:
            del data[noise.randrange(len(data)) :]
        case 2:
            data += noise.randbytes(noise.randrange(1, 60))
        case 3:
            data = bytearray(noise.randbytes(noise.randrange(80)))
        case 4:  # a length that cannot be
            struct.pack_into(
                "<I", data, 4 * noise.randrange(len(data) // 4), noise.choice([2**32 - 1, 2**31, 9999, 65])
            )
        case 5:  # a frame that ends early
            whole = frame(bytes(data))
            return whole[: noise.randrange(len(whole))], False
        case 6:  # a length of the frame that cannot be
            return U32.pack(noise.choice([2**32 - 1, 2**20 + 1, 2**20, 1, 0])) + bytes(data), False
        case 7:  # more for the first place than it has room for, in a frame that is not too long
            data = bytearray(U32.pack(0) + frame(noise.randbytes(noise.randrange(1, 120))))
    return frame(bytes(data)), True


NVML_CHILD = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
GUARD = b"\\xa5" * 64
U32 = ctypes.c_uint
codes = set()
def call(name, *arguments):
    rooms = []
    given = []
    for argument in arguments:
        if isinstance(argument, bytes):  # room that is written, with a guard behind it
            room = ctypes.create_string_buffer(argument + GUARD, len(argument) + len(GUARD))
            rooms.append((name, room, len(argument)))
            given.append(room)
        else:
            given.append(argument)
    codes.add(getattr(library, name)(*given) & 0xFFFFFFFF)
    for name, room, size in rooms:
        if room.raw[size:] != GUARD:
            sys.exit(f"{name} wrote beyond its room")
device = ctypes.c_void_p(int(sys.argv[2]))
for _ in range(int(sys.argv[3])):
    call("nvmlInit_v2")
    call("nvmlDeviceGetCount_v2", bytes(4))
    call("nvmlDeviceGetHandleByIndex_v2", U32(0), bytes(8))
    call("nvmlDeviceGetMemoryInfo", device, bytes(24))
    call("nvmlDeviceGetMemoryInfo_v2", device, (0x2000028).to_bytes(4, "little") + bytes(36))
    call("nvmlDeviceGetName", device, bytes(96), U32(96))
    call("nvmlDeviceGetUUID", device, bytes(80), U32(80))
    call("nvmlDeviceGetPciInfo_v3", device, bytes(68))
    call("nvmlDeviceGetComputeRunningProcesses_v3", device, (5).to_bytes(4, "little"), bytes(24 * 5))
    call("nvmlDeviceGetComputeRunningProcesses_v3", device, (0).to_bytes(4, "little"), None)
    call("nvmlDeviceGetSupportedMemoryClocks", device, (4).to_bytes(4, "little"), bytes(16))
    call("nvmlDeviceGetFieldValues", device, ctypes.c_int(2), bytes(40 * 2))
    call("nvmlSystemGetProcessName", U32(1), bytes(20), U32(20))
    call("nvmlShutdown")
print(*sorted(codes))
"""


def read_from(socket_path: str, handle: int, rounds: int) -> set[int]:
    """The codes that the library gave to a child that asked the driver behind `socket_path`."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", NVML_CHILD, native("libnvidia-ml.so.1"), str(handle), str(rounds)],
        env={**os.environ, "FAKE_GPU_SOCKET": socket_path},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {int(code) for code in done.stdout.split()}


@pytest.mark.parametrize("seed", range(3))
def test_the_library_takes_any_answer(tmp_path: Path, seed: int) -> None:
    noise = random.Random(seed)
    with Driver() as driver:
        gpu = driver.add_gpu("h200")
        driver.process(gpu, used="1 GiB")
        session = Session(1, initialised=1)

        def answer(request: bytes) -> tuple[bytes, bool]:
            session.initialised = 1
            reply, _ = driver.nvml.call(U32.unpack_from(request)[0], request[4:], session)
            return spoiled(noise, reply)

        with stand_in(tmp_path, answer) as path:
            codes = read_from(path, gpu.handle, 60)
    assert {0, CODES["UNKNOWN"], CODES["DRIVER_NOT_LOADED"]} <= codes <= set(CODES.values())


def test_a_code_that_nvml_does_not_have_is_unknown(tmp_path: Path) -> None:
    with stand_in(tmp_path, lambda _: (frame(U32.pack(12345)), True)) as path:
        assert read_from(path, 1, 1) == {CODES["UNKNOWN"]}


def test_an_answer_that_ends_early_is_unknown(tmp_path: Path) -> None:
    early = {INDEX["nvmlDeviceGetCount_v2"]: 4, INDEX["nvmlDeviceGetMemoryInfo"]: 24}

    def answer(request: bytes) -> tuple[bytes, bool]:
        size = early.get(U32.unpack_from(request)[0])
        return frame(U32.pack(CODES["UNKNOWN"]) if size is None else struct.pack("<II", 0, size) + b"ab"), True

    with stand_in(tmp_path, answer) as path:
        assert read_from(path, 1, 1) == {CODES["UNKNOWN"]}


@pytest.mark.parametrize("seed", range(3))
def test_nvidia_smi_takes_any_orders(tmp_path: Path, seed: int) -> None:
    noise = random.Random(seed)
    orders = [b"o" + b"text\n", b"e" + b"complaint\n", b"i", b"x\x07", b"x", b"", b"z", b"x\0\0", b"o" * 5000]

    def answer(_: bytes) -> tuple[bytes, bool]:
        data = b"".join(map(frame, noise.choices(orders, k=noise.randrange(5))))
        if noise.random() < 0.5:
            data = data[: noise.randrange(len(data) + 1)] + noise.randbytes(noise.randrange(8))
        return data, False

    with stand_in(tmp_path, answer) as path:
        for _ in range(40):
            done = subprocess.run(
                [native("nvidia-smi")],
                env={"FAKE_GPU_SOCKET": path},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=20,
                check=False,
            )
            assert done.returncode >= 0  # whatever status it was told, and no signal


# -- crowds


def test_sixty_four_clients_at_once() -> None:
    with Driver() as driver:
        gpu = driver.add_gpu("t4")
        driver.process(gpu, used="3 GiB")
        command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        runs = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(64)]
        clients = [socket.socket(socket.AF_UNIX) for _ in range(64)]
        for client in clients:
            client.settimeout(20)
            client.connect(driver.environment["FAKE_GPU_SOCKET"])
        count = frame(U32.pack(INDEX["nvmlDeviceGetCount_v2"]) + U32.pack(4))
        for client in clients:
            client.sendall(hello("N") + frame(U32.pack(INDEX["nvmlInit_v2"])) + count * 10)
        for client in clients:
            with client:
                answers = client.makefile("rb")
                assert answers.read(8) == frame(U32.pack(0))
                assert answers.read(160) == frame(struct.pack("<III", 0, 4, 1)) * 10
        assert {run.communicate(timeout=20)[0] for run in runs} == {b"3072\n"}
        assert len(driver.calls) == 64 + 64 * 11


def test_init_and_shutdown_need_not_balance() -> None:
    with Driver() as driver:
        driver.add_gpu("t4")
        code = """
import ctypes
library = ctypes.CDLL("libnvidia-ml.so.1")
count = ctypes.c_uint()
def asked(*names):
    return [getattr(library, name)(*([ctypes.byref(count)] if "Count" in name else [])) for name in names]
INIT, SHUT, COUNT = "nvmlInit_v2", "nvmlShutdown", "nvmlDeviceGetCount_v2"
print(asked(SHUT, COUNT, INIT, INIT, SHUT, COUNT, SHUT, COUNT, SHUT, SHUT, INIT, COUNT))
print(asked(*[INIT] * 1000, *[SHUT] * 1001, COUNT, SHUT)[-3:])
"""
        done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0]\n[0, 1, 1]\n"
