"""Places of which names alone say that the required call may hide there: nobody can tell."""

from __future__ import annotations

from contract_shapes import Shape, shapes

_TOP = """#module
import collections
class Settler:
    def __init__(self, owner):
        self.owner = owner
    def __{special}__(self, *args):
        self.owner._wait()
        return 1
class Backend:
    def __init__(self):
        self._process = None
        self._settler = Settler(self)
    def _wait(self):
        time.sleep(1)
    def stop(self):
        self._process.terminate()
    def load(self):
        {body}
        subprocess.Popen("x")
"""

_SPECIAL = {
    "bool": "if self._settler: log.info('x')",
    "len": "n = len(self._settler)",
    "getitem": "n = self._settler['x']",
    "str": "n = f'{self._settler}'",
    "iter": "for x in self._settler: pass",
    "getattr": "self._settler.settled",
    "setattr": "self._settler.phase = 1",
}


def _of(name: str, special: str, body: str) -> Shape:
    return Shape("precede", "unclear", name, _TOP.replace("{special}", special).replace("{body}", body))


UNCLEAR = [
    *(_of(f"__{special}__", special, body) for special, body in _SPECIAL.items()),
    *shapes(
        "precede",
        "unclear",
        """
--- map over a list, used up
def load(self):
    list(map(lambda f: f(), [self._wait]))
    subprocess.Popen("x")
--- reduce
def load(self):
    functools.reduce(lambda a, f: f(), [self._wait], None)
    subprocess.Popen("x")
--- the key of a sort
def load(self):
    sorted([1, 2], key=lambda x: self._wait() or x)
    subprocess.Popen("x")
--- next of a generator
def load(self):
    next(self._steps())
    subprocess.Popen("x")
def _steps(self):
    self._wait()
    yield
--- methodcaller
def load(self):
    import operator
    operator.methodcaller("_wait")(self)
    subprocess.Popen("x")
--- a method bound by hand
def load(self):
    import types
    types.MethodType(Backend._wait, self)()
    subprocess.Popen("x")
--- a weak method
def load(self):
    import weakref
    weakref.WeakMethod(self._wait)()()
    subprocess.Popen("x")
--- eval
def load(self):
    eval("self._wait()")
    subprocess.Popen("x")
--- a namespace
def load(self):
    import types
    types.SimpleNamespace(go=self._wait).go()
    subprocess.Popen("x")
""",
    ),
]
