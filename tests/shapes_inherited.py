"""Mixins and hooks, properties that raise, and waits in places that only names tell of."""

from __future__ import annotations

from contract_shapes import Shape, shapes

_HOLD = """#module
class Mix:
    def _on(self):
        {body}
class Base:
    def __init__(self):
        self._lock = threading.Lock()
        self._helper = None
    def _hook(self):
        self._wait()
    def _on(self):
        self._wait()
    def _wait(self):
        time.sleep(1)
class Backend(Mix, Base):
    def stop(self):
        self._process.terminate()
    def load(self):
        {load}
"""

_HOOKS = {
    "super": "super()._on()",
    "super with arguments": "super(Mix, self)._on()",
    "a name": "hook = self._hook; hook()",
    "an attribute": "self._helper = self._hook; self._helper()",
    "getattr": 'getattr(self, "_hook")()',
    "a method of the other base": "self._hook()",
    "partial": "functools.partial(self._hook)()",
}


def _mixins(rule: str, label: str, load: str) -> list[Shape]:
    return [
        Shape(rule, label, f"in a mixin, by {name}", _HOLD.format(body=body, load=load))
        for name, body in _HOOKS.items()
    ]


BAD = [
    *shapes(
        "precede",
        "bad",
        """
--- a flag that is set whether it waited or not
def load(self):
    ok = False
    try:
        self._wait()
        ok = True
    except OSError:
        ok = True
    if not ok:
        return
    subprocess.Popen("x")
--- an error that is kept and not looked at
def load(self):
    err = None
    try:
        self._wait()
    except OSError as e:
        err = e
    subprocess.Popen("x")
    if err is not None:
        return
--- a display without items
def load(self):
    for i in ():
        self._wait()
    subprocess.Popen("x")
--- a generator that is left after its first step
def load(self):
    any(step for step in self._steps())
    subprocess.Popen("x")
def _steps(self):
    yield 1
    self._wait()
--- a place that may wait, then a kill
def load(self):
    list(map(lambda f: f(), [self._wait]))
    self._process.terminate()
    subprocess.Popen("x")
""",
    ),
    *shapes(
        "hold",
        "bad",
        """
--- a stack that swallows what kept the lock
def load(self):
    self._lock.acquire()
    with contextlib.ExitStack() as stack:
        stack.push(lambda *given: True)
        self.stop()
        self._lock.release()
    self._wait()
--- an async callback on a stack
async def load(self):
    with self._lock:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._wait)
async def _wait(self):
    await asyncio.sleep(1)
--- a list that a pool maps over
def load(self):
    with self._lock:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda f: f(), [self._wait]))
""",
    ),
    *_mixins("hold", "bad", "with self._lock: self._on()"),
    *_mixins("precede", "bad", "subprocess.Popen('x'); self._on()"),
    *shapes(
        "follow",
        "bad",
        """
--- a property that calls something in between
@property
def pid(self):
    return self._read()
def _read(self):
    return open("/tmp/pid").read()
def _kill(self):
    self._process.terminate()
    x = self.pid
    self._last = time.monotonic()
--- a property that raises in between
@property
def pid(self):
    raise RuntimeError("none")
def _kill(self):
    self._process.terminate()
    x = self.pid
    self._last = time.monotonic()
--- a property that looks at such a one in between
@property
def pid(self):
    raise RuntimeError("none")
@property
def number(self):
    return self.pid
def _kill(self):
    self._process.terminate()
    if self.number:
        log.info("x")
    self._last = time.monotonic()
""",
    ),
]

GOOD = [
    *shapes(
        "precede",
        "good",
        """
--- a flag that says whether it waited
def load(self):
    ok = False
    try:
        self._wait()
        ok = True
    except OSError:
        pass
    if not ok:
        return
    subprocess.Popen("x")
--- an error that is looked at
def load(self):
    err = None
    try:
        self._wait()
    except OSError as e:
        err = e
    if err is not None:
        return
    subprocess.Popen("x")
--- a display of numbers
def load(self):
    for i in (1, 2):
        self._wait()
    subprocess.Popen("x")
--- a display of one text
def load(self):
    for i in ["once"]:
        self._wait()
    subprocess.Popen("x")
--- an async comprehension over a generator of ours
async def load(self):
    [x async for x in self._steps()]
    subprocess.Popen("x")
async def _steps(self):
    yield 1
    self._wait()
""",
    ),
    *_mixins("hold", "good", "with self._lock: pass\n        self._on()"),
    *_mixins("precede", "good", "self._on(); subprocess.Popen('x')"),
    *shapes(
        "follow",
        "good",
        """
--- a property that only reads in between
@property
def pid(self):
    return self._pid
def _kill(self):
    if self._process is None:
        return
    self._process.terminate()
    x = self.pid
    self._last = time.monotonic()
--- a property that may raise, with a finally
@property
def pid(self):
    return int(self._pid)
def _kill(self):
    if self._process is None:
        return
    try:
        self._process.terminate()
        x = self.pid
    finally:
        self._last = time.monotonic()
""",
    ),
]
