"""Further shapes: what runs without being called by name, values that change hands, and ways that are easily lost."""

from __future__ import annotations

from contract_shapes import shapes

BAD = shapes(
    "hold",
    "bad",
    """
--- appended hook
def add(self):
    self.hooks.append(self._wait)
def load(self):
    with self._lock:
        for hook in self.hooks:
            hook()
--- optional annotated parameter
#module
import threading
class Helper:
    def go(self): pass
class Backend:
    def __init__(self):
        self._lock = threading.Lock()
    def load(self, helper: Helper | None = None):
        with self._lock:
            if helper is None:
                self._wait()
--- instance attribute over a method
def _prepare(self): pass
def configure(self):
    self._prepare = self._wait
def load(self):
    with self._lock:
        self._prepare()
--- global in a nested function
def load(self):
    def inner():
        global HOOK
        HOOK = self._wait
    inner()
def other(self):
    with self._lock:
        HOOK()
--- starred target
def _ok(self): pass
def load(self):
    first, *rest = self._ok, self._wait
    with self._lock:
        rest[0]()
--- own iterator
#module
import threading
class It:
    def __init__(self, b): self.b = b
    def __iter__(self):
        self.b._wait()
        return iter(())
class Backend:
    def __init__(self):
        self._lock = threading.Lock()
    def load(self):
        with self._lock:
            for x in It(self):
                pass
--- own getitem of self
def __getitem__(self, key):
    self._wait()
def load(self):
    with self._lock:
        self[0]
--- own contains of self
def __contains__(self, key):
    self._wait()
def load(self, x):
    with self._lock:
        return x in self
--- own iter of self
def __iter__(self):
    self._wait()
    yield 1
def load(self, x):
    with self._lock:
        return list(self)
--- match capture of the function
def load(self):
    with self._lock:
        match self._wait:
            case f:
                f()
--- match capture of the lock
def load(self):
    match self._lock:
        case lock:
            with lock:
                self._wait()
--- match sequence capture
def load(self):
    match (self._lock, 1):
        case (lock, _):
            with lock:
                self._wait()
--- nonlocal by a callback
def load(self, ext):
    done = False
    def cb():
        nonlocal done
        done = True
    ext.run(cb)
    with self._lock:
        if done:
            self._wait()
--- fact on a mutated list
def load(self, items):
    with self._lock:
        if items:
            return
        items.append(1)
        if items:
            self._wait()
--- worker stop
#module
import threading
class Worker:
    def __init__(self, b): self.b = b
    def stop(self):
        self.b._wait()
class Backend:
    def __init__(self):
        self._lock = threading.Lock()
        self._worker = Worker(self)
    def load(self):
        with self._lock:
            self._worker.stop()
--- computed getattr call
def load(self, what):
    with self._lock:
        getattr(self, "_" + what)()
def go(self):
    self._wait()
--- exit callback pushed
def _done(self, *exc):
    self._wait()
def load(self):
    with self._lock, ExitStack() as stack:
        stack.push(self._done)
--- after the yield, on a stack
@contextmanager
def _m(self):
    yield
    self._wait()
def load(self):
    with self._lock:
        with ExitStack() as stack:
            stack.enter_context(self._m())
            self.go()
--- wait_for predicate
def load(self):
    with self._lock:
        self._lock.wait_for(self._wait)
--- map of functions
def load(self):
    with self._lock:
        list(map(lambda f: f(), [self._wait, self._wait]))
--- thread kwargs
def _run(self, f):
    f()
def load(self):
    with self._lock:
        t = threading.Thread(target=self._run, kwargs={"f": self._wait})
        t.start()
        t.join()
--- timer args
def _run(self, f):
    f()
def load(self):
    with self._lock:
        t = threading.Timer(1, self._run, [self._wait])
        t.start()
        t.join()
--- star args before
def _run(self, a, b, f):
    f()
def load(self, xs):
    with self._lock:
        self._run(*xs, self._wait)
--- taken five times, let go four times
def load(self):
    self._lock.acquire()
    self._lock.acquire()
    self._lock.acquire()
    self._lock.acquire()
    self._lock.acquire()
    self._lock.release()
    self._lock.release()
    self._lock.release()
    self._lock.release()
    self._wait()
    self._lock.release()
--- enumerate
def load(self):
    with self._lock:
        for n, f in enumerate((self._wait,)):
            f()
--- dict items
def load(self):
    with self._lock:
        for n, f in {"a": self._wait}.items():
            f()
--- nested comprehension
def load(self):
    with self._lock:
        [f() for fs in [[self._wait]] for f in fs]
--- subscript del raises
def load(self, x):
    self._lock.acquire()
    try:
        del x[0]
        self._lock.release()
    except KeyError:
        self._wait()
--- augmented subscript raises
def load(self, x):
    self._lock.acquire()
    try:
        x[0] += 1
        self._lock.release()
    except KeyError:
        self._wait()
--- an attribute that others set meanwhile
def begin(self):
    self._busy = True
def load(self, ext):
    with self._lock:
        if self._busy:
            return
        ext.run()
        if self._busy:
            self._wait()
--- a generator that is closed early
def _items(self):
    try:
        yield 1
    except GeneratorExit:
        self._wait()
def load(self):
    with self._lock:
        for item in self._items():
            break
--- a guard that does not hold
def load(self, x):
    with self._lock:
        match x:
            case _ if x.ok:
                return self._lock.locked()
        self._wait()
--- after an endless loop that is broken out of
def load(self, x):
    with self._lock:
        while True:
            if x.ok():
                break
        self._wait()
--- an unknown thread joined, one of ours exists
def start(self):
    self._thread = threading.Thread(target=self._wait)
    self._thread.start()
def load(self, registry):
    with self._lock:
        registry.worker.join()
""",
)
BAD += shapes(
    "precede",
    "bad",
    """
--- manager on a stack that swallows
@contextmanager
def _quiet(self):
    try:
        yield
    except Exception:
        pass
def load(self):
    with ExitStack() as stack:
        stack.enter_context(self._quiet())
        self._wait()
    subprocess.Popen("x")
--- object on a stack that swallows
#module
import subprocess
from contextlib import ExitStack
class Quiet:
    def __enter__(self): return self
    def __exit__(self, *exc): return True
class Backend:
    def _wait(self): pass
    def load(self):
        with ExitStack() as stack:
            stack.enter_context(Quiet())
            self._wait()
        subprocess.Popen("x")
    def stop(self): self._process.terminate()
--- gather with exceptions returned
async def load(self):
    await asyncio.gather(self._wait(), return_exceptions=True)
    subprocess.Popen("x")
async def _wait(self): pass
--- overridden helper
#module
import subprocess
class Backend:
    def _wait(self): pass
    def load(self):
        self._prepare()
        subprocess.Popen("x")
    def _prepare(self):
        self._wait()
    def stop(self): self._process.terminate()
class Fast(Backend):
    def _prepare(self):
        pass
--- base exception of ours
#module
import subprocess
class Stop(BaseException): pass
class Backend:
    def _wait(self): pass
    def load(self):
        try:
            try:
                raise Stop
            except Exception:
                self._wait()
        finally:
            subprocess.Popen("x")
    def stop(self): self._process.terminate()
--- the wait of another object
def load(self, other):
    other._wait()
    subprocess.Popen("x")
--- a coroutine of an unknown base, not awaited
async def other(self):
    await self._wait()
async def load(self):
    self._wait()
    subprocess.Popen("x")
--- a helper under a decorator of others
@functools.singledispatch
def _prepare(self):
    self._wait()
def load(self):
    self._prepare()
    subprocess.Popen("x")
--- joined with a limit
def load(self):
    thread = threading.Thread(target=self._wait)
    thread.start()
    thread.join(1)
    subprocess.Popen("x")
--- in a comprehension over what may be empty
def load(self, items):
    [self._wait() for item in items]
    subprocess.Popen("x")
""",
)
BAD += shapes(
    "follow",
    "bad",
    """
--- del raises
def _kill(self, table, pid):
    self._process.terminate()
    del table[pid]
    self._last = time.monotonic()
--- augmented subscript
def _kill(self, table, pid):
    self._process.terminate()
    table[pid] += 1
    self._last = time.monotonic()
--- own base exception
#module
import time
class Stop(BaseException): pass
class Backend:
    def _kill(self):
        self._process.terminate()
        try:
            raise Stop
        except Exception:
            pass
        self._last = time.monotonic()
--- overwritten by vars
def _kill(self):
    self._process.terminate()
    self._last = time.monotonic()
    vars(self)["_last"] = 0
--- kill in a stack manager
@contextmanager
def _m(self):
    yield
    self._process.terminate()
def _kill(self):
    with ExitStack() as s:
        s.enter_context(self._m())
--- stamped only in subclass override
#module
import time
class Backend:
    def _kill(self):
        self._process.terminate()
        self._stamp()
    def _stamp(self):
        self._last = time.monotonic()
class Other(Backend):
    def _stamp(self):
        pass
--- what is no Exception
def _kill(self):
    self._process.terminate()
    try:
        raise KeyboardInterrupt
    except Exception:
        pass
    self._last = time.monotonic()
--- cancelled at an await
async def _kill(self):
    self._process.terminate()
    await self._gone
    self._last = time.monotonic()
""",
)
GOOD = shapes(
    "hold",
    "good",
    """
--- a lock of that name of an unknown object
def load(self, other):
    with self._lock:
        pass
    with other._lock:
        self._wait()
--- as often let go as taken
def load(self):
    self._lock.acquire()
    self._lock.acquire()
    self._lock.acquire()
    self._lock.release()
    self._lock.release()
    self._lock.release()
    self._wait()
--- as often let go as taken, five times
def load(self):
    self._lock.acquire()
    self._lock.acquire()
    self._lock.acquire()
    self._lock.acquire()
    self._lock.acquire()
    self._lock.release()
    self._lock.release()
    self._lock.release()
    self._lock.release()
    self._lock.release()
    self._wait()
--- a manager on a stack that catches nothing
@contextmanager
def _noted(self):
    try:
        yield
    finally:
        self._other.release()
def load(self):
    with ExitStack() as stack:
        stack.enter_context(self._noted())
        with self._lock:
            self.stop()
    self._wait()
""",
)
