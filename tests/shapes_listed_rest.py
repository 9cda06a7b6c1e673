"""The listed shapes of order, stamps, re-checks and names."""

from __future__ import annotations

from contract_shapes import shapes

PRECEDE_BAD = shapes(
    "precede",
    "bad",
    """
--- only in a comment
def load(self):
    # self._wait()
    subprocess.Popen(["x"])
def other(self):
    self._wait()
--- only in a string
def load(self):
    log.info("self._wait()")
    subprocess.Popen(["x"])
def other(self):
    self._wait()
--- one branch
def load(self, fast):
    if not fast:
        self._wait()
    subprocess.Popen(["x"])
--- short-circuit
def load(self, slow):
    slow and self._wait()
    subprocess.Popen(["x"])
--- match
def load(self, mode):
    match mode:
        case "slow":
            self._wait()
        case "fast":
            pass
    subprocess.Popen(["x"])
--- a loop that may run zero times
def load(self, gpus):
    for gpu in gpus:
        self._wait()
    subprocess.Popen(["x"])
--- a swallowed exception
def load(self):
    try:
        self._wait()
    except Exception:
        log.exception("no wait")
    subprocess.Popen(["x"])
--- suppress
def load(self):
    with suppress(Exception):
        self._wait()
    subprocess.Popen(["x"])
--- an un-awaited coroutine
async def _wait(self):
    await asyncio.sleep(1)
async def load(self):
    self._wait()
    subprocess.Popen(["x"])
--- an un-iterated generator
def _wait(self):
    yield time.sleep(1)
def load(self):
    self._wait()
    subprocess.Popen(["x"])
--- in a spawned thread
def load(self):
    threading.Thread(target=self._wait).start()
    subprocess.Popen(["x"])
--- a new early path
def load(self, cached):
    if cached:
        return subprocess.Popen(["x"])
    self._wait()
    return subprocess.Popen(["x"])
--- dead code
def load(self):
    if False:
        self._wait()
    subprocess.Popen(["x"])
--- killed again after the wait
def load(self):
    self._wait()
    self._process.terminate()
    subprocess.Popen(["x"])
""",
)

PRECEDE_GOOD = shapes(
    "precede",
    "good",
    """
--- both branches wait
def load(self, fast):
    if fast:
        self._wait(1)
    else:
        self._wait(9)
    subprocess.Popen(["x"])
--- extracted helper
def load(self):
    self._prepare()
    subprocess.Popen(["x"])
def _prepare(self):
    log.info("waiting")
    self._wait()
--- a hand-off flag
def load(self, fast):
    waited = False
    if not fast:
        self._wait()
        waited = True
    if not waited:
        self._wait()
    subprocess.Popen(["x"])
--- killed before the wait
def load(self):
    self._process.terminate()
    self._wait()
    subprocess.Popen(["x"])
""",
)

FOLLOW_BAD = shapes(
    "follow",
    "bad",
    """
--- stamp in try
def _kill(self):
    try:
        self._process.terminate()
        self._process.wait(5)
        self._last = time.monotonic()
    except subprocess.TimeoutExpired:
        self._process.kill()
--- stamp before the early return
def _kill(self):
    self._last = time.monotonic()
    if self._process is None:
        return
    self._process.terminate()
    self._last = time.monotonic()
--- after a call that may raise
def _kill(self):
    self._process.terminate()
    self._process.wait(5)
    self._last = time.monotonic()
--- the wrong clock
def _kill(self):
    self._process.terminate()
    self._last = time.time()
""",
)

FOLLOW_GOOD = shapes(
    "follow",
    "good",
    """
--- in finally after the kill
def _kill(self):
    if self._process is None:
        return
    self._process.terminate()
    try:
        self._process.wait(5)
    except subprocess.TimeoutExpired:
        self._process.kill()
        self._process.wait()
    finally:
        self._last = time.monotonic()
--- at once, by a helper
def _kill(self):
    if self._process is None:
        return
    self._process.terminate()
    self._stamp()
    self._process.wait()
def _stamp(self):
    self._last = time.monotonic()
""",
) + shapes(
    "recording",
    "good",
    """
--- our own idiom
def _kill(self):
    if self._process is None:
        return
    with self._kills.recording(self._process.pid):
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
    self._process = None
""",
)

RECHECK_BAD = shapes(
    "recheck",
    "bad",
    """
--- removed
def load(self):
    with self._lock:
        subprocess.Popen(["x"])
def cancelled(self):
    return self._cancel.is_set()
--- ignored
def load(self):
    with self._lock:
        self._cancel.is_set()
        subprocess.Popen(["x"])
--- only logged
def load(self):
    with self._lock:
        log.info("cancelled: %s", self._cancel.is_set())
        subprocess.Popen(["x"])
--- inverted
def load(self):
    with self._lock:
        if not self._cancel.is_set():
            return
        subprocess.Popen(["x"])
--- before the lock
def load(self):
    if self._cancel.is_set():
        return
    with self._lock:
        subprocess.Popen(["x"])
--- lock retaken after the re-check
def load(self):
    with self._lock:
        if self._cancel.is_set():
            return
    with self._lock:
        subprocess.Popen(["x"])
""",
)

RECHECK_GOOD = shapes(
    "recheck",
    "good",
    """
--- plain
def load(self):
    with self._lock:
        if self._cancel.is_set():
            return
        subprocess.Popen(["x"])
--- through a closure
def load(self):
    def cancelled():
        return self._cancel.is_set()
    with self._lock:
        if cancelled():
            return
        subprocess.Popen(["x"])
--- through a helper that raises
def _raise_if_cancelled(self):
    if self._cancel.is_set():
        raise RuntimeError("cancelled")
def load(self):
    with self._lock:
        self._raise_if_cancelled()
        subprocess.Popen(["x"])
""",
)

NAME_BAD = shapes(
    "name",
    "bad",
    """
--- setattr
def load(self):
    setattr(self, "had_live_process", True)
--- identifier
def load(self):
    had_live_process = True
    return had_live_process
--- attribute
def load(self):
    self.had_live_process = True
--- keyword
def load(self):
    self.start(had_live_process=True)
""",
)

NAME_GOOD = shapes(
    "name",
    "good",
    '''
--- a comment with the forbidden word
def load(self):
    # had_live_process is gone
    return 1
--- a longer text
def load(self):
    """No had_live_process any more."""
    log.info("had_live_process is gone")
''',
)

BAD = PRECEDE_BAD + FOLLOW_BAD + RECHECK_BAD + NAME_BAD
GOOD = PRECEDE_GOOD + FOLLOW_GOOD + RECHECK_GOOD + NAME_GOOD
