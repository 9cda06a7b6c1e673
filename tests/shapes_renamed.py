"""One lock or call under several names, and what else changes behind a contract's back; and look-alikes."""

from __future__ import annotations

from contract_shapes import shapes

_INIT = """#module
{top}
class Backend:
    def __init__(self, lock=None):
{init}
        self._cancel = threading.Event()
        self._process = None
    def _wait(self):
        time.sleep(1)
    def free(self):
        with self._lock:
            pass
        self._wait()
{body}
"""


def locks(*cases: tuple[str, str, str, str]) -> str:
    """(name, the lines of `__init__`, the method, what stands above the class)."""
    return "".join(
        f"\n--- {name}\n" + _INIT.format(top=top, init=_indented(init, 8), body=_indented(body, 4))
        for name, init, body, top in cases
    )


def _indented(text: str, by: int) -> str:
    return "\n".join(" " * by + line for line in text.splitlines())


_UNDER = "def load(self):\n    with self._mutex:\n        self._wait()"
_GLOBAL = "def load(self):\n    with GATE:\n        self._wait()"

BAD = [
    *shapes(
        "hold",
        "bad",
        locks(
            ("assigned from another attribute", "self._mutex = threading.Lock()\nself._lock = self._mutex", _UNDER, ""),
            ("both at once", "self._mutex = self._lock = threading.Lock()", _UNDER, ""),
            ("both from a local", "made = threading.Lock()\nself._mutex = made\nself._lock = made", _UNDER, ""),
            ("both in one tuple", "made = threading.Lock()\nself._mutex, self._lock = made, made", _UNDER, ""),
            ("both from a parameter", "self._mutex = lock\nself._lock = lock", _UNDER, ""),
            ("a module's global", "self._lock = GATE", _GLOBAL, "GATE = threading.Lock()"),
            ("a global, or a new one", "self._lock = lock or GATE", _GLOBAL, "GATE = threading.Lock()"),
            (
                "given by the caller",
                "self._lock = lock",
                _GLOBAL,
                "GATE = threading.Lock()\ndef make():\n    return Backend(lock=GATE)",
            ),
            (
                "over which a condition is",
                "made = threading.RLock()\nself._mutex = threading.Condition(made)\nself._lock = made",
                _UNDER,
                "",
            ),
            ("out of a condition", "self._mutex = threading.Condition()\nself._lock = self._mutex._lock", _UNDER, ""),
            ("of the class's body", "pass", "_mutex = threading.Lock()\n_lock = _mutex\n" + _UNDER, ""),
            (
                "by way of two",
                "self._first = threading.Lock()\nself._mutex = self._first\nself._lock = self._first",
                _UNDER,
                "",
            ),
        ),
    ),
    *shapes(
        "precede",
        "bad",
        """
--- a comparison that stops early
def load(self, level):
    0 < level < self._wait()
    subprocess.Popen(["x"])
--- both gathered
async def _wait(self):
    await asyncio.sleep(1)
async def _spawn(self):
    subprocess.Popen(["x"])
async def load(self):
    await asyncio.gather(self._wait(), self._spawn())
--- the spawn as a default
def load(self, spawn=subprocess.Popen):
    spawn(["x"])
--- the spawn by an import of its own
def load(self):
    from subprocess import Popen as start
    start(["x"])
--- waited for as an assertion
def load(self):
    assert self._wait() is None
    subprocess.Popen(["x"])
--- a cached property waits
@functools.cached_property
def settled(self):
    self._wait()
def load(self):
    self.settled
    subprocess.Popen(["x"])
--- the killed process under another name
def load(self):
    self._old = self._process
    self._wait()
    self._reap()
    subprocess.Popen(["x"])
def _reap(self):
    self._old.terminate()
--- killed through map
def load(self):
    self._wait()
    list(map(lambda process: process.terminate(), [self._process]))
    subprocess.Popen(["x"])
--- another object waits
def load(self):
    other = Backend()
    other._wait()
    subprocess.Popen(["x"])
def _wait(self):
    time.sleep(1)
--- a method that is switched off
def load(self):
    self._settle()
    subprocess.Popen(["x"])
def _settle(self):
    self._wait()
def quick(self):
    self._settle = lambda: None
""",
    ),
    *shapes(
        "precede",
        "bad",
        """
--- a subclass that overrides it
#module
class Backend:
    def load(self):
        self._wait()
        subprocess.Popen(["x"])
    def stop(self):
        self._process.terminate()
class Quick(Backend):
    def load(self):
        subprocess.Popen(["x"])
--- a class made of the spawn
#module
class Server(subprocess.Popen):
    pass
class Backend:
    def load(self):
        Server(["x"])
        self._wait()
        subprocess.Popen(["y"])
    def stop(self):
        self._process.terminate()
--- one of two modules by that name
#module
try:
    import psutil as processes
except ImportError:
    import subprocess as processes
class Backend:
    def load(self):
        processes.Popen(["x"])
        self._wait()
        subprocess.Popen(["y"])
    def stop(self):
        self._process.terminate()
""",
    ),
    *shapes(
        "follow",
        "bad",
        """
--- taken back through the dict
def _kill(self):
    self._process.terminate()
    self._last = time.monotonic()
    self.__dict__.update(_last=None)
--- taken back through vars
def _kill(self, names):
    self._process.terminate()
    self._last = time.monotonic()
    vars(self).update(names)
--- begun anew
def _kill(self):
    self._process.terminate()
    self._last = time.monotonic()
    self.__init__()
--- a setter that may store nothing
@property
def _last(self):
    return 0.0
@_last.setter
def _last(self, value):
    pass
def _kill(self):
    self._process.terminate()
    self._last = time.monotonic()
--- stored by a method that may not
def __setattr__(self, name, value):
    pass
def _kill(self):
    self._process.terminate()
    self._last = time.monotonic()
--- a helper with the wrong clock
def now(self):
    return time.time()
def _kill(self):
    self._process.terminate()
    self._last = self.now()
--- a time that is none
#module
class time:
    @staticmethod
    def monotonic():
        return 0
class Backend:
    def _kill(self):
        self._process.terminate()
        self._last = time.monotonic()
--- a subclass that does not stamp
#module
class Backend:
    def _kill(self):
        self._process.terminate()
        self._last = time.monotonic()
class Quick(Backend):
    def _kill(self):
        self._process.terminate()
""",
    ),
    *shapes(
        "recheck",
        "bad",
        """
--- let go before the spawn
def load(self):
    with self._lock:
        if self._cancel.is_set():
            return
    subprocess.Popen(["x"])
--- let go by hand before the spawn
def load(self):
    self._lock.acquire()
    if self._cancel.is_set():
        self._lock.release()
        return
    self._lock.release()
    self._start()
def _start(self):
    subprocess.Popen(["x"])
--- spawned by a thread that goes on after it
def load(self):
    with self._lock:
        if self._cancel.is_set():
            return
        threading.Thread(target=lambda: subprocess.Popen(["x"])).start()
--- cleared before it is asked
def load(self):
    with self._lock:
        self._cancel.clear()
        if self._cancel.is_set():
            return
        subprocess.Popen(["x"])
--- another event before it is asked
def load(self):
    with self._lock:
        self._cancel = threading.Event()
        if self._cancel.is_set():
            return
        subprocess.Popen(["x"])
""",
    ),
    *shapes(
        "name",
        "bad",
        """
--- a class of that name
#module
class had_live_process:
    pass
class Backend:
    pass
--- a module of that name
#module
from package.had_live_process import thing
class Backend:
    pass
--- the rest of a mapping
def load(self, options):
    match options:
        case {"a": 1, **had_live_process}:
            return True
--- behind a dot in attrgetter
def load(self):
    return operator.attrgetter("process.had_live_process")(self)
--- in a text that is run
def load(self):
    exec("self.had_live_process = True")
--- among the fields of a namedtuple
#module
Snapshot = collections.namedtuple("Snapshot", "pid had_live_process")
class Backend:
    pass
--- patched by its path
#module
patched = mock.patch("myapp.backend.Backend.had_live_process")
class Backend:
    pass
--- in another alphabet
def load(self):
    self.had_live_proce\u017fs = True
""",
    ),
]

GOOD = [
    *shapes(
        "hold",
        "good",
        locks(
            (
                "another lock from a local",
                "made = threading.Lock()\nself._mutex = made\nself._lock = threading.Lock()",
                _UNDER,
                "",
            ),
            ("a global that is another", "self._lock = threading.Lock()", _GLOBAL, "GATE = threading.Lock()"),
            (
                "a condition of its own",
                "self._mutex = threading.Condition()\nself._lock = threading.Lock()",
                _UNDER,
                "",
            ),
            (
                "two made in one line",
                "self._mutex, self._lock = threading.Lock(), threading.Lock()",
                _UNDER,
                "",
            ),
            (
                "given by the caller, who keeps another",
                "self._lock = lock",
                _GLOBAL,
                "GATE = threading.Lock()\nOTHER = threading.Lock()\ndef make():\n    return Backend(lock=OTHER)",
            ),
        ),
    ),
    *shapes(
        "precede",
        "good",
        """
--- gathered before
async def _wait(self):
    await asyncio.sleep(1)
async def _warm(self):
    await asyncio.sleep(2)
async def load(self):
    await asyncio.gather(self._wait(), self._warm())
    subprocess.Popen(["x"])
--- a comparison of two
def load(self, level):
    ready = level < self._wait()
    subprocess.Popen(["x"])
    return ready
--- a property waits
@property
def settled(self):
    self._wait()
def load(self):
    self.settled
    subprocess.Popen(["x"])
--- the spawn as a default, after the wait
def load(self, spawn=subprocess.Popen):
    self._wait()
    spawn(["x"])
--- another function of that name
def load(self):
    processes.run("x")
    self._wait()
    subprocess.Popen(["x"])
""",
    ),
    *shapes(
        "follow",
        "good",
        """
--- another name of the module
def _kill(self):
    import time as clock
    self._process.terminate()
    self._last = clock.monotonic()
--- the function by itself
def _kill(self):
    from time import monotonic
    self._process.terminate()
    self._last = monotonic()
--- through a helper
def now(self):
    return time.monotonic()
def _kill(self):
    self._process.terminate()
    self._last = self.now()
--- through a function of the module
#module
def now():
    return time.monotonic()
class Backend:
    def _kill(self):
        self._process.terminate()
        self._last = now()
--- the dict of something else
def _kill(self, options):
    self._process.terminate()
    self._last = time.monotonic()
    log.info("%s", vars(options))
    options.__dict__.update(done=True)
""",
    ),
    *shapes(
        "recheck",
        "good",
        """
--- spawned by a helper under it
def load(self):
    with self._lock:
        if not self._cancel.is_set():
            self._start()
def _start(self):
    subprocess.Popen(["x"])
--- let go and taken and asked again
def load(self):
    with self._lock:
        if self._cancel.is_set():
            return
    with self._lock:
        if self._cancel.is_set():
            return
        subprocess.Popen(["x"])
--- cleared before the lock is taken
def load(self):
    self._cancel.clear()
    with self._lock:
        if self._cancel.is_set():
            return
        subprocess.Popen(["x"])
""",
    ),
    *shapes(
        "name",
        "good",
        """
--- a text that only looks like it
def load(self):
    log.info("had_live_process is gone")
    return collections.namedtuple("Snapshot", "pid had_live_processes")
--- run, and another name
def load(self):
    exec("self.had_live = True")
""",
    ),
]
