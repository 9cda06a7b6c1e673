"""A backend as contracts see it, right in every respect, and a pyproject.toml about it."""

from __future__ import annotations

BACKEND = """\
import subprocess
import threading
import time


class Backend:
    def __init__(self):
        self._lock = threading.Lock()
        self._cancel_event = threading.Event()
        self._process = None
        self._last_kill_monotonic = 0.0

    def _wait_for_vram_settle(self):
        time.sleep(0.1)

    def _kill_process(self):
        if self._process is None:
            return
        try:
            self._process.terminate()
            self._process.wait(5)
        finally:
            self._last_kill_monotonic = time.monotonic()
            self._process = None

    def load_model(self, model):
        self._kill_process()
        self._wait_for_vram_settle()
        with self._lock:
            if self._cancel_event.is_set():
                return False
            self._process = subprocess.Popen(["llama-server", model])
        return True
"""

UNDER_LOCK = BACKEND.replace(
    "        self._wait_for_vram_settle()\n        with self._lock:\n",
    "        with self._lock:\n            self._prepare()\n",
) + ("\n    def _prepare(self):\n        self._wait_for_vram_settle()\n")

EXAMPLE = """
def test_the_wait_runs_outside_the_load_lock(lock_contract):
    backend = lock_contract("myapp.backend:Backend")
    lock, wait = backend.lock("_lock"), backend.call("_wait_for_vram_settle")
    spawn, kill = backend.call("subprocess.Popen"), backend.call("_process.terminate")

    backend.must_not_hold(lock, at=wait)
    backend.must_precede(wait, before=spawn, within="load_model", reset_by=kill)
    backend.must_follow(backend.write("_last_kill_monotonic", value="time.monotonic()"),
                        after=kill, within="_kill_process", every_exit=True, only_if=True)
    backend.must_recheck("_cancel_event.is_set", after=lock.acquired, before=spawn, within="load_model")
    backend.must_not_name("had_live_process")
"""

TOML = """\
[[tool.vramsettle.contracts]]
id = "wait-outside-the-lock"
rule = "must_not_hold"
target = "myapp.backend:Backend"
lock = "_lock"
at = "_wait_for_vram_settle"

[[tool.vramsettle.contracts]]
rule = "must_precede"
target = "myapp.backend:Backend"
first = "_wait_for_vram_settle"
before = "subprocess.Popen"
within = "load_model"
reset_by = "_process.terminate"

[[tool.vramsettle.contracts]]
id = "stamped"
rule = "must_follow"
target = "myapp.backend:Backend"
write = "_last_kill_monotonic"
value = "time.monotonic()"
after = "_process.terminate"
within = "_kill_process"
only_if = true

[[tool.vramsettle.contracts]]
id = "rechecked"
rule = "must_recheck"
target = "myapp.backend:Backend"
call = "_cancel_event.is_set"
lock = "_lock"
before = "subprocess.Popen"
within = "load_model"

[[tool.vramsettle.contracts]]
id = "no-flag"
rule = "must_not_name"
target = "myapp.backend:Backend"
name = "had_live_process"
"""
