"""What other processes, and threads in real time, send over sockets wins over the timeouts of a clock that jumps."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from pytest_vramsettle.clock import VirtualClock, VirtualDeadlock

# Answers each line after some real milliseconds, with the line; leaves a connection open until the client closes it.
SERVER = """
import socket, sys, threading, time

def serve(connection):
    with connection, connection.makefile("rwb") as stream:
        for line in stream:
            time.sleep(0.005)
            stream.write(line)
            stream.flush()

family, address = eval(sys.argv[1])
listening = socket.socket(family)
listening.bind(address)
listening.listen()
print(repr(listening.getsockname()), flush=True)
while True:
    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"""


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    with VirtualClock() as clock:
        yield clock


@contextlib.contextmanager
def server(family: str, address: object) -> Iterator[tuple[str, int] | str]:
    """A process that no clock knows. Yields where it listens."""
    where = f"(socket.{family}, {address!r})"
    with subprocess.Popen([sys.executable, "-c", SERVER, where], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield eval(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture
def tcp() -> Iterator[tuple[str, int]]:
    with server("AF_INET", ("127.0.0.1", 0)) as address:
        yield address


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: bytes) -> bytes:
    writer.write(text + b"\n")
    return await asyncio.wait_for(reader.readline(), 5)


def test_an_answer_on_its_way_wins_over_a_timeout(tcp):
    async def talk() -> list[bytes]:
        reader, writer = await asyncio.open_connection(*tcp)
        answers = [await ask(reader, writer, text) for text in (b"one", b"two")]
        # By now it is long since anything came: that something was sent must do.
        await asyncio.sleep(1)
        answers.append(await ask(reader, writer, b"three"))
        writer.close()
        return answers

    with VirtualClock() as clock:
        assert asyncio.run(talk()) == [b"one\n", b"two\n", b"three\n"]
        assert clock.elapsed == 1.0


def test_the_same_over_a_unix_socket(tmp_path):
    path = str(tmp_path / "socket")

    async def talk() -> bytes:
        reader, writer = await asyncio.open_unix_connection(path)
        for _ in range(5):
            await asyncio.sleep(1)
        answer = await ask(reader, writer, b"one")
        writer.close()
        return answer

    with server("AF_UNIX", path), VirtualClock() as clock:
        assert asyncio.run(talk()) == b"one\n"
        assert clock.elapsed == 5.0


def test_a_socket_that_was_waited_for_in_vain_is_waited_for_again_once_something_comes(tmp_path):
    path = str(tmp_path / "socket")

    async def talk() -> bytes:
        reader, writer = await asyncio.open_unix_connection(path)
        for _ in range(25):
            await asyncio.sleep(1)
        writer.write(b"one\n")
        await reader.readline()
        answer = await ask(reader, writer, b"two")
        writer.close()
        return answer

    with server("AF_UNIX", path), VirtualClock() as clock:
        assert asyncio.run(talk()) == b"two\n"
        assert clock.elapsed == 25.0


def test_a_connection_without_traffic_does_not_hold_the_clock(tcp):
    """One that is kept open for later; 100 jumps that each waited for it would take 5 real seconds."""

    async def talk() -> float:
        reader, writer = await asyncio.open_connection(*tcp)
        await ask(reader, writer, b"one")
        started = time.clock_gettime(time.CLOCK_MONOTONIC)
        for _ in range(100):
            await asyncio.sleep(1)
        took = time.clock_gettime(time.CLOCK_MONOTONIC) - started
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        return took

    with VirtualClock() as clock:
        assert asyncio.run(talk()) < 2.5
        assert clock.elapsed == 105.0


def test_a_socket_that_does_not_tell_its_traffic_is_waited_for_some_times_only(tmp_path):
    path = str(tmp_path / "socket")

    async def idle() -> None:
        _, writer = await asyncio.open_unix_connection(path)
        for _ in range(1000):
            await asyncio.sleep(1)
        writer.close()

    with server("AF_UNIX", path), VirtualClock() as clock:
        started = time.clock_gettime(time.CLOCK_MONOTONIC)
        asyncio.run(idle())
        # 50 real seconds, if each jump waited.
        assert time.clock_gettime(time.CLOCK_MONOTONIC) - started < 10
        assert clock.elapsed == 1000.0


def test_connections_inside_the_process_cost_no_real_time(clock):
    served = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            await asyncio.sleep(1)
            writer.write(line)
        writer.close()
        await writer.wait_closed()
        served.set()

    async def talk() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
            reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
            for number in range(100):
                assert await ask(reader, writer, b"%d" % number) == b"%d\n" % number
            writer.close()
            await writer.wait_closed()
            await served.wait()

    started = time.clock_gettime(time.CLOCK_MONOTONIC)
    asyncio.run(talk())
    assert clock.elapsed == 100.0
    # 5 real seconds, if each jump waited.
    assert time.clock_gettime(time.CLOCK_MONOTONIC) - started < 2.5


def test_a_server_thread_in_real_time_is_waited_for():
    """A fixture's, of a wider scope: it answers in this very process, and not on the clock."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listening.accept()
        with connection, connection.makefile("rwb") as stream:
            for line in stream:
                time.sleep(0.005)
                stream.write(line)
                stream.flush()

    thread = threading.Thread(target=serve)
    thread.start()

    async def talk() -> bytes:
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        answer = await ask(reader, writer, b"one")
        writer.close()
        await writer.wait_closed()
        return answer

    with VirtualClock() as clock:
        assert asyncio.run(talk()) == b"one\n"
        assert clock.elapsed == 0.0
    thread.join()
    listening.close()


def test_a_server_thread_in_real_time_on_a_unix_socket_is_waited_for(tmp_path):
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    listening.listen()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(100)
            time.sleep(0.005)
            connection.sendall(b"one\n")

    thread = threading.Thread(target=serve)
    thread.start()

    async def talk() -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "socket"))
        answer = await ask(reader, writer, b"one")
        writer.close()
        return answer

    with VirtualClock() as clock:
        assert asyncio.run(talk()) == b"one\n"
        assert clock.elapsed == 0.0
    thread.join()
    listening.close()


CHATTY = """
import socket, time
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
connection, _ = listening.accept()
while True:
    connection.sendall(b".")
    time.sleep(0.01)
"""


def test_who_sends_without_end_does_not_stop_the_clock_for_good():
    async def sleep(port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(5)
        writer.close()

    with subprocess.Popen([sys.executable, "-S", "-c", CHATTY], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with VirtualClock(child_grace=0.2) as clock:
            asyncio.run(sleep(port))
            assert clock.elapsed == 5.0
            assert any("no longer waited for" in line for line in clock.trace)
        process.kill()


def test_a_default_timeout_of_sockets_is_nobodys_business(tcp):
    """Whoever looks at a socket through a socket object makes it non-blocking while there is one."""
    ours, theirs = socket.socketpair()
    socket.setdefaulttimeout(30)

    async def talk() -> bytes:
        reader, writer = await asyncio.open_connection(*tcp)
        answer = await ask(reader, writer, b"one")
        writer.close()
        return answer

    try:
        with VirtualClock():
            assert asyncio.run(talk()) == b"one\n"
    finally:
        socket.setdefaulttimeout(None)
    assert os.get_blocking(ours.fileno())
    assert os.get_blocking(theirs.fileno())
    ours.close()
    theirs.close()


def test_settling_waits_for_what_is_on_its_way(tcp):
    answers: list[bytes] = []

    async def talk() -> None:
        reader, writer = await asyncio.open_connection(*tcp)
        writer.write(b"one\n")
        answers.append(await reader.readline())
        writer.close()

    with VirtualClock() as clock:
        thread = threading.Thread(target=asyncio.run, args=(talk(),))
        thread.start()
        clock.settle()
        assert answers == [b"one\n"]
        thread.join()


def test_a_future_that_nobody_sets_is_a_deadlock(clock):
    async def wait_for_nobody() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(VirtualDeadlock, match="deadlock") as caught:
        asyncio.run(wait_for_nobody())
    # Of an event loop's own stack nobody learns anything.
    assert "in wait_for_nobody" in str(caught.value)


def test_a_dead_child_that_nobody_waits_for_wakes_nobody():
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
        with VirtualClock(), pytest.raises(VirtualDeadlock):
            asyncio.run(asyncio.Event().wait())


def test_an_event_loop_that_another_process_may_wake_is_no_deadlock(tcp):
    async def talk() -> bytes:
        reader, writer = await asyncio.open_connection(*tcp)
        writer.write(b"one\n")
        answer = await reader.readline()
        writer.close()
        return answer

    with VirtualClock() as clock:
        assert asyncio.run(talk()) == b"one\n"
        assert clock.elapsed == 0.0


def test_a_pipe_that_another_process_may_write_to_is_no_deadlock():
    """It is older than the clock, so that the clock knows of no child."""
    with (
        subprocess.Popen(["sh", "-c", "sleep 0.3; echo one"], stdout=subprocess.PIPE) as process,
        VirtualClock() as clock,
        selectors.PollSelector() as selector,
    ):
        assert process.stdout is not None
        selector.register(process.stdout, selectors.EVENT_READ)
        assert selector.select(None)
        assert clock.elapsed == 0.0
