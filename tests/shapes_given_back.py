"""A helper object that comes back out of a container, a queue, or a standard function; and look-alikes."""

from __future__ import annotations

from shapes_reached import modules

_TOP = """
import copy
import queue
from collections import deque
from types import SimpleNamespace
class Service:
    def __init__(self, owner):
        self.owner = owner
    def go(self):
        self.owner._wait()
    def idle(self):
        return 1
class Idle:
    def __enter__(self):
        return self
    def __exit__(self, *error):
        return None
    def go(self):
        return 1
class Giver:
    def __init__(self, owner):
        self.owner = owner
    def __enter__(self):
        return self.owner.service
    def __exit__(self, *error):
        return None
    def deep(self):
        with Giver(self.owner) as service:
            service.go()
class Both:
    def __init__(self, owner):
        self.owner = owner
    def __enter__(self):
        if self.owner.ready:
            return self
        return self.owner.service
    def __exit__(self, *error):
        return None
    def go(self):
        return 1
    def deeper(self):
        with Both(self.owner) as service:
            service.go()
"""
_INIT = """
        self.service = Service(self)
        self.others = [Service(self)]
        self.queue = queue.Queue()
        self.path = "model.gguf"
"""

BAD = modules(
    "bad",
    """
--- a helper given back by closing
def load(self):
    with self._lock, contextlib.closing(self.service) as service:
        service.go()
--- a helper given back by nullcontext
def load(self):
    with self._lock, nullcontext(self.service) as service:
        service.go()
--- a copy of a helper
def load(self):
    with self._lock:
        copy.copy(self.service).go()
--- a copy of what may be a helper
def load(self, item):
    with self._lock:
        copy.copy(item).go()
--- the next of the helpers
def load(self):
    with self._lock:
        next(iter(self.others)).go()
--- the greatest of the helpers
def load(self):
    with self._lock:
        max(self.others).go()
--- the last of the helpers taken out
def load(self):
    with self._lock:
        self.others.pop().go()
--- a helper out of a display
def load(self):
    with self._lock:
        deque([self.service]).popleft().go()
--- what a fold of the helpers gives
def load(self):
    with self._lock:
        functools.reduce(lambda first, second: second, self.others).go()
--- a helper out of a queue
def load(self):
    self.queue.put(self.service)
    with self._lock:
        self.queue.get().go()
--- a helper out of the queue's own list
def load(self):
    self.queue.put(self.service)
    with self._lock:
        next(iter(self.queue.queue)).go()
--- a helper in a namespace
def load(self):
    space = SimpleNamespace(service=self.service)
    with self._lock:
        space.service.go()
--- a method of the helper's type
def load(self):
    with self._lock:
        type(self.service).go(self.service)
--- what a stack enters may be a helper
def load(self, item):
    stack = ExitStack()
    with self._lock:
        stack.enter_context(item).go()
--- a lambda that is mapped over helpers
def load(self):
    with self._lock:
        list(map(lambda service: service.go(), self.others))
--- any of what helpers say
def load(self):
    with self._lock:
        return any(service.go() for service in self.others)
--- which of what helpers say
def load(self):
    with self._lock:
        return sum(1 for service in self.others if service.go())
--- a wait of an object that another object has
def load(self, item: Giver):
    with self._lock:
        item.owner._wait()
--- a helper given and annotated, of which it is not known whose it is
def load(self, item: Service):
    with self._lock:
        item.go()
--- a manager that gives another object, further down
def load(self, item):
    with self._lock:
        item.deep()
--- a manager that may give another object, further down
def load(self, item):
    with self._lock:
        item.deeper()
""",
    top=_TOP,
    init=_INIT,
)

GOOD = modules(
    "good",
    """
--- a manager that gives itself
def load(self):
    with self._lock, Idle() as idle:
        idle.go()
--- what is opened with a text of ours
def load(self, opener):
    with self._lock, open(self.path) as file:
        file.go()
--- what is made with a text of ours
def load(self, path: str):
    with self._lock:
        subprocess.list2cmdline(path).go()
--- a method that the helper has not
def load(self):
    with self._lock:
        self.others.pop().idle()
--- a lambda that is mapped over helpers and does no harm
def load(self):
    with self._lock:
        list(map(lambda service: service.idle(), self.others))
--- a generator of what helpers say that is used up later
def load(self):
    with self._lock:
        saying = (service.go() for service in self.others)
    return any(saying)
--- an object of another project with a name of ours
def load(self):
    thread = threading.Thread(target=print)
    with self._lock:
        thread.go()
""",
    top=_TOP,
    init=_INIT,
)
