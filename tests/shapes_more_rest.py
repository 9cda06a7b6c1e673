"""Order, stamps, re-checks and names that try to slip through, and right code that looks much like wrong code."""

from __future__ import annotations

from contract_shapes import shapes

BAD = (
    shapes(
        "precede",
        "bad",
        """
--- suppress on a stack
def load(self):
    with ExitStack() as stack:
        stack.enter_context(suppress(Exception))
        self._wait()
    subprocess.Popen(["x"])
--- property reset
@property
def dead(self):
    self._process.terminate()
    return True
def load(self):
    self._wait()
    if self.dead:
        subprocess.Popen(["x"])
--- spawn lambda
def load(self):
    go = lambda: subprocess.Popen(["x"])
    go()
    self._wait()
--- partial spawn
def load(self):
    go = partial(subprocess.Popen, ["x"])
    go()
    self._wait()
--- getattr spawn
def load(self):
    getattr(subprocess, "Popen")(["x"])
    self._wait()
--- spawn as callback
def load(self):
    self.retry(subprocess.Popen, ["x"])
    self._wait()
--- module alias
def load(self):
    import subprocess as sp
    sp.Popen(["x"])
    self._wait()
--- wait only when debug
def load(self):
    if __debug__:
        self._wait()
    subprocess.Popen(["x"])
--- wait in except that matches nothing
def load(self):
    try:
        pass
    except OSError:
        self._wait()
    subprocess.Popen(["x"])
--- loop else
def load(self, xs):
    for x in xs:
        if x:
            break
    else:
        self._wait()
    subprocess.Popen(["x"])
--- kill via helper alias arg
def _stop(self, process):
    process.terminate()
def load(self):
    self._wait()
    self._stop(self._process)
    subprocess.Popen(["x"])
--- kill of a popped list
def load(self):
    self._wait()
    for p in [self._process]:
        p.terminate()
    subprocess.Popen(["x"])
--- kill by getter
def _get(self):
    return self._process
def load(self):
    self._wait()
    self._get().terminate()
    subprocess.Popen(["x"])
--- kill with walrus
def load(self):
    self._wait()
    if (p := self._process) is not None:
        p.terminate()
    subprocess.Popen(["x"])
--- kill in suppress
def load(self):
    self._wait()
    with suppress(OSError):
        self._process.terminate()
    subprocess.Popen(["x"])
--- kill by finally
def load(self):
    try:
        self._wait()
    finally:
        self._process.terminate()
    subprocess.Popen(["x"])
--- kill handed out
def load(self):
    self._wait()
    self.attempt(self._process.terminate)
    subprocess.Popen(["x"])
""",
    )
    + shapes(
        "follow",
        "bad",
        """
--- kill in a loop, last unstamped
def _kill(self, items):
    for item in items:
        self._last = time.monotonic()
        self._process.terminate()
--- kill via getattr
def _kill(self):
    getattr(self._process, "terminate")()
--- kill in a thread joined
def _kill(self):
    t = threading.Thread(target=self._process.terminate)
    t.start()
    t.join()
--- kill handed out
def _kill(self):
    self.attempt(self._process.terminate)
--- stamp deleted
def _kill(self):
    self._process.terminate()
    self._last = time.monotonic()
    self._last = 0.0
--- stamp augmented
def _kill(self):
    self._process.terminate()
    self._last = time.monotonic()
    self._last -= 100
--- async cancel
async def _kill(self):
    self._process.terminate()
    await self.reap()
    self._last = time.monotonic()
--- generator
def _kill(self):
    self._process.terminate()
    yield
    self._last = time.monotonic()
""",
    )
    + shapes(
        "recheck",
        "bad",
        """
--- wrong side of or
def load(self, force):
    with self._lock:
        if force or not self._cancel.is_set():
            subprocess.Popen(["x"])
--- condition wait after
def load(self):
    with self._lock:
        if self._cancel.is_set():
            return
        self._lock.wait()
        subprocess.Popen(["x"])
--- helper ignores
def _check(self):
    return self._cancel.is_set()
def load(self):
    with self._lock:
        self._check()
        subprocess.Popen(["x"])
--- any
def load(self, other):
    with self._lock:
        if all([self._cancel.is_set(), other]):
            return
        subprocess.Popen(["x"])
--- spawn in a finally
def load(self):
    with self._lock:
        try:
            if self._cancel.is_set():
                return
        finally:
            subprocess.Popen(["x"])
""",
    )
    + shapes(
        "name",
        "bad",
        """
--- slots
__slots__ = ("had_live_process",)
--- match keyword
def load(self, x):
    match x:
        case Backend(had_live_process=1):
            pass
--- fstring
def load(self, a):
    setattr(self, f"had_{a}_process", 1)
--- percent
def load(self, a):
    setattr(self, "had_%s_process" % a, 1)
--- join
def load(self):
    setattr(self, "_".join(["had", "live", "process"]), 1)
--- kwargs dict
def load(self):
    self.start(**{"had_live_process": True})
--- del
def load(self):
    del self.had_live_process
--- lambda argument
def load(self):
    return lambda had_live_process: 1
--- nested function
def load(self):
    def had_live_process(): pass
""",
    )
)

GOOD = (
    shapes(
        "hold",
        "good",
        """
--- a callback registered under another lock
def prepare(self):
    with self._other:
        self.ready = True
def load(self):
    self._wait()
    with self._lock:
        self.use(self._process)
--- nested managers left in order
def load(self):
    with self._other, self._lock:
        self.start()
    self._wait()
--- guard object left
#module
class Guard:
    def __init__(self, lock):
        self.lock = lock
    def __enter__(self):
        self.lock.acquire()
        return self
    def __exit__(self, *exc):
        self.lock.release()
class Backend:
    def __init__(self):
        self._lock = threading.RLock()
        self._guard = Guard(self._lock)
    def load(self):
        with self._guard:
            self.start()
        self._wait()
--- decorated method beside
#module
def locked(function):
    @functools.wraps(function)
    def inner(self, *args):
        with self._lock:
            return function(self, *args)
    return inner
class Backend:
    def __init__(self):
        self._lock = threading.RLock()
    @locked
    def store(self, value):
        self.value = value
    def load(self):
        self.store(1)
        self._wait()
--- reload loop
def load(self, models):
    for model in models:
        with self._lock:
            if self._cancel.is_set():
                return False
            self.model = model
        if not self._wait():
            continue
        with self._lock:
            self.ready = True
    return True
--- condition waited for
def prepare(self):
    self._ready = threading.Condition(self._lock)
def load(self):
    with self._ready:
        while not self.done:
            self._ready.wait(1)
    self._wait()
--- stack of other things
def load(self):
    with ExitStack() as stack:
        stack.enter_context(self._other)
        self._wait()
    with self._lock:
        pass
--- released before a raise
def load(self):
    self._lock.acquire()
    try:
        self.start()
    except OSError:
        self._lock.release()
        raise
    else:
        self._lock.release()
    self._wait()
--- lock handed to a helper that lets go
def _under(self, lock, action):
    with lock:
        action()
def load(self):
    self._under(self._lock, self.start)
    self._wait()
--- released under a flag that only init sets
#module
class Backend:
    def __init__(self, serial):
        self._lock = threading.Lock()
        self._serial = serial
    def load(self):
        if self._serial:
            self._lock.acquire()
        try:
            self.start()
        finally:
            if self._serial:
                self._lock.release()
        self._wait()
--- thread started under it, waited for after
def load(self):
    thread = threading.Thread(target=self._wait)
    with self._lock:
        thread.start()
    thread.join()
""",
    )
    + shapes(
        "precede",
        "good",
        """
--- with a timeout and a second try
def load(self):
    for attempt in range(2):
        try:
            self._wait()
        except OSError:
            if attempt:
                raise
            continue
        return subprocess.Popen(["x"])
    return None
--- result kept
def load(self):
    settled = self._wait()
    if not settled:
        log.warning("not settled")
    with self._lock:
        subprocess.Popen(["x"])
--- helper returns whether it waited
def _prepare(self, fast):
    if fast:
        return False
    self._wait()
    return True
def load(self, fast):
    if not self._prepare(fast):
        return None
    return subprocess.Popen(["x"])
--- kill and wait in one helper
def _restart(self):
    self._process.terminate()
    self._wait()
def load(self):
    self._restart()
    subprocess.Popen(["x"])
""",
    )
    + shapes(
        "follow",
        "good",
        """
--- nothing to kill raises
def _kill(self):
    if self._process is None:
        raise RuntimeError("nothing to kill")
    self._process.terminate()
    self._last = time.monotonic()
--- stamp through an imported clock
def _kill(self):
    from time import monotonic
    self._process.terminate()
    self._last = monotonic()
--- nested try
def _kill(self):
    process, self._process = self._process, None
    if process is None:
        return
    try:
        try:
            process.terminate()
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
    finally:
        self._last = time.monotonic()
""",
    )
    + shapes(
        "recheck",
        "good",
        """
--- loop under the lock
def load(self, items):
    with self._lock:
        while not self._cancel.is_set():
            subprocess.Popen(["x"])
            return
--- raise in a nested function
def load(self):
    def check():
        if self._cancel.is_set():
            raise RuntimeError("cancelled")
    with self._lock:
        check()
        subprocess.Popen(["x"])
--- match
def load(self):
    with self._lock:
        match self._cancel.is_set():
            case True:
                return
            case False:
                subprocess.Popen(["x"])
""",
    )
    + shapes(
        "name",
        "good",
        """
--- a computed name that cannot be it
def load(self, a):
    setattr(self, f"has_{a}", 1)
""",
    )
)
