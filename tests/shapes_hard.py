"""Shapes that try to slip through: indirection, odd syntax, exceptions, other threads."""

from __future__ import annotations

from contract_shapes import shapes

BAD = (
    shapes(
        "hold",
        "bad",
        """
--- wait in the with items themselves
def load(self):
    with self._lock, self.settled(self._wait()):
        pass
--- wait as an argument
def load(self):
    with self._lock:
        self.use(1, free=self._wait())
--- wait in an f-string
def load(self):
    with self._lock:
        log.info(f"free: {self._wait()}")
--- wait in a subscript
def load(self, table):
    with self._lock:
        table[self._wait()] = 1
--- wait in an assert
def load(self):
    with self._lock:
        assert self._wait()
--- wait in a while test
def load(self):
    with self._lock:
        while self._wait():
            pass
--- wait in a return
def load(self):
    with self._lock:
        return self._wait()
--- wait in a starred argument
def load(self):
    with self._lock:
        self.use(*self._wait())
--- wait in an augmented assignment
def load(self):
    with self._lock:
        self.total += self._wait()
--- wait in a raise
def load(self):
    with self._lock:
        raise RuntimeError(self._wait())
--- wait in a delete
def load(self, table):
    with self._lock:
        del table[self._wait()]
--- wait in a slice
def load(self, items):
    with self._lock:
        return items[self._wait():]
--- wait in a dict display
def load(self):
    with self._lock:
        return {"free": self._wait()}
--- wait in a comprehension's condition
def load(self, items):
    with self._lock:
        return [item for item in items if self._wait()]
--- wait in a generator consumed
def load(self, items):
    with self._lock:
        return sum(self._wait() for item in items)
--- wait in a match guard
def load(self, mode):
    with self._lock:
        match mode:
            case "a" if self._wait():
                pass
--- wait in a chained comparison
def load(self):
    with self._lock:
        return 0 < self._wait() < 9
--- wait in a walrus
def load(self):
    with self._lock:
        if (free := self._wait()):
            return free
--- operator call
def load(self):
    import operator
    with self._lock:
        operator.methodcaller("_wait")(self)
--- map under it
def load(self, items):
    with self._lock:
        list(map(self._wait, items))
--- key function under it
def load(self, items):
    with self._lock:
        items.sort(key=self._wait)
--- exit stack of a class
def prepare(self):
    self._stack = ExitStack()
def load(self):
    with ExitStack() as stack:
        stack.push(self._lock)
        self._lock.acquire()
        self._wait()
--- with of an attribute of an attribute
def prepare(self, other):
    self._holder = other
    self._holder.lock = self._lock
def load(self):
    with self._holder.lock:
        self._wait()
--- lock kept in a list attribute
def prepare(self):
    self._locks = [self._lock]
def load(self):
    with self._locks[0]:
        self._wait()
--- lock kept in a dict attribute
def prepare(self):
    self._locks = {"load": self._lock}
def load(self):
    with self._locks["load"]:
        self._wait()
--- enter method bound
def load(self):
    take = self._lock.acquire
    take()
    self._wait()
--- class method helper
@classmethod
def _run(cls, backend):
    backend._wait()
def load(self):
    with self._lock:
        self._run(self)
--- static helper
@staticmethod
def _run(action):
    action()
def load(self):
    with self._lock:
        Backend._run(self._wait)
--- nested class instance
def load(self):
    class Step:
        def run(inner):
            self._wait()
    with self._lock:
        Step().run()
--- default argument
def load(self):
    def step(action=self._wait):
        action()
    with self._lock:
        step()
--- returned closure
def _make(self):
    def step():
        self._wait()
    return step
def load(self):
    step = self._make()
    with self._lock:
        step()
--- callable object
#module
class Step:
    def __init__(self, backend):
        self.backend = backend
    def __call__(self):
        self.backend._wait()
class Backend:
    def __init__(self):
        self._lock = threading.RLock()
    def load(self):
        step = Step(self)
        with self._lock:
            step()
--- module global instance
#module
class Backend:
    def __init__(self):
        self._lock = threading.RLock()
    def load(self):
        self._wait()
backend = Backend()
def reload():
    with backend._lock:
        backend.load()
--- unknown object of the class
#module
class Backend:
    def __init__(self):
        self._lock = threading.RLock()
    def load_model(self):
        self._wait()
    def reload(self, other):
        with self._lock:
            other.load_model()
--- setter
#module
class Backend:
    def __init__(self):
        self._lock = threading.RLock()
    @property
    def model(self):
        return 1
    @model.setter
    def model(self, value):
        self._wait()
    def load(self):
        with self._lock:
            self.model = 1
--- cached property
@functools.cached_property
def free(self):
    return self._wait()
def load(self):
    with self._lock:
        return self.free
--- contextmanager that waits
@contextmanager
def _settled(self):
    self._wait()
    yield
def load(self):
    with self._lock, self._settled():
        pass
--- released in a finally that runs too late
def load(self):
    try:
        self._lock.acquire()
        self._wait()
    finally:
        self._lock.release()
--- two locks released in the wrong order
def load(self):
    self._lock.acquire()
    self._other.acquire()
    self._other.release()
    self._wait()
    self._lock.release()
--- released by the other branch's flag
def load(self, a, b):
    if a:
        self._lock.acquire()
    if b:
        self._lock.release()
    self._wait()
--- flag overwritten
def load(self, fast):
    held = True
    self._lock.acquire()
    held = fast
    if held:
        self._lock.release()
    self._wait()
--- try-lock whose answer is ignored
def load(self):
    self._lock.acquire(blocking=False)
    self._wait()
--- async generator
async def _steps(self):
    async with self._lock:
        yield 1
async def load(self):
    async for step in self._steps():
        await self._wait()
--- task group under it
async def load(self):
    async with self._lock:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._wait())
async def _wait(self):
    await asyncio.sleep(1)
--- asyncio run under it
async def _wait(self):
    await asyncio.sleep(1)
def load(self):
    with self._lock:
        asyncio.run(self._wait())
--- future kept and asked under it
def load(self, pool):
    future = pool.submit(self._wait)
    with self._lock:
        return future.result()
--- futures in a list
def load(self, pool):
    futures = [pool.submit(self._wait) for _ in range(3)]
    with self._lock:
        for future in futures:
            future.result()
--- except star
def load(self):
    with self._lock:
        try:
            self.start()
        except* OSError:
            self._wait()
""",
    )
    + shapes(
        "precede",
        "bad",
        """
--- wait only on KeyError
def load(self, table):
    try:
        table["x"]
    except KeyError:
        self._wait()
    subprocess.Popen(["x"])
--- else of a try
def load(self):
    try:
        self.check()
    except OSError:
        pass
    else:
        self._wait()
    subprocess.Popen(["x"])
--- helper swallows
def _try_wait(self):
    try:
        self._wait()
    except Exception:
        return False
    return True
def load(self):
    self._try_wait()
    subprocess.Popen(["x"])
--- imported name of the spawn
def load(self):
    from subprocess import Popen
    Popen(["x"])
    self._wait()
--- future not awaited
def load(self, pool):
    pool.submit(self._wait)
    subprocess.Popen(["x"])
--- result with a timeout
def load(self, pool):
    try:
        pool.submit(self._wait).result(timeout=1)
    except TimeoutError:
        pass
    subprocess.Popen(["x"])
--- passed to something
def load(self):
    self.schedule(self._wait)
    subprocess.Popen(["x"])
--- manager that swallows
#module
class Quiet:
    def __enter__(self):
        return self
    def __exit__(self, *exc):
        return True
class Backend:
    def __init__(self):
        self._process = None
    def stop(self):
        self._process.terminate()
    def load(self):
        with Quiet():
            self._wait()
        subprocess.Popen(["x"])
""",
    )
    + shapes(
        "follow",
        "bad",
        """
--- stamp with an offset
def _kill(self):
    self._process.terminate()
    self._last = time.monotonic() - 5
--- stamp taken before the kill
def _kill(self):
    now = time.monotonic()
    self._process.terminate()
    self._last = now
--- stamp on another object
def _kill(self, other):
    self._process.terminate()
    other._last = time.monotonic()
--- stamp in a swallowing try
def _kill(self):
    self._process.terminate()
    try:
        self.clear()
        self._last = time.monotonic()
    except Exception:
        pass
--- kill by an alias without a stamp
def _kill(self):
    process, self._process = self._process, None
    process.terminate()
def other(self):
    self._last = time.monotonic()
""",
    )
    + shapes(
        "recheck",
        "bad",
        """
--- stored and not looked at
def load(self):
    with self._lock:
        self.cancelled = self._cancel.is_set()
        subprocess.Popen(["x"])
--- another event
def load(self, other):
    with self._lock:
        if other.is_set():
            return
        subprocess.Popen(["x"])
def cancelled(self):
    return self._cancel.is_set()
--- in a loop that may not run
def load(self, items):
    with self._lock:
        for item in items:
            if self._cancel.is_set():
                return
        subprocess.Popen(["x"])
--- asserted away
def load(self):
    with self._lock:
        assert not self._cancel.is_set()
        subprocess.Popen(["x"])
""",
    )
)

GOOD = shapes(
    "hold",
    "good",
    """
--- async release and reacquire
async def load(self):
    async with self._lock:
        self._lock.release()
        try:
            await self._wait()
        finally:
            await self._lock.acquire()
--- two flags that agree
def load(self, serial):
    held = serial
    if held:
        self._lock.acquire()
    if held:
        self._lock.release()
    self._wait()
--- a lock that may be None, let go
def load(self):
    if self._lock is not None:
        self._lock.acquire()
    if self._lock is not None:
        self._lock.release()
    self._wait()
""",
) + shapes(
    "precede",
    "good",
    """
--- manager of the project
@contextmanager
def _settled(self):
    self._wait()
    yield
def load(self):
    with self._settled():
        subprocess.Popen(["x"])
--- until it works
def load(self):
    while True:
        try:
            self._wait()
            break
        except OSError:
            continue
    subprocess.Popen(["x"])
""",
)
