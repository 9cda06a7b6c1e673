"""A wait under the lock that only the names lead to, or that the language runs; and look-alikes that are none."""

from __future__ import annotations

import textwrap
from dataclasses import replace

from contract_shapes import Shape, shapes

_SERVICE = """
class Service:
    def __init__(self, owner):
        self.owner = owner
    def go(self):
        self.owner._wait()
    def idle(self):
        return 1
"""

_CLASS = """#module
{top}
class Backend:
    def __init__(self):
        self._lock = threading.Lock()
        self._cancel = threading.Event()
{init}
    def _wait(self):
        time.sleep(1)
    def free(self):
        with self._lock:
            self.ready = True
        self._wait()
"""


def modules(label: str, text: str, top: str = "", init: str = "        self.ready = False\n") -> list[Shape]:
    """Shapes that stand in a module with a helper class above the backend."""
    head = _CLASS.format(top=top, init=init)
    return [replace(shape, code=head + textwrap.indent(shape.code, "    ")) for shape in shapes("hold", label, text)]


HELD = "        self.service = Service(self)\n        self.others = [Service(self)]\n"

BAD = [
    *modules(
        "bad",
        """
--- a helper object made under it
def load(self):
    with self._lock:
        Service(self).go()
--- a helper object made before
def load(self):
    service = Service(self)
    with self._lock:
        service.go()
--- a helper object that init made
def load(self):
    with self._lock:
        self.service.go()
--- a helper object out of a list
def load(self):
    with self._lock:
        for other in self.others:
            other.go()
--- a helper object that a method makes
def _service(self):
    return Service(self)
def load(self):
    with self._lock:
        self._service().go()
--- a helper object as an untyped parameter
def load(self, service):
    with self._lock:
        service.go()
--- a helper object by an alias of its class
def load(self):
    kind = Service
    with self._lock:
        kind(self).go()
--- a function of a class, given the object
def load(self):
    with self._lock:
        Service.go(self.service)
""",
        top=_SERVICE,
        init=HELD,
    ),
    *modules(
        "bad",
        """
--- a helper that was given the bound method
def load(self):
    with self._lock:
        self.runner.run()
""",
        top="class Runner:\n    def __init__(self, function):\n        self.function = function\n"
        "    def run(self):\n        self.function()\n",
        init="        self.runner = Runner(self._wait)\n",
    ),
    *modules(
        "bad",
        """
--- a dataclass that waits when it is made
def load(self):
    with self._lock:
        Job(self)
--- a finalizer
def load(self):
    with self._lock:
        job = End(self)
        del job
--- a descriptor
slot = Slot()
def load(self):
    with self._lock:
        return self.slot
--- a manager object of the project, held untyped
def load(self, section):
    with self._lock, section:
        self.ready = True
""",
        top="import dataclasses\n@dataclasses.dataclass\nclass Job:\n    owner: object\n    def __post_init__(self):\n"
        "        self.owner._wait()\nclass End:\n    def __init__(self, owner):\n        self.owner = owner\n"
        "    def __del__(self):\n        self.owner._wait()\nclass Slot:\n    def __get__(self, owner, kind):\n"
        "        owner._wait()\nclass Section:\n    def __init__(self, owner):\n        self.owner = owner\n"
        "    def __enter__(self):\n        self.owner._wait()\n"
        "    def __exit__(self, *raised):\n        return False\n",
    ),
    *modules(
        "bad",
        """
--- itself, called
def __call__(self):
    self._wait()
def load(self):
    with self._lock:
        self()
--- a property by property()
def _settled(self):
    self._wait()
settled = property(_settled)
def load(self):
    with self._lock:
        return self.settled
--- a property that is added to
@property
def level(self):
    self._wait()
    return 1
@level.setter
def level(self, value):
    self.kept = value
def load(self):
    with self._lock:
        self.level += 1
--- a property that hasattr looks at
@property
def settled(self):
    self._wait()
def load(self):
    with self._lock:
        return hasattr(self, "settled")
--- a property that a pattern looks at
@property
def settled(self):
    self._wait()
def load(self):
    with self._lock:
        match self:
            case Backend(settled=1):
                return True
--- a property in a default argument
@property
def settled(self):
    self._wait()
def load(self):
    with self._lock:
        def inner(value=self.settled):
            return value
--- defined in both branches
if threading.active_count():
    def _prepare(self):
        self._wait()
else:
    def _prepare(self):
        pass
def load(self):
    with self._lock:
        self._prepare()
--- defined where the import works
try:
    import pynvml
    def _prepare(self):
        self._wait()
except ImportError:
    def _prepare(self):
        pass
def load(self):
    with self._lock:
        self._prepare()
--- the attribute by a computed name, kept first
def load(self, name):
    with self._lock:
        step = getattr(self, name)
        step()
--- by the name of a helper, as a text
def prepare(self):
    self._wait()
def load(self):
    with self._lock:
        operator.methodcaller("prepare")(self)
--- run as code
def load(self):
    with self._lock:
        exec("self._prepare()")
def _prepare(self):
    self._wait()
--- evaluated in a helper
def _compute(self, text):
    return eval(text)
def load(self, text):
    with self._lock:
        self._compute(text)
--- an instance's method is replaced
def _step(self):
    pass
def patch(self):
    self._step = self._wait
def load(self):
    with self._lock:
        self._step()
--- a generator expression used up under it
def load(self):
    steps = (self._wait() for _ in range(2))
    with self._lock:
        list(steps)
--- an async comprehension
async def _steps(self):
    self._wait()
    yield 1
async def load(self):
    with self._lock:
        return [step async for step in self._steps()]
--- a decorator defined in the method
def load(self):
    def locked(function):
        with self._lock:
            return function()
    @locked
    def go():
        self._wait()
--- a timer that is run here
def load(self):
    with self._lock:
        threading.Timer(0, self._wait).run()
--- waits for an event of a thread that waits
def _background(self):
    self._wait()
    self._settled.set()
def load(self):
    self._settled = threading.Event()
    threading.Thread(target=self._background).start()
    with self._lock:
        self._settled.wait()
""",
        top="import operator\n",
    ),
    *modules(
        "bad",
        """
--- a function out of a table
def load(self):
    with self._lock:
        STEPS["wait"](self)
--- a function chosen at import
def load(self):
    with self._lock:
        chosen(self)
--- a class's method is replaced from outside
def _step(self):
    pass
def patch(self):
    Backend._step = first
def load(self):
    with self._lock:
        self._step()
""",
        top="def first(backend):\n    backend._wait()\ndef second(backend):\n    pass\n"
        'STEPS = {"wait": first}\nchosen = second if threading.active_count() else first\n',
    ),
    *modules(
        "bad",
        """
--- a visitor that puts its names together
def load(self, kind):
    with self._lock:
        Visitor(self).visit(kind)
--- a metaclass that waits
def load(self):
    with self._lock:
        Odd(self)
--- a chain of calls
def load(self):
    with self._lock:
        make(self).step().end()
--- one that stands for another
def load(self):
    with self._lock:
        Proxy(self)._wait()
""",
        top="class Visitor:\n    def __init__(self, owner):\n        self.owner = owner\n    def visit(self, kind):\n"
        '        return getattr(self, "visit_" + kind)()\n    def visit_load(self):\n        self.owner._wait()\n'
        "class Meta(type):\n    def __call__(cls, owner):\n        owner._wait()\nclass Odd(metaclass=Meta):\n"
        "    pass\nclass Chain:\n    def __init__(self, owner):\n        self.owner = owner\n    def step(self):\n"
        "        return self\n    def end(self):\n        self.owner._wait()\ndef make(owner):\n"
        "    return Chain(owner)\nclass Proxy:\n    def __init__(self, inner):\n        self.inner = inner\n"
        "    def __getattr__(self, name):\n        return getattr(self.inner, name)\n",
    ),
    *modules(
        "bad",
        """
--- the class's decorator wraps its methods
def load(self):
    self._wait()
""",
        top="def locked(cls):\n    def wrapped(self):\n        with self._lock:\n            return plain(self)\n"
        '    plain = getattr(cls, "load")\n    setattr(cls, "load", wrapped)\n    return cls\n@locked',
    ),
]

GOOD = [
    *modules(
        "good",
        """
--- a helper object used outside
def load(self):
    with self._lock:
        service = Service(self)
    service.go()
--- a harmless method of the helper object
def load(self):
    with self._lock:
        return self.service.idle() + Service(self).idle()
--- a harmless method of those in a list
def load(self):
    with self._lock:
        return [other.idle() for other in self.others]
--- a helper object that is replaced under it
def load(self):
    with self._lock:
        self.service = Service(self)
    self.service.go()
""",
        top=_SERVICE,
        init=HELD,
    ),
    *modules(
        "good",
        """
--- a visitor none of whose methods waits
def load(self, kind):
    with self._lock:
        return Visitor(self).visit(kind)
""",
        top="class Visitor:\n    def __init__(self, owner):\n        self.owner = owner\n    def visit(self, kind):\n"
        '        return getattr(self, "visit_" + kind)()\n    def visit_load(self):\n        return self.owner.ready\n'
        "    def settle(self):\n        self.owner._wait()\n",
    ),
    *modules(
        "good",
        """
--- text, numbers, containers
def load(self, options, name="x"):
    with self._lock:
        if name in options and len(options) > 1 or not options:
            options[name] += 1
        text = f"{self!r:>10} {name!s}" + "{} {}".format(name, options.get(name))
        for key, value in sorted(options.items(), key=lambda item: item[0]):
            print(key, value, text, str(self))
        log.info("%s", options)
        first, *rest = [*options, name]
        del options[first]
    self._wait()
--- calls of other people's libraries
def load(self, url):
    with self._lock:
        with httpx.Client() as client:
            answer = client.get(url, timeout=5)
            answer.raise_for_status()
        memory = psutil.virtual_memory().available
        return json.loads(answer.text)["free"] - memory
--- an attribute by a constant name, and of another object
def load(self, options):
    with self._lock:
        return getattr(options, options.name, None), getattr(self, "ready", False), hasattr(self, "ready")
--- a property that does no harm
@property
def level(self):
    return self._level
@level.setter
def level(self, value):
    self._level = value
def load(self):
    with self._lock:
        self.level += 1
--- defined twice, neither waits
if threading.active_count():
    def _prepare(self):
        self.kind = "many"
else:
    def _prepare(self):
        self.kind = "one"
def load(self):
    with self._lock:
        self._prepare()
--- another class has a method of that name
def start(self):
    self.ready = True
def load(self):
    with self._lock:
        self.start()
--- a generator expression used up outside
def load(self):
    with self._lock:
        steps = (self._wait() for _ in range(2))
    list(steps)
--- its own end
def __del__(self):
    self._wait()
def load(self):
    with self._lock:
        self.ready = True
--- special methods that do no harm
def __len__(self):
    return 1
def __iter__(self):
    return iter(())
def __call__(self):
    return 2
def load(self):
    with self._lock:
        return len(self) + self() + sum(self)
--- an event that nobody who waits sets
def cancel(self):
    self._cancel.set()
def load(self):
    with self._lock:
        self._cancel.wait(1)
--- a helper with a flag that says no
def _prepare(self, settle):
    if settle:
        self._wait()
def load(self):
    self._prepare(True)
    with self._lock:
        self._prepare(False)
""",
        top="import json\nimport httpx\nimport psutil\nclass Engine:\n    def __init__(self, backend):\n"
        "        self.backend = backend\n    def start(self):\n        self.backend._wait()\n",
    ),
]
