"""Further shapes of order, stamps, re-checks and names, written from the rules alone."""

from __future__ import annotations

from contract_shapes import shapes

BAD = (
    shapes(
        "precede",
        "bad",
        """
--- wait after the spawn
def load(self):
    subprocess.Popen(["x"])
    self._wait()
--- spawn in a helper before the wait
def load(self):
    self._spawn()
    self._wait()
def _spawn(self):
    subprocess.Popen(["x"])
--- wait skipped by a return in a helper
def load(self, fast):
    self._prepare(fast)
    subprocess.Popen(["x"])
def _prepare(self, fast):
    if fast:
        return
    self._wait()
--- while that may not run
def load(self):
    while self.busy():
        self._wait()
        break
    subprocess.Popen(["x"])
--- continue before the wait
def load(self, items):
    for item in items:
        if item:
            continue
        self._wait()
    subprocess.Popen(["x"])
--- second spawn after a kill
def load(self):
    self._wait()
    subprocess.Popen(["x"])
    self._process.terminate()
    subprocess.Popen(["x"])
--- second round of a loop
def load(self):
    self._wait()
    while True:
        subprocess.Popen(["x"])
        self._process.terminate()
--- a wait behind a cache
def load(self):
    self._prepare()
    subprocess.Popen(["x"])
@functools.lru_cache
def _prepare(self):
    self._wait()
--- lambda never called
def load(self):
    wait = lambda: self._wait()
    subprocess.Popen(["x"])
--- task never awaited
async def _wait(self):
    await asyncio.sleep(1)
async def load(self):
    asyncio.create_task(self._wait())
    subprocess.Popen(["x"])
--- generator expression never iterated
def load(self, gpus):
    (self._wait(gpu) for gpu in gpus)
    subprocess.Popen(["x"])
--- except that returns early into spawn
def load(self):
    try:
        self.check()
        self._wait()
    except OSError:
        pass
    subprocess.Popen(["x"])
--- finally spawns
def load(self):
    try:
        self._wait()
    finally:
        subprocess.Popen(["x"])
--- or short-circuit
def load(self, ready):
    if ready or self._wait():
        subprocess.Popen(["x"])
--- aliased spawn
def load(self):
    spawn = subprocess.Popen
    spawn(["x"])
    self._wait()
--- kill through an alias after the wait
def load(self):
    process = self._process
    self._wait()
    process.terminate()
    subprocess.Popen(["x"])
--- kill in a helper after the wait
def load(self):
    self._wait()
    self._stop()
    subprocess.Popen(["x"])
def _stop(self):
    self._process.terminate()
""",
    )
    + shapes(
        "follow",
        "bad",
        """
--- no stamp
def _kill(self):
    self._process.terminate()
    self.clear()
def other(self):
    self._last = time.monotonic()
--- stamp without a kill
def _kill(self):
    if self._process is not None:
        self._process.terminate()
    self._last = time.monotonic()
--- return between
def _kill(self, fast):
    self._process.terminate()
    if fast:
        return
    self._last = time.monotonic()
--- killed again after the stamp
def _kill(self):
    self._process.terminate()
    self._last = time.monotonic()
    self._process.terminate()
--- a constant
def _kill(self):
    self._process.terminate()
    self._last = 1.0
--- another attribute
def _kill(self):
    self._process.terminate()
    self._first = time.monotonic()
def other(self):
    self._last = time.monotonic()
--- except only
def _kill(self):
    self._process.terminate()
    try:
        self._process.wait(5)
    except subprocess.TimeoutExpired:
        self._last = time.monotonic()
""",
    )
    + shapes(
        "recording",
        "bad",
        """
--- killed after the recording
def _kill(self):
    with self._kills.recording(self._process.pid):
        self.prepare()
    self._process.terminate()
""",
    )
    + shapes(
        "recheck",
        "bad",
        """
--- one branch only
def load(self, fast):
    with self._lock:
        if not fast and self._cancel.is_set():
            return
        subprocess.Popen(["x"])
--- answer of before the lock
def load(self):
    cancelled = self._cancel.is_set()
    with self._lock:
        if cancelled:
            return
        subprocess.Popen(["x"])
--- logged and gone on
def load(self):
    with self._lock:
        if self._cancel.is_set():
            log.info("cancelled")
        subprocess.Popen(["x"])
--- without the lock
def load(self, fast):
    if fast:
        subprocess.Popen(["x"])
        return
    with self._lock:
        if self._cancel.is_set():
            return
        subprocess.Popen(["x"])
--- released and retaken
def load(self):
    with self._lock:
        if self._cancel.is_set():
            return
        self._lock.release()
        self._lock.acquire()
        subprocess.Popen(["x"])
--- swallowed by the caller
def _raise_if_cancelled(self):
    if self._cancel.is_set():
        raise RuntimeError("cancelled")
def load(self):
    with self._lock:
        try:
            self._raise_if_cancelled()
        except RuntimeError:
            pass
        subprocess.Popen(["x"])
--- and with something false
def load(self, strict):
    with self._lock:
        if self._cancel.is_set() and strict:
            return
        subprocess.Popen(["x"])
""",
    )
    + shapes(
        "name",
        "bad",
        """
--- parameter
def load(self, had_live_process):
    return 1
--- composed text
def load(self):
    setattr(self, "had_live" + "_process", True)
--- dunder dict
def load(self):
    self.__dict__["had_live_process"] = True
--- import alias
def load(self):
    import os as had_live_process
""",
    )
)

GOOD = (
    shapes(
        "precede",
        "good",
        """
--- wait in finally
def load(self):
    try:
        self.prepare()
    finally:
        self._wait()
    subprocess.Popen(["x"])
--- swallowed and waited again
def load(self):
    try:
        self._wait()
    except OSError:
        self._wait()
    subprocess.Popen(["x"])
--- a swallowed exception that returns
def load(self):
    try:
        self._wait()
    except Exception:
        return None
    return subprocess.Popen(["x"])
--- loop that always runs
def load(self):
    for attempt in range(3):
        self._wait()
    subprocess.Popen(["x"])
--- endless loop
def load(self):
    while True:
        self._wait()
        if self.ready():
            break
    subprocess.Popen(["x"])
--- joined thread
def load(self):
    thread = threading.Thread(target=self._wait)
    thread.start()
    thread.join()
    subprocess.Popen(["x"])
--- awaited coroutine
async def _wait(self):
    await asyncio.sleep(1)
async def load(self):
    await self._wait()
    subprocess.Popen(["x"])
--- match with a default
def load(self, mode):
    match mode:
        case "slow":
            self._wait(9)
        case _:
            self._wait(1)
    subprocess.Popen(["x"])
--- through a decorated helper
def _logged(function):
    @functools.wraps(function)
    def inner(self):
        log.info("begin")
        return function(self)
    return inner
def load(self):
    self._prepare()
    subprocess.Popen(["x"])
@_logged
def _prepare(self):
    self._wait()
""",
    )
    + shapes(
        "follow",
        "good",
        """
--- a local for the stamp
def _kill(self):
    if self._process is None:
        return
    try:
        self._process.terminate()
        self._process.wait(5)
    finally:
        now = time.monotonic()
        self._last = now
--- two kills
def _kill(self):
    self._process.terminate()
    self._last = time.monotonic()
    self._process.terminate()
    self._last = time.monotonic()
--- by setattr
def _kill(self):
    self._process.terminate()
    setattr(self, "_last", time.monotonic())
""",
    )
    + shapes(
        "recheck",
        "good",
        """
--- into a local
def load(self):
    with self._lock:
        cancelled = self._cancel.is_set()
        if cancelled:
            return
        subprocess.Popen(["x"])
--- spawn in the else
def load(self):
    with self._lock:
        if not self._cancel.is_set():
            subprocess.Popen(["x"])
--- or with more
def load(self, closing):
    with self._lock:
        if closing or self._cancel.is_set():
            return
        subprocess.Popen(["x"])
--- compared
def load(self):
    with self._lock:
        if self._cancel.is_set() is True:
            raise RuntimeError
        self._spawn()
def _spawn(self):
    subprocess.Popen(["x"])
--- acquired by hand
def load(self):
    self._lock.acquire()
    try:
        if bool(self._cancel.is_set()):
            return
        subprocess.Popen(["x"])
    finally:
        self._lock.release()
""",
    )
    + shapes(
        "name",
        "good",
        '''
--- a similar name
def load(self):
    self.had_live_processes = 1
--- another class tells of it
#module
class Other:
    """There is no had_live_process any more."""
    had_live_processes = 1  # not had_live_process
class Backend:
    def load(self):
        return 1
''',
    )
)
