"""Waits under the lock that try to slip through, the second half."""

from __future__ import annotations

from contract_shapes import Shape, shapes

BAD = shapes(
    "hold",
    "bad",
    """
--- lock released in a callback only
def load(self, stack):
    self._lock.acquire()
    stack.defer(self._lock.release)
    self._wait()
--- global alias
#module
class Backend:
    def __init__(self):
        self._lock = threading.RLock()
    def publish(self):
        global GUARD
        GUARD = self._lock
    def load(self):
        with GUARD:
            self._wait()
--- class body alias
#module
class Backend:
    _lock = threading.RLock()
    _guard = _lock
    def load(self):
        with self._guard:
            self._wait()
--- class level through the name
#module
class Backend:
    _lock = threading.RLock()
    def load(self):
        with Backend._lock:
            self._wait()
--- type self
#module
class Backend:
    _lock = threading.RLock()
    def load(self):
        with type(self)._lock:
            self._wait()
--- self.__class__
#module
class Backend:
    _lock = threading.RLock()
    def load(self):
        with self.__class__._lock:
            self._wait()
--- dict access
def load(self):
    with self.__dict__["_lock"]:
        self._wait()
--- vars access
def load(self):
    with vars(self)["_lock"]:
        self._wait()
--- attrgetter
def load(self):
    import operator
    with operator.attrgetter("_lock")(self):
        self._wait()
--- nonlocal
def load(self):
    lock = None
    def choose():
        nonlocal lock
        lock = self._lock
    choose()
    with lock:
        self._wait()
--- copied in a namedtuple of a project
#module
import dataclasses
@dataclasses.dataclass
class Pack:
    lock: object
    n: int = 0
class Backend:
    def __init__(self):
        self._lock = threading.RLock()
    def load(self):
        pack = Pack(self._lock)
        with pack.lock:
            self._wait()
--- kwargs
def _run(self, **options):
    with options["lock"]:
        self._wait()
def load(self):
    self._run(lock=self._lock)
--- star args
def _run(self, *locks):
    for lock in locks:
        lock.acquire()
    self._wait()
def load(self):
    self._run(self._lock, self._other)
--- conditional release in finally
def load(self, ok):
    self._lock.acquire()
    try:
        pass
    finally:
        if ok:
            self._lock.release()
    self._wait()
--- raise between
def _enter(self):
    self._lock.acquire()
    if self.broken():
        raise RuntimeError("x")
    self._lock.release()
def load(self):
    try:
        self._enter()
    except RuntimeError:
        self._wait()
--- decorator class
#module
class Locked:
    def __init__(self, function):
        self.function = function
    def __call__(self, backend):
        with backend._lock:
            return self.function(backend)
class Backend:
    def __init__(self):
        self._lock = threading.RLock()
    @Locked
    def load(self):
        self._wait()
--- decorator applied by hand
#module
def locked(function):
    def inner(self):
        with self._lock:
            return function(self)
    return inner
class Backend:
    def __init__(self):
        self._lock = threading.RLock()
    def _load(self):
        self._wait()
    load = locked(_load)
--- manager instance kept
#module
class Guard:
    def __init__(self, lock):
        self.lock = lock
    def __enter__(self):
        self.lock.acquire()
    def __exit__(self, *exc):
        self.lock.release()
class Backend:
    def __init__(self):
        self._lock = threading.RLock()
        self._guard = Guard(self._lock)
    def load(self):
        with self._guard:
            self._wait()
--- manager as decorator
@contextmanager
def _locked(self):
    with self._lock:
        yield
def load(self):
    @self._locked()
    def step():
        self._wait()
    step()
--- closing over a released alias
def load(self):
    a = self._lock
    a.acquire()
    b = self._other
    b.release()
    self._wait()
--- wait stored on another object
def load(self, other):
    other.wait_hook = self._wait
    with self._lock:
        other.run_hooks()
--- wait in partialmethod
def load(self):
    with self._lock:
        functools.reduce(lambda a, b: self._wait(), [1, 2])
--- in a nested with async helper
async def _hold(self):
    await self._lock.acquire()
async def load(self):
    await self._hold()
    await self._wait()
--- try finally wrong lock
def load(self):
    self._lock.acquire()
    try:
        self.start()
    finally:
        self._other.release()
    self._wait()
--- stack enter in helper
def _hold(self, stack):
    stack.enter_context(self._lock)
def load(self):
    with ExitStack() as stack:
        self._hold(stack)
        self._wait()
--- iter sentinel
def load(self):
    with self._lock:
        for x in iter(self._wait, None):
            pass
--- del-time
def __del__(self):
    with self._lock:
        self._wait()
--- sorted key lambda
def load(self, items):
    with self._lock:
        sorted(items, key=lambda x: self._wait())
--- while else
def load(self):
    with self._lock:
        while self.busy():
            pass
        else:
            self._wait()
--- yield in the middle, generator stepped
def _held(self):
    self._lock.acquire()
    yield
    self._lock.release()
def load(self):
    g = self._held()
    next(g)
    self._wait()
--- timer under join
def load(self):
    timer = threading.Timer(1, self._wait)
    timer.start()
    with self._lock:
        timer.join()
--- executor map
def load(self, items):
    with self._lock:
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._wait, items))
--- wait(futures)
def load(self, pool):
    import concurrent.futures
    f = pool.submit(self._wait)
    with self._lock:
        concurrent.futures.wait([f])
--- as_completed
def load(self, pool):
    from concurrent.futures import as_completed
    f = pool.submit(self._wait)
    with self._lock:
        for x in as_completed([f]):
            pass
--- queue worker
def load(self):
    with self._lock:
        self._jobs.put(self._wait)
        self._jobs.join()
""",
)

GOOD: list[Shape] = []
