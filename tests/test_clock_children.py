"""The virtual clock: child processes, and clients that wait for an answer of a driver."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_vramsettle.clock import VirtualClock

PYTHON = [sys.executable, "-S", "-E", "-c"]

# Asks for an answer after each given virtual delay ("never": none), and prints it.
CLIENT = """
import socket, sys
driver = socket.socket(socket.AF_UNIX)
driver.connect(sys.argv[1])
for delay in sys.argv[2:]:
    driver.sendall(delay.encode() + b"\\n")
    print(driver.recv(99).decode(), flush=True)
"""


class Answers:
    """A driver's server in small: a thread in real time that answers clients when the clock says so."""

    def __init__(self, clock: VirtualClock, path: str) -> None:
        self.clock = clock
        self.path = path
        self.asked: list[tuple[int, str]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._woken = os.eventfd(0, os.EFD_NONBLOCK)
        self._stopping = False
        self._clients: dict[int, socket.socket] = {}
        self._due: dict[int, tuple[int | None, Callable[[], None]]] = {}
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Answers:
        with self.clock.real_time():
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._wake()
        with self.clock.real_time():
            self._thread.join()
        for client in self._clients.values():
            client.close()
        self._listener.close()
        os.close(self._woken)

    def _wake(self) -> None:
        os.eventfd_write(self._woken, 1)

    def _serve(self) -> None:
        with select.epoll() as epoll:
            epoll.register(self._listener, select.EPOLLIN)
            epoll.register(self._woken, select.EPOLLIN)
            while not self._stopping:
                for fd, _ in epoll.poll():
                    if fd == self._listener.fileno():
                        client, _ = self._listener.accept()
                        self._clients[client.fileno()] = client
                        epoll.register(client, select.EPOLLIN)
                    elif fd == self._woken:
                        os.eventfd_read(fd)
                        self._answer_due()
                    else:
                        self._hear(epoll, fd)

    def _hear(self, epoll: select.epoll, fd: int) -> None:
        client = self._clients[fd]
        try:
            question = client.recv(99).decode().strip()
        except ConnectionResetError:
            question = ""
        if not question:
            epoll.unregister(fd)
            self._clients.pop(fd).close()
            if fd in self._due:
                self._due.pop(fd)[1]()
            return
        pid, _, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if question == "0":
            self.asked.append((pid, question))
            client.sendall(b"at once")
            return
        deadline = None if question == "never" else self.clock.monotonic_ns() + round(float(question) * 1e9)
        self._due[fd] = deadline, self.clock.client_waits(pid, deadline, self._wake)
        self.asked.append((pid, question))  # whoever looks for it may rely on the clock's knowing it

    def _answer_due(self) -> None:
        for fd, (deadline, _) in list(self._due.items()):
            if deadline is not None and deadline <= self.clock.monotonic_ns():
                del self._due[fd]
                with contextlib.suppress(BrokenPipeError):
                    self._clients[fd].sendall(b"answered")

    def client(self, *delays: object) -> list[str]:
        return [*PYTHON, CLIENT, self.path, *map(str, delays)]


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    with VirtualClock() as clock:
        yield clock


@pytest.fixture
def driver(clock, tmp_path) -> Iterator[Answers]:
    with Answers(clock, str(tmp_path / "socket")) as driver:
        yield driver


def test_running_real_children_takes_no_virtual_time(clock):
    for _ in range(5):
        assert subprocess.run(["true"], check=True).returncode == 0
        script = "import sys; print('out'); print('error', file=sys.stderr)"
        done = subprocess.run([*PYTHON, script], capture_output=True, text=True, timeout=5, check=True)
        assert (done.stdout, done.stderr) == ("out\n", "error\n")
        assert subprocess.check_output(["echo", "x"]) == b"x\n"
        assert subprocess.run(["cat"], input=b"y" * 200_000, stdout=subprocess.PIPE, check=True).stdout[-1:] == b"y"
        with subprocess.Popen(["true"]) as process:
            assert process.wait(timeout=1) == 0
    assert clock.elapsed_ns == 0
    process = subprocess.Popen(["true"])
    assert os.waitpid(process.pid, 0) == (process.pid, 0)
    assert process.wait() == 0


def test_a_child_holds_the_clock_for_all_threads(clock):
    ends = []
    sleeper = threading.Thread(target=lambda: (time.sleep(1), ends.append("sleeper")))
    sleeper.start()
    subprocess.run([*PYTHON, "import time; time.sleep(0.1)"], check=True)
    ends.append("child")
    sleeper.join()
    assert ends == ["child", "sleeper"]
    assert clock.elapsed == 1.0


def test_a_polling_loop_sees_the_end_after_one_sleep(clock):
    process = subprocess.Popen([*PYTHON, "import time; time.sleep(0.05)"])
    sleeps = 0
    while process.poll() is None:
        time.sleep(0.25)
        sleeps += 1
    assert sleeps == 1
    assert clock.elapsed == 0.25


def test_output_that_was_not_read_yet_wins_over_a_jump(clock):
    for _ in range(20):
        process = subprocess.Popen([*PYTHON, "print('x' * 200_000)"], stdout=subprocess.PIPE)
        with process, selectors.PollSelector() as selector:
            assert process.stdout is not None
            selector.register(process.stdout, selectors.EVENT_READ)
            size = 0
            while True:
                assert selector.select(0.005), "a jump was made over unread output"
                data = os.read(process.stdout.fileno(), 32768)
                if not data:
                    break
                size += len(data)
            assert size == 200_001
    assert clock.elapsed_ns == 0


def test_failing_to_start_a_child_changes_nothing(clock):
    with pytest.raises(FileNotFoundError):
        subprocess.Popen(["/nonexistent/program"])
    time.sleep(1)
    assert clock.elapsed == 1.0
    assert clock.trace == ()


def test_timeouts_with_slow_clients_are_exact(clock, driver):
    """Fifty of each, every one to the nanosecond."""
    for _ in range(50):
        started = clock.elapsed_ns
        with pytest.raises(subprocess.TimeoutExpired):
            subprocess.run(driver.client(7), capture_output=True, timeout=5)
        assert clock.elapsed_ns - started == 5_000_000_000
        started = clock.elapsed_ns
        done = subprocess.run(driver.client(2), capture_output=True, timeout=5, check=True)
        assert done.stdout == b"answered\n"
        assert clock.elapsed_ns - started == 2_000_000_000


def test_wait_with_a_timeout_is_exact(clock, driver):
    for _ in range(10):
        started = clock.elapsed_ns
        process = subprocess.Popen(driver.client(7), stdout=subprocess.DEVNULL)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        assert clock.elapsed_ns - started == 5_000_000_000
        assert process.wait(timeout=30) == 0
        assert clock.elapsed_ns - started == 7_000_000_000


def test_a_child_that_is_waited_for_without_a_timeout(clock, driver):
    assert subprocess.check_output(driver.client(2)) == b"answered\n"
    assert clock.elapsed == 2.0
    assert subprocess.call(driver.client(3), stdout=subprocess.DEVNULL) == 0
    assert clock.elapsed == 5.0


def test_a_client_that_asks_several_times(clock, driver):
    done = subprocess.run(driver.client(1, 0, 1.5, 0), capture_output=True, timeout=5, check=True)
    assert done.stdout.split() == [b"answered", b"at", b"once", b"answered", b"at", b"once"]
    assert clock.elapsed == 2.5


def test_a_client_below_a_shell(clock, driver):
    script = 'echo start; "$@"; "$@"; echo end'
    for _ in range(10):
        started = clock.elapsed_ns
        done = subprocess.run(["sh", "-c", script, "sh", *driver.client(2)], capture_output=True, timeout=5, check=True)
        assert done.stdout == b"start\nanswered\nanswered\nend\n"
        assert clock.elapsed_ns - started == 4_000_000_000


def test_two_clients_below_one_shell(clock, driver):
    script = '"$0" "$1" "$2" "$3" "$4" "$5" 1 & "$0" "$1" "$2" "$3" "$4" "$5" 3 & wait'
    assert len(driver.client()) == 6
    process = subprocess.Popen(["sh", "-c", script, *driver.client()], stdout=subprocess.DEVNULL)
    # The second may ask at +0, or after the first was answered: beside one that waits, the shell's others are not seen.
    assert process.wait(timeout=60) == 0
    assert 3.0 <= clock.elapsed <= 4.0


def test_a_hung_client_in_five_millisecond_slices(clock, driver):
    """The settle wait's way: a pipe and a pidfd in a selector, and slices."""
    process = subprocess.Popen(driver.client("never"), stdout=subprocess.PIPE)
    pidfd = os.pidfd_open(process.pid)
    slices = 0
    with process, selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(pidfd, selectors.EVENT_READ)
        while clock.elapsed_ns < 2_000_000_000:
            assert selector.select(0.005) == []
            slices += 1
        assert clock.elapsed == 2.0
        assert slices == 400
        process.kill()
        while not any(key.fd == pidfd for key, _ in selector.select(5)):
            pass
    os.close(pidfd)
    assert process.returncode == -signal.SIGKILL
    assert clock.elapsed == 2.0


def test_a_killed_client_holds_the_clock_until_it_is_gone(clock, driver):
    for end in ("kill", "terminate"):
        for _ in range(10):
            started = clock.elapsed_ns
            process = subprocess.Popen(driver.client("never"), stdout=subprocess.PIPE)
            time.sleep(1)
            getattr(process, end)()
            assert process.wait(timeout=0.000001) < 0
            assert clock.elapsed_ns - started == 1_000_000_000
            process.stdout.close()


def test_a_killed_group_holds_the_clock_until_it_is_gone(clock, driver):
    process = subprocess.Popen(driver.client("never"), stdout=subprocess.DEVNULL, start_new_session=True)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=0.000001) == -signal.SIGTERM
    process = subprocess.Popen(driver.client("never"), stdout=subprocess.DEVNULL, start_new_session=True)
    time.sleep(1)
    os.kill(-process.pid, signal.SIGKILL)
    assert process.wait(timeout=0.000001) == -signal.SIGKILL
    assert clock.elapsed == 2.0
    with pytest.raises(ProcessLookupError):
        os.kill(4_194_305, signal.SIGKILL)


def test_a_client_that_ignores_or_handles_a_signal_waits_on(clock, driver):
    for reaction in ("signal.SIG_IGN", "lambda *_: None"):
        script = f"import signal; signal.signal(signal.SIGTERM, {reaction})\n{CLIENT}"
        started = clock.elapsed_ns
        process = subprocess.Popen([*PYTHON, script, driver.path, "9"], stdout=subprocess.DEVNULL)
        time.sleep(1)
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        assert clock.elapsed_ns - started == 6_000_000_000
        assert process.wait() == 0
        assert clock.elapsed_ns - started == 9_000_000_000


def test_a_child_from_before_the_clock_is_waited_for(tmp_path):
    process = subprocess.Popen(["sleep", "1000"])
    with VirtualClock() as clock:
        process.kill()
        assert process.wait(timeout=5) == -signal.SIGKILL
        assert clock.elapsed_ns == 0


def test_a_stranger_holds_the_clock_between_answer_and_end(clock, driver):
    """A client that no thread of the clock has started: it exists for the clock only once it was answered."""
    read, write = os.pipe()
    with clock.real_time():
        process = subprocess.Popen(driver.client(2), stdout=write)
        while not clock.timers():
            time.sleep(0.001)
    os.close(write)
    with os.fdopen(read, "rb") as output, selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        assert selector.select(30)
        assert output.readline() == b"answered\n"
    assert clock.elapsed == 2.0
    with clock.real_time():
        process.wait()


def test_a_client_that_goes_away_holds_the_clock_again(clock, driver):
    script = CLIENT.replace("driver.recv(99).decode()", "driver.close() or 'gone'")
    done = subprocess.run([*PYTHON, script, driver.path, "5"], capture_output=True, timeout=60, check=True)
    assert done.stdout == b"gone\n"
    assert clock.elapsed in (0.0, 5.0)  # whether the driver heard the question or the end first
    time.sleep(10)
    assert clock.timers() == ()


def test_an_idle_child_lets_go_of_the_clock_after_the_grace():
    with VirtualClock(child_grace=0.1) as clock:
        started = time.clock_gettime(time.CLOCK_MONOTONIC)
        process = subprocess.Popen(["sleep", "1000"])
        time.sleep(60)
        assert 0.1 <= time.clock_gettime(time.CLOCK_MONOTONIC) - started < 5
        assert clock.elapsed == 60.0
        assert any("used no processor for 0.1 s" in line and "sleep" in line for line in clock.trace)
        process.kill()
        assert process.wait(timeout=0.001) == -signal.SIGKILL
        assert clock.elapsed == 60.0


def test_a_busy_child_does_not_let_go():
    script = "import time; end = time.monotonic() + 0.4\nwhile time.monotonic() < end: pass"
    with VirtualClock(child_grace=0.1) as clock:
        process = subprocess.Popen(["sh", "-c", '"$@"; true', "sh", *PYTHON, script])
        time.sleep(60)
        assert process.poll() == 0
        assert clock.elapsed == 60.0


def test_a_detached_child_does_not_hold_the_clock(clock):
    for of in (lambda process: process, lambda process: process.pid):
        started = time.clock_gettime(time.CLOCK_MONOTONIC)
        process = subprocess.Popen(["sleep", "1000"])
        clock.detach(of(process))
        time.sleep(60)
        assert time.clock_gettime(time.CLOCK_MONOTONIC) - started < 0.9
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        process.kill()
        process.wait()
    assert clock.elapsed == 130.0
    assert [line for line in clock.trace if "was detached" in line]


def test_a_process_that_is_detached_before_the_clock_knows_it(clock):
    with clock.real_time():
        process = subprocess.Popen(["sleep", "1000"])
    clock.detach(process.pid)
    started = time.clock_gettime(time.CLOCK_MONOTONIC)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=5)
    assert time.clock_gettime(time.CLOCK_MONOTONIC) - started < 0.9
    assert clock.elapsed == 5.0
    process.kill()
    process.wait()


def test_probing_threads_with_a_cancel(clock, driver):
    """Three threads probe, sleep and time out; every instant follows from the delays alone."""
    for _ in range(3):
        cancel, seen, start = threading.Event(), [], clock.elapsed

        def probe(index, cancel=cancel, seen=seen, start=start):
            while not cancel.is_set():
                try:
                    subprocess.run(driver.client(1.5 + index), capture_output=True, timeout=3, check=True)
                    seen.append((clock.elapsed - start, index, "answered"))
                except subprocess.TimeoutExpired:
                    seen.append((clock.elapsed - start, index, "timed out"))
                cancel.wait(1)

        threads = [threading.Thread(target=probe, args=(index,)) for index in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(6.2)
        cancel.set()
        for thread in threads:
            thread.join()
        assert sorted(seen) == [
            (1.5, 0, "answered"),
            (2.5, 1, "answered"),
            (3.0, 2, "timed out"),
            (4.0, 0, "answered"),
            (6.0, 1, "answered"),
            (6.5, 0, "answered"),
            (7.0, 2, "timed out"),
        ]
        time.sleep(start + 10 - clock.elapsed)


def test_asyncio_subprocesses(clock, driver):
    async def main():
        process = await asyncio.create_subprocess_exec(*driver.client(7), stdout=subprocess.PIPE)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(process.communicate(), 5)
        assert clock.elapsed == pytest.approx(5.0, abs=1e-6)
        assert await process.wait() == 0

    asyncio.run(main())
    assert clock.elapsed == pytest.approx(7.0, abs=1e-6)


def test_leaving_the_clock_with_children_and_waits_pending(tmp_path):
    before = sorted(Path("/proc/self/fd").iterdir())
    for _ in range(3):
        with VirtualClock() as clock, Answers(clock, str(tmp_path / "socket")) as driver:
            process = subprocess.Popen(driver.client("never"), stdout=subprocess.DEVNULL)
            time.sleep(1)
        process.kill()
        process.wait()
        (tmp_path / "socket").unlink()
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_an_interrupt_while_a_child_runs(clock):
    """Ctrl-C in `communicate`: the child, which goes on for ever, has 0.25 real seconds to end by it too."""
    with clock.real_time():
        threading.Timer(0.1, signal.pthread_kill, args=(threading.get_ident(), signal.SIGINT)).start()
    process = subprocess.Popen(
        [*PYTHON, "import time; end = time.time() + 30\nwhile time.time() < end: pass"], stdout=subprocess.PIPE
    )
    with pytest.raises(KeyboardInterrupt):
        process.communicate(timeout=5)
    assert clock.elapsed == 0.0
    process.kill()
    assert process.wait(timeout=1) == -signal.SIGKILL
    process.stdout.close()
    time.sleep(1)
    assert clock.blocked() == ()
    assert clock.elapsed == 1.0
