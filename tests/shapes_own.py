"""Further shapes, written from the rules alone: a wait under the lock, and waits that are not."""

from __future__ import annotations

from contract_shapes import shapes

BAD = shapes(
    "hold",
    "bad",
    """
--- nested with in a helper of a helper manager
@contextmanager
def _outer(self):
    with self._inner():
        yield
@contextmanager
def _inner(self):
    self._lock.acquire()
    try:
        yield
    finally:
        self._lock.release()
def load(self):
    with self._outer():
        self._wait()
--- released once of twice
def load(self):
    self._lock.acquire()
    self._lock.acquire()
    self._lock.release()
    self._wait()
    self._lock.release()
--- in an except handler under it
def load(self):
    with self._lock:
        try:
            self.start()
        except OSError:
            self._wait()
--- in a finally under it
def load(self):
    with self._lock:
        try:
            self.start()
        finally:
            self._wait()
--- in an else of a loop under it
def load(self, items):
    with self._lock:
        for item in items:
            if item:
                break
        else:
            self._wait()
--- in a comprehension under it
def load(self, items):
    with self._lock:
        return [self._wait() for item in items]
--- in a default expression of a conditional
def load(self, ready):
    with self._lock:
        return 1 if ready else self._wait()
--- released in one branch only
def load(self, fast):
    self._lock.acquire()
    if fast:
        self._lock.release()
    self._wait()
--- acquired by dunder
def load(self):
    self._lock.__enter__()
    self._wait()
    self._lock.__exit__(None, None, None)
--- two aliases
def load(self):
    first = self._lock
    second = first
    with second:
        self._wait()
--- from a list of locks
def load(self):
    for lock in (self._other, self._lock):
        lock.acquire()
    self._wait()
    for lock in (self._other, self._lock):
        lock.release()
--- from a dict display
def load(self):
    locks = {"a": self._lock}
    with locks["a"]:
        self._wait()
--- a class attribute alias
def load(self):
    backend = self
    with backend._lock:
        backend._wait()
--- a module function with an annotated argument
#module
def load(backend: "Backend"):
    with backend._lock:
        backend._wait()
class Backend:
    def __init__(self):
        self._lock = threading.Lock()
--- a module function without annotation
#module
def load(backend):
    with backend._lock:
        backend._wait()
class Backend:
    def __init__(self):
        self._lock = threading.Lock()
--- passed down as a callback
def _under(self, action):
    with self._lock:
        action()
def load(self):
    self._under(self._wait)
--- passed down as a lambda
def _under(self, action):
    with self._lock:
        action()
def load(self):
    self._under(lambda: self._wait())
--- stored callback
def prepare(self):
    self._action = self._wait
def load(self):
    with self._lock:
        self._action()
--- handed to unknown code under it
def load(self, bus):
    with self._lock:
        bus.call_with_retries(self._wait)
--- executor as manager
def load(self):
    with self._lock:
        with ThreadPoolExecutor() as pool:
            pool.submit(self._wait)
--- gather under an asyncio lock
async def load(self):
    async with self._lock:
        await asyncio.gather(self._wait(), self.start())
async def _wait(self):
    await asyncio.sleep(1)
--- wait_for under it
async def load(self):
    async with self._lock:
        await asyncio.wait_for(self._wait(), 5)
async def _wait(self):
    await asyncio.sleep(1)
--- to_thread under it
async def load(self):
    async with self._lock:
        await asyncio.to_thread(self._wait)
--- task awaited under it
async def load(self):
    task = asyncio.create_task(self._wait())
    async with self._lock:
        await task
async def _wait(self):
    await asyncio.sleep(1)
--- subclass takes it
#module
class Backend:
    def __init__(self):
        self._lock = threading.RLock()
    def load(self):
        self._wait()
class Fast(Backend):
    def load(self):
        with self._lock:
            super().load()
--- mixin takes it
#module
class Serial:
    def guarded(self):
        with self._lock:
            self.load()
class Backend(Serial):
    def __init__(self):
        self._lock = threading.RLock()
    def load(self):
        self._wait()
--- recursion under it
def load(self, again=False):
    if again:
        self._wait()
        return
    with self._lock:
        self.load(True)
--- nested function takes it
def load(self):
    def locked():
        self._lock.acquire()
    locked()
    self._wait()
--- after a swallowed exception of the release
def load(self):
    self._lock.acquire()
    try:
        self.start()
        self._lock.release()
    except OSError:
        pass
    self._wait()
--- stack callback
def load(self):
    with ExitStack() as stack:
        self._lock.acquire()
        stack.callback(self._lock.release)
        self._wait()
--- match under it
def load(self, mode):
    with self._lock:
        match mode:
            case "slow":
                self._wait()
--- decorator with arguments
#module
def locked(name):
    def decorate(function):
        def inner(self, *args, **kwargs):
            with getattr(self, name):
                return function(self, *args, **kwargs)
        return inner
    return decorate
class Backend:
    def __init__(self):
        self._lock = threading.RLock()
    @locked("_lock")
    def load(self):
        self._wait()
--- a thread class joined under it
#module
class Worker(threading.Thread):
    def __init__(self, backend):
        super().__init__()
        self.backend = backend
    def run(self):
        self.backend._wait()
class Backend:
    def __init__(self):
        self._lock = threading.RLock()
    def load(self):
        worker = Worker(self)
        worker.start()
        with self._lock:
            worker.join()
--- stored thread joined under it
def prepare(self):
    self._thread = threading.Thread(target=self._wait)
    self._thread.start()
def load(self):
    with self._lock:
        self._thread.join()
--- Condition wait then wait
def load(self):
    with self._lock:
        self._lock.wait()
        self._wait()
--- the wait called through the class
def load(self):
    with self._lock:
        Backend._wait(self)
def _wait(self):
    time.sleep(1)
--- getattr of the wait
def load(self):
    with self._lock:
        getattr(self, "_wait")()
--- yield from under it
def _wait(self):
    yield 1
def load(self):
    with self._lock:
        yield from self._wait()
--- lock in a default argument helper
def _hold(self, lock=None):
    lock = lock or self._lock
    lock.acquire()
def load(self):
    self._hold()
    self._wait()
""",
)

GOOD = shapes(
    "hold",
    "good",
    """
--- after the with
def load(self):
    with self._lock:
        self.start()
    self._wait()
--- between two with
def load(self):
    with self._lock:
        self.start()
    self._wait()
    with self._lock:
        self.start()
--- manager left before
@contextmanager
def _locked(self):
    with self._lock:
        yield
def load(self):
    with self._locked():
        self.start()
    self._wait()
--- early return under it
def load(self, fast):
    with self._lock:
        if fast:
            return
    self._wait()
--- exception under it is handled outside
def load(self):
    try:
        with self._lock:
            self.start()
    except OSError:
        self._wait()
--- thread not joined
def load(self):
    with self._lock:
        threading.Thread(target=self._wait, daemon=True).start()
--- task not awaited under it
async def _wait(self):
    await asyncio.sleep(1)
async def load(self):
    async with self._lock:
        task = asyncio.create_task(self._wait())
    await task
--- stack closed before
def load(self):
    with ExitStack() as stack:
        stack.enter_context(self._lock)
        stack.close()
        self._wait()
--- try-lock that failed
def load(self):
    got = self._lock.acquire(timeout=1)
    if got:
        self._lock.release()
    self._wait()
--- another class with a lock of that name
#module
class Cache:
    def __init__(self):
        self._lock = threading.Lock()
    def fill(self, backend: "Backend"):
        with self._lock:
            backend._wait()
class Backend:
    def __init__(self):
        self._lock = threading.Lock()
    def load(self):
        self._wait()
        with self._lock:
            pass
--- a flag that is looked at twice
def load(self, serial):
    if serial:
        self._lock.acquire()
    try:
        self.start()
    finally:
        if serial:
            self._lock.release()
    self._wait()
--- break out of a locked loop
def load(self, items):
    for item in items:
        with self._lock:
            if item:
                break
    self._wait()
--- generator closed
def _steps(self):
    with self._lock:
        yield 1
def load(self):
    for step in self._steps():
        pass
    self._wait()
--- async after
async def load(self):
    async with self._lock:
        await self.start()
    await self._wait()
""",
)
