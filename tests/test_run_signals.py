"""`fake-gpu run`: signals, terminals and what a program inherits."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_command import COMMAND, run, terminal

from fake_gpu.foreground import ending_signal, signals_held

pytest.importorskip("typer")

APPS = "nvidia-smi --query-compute-apps=pid --format=csv,noheader"


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where the driver's directory is made, so that what is left of it can be seen."""
    place = tmp_path / "t"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    yield
    assert list(place.iterdir()) == []


TRAPS = (
    'trap "echo term; exit 3" TERM; trap "echo usr1" USR1; trap "echo int; exit 5" INT; '
    "echo ready; while :; do sleep 0.02; done"
)


@pytest.mark.parametrize(("number", "said", "status"), [(signal.SIGTERM, "term", 3), (signal.SIGINT, "int", 5)])
def test_signals_are_passed_on(number: signal.Signals, said: str, status: int) -> None:
    with subprocess.Popen([*COMMAND, "--", "sh", "-c", TRAPS], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGUSR1)
        assert child.stdout.readline() == "usr1\n"
        child.send_signal(number)
        assert child.stdout.readline() == f"{said}\n"
        assert child.wait(10) == status


COUNTS = """
import os, signal, sys
came = []
signal.signal(signal.SIGUSR1, lambda *_: came.append(1))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
os.kill(0, signal.SIGUSR1)
print("sent", flush=True)
signal.sigwait({signal.SIGUSR2})
print(len(came), flush=True)
"""


def test_what_the_program_sends_to_its_group_comes_once() -> None:
    words = [*COMMAND, "--", sys.executable, "-c", COUNTS]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "sent\n"
        child.send_signal(signal.SIGUSR2)  # handled after the other: its number is higher
        assert child.stdout.readline() == "1\n"
        assert child.wait(10) == 0


def test_a_signal_before_the_program_starts() -> None:
    with signals_held():
        assert ending_signal() is None
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)  # to this thread: others here hold nothing back
        assert ending_signal() is None
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        assert ending_signal() == signal.SIGTERM
    assert not signal.sigpending()


def test_ctrl_c_while_the_machines_file_is_awaited(tmp_path: Path) -> None:
    pipe = tmp_path / "machine.toml"
    os.mkfifo(pipe)
    words = [*COMMAND, "--machine", str(pipe), "--", "true"]
    with subprocess.Popen(words) as child, pipe.open("w"):  # it is open for reading too by then
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == -signal.SIGINT


def test_a_machine_that_cannot_be_from_a_pipe() -> None:
    text = '[[process]]\ngpu = 7\nmemory = "1 GiB"\n'
    done = run("--machine", "/dev/stdin", "--", "true", stdin=text)
    assert done.returncode == 1
    assert "there is no GPU 7: the machine has 0" in done.stderr


def test_this_command_is_killed(tmp_path: Path) -> None:
    """The processes of its machine end, and the next run removes its directory."""
    words = [*COMMAND, "--process", "0:1GiB", "--", "sh", "-c", f"{APPS}; exec sleep 60"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:
        assert child.stdout is not None
        puppet = os.pidfd_open(int(child.stdout.readline()))
        try:
            child.kill()
            assert select.select([puppet], [], [], 20)[0], "it lives"
        finally:
            os.close(puppet)
            os.killpg(child.pid, signal.SIGKILL)  # CMD is not ours: it has outlived this command
    assert len(list((tmp_path / "t").iterdir())) == 1
    assert run("--", "true").returncode == 0


# -- what it inherits


def test_stdin_and_descriptors() -> None:
    assert run("--", "cat", stdin="piped").stdout == "piped"
    command = " ".join(f"'{word}'" for word in COMMAND)
    script = (
        f"{command} -- cat <(echo one); {command} -- sh -c 'cat <&5' 5< <(echo two); "
        f"{command} -- sh -c 'nvidia-smi -L; read line || echo closed' 2>&- <&-; "
        f"{command} -- yes | head -1; echo ${{PIPESTATUS[@]}}"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=30, check=True)
    one, two, card, *rest = done.stdout.splitlines()
    assert (one, two, card[:6], rest) == ("one", "two", "GPU 0:", ["closed", "y", "141 0"])
    assert done.stderr == ""


def test_runs_inside_runs_and_beside_each_other() -> None:
    script = f"{' '.join(map(repr, COMMAND))} --gpu h200 -- nvidia-smi -L; nvidia-smi -L"
    words = [*COMMAND, "--gpu", "t4", "--", "sh", "-c", f"read line; {script}"]
    runs = [
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for one in runs:
        printed, complained = one.communicate("go\n", timeout=30)
        assert [line.split(" (")[0] for line in printed.splitlines()] == ["GPU 0: NVIDIA H200", "GPU 0: Tesla T4"]
        assert complained == ""


def test_what_the_program_leaves_running_is_its_own() -> None:
    done = run("--", "sh", "-c", "setsid sleep 60 >/dev/null 2>&1 & echo $!; exit 5")
    os.kill(int(done.stdout), signal.SIGKILL)  # raises where it is gone
    assert done.returncode == 5


def test_a_program_without_our_environment() -> None:
    """nvidia-smi knows its driver by its own path; who has neither that nor the library's sees no machine."""
    done = run("--", "sh", "-c", 'env -i PATH="$PATH" nvidia-smi -L; env -i /bin/sh -c "command -v nvidia-smi"')
    assert done.stdout.startswith("GPU 0:")
    assert "fgpu-" not in done.stdout


def test_a_directory_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("a" * 100)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    done = run("--", "echo", "ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert "set TMPDIR to a shorter directory" in done.stderr


# -- terminals


def test_a_terminal_is_the_programs() -> None:
    """Ctrl-Z stops it and us, fg brings both back, a new size and Ctrl-C reach it, and the status is its."""
    program = (
        'trap "echo size $(stty size)" WINCH; trap "echo int; exit 5" INT; test -t 0 && echo ready; '
        'read line; echo "got $line"; while :; do sleep 0.02; done'
    )
    command = " ".join(f"'{word}'" for word in [*COMMAND, "--", "sh", "-c", program])
    with terminal(["bash", "-c", f"set -m; {command}; echo stopped $?; fg; echo ended $?; sleep 60"]) as tty:
        tty.expect("ready")
        tty.type("\x1a")
        tty.expect("stopped 148")
        tty.type("hello\n")
        tty.expect("got hello")
        fcntl.ioctl(tty.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
        tty.expect("size")
        tty.type("\x03")
        tty.expect("int")
        tty.expect("ended 5")


def test_the_terminal_of_another_session() -> None:
    command = " ".join(f"'{word}'" for word in COMMAND)
    with terminal(
        ["bash", "-c", f"setsid --wait {command} -- sh -c 'echo ran; exit 3'; echo ended $?; sleep 60"]
    ) as tty:
        tty.expect("ran")
        tty.expect("ended 3")


def test_a_loop_ends_with_ctrl_c() -> None:
    command = " ".join(f"'{word}'" for word in COMMAND)
    loop = f"for i in 1 2; do {command} -- sh -c 'echo ready $0; exec sleep 60' $i; done"
    with terminal(["bash", "-c", loop]) as tty:
        tty.expect("ready 1")
        tty.type("\x03")
        assert tty.wait() == -signal.SIGINT


RAW = """
import sys, termios, tty
before = termios.tcgetattr(0)
tty.setraw(0)
print("raw", sys.stdin.isatty(), sys.stdout.isatty(), end=" ", flush=True)
key = sys.stdin.read(1)
termios.tcsetattr(0, termios.TCSANOW, before)
print("key", ord(key), flush=True)
"""


def test_a_full_screen_program_has_the_keys() -> None:
    with terminal([*COMMAND, "--", sys.executable, "-c", RAW]) as tty:
        tty.expect("raw True True")
        tty.type("\x03")  # a key here, no signal
        tty.expect("key 3")
        assert tty.wait() == 0


def test_a_shell_that_is_killed_leaves_the_terminal_usable() -> None:
    command = " ".join(f"'{word}'" for word in COMMAND)
    inner = "bash --norc --noprofile -i"
    with terminal(["bash", "-c", f"set -m; {command} -- {inner}; echo ended $?; read line; echo got $line"]) as tty:
        tty.type("echo r''eady\n")
        tty.expect("ready\r\n")
        tty.type("kill -KILL $$\n")
        tty.expect("ended 137")
        tty.type("hello\n")
        tty.expect("got hello")


def test_the_terminal_goes_away() -> None:
    with terminal([*COMMAND, "--process", "0:1GiB", "--", "sh", "-c", f"{APPS}; echo ready; exec sleep 60"]) as tty:
        tty.expect("ready")
        tty.hang_up()
        assert tty.wait() == 128 + signal.SIGHUP
