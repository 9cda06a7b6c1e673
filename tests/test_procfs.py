"""Processes by identity."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from real_processes import WITH_CHILD, Start, child_of, end, needs_procfs, start

from pytest_vramsettle import _procfs

__all__ = ["start"]  # a fixture

NOBODY = 4_300_001  # beyond the highest PID that the kernel hands out


@needs_procfs
class TestProcesses:
    def test_identity(self, start: Start) -> None:
        process = start()
        identity = _procfs.identify(process.pid)
        assert identity is not None
        assert _procfs.is_alive(identity)
        another = _procfs.ProcessIdentity(process.pid, (identity.start or 0) + 1)
        assert not _procfs.is_alive(another)
        assert _procfs.is_reused(another)
        assert not _procfs.is_reused(identity)

    def test_a_name_with_parentheses_and_spaces(self, start: Start) -> None:
        process = start(
            "import time\n"
            "with open('/proc/self/comm', 'w') as file: file.write('a) Z 1 (b')\n"
            "print(flush=True); time.sleep(60)"
        )
        assert process.stdout is not None
        process.stdout.readline()
        assert "a) Z 1 (b" in Path(f"/proc/{process.pid}/stat").read_text()
        assert [found.pid for found in _procfs.tree(os.getpid()) if found.pid == process.pid] == [process.pid]

    @pytest.mark.parametrize("by_tasks", [True, False])
    def test_a_tree(self, start: Start, monkeypatch: pytest.MonkeyPatch, by_tasks: bool) -> None:
        process = start(WITH_CHILD)
        child = child_of(process)
        if not by_tasks:
            monkeypatch.setattr(_procfs, "_children_from_tasks", lambda pid: None)
        try:
            assert [found.pid for found in _procfs.tree(process.pid)] == [process.pid, child]
        finally:
            os.kill(child, signal.SIGKILL)

    def test_nobody(self) -> None:
        assert _procfs.tree(NOBODY) == ()
        assert _procfs.identify(NOBODY) is None
        assert not _procfs.is_zombie(NOBODY)

    def test_a_process_whose_first_thread_has_ended_lives(self, start: Start) -> None:
        process = start(
            "import ctypes, threading, time\n"
            "threading.Thread(target=time.sleep, args=(60,)).start()\n"
            "print(flush=True)\n"
            "ctypes.CDLL(None).pthread_exit(None)\n"
        )
        assert process.stdout is not None
        process.stdout.readline()
        stat = Path(f"/proc/{process.pid}/stat")
        for _ in range(1000):
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                break
            time.sleep(0.002)
        else:
            pytest.skip("the first thread did not end")
        assert _procfs.identify(process.pid) is not None


class TestWithoutProcfs:
    def test_a_process_is_its_pid(self, monkeypatch: pytest.MonkeyPatch, start: Start) -> None:
        monkeypatch.setattr(_procfs, "_PROC", "/no/proc/here")
        process = start()
        assert _procfs.tree(process.pid) == (_procfs.ProcessIdentity(process.pid, None),)
        (identity,) = _procfs.tree(process.pid)
        assert _procfs.is_alive(identity)
        end(process)
        assert not _procfs.is_alive(identity)
        assert _procfs.tree(process.pid) == ()
