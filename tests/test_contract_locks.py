"""Locks that are called by name in a contract, locks in a dict, and many functions that take one lock."""

from __future__ import annotations

import textwrap

import pytest

from pytest_vramsettle.contracts import Outcome, Verdict, lock_contract
from pytest_vramsettle.contracts.analysis import engine

QUEUE = """
import threading

class Queue:
    def __init__(self):
        self._lock = threading.Lock()
        self._other = threading.Lock()
        self.not_full = threading.Condition(self._lock)
        self.not_empty = threading.Condition(self._lock)
        self.size = 0

    def put(self):
        with self.not_full:
            while self.size:
                self.not_full.wait()
            self.not_empty.notify()

    def move(self):
        with self._other:
            with self._lock:
                self.not_empty.wait()
"""


def hold(source: str, target: str, lock: str, at: str) -> Outcome:
    part = lock_contract(f"m:{target}", sources={"m": textwrap.dedent(source)})
    return part.must_not_hold(part.lock(lock), at=part.call(at)).check_static()


@pytest.mark.parametrize("lock", ["_lock", "not_full"])
def test_a_condition_lets_go_of_its_own_lock_while_it_waits(lock: str) -> None:
    assert hold(QUEUE, "Queue", lock, "not_full.wait").verdict is Verdict.KEPT


def test_a_condition_keeps_another_lock_while_it_waits() -> None:
    assert hold(QUEUE, "Queue", "_other", "not_empty.wait").verdict is Verdict.VIOLATED


def test_another_method_of_a_condition_is_called_under_its_lock() -> None:
    assert hold(QUEUE, "Queue", "_lock", "not_empty.notify").verdict is Verdict.VIOLATED


def test_a_lock_that_is_one_of_a_dict_may_be_any_of_them() -> None:
    outcome = hold(
        """
        import threading

        class Backend:
            def __init__(self):
                self._locks = {"a": threading.Lock(), "b": threading.Lock()}
                self._lock = self._locks["a"]

            def load(self):
                with self._locks["a"]:
                    self._wait()

            def free(self):
                with self._lock:
                    pass
                self._wait()

            def _wait(self):
                pass
        """,
        "Backend",
        "_lock",
        "_wait",
    )
    assert outcome.verdict is Verdict.CANNOT_TELL


def test_many_functions_that_take_the_lock_do_not_use_up_each_others_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    head = """
import threading

class Backend:
    def __init__(self):
        self._lock = threading.Lock()

    def _wait(self):
        pass

    def free(self):
        self._wait()
"""
    step = """
    def step_{number}(self, given):
        with self._lock:
            self.a = given
            if given:
                self.b = len(given)
            for each in given:
                self.c = each
        return given
"""
    monkeypatch.setattr(engine, "MOST_OF_ALL", 100)
    source = head + "".join(step.format(number=number) for number in range(40))
    assert hold(source, "Backend", "_lock", "_wait").verdict is Verdict.KEPT


def test_where_too_many_paths_were_followed_the_function_that_used_them_up_is_named() -> None:
    calls = "\n".join(
        f"            if given.a{number}(): self._wait({number}) or self.b{number}" for number in range(14)
    )
    tests = "\n".join(f"        x{number} = self._lock if given.b{number}() else None" for number in range(14))
    outcome = hold(
        f"""
import threading

class Backend:
    def __init__(self):
        self._lock = threading.Lock()

    def _wait(self, number):
        pass

    def load(self, given):
{tests}
        with self._lock:
            pass
        if given:
{calls}
""",
        "Backend",
        "_lock",
        "_wait",
    )
    assert outcome.verdict is Verdict.CANNOT_TELL
    assert any("Backend.load" in finding.doubt.reason for finding in outcome.findings if finding.doubt)
