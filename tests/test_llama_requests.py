"""The fake llama-server's interface: its command line, and what it answers over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator

import pytest

from fake_gpu import Driver
from fake_gpu.units import MIB
from tests.llama_process import CONTEXT, Llama, server


@pytest.fixture
def driver() -> Iterator[Driver]:
    with Driver() as driver:
        driver.add_gpu("rtx-4090")
        yield driver


# -- its command line


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--x"], "error: invalid argument: --x\n"),
        (["-m"], "error: expected value for argument: -m\n"),
        (["-m", "a", "-c", "many"], 'error while handling argument "-c": stoi\n'),
        (["-m", "a", "-c", "99999999999"], 'error while handling argument "-c": stoi\n'),
        (["-m", "a", "-c", "-5"], 'error while handling argument "-c": invalid value'),
        (["-m", "a", "-ngl", "abc"], 'error while handling argument "-ngl": stoi\n'),
        (["-m", "a", "-ts", "3,x"], 'error while handling argument "-ts": stof\n'),
        (["-m", "a", "-dev", "CUDA5"], 'error while handling argument "-dev": invalid device: CUDA5\n'),
        (["-m", "a", "--port", "0", "-sm", "none", "-mg", "7"], "invalid value for main_gpu: 7 (available devices: 1)"),
        (["-m", "a", "-ctk", "q9"], "Unsupported cache type: q9"),
        ([], "--model is required"),
        (["-m", "a", "--fit-print", "on"], "error: invalid argument: --fit-print\n"),
    ],
)
def test_a_wrong_command_line_ends_it(driver: Driver, arguments: list[str], text: str) -> None:
    run = subprocess.run([*server(driver), *arguments], capture_output=True, text=True, timeout=10)
    assert (run.returncode, run.stdout) == (1, "")
    assert text in run.stderr


def test_the_usual_options_are_taken(driver: Driver) -> None:
    usual = "--host 0.0.0.0 -np 2 -b 512 -ub 256 -t 8 --no-mmap -fa on --jinja --no-warmup -a mine -cb --threads-http 2"
    with Llama(server(driver), *CONTEXT, "--n-gpu-layers", "auto", *usual.split()) as llama:
        assert llama.ready().ask("GET", "/props")[1]["model_alias"] == "mine"
        with open("/proc/net/tcp", encoding="ascii") as file:
            listening = [row.split()[1] for row in file if row.split()[3] == "0A"]
        assert f"0100007F:{llama.port:04X}" in listening  # loopback, whatever was asked for
        assert f"00000000:{llama.port:04X}" not in listening


def test_it_lists_the_devices_that_it_sees(driver: Driver) -> None:
    driver.add_gpu("t4")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "1"}
    command = [*server(driver), "--list-devices"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=10, env=environment)
    memory = driver.gpus[1].memory
    told = f"  CUDA0: Tesla T4 ({memory.total // MIB} MiB, {memory.free // MIB} MiB free)\n"
    assert (run.returncode, run.stdout) == (0, "Available devices:\n" + told)


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_it_tells_about_itself(driver: Driver, argument: str) -> None:
    run = subprocess.run([*server(driver), argument], capture_output=True, text=True, timeout=10)
    assert (run.returncode, run.stderr) == (0, "")
    assert "fake" in run.stdout


def test_a_port_that_is_taken(driver: Driver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        run = subprocess.run([*server(driver), "-m", "a", "--port", port], capture_output=True, text=True, timeout=10)
    assert run.returncode == 1
    assert f"couldn't bind HTTP server socket, hostname: 127.0.0.1, port: {port}" in run.stderr


def test_llama_fit_params_reckons(driver: Driver) -> None:
    program = os.path.join(os.path.dirname(server(driver)[0]), "llama-fit-params")
    base = [program, "-m", "a"]
    needs = [*base, "-c", "4096", "-ngl", "all", "--fit-print", "on"]
    assert subprocess.run(needs, capture_output=True, text=True).stdout == "CUDA0 18432 512 512 \nHost 0 0 0 \n"
    assert subprocess.run(base, capture_output=True, text=True).stdout == "-c 33024 -ngl 48\n"
    assert subprocess.run([program, "--nonsense"], capture_output=True).returncode == 1


# -- HTTP


def test_it_chats(driver: Driver) -> None:
    with Llama(server(driver), *CONTEXT, "--api-key", "secret") as llama:
        llama.ready()
        body = {"messages": [{"role": "user", "content": "hello there"}]}
        status, refused = llama.ask("POST", "/v1/chat/completions", body)
        assert (status, refused["error"]["type"]) == (401, "authentication_error")
        key = {"Authorization": "Bearer secret"}
        status, reply = llama.ask("POST", "/v1/chat/completions", body, key)
        assert (status, reply["object"], reply["usage"]["prompt_tokens"]) == (200, "chat.completion", 2)
        assert reply["choices"][0]["message"]["role"] == "assistant"
        assert llama.ask("POST", "/v1/chat/completions", {}, key)[0] == 400
        assert llama.ask("GET", "/nothing", headers=key)[1]["error"]["code"] == 404
        assert llama.ask("GET", "/v1/models")[1]["data"][0]["id"] == "a.gguf"


def test_requests_may_come_in_pieces_or_many_at_once(driver: Driver) -> None:
    with Llama(server(driver), *CONTEXT) as llama:
        with socket.create_connection(("127.0.0.1", llama.ready().port), timeout=10) as client:
            one = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
            client.sendall(one[:9])
            time.sleep(0.01)
            client.sendall(one[9:] + one + one.replace(b"Host", b"Connection: close\r\nHost"))
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.count(b"HTTP/1.1 200 OK") == 3
        stream = b'{"stream": true, "messages": []}'
        head = f"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: {len(stream)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", llama.port), timeout=10) as client:
            client.sendall(head + stream)
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.endswith(b"data: [DONE]\n\n")


def exchange(port: int, data: bytes) -> tuple[int, bytes]:
    """The status and the body of the answer to these bytes, after which the server hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(data)
        head, _, body = b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")
    return int(head.split()[1]), body


POST = b"POST /v1/chat/completions HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("data", "status", "says"),
    [
        (b"nonsense\r\n\r\n", 400, "no HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400, "no HTTP"),  # how TLS begins
        (b"GET /health HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400, "no HTTP"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 400, "no chunked requests"),
        (POST + b"Content-Length: 9000000\r\n\r\n{", 413, "8 MiB at most"),
        (POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 413, "8 MiB at most"),
    ],
)
def test_what_cannot_be_served_is_turned_away_and_the_rest_goes_on(
    driver: Driver, data: bytes, status: int, says: str
) -> None:
    with Llama(server(driver), *CONTEXT) as llama:
        told, body = exchange(llama.ready().port, data)
        error = json.loads(body)["error"]
        assert (told, error["code"], error["type"]) == (status, status, "invalid_request_error")
        assert says in error["message"]
        assert llama.ask("GET", "/health") == (200, {"status": "ok"})


def test_lines_may_end_with_a_line_feed_alone(driver: Driver) -> None:
    with Llama(server(driver), *CONTEXT) as llama:
        data = b"\nGET /health HTTP/1.1\nHost: x\nConnection: close\n\n"
        assert exchange(llama.ready().port, data) == (200, b'{"status": "ok"}')


def test_json_that_is_too_deep_is_refused(driver: Driver) -> None:
    with Llama(server(driver), *CONTEXT) as llama:
        data = POST + b"Connection: close\r\nContent-Length: 200000\r\n\r\n" + b"[" * 200_000
        assert exchange(llama.ready().port, data)[0] == 400


def test_hundreds_of_connections_are_held(driver: Driver) -> None:
    with Llama(server(driver), *CONTEXT) as llama, contextlib.ExitStack() as stack:
        for _ in range(500):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", llama.ready().port), timeout=10))
            client.sendall(b"GET /he")
        assert llama.ask("GET", "/health") == (200, {"status": "ok"})
        client.sendall(b"alth HTTP/1.0\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("frame", [b"", b"x", b"G\0\0\0\0", struct.pack("<I", 7), b"\1\0\0\0\xff\xff\xff\xff"])
def test_a_stranger_on_the_drivers_socket_harms_nobody(driver: Driver, frame: bytes) -> None:
    hello = struct.pack("<4sBBHIi", b"FGPU", 1, ord("L"), 0, 0, 0)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(driver.environment["FAKE_GPU_SOCKET"])
        stranger.sendall(hello + struct.pack("<I", len(frame)) + frame)
        with Llama(server(driver), *CONTEXT) as llama:
            assert llama.ready().ask("GET", "/health")[0] == 200
