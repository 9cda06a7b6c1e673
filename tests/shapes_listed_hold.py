"""The listed shapes of a wait under the load lock, and of waits that are not."""

from __future__ import annotations

from contract_shapes import shapes

BAD = shapes(
    "hold",
    "bad",
    """
--- with
def load(self):
    with self._lock:
        self._wait()
--- several items in one with
def load(self):
    with open("x") as file, self._lock:
        self._wait()
--- local alias
def load(self):
    lock = self._lock
    with lock:
        self._wait()
--- attribute alias
def prepare(self):
    self._guard = self._lock
def load(self):
    with self._guard:
        self._wait()
--- getattr alias
def load(self):
    with getattr(self, "_lock"):
        self._wait()
--- tuple alias
def load(self):
    lock, name = self._lock, "x"
    with lock:
        self._wait()
--- walrus alias
def load(self):
    if (lock := self._lock):
        with lock:
            self._wait()
--- acquire try finally release
def load(self):
    self._lock.acquire()
    try:
        self._wait()
    finally:
        self._lock.release()
--- ExitStack
def load(self):
    with ExitStack() as stack:
        stack.enter_context(self._lock)
        self._wait()
--- helper one deep
def load(self):
    with self._lock:
        self._prepare()
def _prepare(self):
    self._wait()
--- helper two deep
def load(self):
    with self._lock:
        self._prepare()
def _prepare(self):
    self._prepare_more()
def _prepare_more(self):
    self._wait()
--- contextmanager
@contextmanager
def _locked(self):
    with self._lock:
        yield
def load(self):
    with self._locked():
        self._wait()
--- decorator
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
    def load(self):
        self._wait()
--- property
@property
def free(self):
    self._wait()
    return 1
def load(self):
    with self._lock:
        return self.free
--- guard class
#module
class Guard:
    def __init__(self, backend):
        self.backend = backend
    def __enter__(self):
        self.backend._lock.acquire()
        return self
    def __exit__(self, *exc):
        self.backend._lock.release()
class Backend:
    def __init__(self):
        self._lock = threading.RLock()
    def load(self):
        with Guard(self):
            self._wait()
--- with self
def __enter__(self):
    self._lock.acquire()
    return self
def __exit__(self, *exc):
    self._lock.release()
def load(self):
    with self:
        self._wait()
--- a method that returns the lock
def _get_lock(self):
    return self._lock
def load(self):
    with self._get_lock():
        self._wait()
--- the lock as argument
def _run(self, lock):
    with lock:
        self._wait()
def load(self):
    self._run(self._lock)
--- Condition over the lock
def prepare(self):
    self._ready = threading.Condition(self._lock)
def load(self):
    with self._ready:
        self._wait()
--- lock or nullcontext
def load(self, serial):
    with self._lock if serial else nullcontext():
        self._wait()
--- try-lock loop
def load(self):
    while not self._lock.acquire(timeout=1):
        log.info("busy")
    try:
        self._wait()
    finally:
        self._lock.release()
--- got is acquire with timeout
def load(self):
    got = self._lock.acquire(timeout=5)
    self._wait()
    if got:
        self._lock.release()
--- closure called under it
def load(self):
    def step():
        self._wait()
    with self._lock:
        step()
--- bound method called under it
def load(self):
    step = self._wait
    with self._lock:
        step()
--- partial called under it
def load(self):
    step = partial(self._wait, 5)
    with self._lock:
        step()
--- lambda called under it
def load(self):
    step = lambda: self._wait()
    with self._lock:
        step()
--- submit result under it
def load(self, pool):
    with self._lock:
        pool.submit(self._wait).result()
--- thread join under it
def load(self):
    with self._lock:
        thread = threading.Thread(target=self._wait)
        thread.start()
        thread.join()
--- base class
#module
class Base:
    def load(self):
        with self._lock:
            self._wait()
class Backend(Base):
    def __init__(self):
        self._lock = threading.Lock()
    def _wait(self):
        time.sleep(1)
--- super
#module
class Base:
    def prepare(self):
        self._wait()
class Backend(Base):
    def __init__(self):
        self._lock = threading.Lock()
    def prepare(self):
        with self._lock:
            super().prepare()
--- leaked lock
def _begin(self, fast):
    self._lock.acquire()
    if fast:
        return
    self._lock.release()
def load(self, fast):
    self._begin(fast)
    self._wait()
--- dict of locks
def load(self, key):
    with self._lock[key]:
        self._wait()
--- a lock that may be None
def load(self):
    if self._lock is not None:
        self._lock.acquire()
    self._wait()
    if self._lock is not None:
        self._lock.release()
--- a getter per key
def _lock_for(self, key):
    return self._lock.setdefault(key, threading.Lock())
def load(self, key):
    with self._lock_for(key):
        self._wait()
--- await acquire with conditional release
async def load(self, wait):
    await self._lock.acquire()
    if not wait:
        self._lock.release()
    await self._wait()
    if wait:
        self._lock.release()
--- a generator that yields under the lock
def _steps(self):
    with self._lock:
        yield 1
        yield 2
def load(self):
    for step in self._steps():
        self._wait()
--- async with
async def load(self):
    async with self._lock:
        await self._wait()
""",
)

GOOD = shapes(
    "hold",
    "good",
    """
--- a reworded comment
def load(self):
    # the wait comes first, with the lock self._lock not held: self._lock, then _wait()
    self._wait()
    with self._lock:
        pass
--- extracted helper
def load(self):
    self._prepare()
    with self._lock:
        self._spawn()
def _prepare(self):
    self._wait()
def _spawn(self):
    subprocess.Popen(["x"])
--- release wait reacquire
def load(self):
    with self._lock:
        self._lock.release()
        try:
            self._wait()
        finally:
            self._lock.acquire()
--- conditional lock on the same flag
def load(self, serial):
    if serial:
        self._lock.acquire()
    if not serial:
        self._wait()
    if serial:
        self._lock.release()
--- a hand-off flag
def load(self, fast):
    held = False
    if fast:
        self._lock.acquire()
        held = True
    try:
        if not held:
            self._wait()
    finally:
        if held:
            self._lock.release()
--- a failed try-lock that returns
def load(self):
    if not self._lock.acquire(blocking=False):
        self._wait()
        return
    self._lock.release()
--- another lock held
def load(self):
    with self._lock:
        pass
    with self._other:
        self._wait()
--- a closure defined under and called after
def load(self):
    with self._lock:
        def step():
            self._wait()
    step()
""",
)
