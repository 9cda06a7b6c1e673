"""Two names of one lock are one lock, however it got the second."""

from __future__ import annotations

import pytest

from pytest_vramsettle.contracts import Outcome, Verdict, lock_contract, render

SOURCE = """
import time
from threading import Condition, Lock

GUARD = Lock()

class Backend:
    def __init__(self, flag, first=None, *, second=None):
        {init}

    def _wait(self):
        time.sleep(1)

    def load(self, owner):
        with {taken}:
            self._wait()

    def ready(self):
        with self._lock:
            return True

class Owner:
    def __init__(self):
        self.guard = Lock()
        self.backend = Backend(True, {given})
"""


def check(init: str, taken: str = "self._mutex", given: str = "None") -> Outcome:
    source = SOURCE.format(init="\n        ".join(init.split("; ")), taken=taken, given=given)
    backend = lock_contract("m:Backend", sources={"m": source})
    return backend.must_not_hold(backend.lock("_lock"), at=backend.call("_wait")).check_static()


@pytest.mark.parametrize(
    "init",
    [
        "self._lock = self._mutex = Lock()",
        "guard = self._lock = Lock(); self._mutex = guard",
        "self._lock = (guard := Lock()); self._mutex = guard",
        "self._mutex = Lock(); self._lock = (guard := self._mutex)",
        "self._mutex = Lock(); self._lock = self._mutex if flag else Lock()",
        "self._mutex = Lock(); self._lock = first or self._mutex",
        "self._mutex = Lock(); self._lock = Condition(lock=self._mutex)",
        "self._mutex = Lock(); self._lock = Condition(self._mutex)",
        "self._mutex = Lock(); self._third = self._mutex; self._second = self._third; self._lock = self._second",
        "self._mutex = Lock(); self._lock: Lock = self._mutex",
        "self._mutex = Lock(); (self._lock, self._other) = (self._mutex, None)",
    ],
)
def test_what_the_lock_is_made_of_is_the_lock(init: str) -> None:
    outcome = check(init)
    assert outcome.verdict is Verdict.VIOLATED, render(outcome)


@pytest.mark.parametrize(
    ("init", "taken", "given", "verdict"),
    [
        ("guard = GUARD; self._lock = guard", "GUARD", "None", Verdict.VIOLATED),
        ("self._lock = first", "GUARD", "GUARD", Verdict.VIOLATED),
        ("self._lock = first", "GUARD", "first=GUARD", Verdict.VIOLATED),
        ("self._lock = second", "GUARD", "second=GUARD", Verdict.VIOLATED),
        ("self._lock = first; self._mutex = second", "GUARD", "second=GUARD", Verdict.KEPT),
        ("self._lock = first", "GUARD", "None); self.kept = dict(GUARD, GUARD", Verdict.KEPT),
        ("self._lock = first", "owner.guard", "self.guard", Verdict.CANNOT_TELL),  # of which Owner is not known
        ("self._lock = first", "owner.other", "self.guard", Verdict.KEPT),
    ],
)
def test_what_the_constructor_is_given_is_the_lock(init: str, taken: str, given: str, verdict: Verdict) -> None:
    outcome = check(init, taken, given)
    assert outcome.verdict is verdict, render(outcome)


@pytest.mark.parametrize(
    "init",
    [
        "self._lock, self._mutex = Lock(), Lock()",
        "self._lock = Lock(); GUARD = self._lock; self._mutex = Lock()",
        "self._lock = Condition(Lock()); self._mutex = Condition(Lock())",
    ],
)
def test_two_locks_are_not_one(init: str) -> None:
    outcome = check(init)
    assert outcome.verdict is Verdict.KEPT, render(outcome)


GLOBALS = """
import threading, time

GUARD = threading.Lock()
ALIAS = {alias}

class Backend:
    def load(self):
        with ALIAS:
            self._wait()
        with GUARD:
            pass

    def _wait(self):
        time.sleep(1)

def _wait():
    time.sleep(1)

def load():
    with ALIAS:
        _wait()
    with GUARD:
        pass
"""


@pytest.mark.parametrize("target", ["m:Backend", "m"])
@pytest.mark.parametrize(
    ("alias", "verdict"),
    [
        ("GUARD", Verdict.VIOLATED),
        ("OTHER = GUARD", Verdict.VIOLATED),
        ("threading.Condition(GUARD)", Verdict.VIOLATED),
        ("{'a': GUARD}['a']", Verdict.VIOLATED),
        ("threading.Lock()", Verdict.KEPT),
        ("threading.Condition(threading.Lock())", Verdict.KEPT),
    ],
)
def test_a_global_may_have_two_names(target: str, alias: str, verdict: Verdict) -> None:
    found = lock_contract(target, sources={"m": GLOBALS.format(alias=alias)})
    outcome = found.must_not_hold(found.lock("GUARD"), at=found.call("_wait")).check_static()
    assert outcome.verdict is verdict, render(outcome)
