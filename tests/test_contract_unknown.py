"""What may stand behind a name: parameters, globals, modules, attributes; what only looks like the call; and texts."""

from __future__ import annotations

import pytest

from pytest_vramsettle.contracts import Outcome, Verdict, lock_contract, render

BACKEND = """
import importlib, threading, time
from . import steps
from .steps import *
from .steps import Idle, Service, BOTH, FIRST

class Backend:
    annotated: Idle
    bare: Service

    def __init__(self, item):
        self._lock = threading.Lock()
        self.ready = False
        self.table = {{}}
        self.given = item
        self.seen = threading.Event()

    def _wait(self):
        time.sleep(1)

    def free(self):
        with self._lock:
            self.ready = True
        self._wait()

    {head}:
        with self._lock:
            {line}
"""

STEPS = """
class Idle:
    def go(self):
        return 1

class Service:
    def __init__(self, backend):
        self.backend = backend

    def go(self):
        self.backend._wait()

    def begin(self, flag: bool):
        self.begun = flag

class Table:
    def __init__(self, backend):
        self.first, self.second = Service(backend), Idle()

def settle(backend):
    backend._wait()

def make(backend):
    yield Idle()

def idle() -> Idle:
    return Idle()

BOTH = Idle() if __debug__ else Service(open("x"))
FIRST = Idle()
"""


def check(line: str, head: str = "def load(self, item)", steps: str = STEPS, more: str = "") -> Outcome:
    sources = {"app": "", "app.backend": BACKEND.format(line=line, head=head) + more, "app.steps": steps}
    backend = lock_contract("app.backend:Backend", sources=sources)
    return backend.must_not_hold(backend.lock("_lock"), at=backend.call("_wait")).check_static()


@pytest.mark.parametrize(
    ("head", "line"),
    [
        ("def load(self, first: Idle, item)", "item.go()"),
        ("def load(self, first: Idle, *, item)", "item.go()"),
        ("def load(self, item: object)", "item.go()"),
        ("def load(self, item: 'Service')", "item.go()"),
        ("def load(self, item=None)", "item = item or Idle(); item.go()"),
        ("def load(self, item)", "BOTH.go()"),
        ("def load(self, item)", "steps.BOTH.go()"),
        ("def load(self, item)", "first, second = item; first.go()"),
        ("def load(self, item)", "[first, *second] = item; first.go()"),
        ("def load(self, item)", "first = Idle(); first, second = item; first.go()"),
        ("def load(self, item)", "first = Idle(); (first := item).go()"),
        ("def load(self, item)", "self.bare.go()"),
        ("def load(self, item)", "self.given.go()"),
        ("def load(self, item)", "self.table['a'].go()"),
        ("def load(self, item)", "item.settle(self)"),
        ("def load(self, item)", "steps.Table(self).first.go()"),
        ("def load(self, item)", "importlib.import_module('app.steps').settle(self)"),
        ("def load(self, item)", "__import__('app.steps').steps.settle(self)"),
    ],
)
def test_what_may_be_the_helper_is_never_kept(head: str, line: str) -> None:
    outcome = check(line, head)
    assert outcome.verdict in (Verdict.CANNOT_TELL, Verdict.VIOLATED), render(outcome)


@pytest.mark.parametrize(
    ("head", "line"),
    [
        ("def load(self, first, item: Idle)", "item.go()"),
        ("def load(self, first, *, item: Idle)", "item.go()"),
        ("def load(self, item: Idle | None)", "item.go()"),
        ("def load(self, item)", "steps.FIRST.go()"),
        ("def load(self, item)", "steps.Idle().go()"),
        ("def load(self, item)", "steps.idle().go()"),
        ("def load(self, item)", "self.annotated.go()"),
        ("def load(self, item)", "importlib.import_module('json').settle"),
        ("def load(self, item)", "Service(self).begin(True)"),
    ],
)
def test_what_is_known_to_be_another_is_kept(head: str, line: str) -> None:
    outcome = check(line, head)
    assert outcome.verdict is Verdict.KEPT, render(outcome)


SETTING = """
    def later(self):
        self._wait()
        self.{event}.set()
"""


@pytest.mark.parametrize(
    ("line", "event", "verdict"),
    [
        ("self.seen.wait()", "seen", Verdict.CANNOT_TELL),
        ("self.seen.wait()", "other", Verdict.KEPT),
        ("self.seen.is_set()", "seen", Verdict.KEPT),
    ],
)
def test_who_waits_for_an_event_waits_for_those_who_set_it(line: str, event: str, verdict: Verdict) -> None:
    outcome = check(line, more=SETTING.format(event=event))
    assert outcome.verdict is verdict, render(outcome)


FIELDS = "    idle: Idle\n    other: Service\n\n"
DEEP = STEPS.replace("    def begin(", f"{FIELDS}    def deep(self, item):\n        {{call}}\n\n    def begin(")


@pytest.mark.parametrize(
    ("call", "verdict"),
    [
        ("item.go()", Verdict.CANNOT_TELL),
        ("settle(item)", Verdict.CANNOT_TELL),
        ("self.backend.steps.settle(item)", Verdict.CANNOT_TELL),
        ("self.backend = item", Verdict.KEPT),
        ("item.rest()", Verdict.KEPT),
        ("self.idle.go()", Verdict.KEPT),
        ("self.other.go()", Verdict.CANNOT_TELL),
        ("(self.idle or Idle()).go()", Verdict.KEPT),
        ("(self.idle or self.other).go()", Verdict.CANNOT_TELL),
        ("Idle.go(item)", Verdict.KEPT),
        ("Service.go(item)", Verdict.CANNOT_TELL),
        ("FIRST.go()", Verdict.KEPT),
        ("BOTH.go()", Verdict.CANNOT_TELL),
        ("idle().go()", Verdict.KEPT),
        ("for each in item: each.go()", Verdict.CANNOT_TELL),
        ("first, _ = Idle(), item; first, _ = item; first.go()", Verdict.CANNOT_TELL),
    ],
)
def test_names_are_followed_from_helper_to_helper(call: str, verdict: Verdict) -> None:
    outcome = check("item.deep(item)", steps=DEEP.replace("{call}", call))
    assert outcome.verdict is verdict, render(outcome)


REPLACING = """
class Kind(type):
    def __new__(cls, name, bases, body):
        made = super().__new__(cls, name, bases, body)
        for each in body:
            setattr(made, each, body[each])
        return made
"""

COUNTING = """
class Kind(type):
    def __call__(cls, *given):
        return super().__call__(*given)
"""


@pytest.mark.parametrize(("kind", "verdict"), [(REPLACING, Verdict.CANNOT_TELL), (COUNTING, Verdict.KEPT)])
def test_a_metaclass_may_replace_methods(kind: str, verdict: Verdict) -> None:
    source = BACKEND.format(head="def load(self, item)", line="pass")
    source = kind + source.replace("class Backend:", "class Backend(metaclass=Kind):")
    backend = lock_contract("app.backend:Backend", sources={"app": "", "app.backend": source, "app.steps": STEPS})
    outcome = backend.must_not_hold(backend.lock("_lock"), at=backend.call("_wait")).check_static()
    assert outcome.verdict is verdict, render(outcome)


STAMPING = """
import time

class Backend:
    def _kill(self, item):
        try:
            self._process.terminate()
            {line}
        finally:
            self._last = time.monotonic()
"""


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ("setattr(self, item, 0.0)", Verdict.CANNOT_TELL),
        ("setattr(self, 'other', 0.0)", Verdict.KEPT),
        ("setattr(item, 'other', 0.0)", Verdict.KEPT),
        ("vars(self).update(item)", Verdict.CANNOT_TELL),
        ("self.__dict__.update(item)", Verdict.CANNOT_TELL),
        ("print()", Verdict.KEPT),
    ],
)
def test_attributes_that_are_written_under_computed_names(line: str, verdict: Verdict) -> None:
    backend = lock_contract("m:Backend", sources={"m": STAMPING.format(line=line)})
    outcome = backend.must_follow(
        backend.write("_last", value="time.monotonic()"), after=backend.call("_process.terminate"), within="_kill"
    ).check_static()
    assert outcome.verdict is verdict, render(outcome)


NEVER = """
import threading

class Backend:
    def __init__(self):
        self._lock = threading.Lock()

    def load(self, item):
        {doc}
        with self._lock:
            {line}

    def _wait(self):
        {doc}
        return None
"""


@pytest.mark.parametrize(
    ("doc", "line", "verdict"),
    [
        ("pass", "pass", Verdict.VACUOUS),
        ("'''_wait is called by others.'''", "pass", Verdict.VACUOUS),
        ("pass", "item.put('_wait')", Verdict.CANNOT_TELL),
        ("pass", "item.put('a text of others')", Verdict.VACUOUS),
        ("pass", "item.put(self._wait)", Verdict.CANNOT_TELL),
        ("pass", "eval(item)", Verdict.CANNOT_TELL),
    ],
)
def test_a_call_that_is_never_reached_and_named_all_the_same(doc: str, line: str, verdict: Verdict) -> None:
    backend = lock_contract("m:Backend", sources={"m": NEVER.format(doc=doc, line=line)})
    outcome = backend.must_not_hold(backend.lock("_lock"), at=backend.call("_wait")).check_static()
    assert outcome.verdict is verdict, render(outcome)
