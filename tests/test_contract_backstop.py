"""What only names lead to, across modules; the place that is told; and the re-check's lock."""

from __future__ import annotations

import pytest

from pytest_vramsettle.contracts import Contract, Outcome, Verdict, lock_contract, render

BACKEND = """
import threading, time, subprocess
from .service import Service
from .steps import *

class Backend:
    def __init__(self):
        self._lock = threading.Lock()
        self._cancel = threading.Event()
        self.service = Service(self)

    def _wait(self):
        time.sleep(1)

    def free(self):
        with self._lock:
            self.ready = True
        self._wait()

    def load(self, item):
        with self._lock:
            {line}
"""

SERVICE = """
class Service:
    def __init__(self, backend):
        self.backend = backend

    def go(self):
        self.backend._wait()

    def idle(self):
        return 1

    def hold(self):
        with self.backend._lock:
            return self.backend.ready
"""

STEPS = """
def settle(backend):
    backend._wait()

def report(backend):
    return backend.ready
"""

HELPER = """
from .tools import Guard, Hook

class Service:
    def __init__(self, backend):
        self.backend = backend
        self.hook = Hook(backend)

    def go(self):
        {go}

    def idle(self):
        return 1

    @property
    def level(self):
        {get}

    @level.setter
    def level(self, value):
        {set}
"""

TOOLS = """
class Guard:
    def __init__(self, backend):
        self.backend = backend

    def __enter__(self):
        self.backend._wait()

    def __exit__(self, *error):
        return None

class Hook:
    def __init__(self, backend):
        self.backend = backend

    def __call__(self):
        self.backend._wait()

class Idle:
    def go(self):
        return 1
"""

STALE = """
import subprocess, threading

class Backend:
    def __init__(self):
        self._lock = threading.Lock()
        self._cancel = threading.Event()

    def load(self):
        with self._lock:
            if self._cancel.is_set():
                return
        subprocess.Popen(["server"])
"""


def check(line: str, **others: str) -> Outcome:
    sources = {
        "app": "",
        "app.backend": BACKEND.format(line=line),
        "app.service": SERVICE,
        "app.steps": STEPS,
        **others,
    }
    backend = lock_contract("app.backend:Backend", sources=sources)
    return backend.must_not_hold(backend.lock("_lock"), at=backend.call("_wait")).check_static()


@pytest.mark.parametrize("line", ["self.service.go()", "Service(self).go()", "settle(self)"])
def test_a_helper_in_another_module_shows_both_places(line: str) -> None:
    outcome = check(line)
    assert outcome.verdict is Verdict.VIOLATED, render(outcome)
    assert "_lock is taken here" in render(outcome)
    assert "_wait() is called here" in render(outcome)


@pytest.mark.parametrize("line", ["self.service.idle()", "report(self)", "item.idle()", "self.items[item].idle()"])
def test_what_does_no_harm_is_kept(line: str) -> None:
    outcome = check(line)
    assert outcome.verdict is Verdict.KEPT, render(outcome)


@pytest.mark.parametrize("line", ["item.go()", "self.items[item].go()", "getattr(item, 'go')()", "item.service.go()"])
def test_what_may_be_the_helper_by_its_name_cannot_be_told(line: str) -> None:
    outcome = check(line)
    assert outcome.verdict is Verdict.CANNOT_TELL, render(outcome)
    text = render(outcome)
    assert "by its name this may lead to Service.go, and so to _wait()" in text or "is not known" in text
    assert "in Backend.load: here" in text or "_lock is taken here" in text


WAITS = "self.backend._wait()"


@pytest.mark.parametrize(
    ("line", "parts", "reached"),
    [
        ("item.go()", {"go": "with Guard(self.backend): pass"}, "Guard.__enter__"),
        ("item.go()", {"go": "self.hook()"}, "Hook.__call__"),
        ("item.go()", {"go": "self.level = 1", "set": WAITS}, ""),
        ("item.go()", {"go": "self.level += 1", "get": WAITS}, "Service.level"),
        ("item.level = 1", {"set": WAITS}, ""),
        ("item.level += 1", {"get": WAITS}, "Service.level"),
        ("attrgetter('service.level')(item)", {"get": WAITS}, "Service.level"),
        ("getattr(self.service, 'g' + item)()", {"go": WAITS}, "Service.go"),
        ("getattr(self.service, f'g{item}')()", {"go": WAITS}, "Service.go"),
        ("(lambda value=item.go(): value)", {"go": WAITS}, "Service.go"),
        ("def inner(value=item.go()): return value", {"go": WAITS}, "Service.go"),
        ("(Idle() if item else item).go()", {"go": WAITS}, "Service.go"),
        ("found = Idle() if item else item; found.go()", {"go": WAITS}, "Service.go"),
        ("@item.go\n            def inner(): return 1", {"go": WAITS}, "Service.go"),
        ("with item: pass", {}, ""),
        ("item.rest()", {"go": WAITS, "more": "@item.go\n        def inner(): return 1"}, "Service.go"),
    ],
)
def test_what_the_language_runs_is_followed_by_its_name(line: str, parts: dict[str, str], reached: str) -> None:
    outcome = check_helper(line, **parts)
    assert outcome.verdict is Verdict.CANNOT_TELL, render(outcome)
    assert f"by its name this may lead to {reached}," in render(outcome) if reached else outcome.findings


@pytest.mark.parametrize(
    "line",
    [
        "getattr(self.service, 'id' + item)()",
        "getattr(self.service, f'id{item}')()",
        "found = lambda: item.go()",
        "Idle().go()",
    ],
)
def test_what_cannot_be_meant_by_its_name_is_kept(line: str) -> None:
    outcome = check_helper(line, go=WAITS)
    assert outcome.verdict is Verdict.KEPT, render(outcome)


BOTH = """
try:
    import fast
    def both(backend):
        backend._wait()
except ImportError:
    def both(backend):
        return None
"""


@pytest.mark.parametrize(
    ("first", "line"),
    [
        (BOTH, "both(self)"),
        ("", "both(self)"),  # by `from .steps import *`
        ("from .steps import both\n", "both(self)"),
        ("from . import steps\n", "steps.both(self)"),
    ],
)
def test_a_function_that_is_defined_twice_is_both(first: str, line: str) -> None:
    steps = STEPS if first == BOTH else STEPS + BOTH
    outcome = check(line, **{"app.backend": first + BACKEND.format(line=line), "app.steps": steps})
    assert outcome.verdict is Verdict.VIOLATED, render(outcome)


@pytest.mark.parametrize("line", ["[*self.steps()]", "print(*self.steps())", "print(*(self._wait() for _ in (1, 2)))"])
def test_what_a_star_uses_up_runs_there(line: str) -> None:
    source = BACKEND.format(line=line) + "\n    def steps(self):\n        yield self._wait()\n"
    outcome = check(line, **{"app.backend": source})
    assert outcome.verdict is Verdict.VIOLATED, render(outcome)


def test_an_object_does_not_end_under_its_own_lock() -> None:
    source = BACKEND.format(line="pass") + "\n    def __del__(self):\n        self._wait()\n"
    outcome = check("pass", **{"app.backend": source})
    assert outcome.verdict is Verdict.KEPT, render(outcome)


def test_what_runs_outside_of_the_lock_is_no_matter() -> None:
    source = BACKEND.format(line="pass").replace("        self._wait()", "        self._wait()\n        self.item.go()")
    outcome = check("pass", **{"app.backend": source})
    assert outcome.verdict is Verdict.KEPT, render(outcome)


def check_helper(line: str, **parts: str) -> Outcome:
    source = BACKEND.format(line=line).replace(
        "from .steps", "from operator import attrgetter\nfrom .tools import Idle\nfrom .steps"
    )
    more = f"\n    def rest(self, item):\n        {parts.pop('more', 'pass')}\n"
    helper = HELPER.format(**{"go": "pass", "get": "return 1", "set": "pass", **parts}) + more
    return check(line, **{"app.backend": source, "app.service": helper, "app.tools": TOOLS})


def test_what_is_annotated_is_known() -> None:
    other = "class Item:\n    def go(self):\n        return 1\n"
    source = BACKEND.replace("from .steps", "from .item import Item\nfrom .steps").replace("item):", "item: Item):")
    outcome = check("item.go()", **{"app.backend": source.format(line="item.go()"), "app.item": other})
    assert outcome.verdict is Verdict.KEPT, render(outcome)


def recheck(source: str, **keywords: bool) -> Contract:
    backend = lock_contract("m:Backend", sources={"m": source})
    lock, spawn = backend.lock("_lock"), backend.call("subprocess.Popen")
    return backend.must_recheck("_cancel.is_set", after=lock.acquired, before=spawn, within="load", **keywords)


def test_an_answer_from_before_the_lock_was_let_go_is_stale() -> None:
    outcome = recheck(STALE).check_static()
    assert outcome.verdict is Verdict.VIOLATED
    assert "under which _cancel.is_set() was asked, was let go" in render(outcome)


def test_where_the_lock_may_be_let_go_it_is_kept() -> None:
    assert recheck(STALE, still_held=False).check_static().verdict is Verdict.KEPT
    inside = STALE.replace("        subprocess.Popen", "            subprocess.Popen")
    assert recheck(inside).check_static().verdict is Verdict.KEPT
