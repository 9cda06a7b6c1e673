"""Locks at run time: who held what during the wait, for how long, in which order."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from contract_backend import BACKEND

from pytest_vramsettle.clock import VirtualClock
from pytest_vramsettle.contracts import ContractError, HoldFailure, Verdict, lock_contract
from pytest_vramsettle.contracts.tracing import TracedLocks


class Backend:
    shared = threading.Lock()

    def __init__(self, lock: Any = None) -> None:
        self._lock = lock or threading.Lock()
        self._other = threading.RLock()
        self._ready = threading.Condition(self._other)

    def _wait(self) -> None:
        time.sleep(2)

    def good(self) -> None:
        with self._lock:
            time.sleep(0.5)
        self._wait()

    def bad(self) -> None:
        with self._lock:
            self._wait()


def test_intervals_are_on_the_virtual_clock(monotonic_clock: VirtualClock, traced_locks: TracedLocks) -> None:
    backend = Backend()
    trace = traced_locks(backend, "_lock")
    thread = threading.Thread(target=backend.good, name="loader")
    thread.start()
    thread.join()
    (hold,) = trace.holds
    assert (hold.lock, hold.seconds, hold.holder) == ("_lock", 0.5, thread)
    assert "test_traced_locks.py" in hold.where
    assert "Backend.good" in hold.where


def test_the_wait_holds_none_of_them(monotonic_clock: VirtualClock, traced_locks: TracedLocks) -> None:
    backend = Backend()
    trace = traced_locks(backend, "_lock", "_other", watch="_wait")
    backend.good()
    trace.assert_not_held(during="_wait")
    trace.assert_free(during="_wait", lock="_lock")
    backend.bad()
    with pytest.raises(
        HoldFailure, match=r"called _wait\(\) while it held _lock, taken at .*test_traced_locks.py:\d+ in .*bad"
    ):
        trace.assert_not_held(during="_wait")


def test_that_another_thread_holds_it_is_told_apart(monotonic_clock: VirtualClock, traced_locks: TracedLocks) -> None:
    backend = Backend()
    trace = traced_locks(backend, "_lock", watch="_wait")

    def keep() -> None:
        with backend._lock:
            time.sleep(10)

    thread = threading.Thread(target=keep)
    thread.start()
    time.sleep(1)
    backend._wait()
    trace.assert_not_held(during="_wait")
    with pytest.raises(HoldFailure, match="another thread could not take _lock"):
        trace.assert_free(during="_wait", lock="_lock")
    thread.join()


def test_a_contract_is_checked_both_ways(monotonic_clock: VirtualClock, traced_locks: TracedLocks) -> None:
    target = lock_contract("m:Backend", sources={"m": BACKEND.replace("_wait_for_vram_settle", "_wait")})
    contract = target.must_not_hold(target.lock("_lock"), at=target.call("_wait"))
    assert contract.check_static().verdict is Verdict.KEPT
    backend = Backend()
    assert contract.check_run(traced_locks).verdict is Verdict.VACUOUS
    trace = traced_locks(backend, "_lock", watch="_wait")
    assert contract.check_run(trace).verdict is Verdict.VACUOUS
    backend.good()
    assert contract.check_run(trace).verdict is Verdict.KEPT
    backend.bad()
    outcome = contract.check_run(trace)
    assert outcome.verdict is Verdict.VIOLATED
    called, taken = (f"test_traced_locks.py:{line} in Backend.bad" for line in (36, 35))
    assert f"while it held _lock, taken at {__file__.removesuffix('test_traced_locks.py')}{taken}" in outcome.note
    assert outcome.note.endswith(called)
    other = target.must_not_name("nothing_such")
    with pytest.raises(ContractError, match="tells nothing of must_not_name"):
        other.check_run(trace)


def test_reentrancy_is_one_interval(monotonic_clock: VirtualClock, traced_locks: TracedLocks) -> None:
    backend = Backend()
    trace = traced_locks(backend, "_other")
    with backend._other:
        time.sleep(1)
        with backend._other:
            time.sleep(1)
        time.sleep(1)
    assert [hold.seconds for hold in trace.holds] == [3.0]
    assert trace.cycles() == []


def test_a_condition_over_a_traced_lock_lets_go_while_it_waits(
    monotonic_clock: VirtualClock, traced_locks: TracedLocks
) -> None:
    backend = Backend()
    trace = traced_locks(backend, "_other")
    with backend._ready:
        time.sleep(1)
        backend._ready.wait(timeout=5)
        time.sleep(2)
    assert [hold.seconds for hold in trace.holds] == [1.0, 2.0]


def test_a_condition_that_is_named_itself(traced_locks: TracedLocks) -> None:
    backend = Backend()
    trace = traced_locks(backend, "_ready")
    with backend._ready:
        backend._ready.notify_all()
    assert [hold.lock for hold in trace.holds] == ["_ready"]


def test_orders_that_can_deadlock(traced_locks: TracedLocks) -> None:
    backend = Backend()
    trace = traced_locks(backend, "_lock", "_other")
    with backend._lock, backend._other:
        pass
    trace.assert_no_cycles()
    with backend._other, backend._lock:
        pass
    assert trace.cycles() == [("_lock", "_other")]
    with pytest.raises(HoldFailure, match="_lock → _other → _lock: this order can deadlock"):
        trace.assert_no_cycles()


def test_asyncio_locks_are_held_by_tasks(monotonic_clock: VirtualClock, traced_locks: TracedLocks) -> None:
    async def main() -> None:
        backend = Backend(asyncio.Lock())
        trace = traced_locks(backend, "_lock", watch="_wait")

        async def keep() -> None:
            async with backend._lock:
                await asyncio.sleep(1)

        task = asyncio.create_task(keep())
        await asyncio.sleep(0.5)
        backend._wait()
        await task
        trace.assert_not_held(during="_wait")
        assert [hold.holder for hold in trace.holds] == [task]

    asyncio.run(main())


def test_locks_of_a_class(traced_locks: TracedLocks) -> None:
    trace = traced_locks(Backend, "shared", "_lock")
    backend = Backend()
    with Backend.shared, backend._lock:
        assert trace.held_by(threading.current_thread())[1][0] == "_lock"
    assert sorted(hold.lock for hold in trace.holds) == ["_lock", "shared"]


def test_everything_is_put_back() -> None:
    backend = Backend()
    before, shared = backend._lock, Backend.shared
    with TracedLocks() as trace:
        trace(backend, "_lock", watch="_wait")
        trace(Backend, "shared", "_new")
    assert backend._lock is before
    assert Backend.shared is shared
    assert "_wait" not in vars(backend)
    assert not hasattr(Backend, "_new")


def test_a_plain_lock_let_go_by_another_thread(traced_locks: TracedLocks) -> None:
    backend = Backend()
    trace = traced_locks(backend, "_lock")
    backend._lock.acquire()
    thread = threading.Thread(target=backend._lock.release)
    thread.start()
    thread.join()
    assert len(trace.holds) == 1
    assert trace.held_by(threading.current_thread()) == ()


def test_max_hold(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import threading, time
import pytest

class Backend:
    def __init__(self):
        self._lock = threading.Lock()

@pytest.mark.max_hold("_lock", 0.5)
@pytest.mark.parametrize("seconds", [0.5, 2.0])
def test_holds(monotonic_clock, traced_locks, seconds):
    backend = Backend()
    traced_locks(backend, "_lock")
    with backend._lock:
        time.sleep(seconds)

@pytest.mark.max_hold("_lock")
def test_wrong(traced_locks):
    pass
"""
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--strict-markers", timeout=50)
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines_random(
        ["*HoldFailure: _lock was held for 2 s, taken at *test_holds; max_hold('_lock', 0.5) allows 0.5 s", "*seconds*"]
    )


def test_where_no_lock_is_traced_nothing_was_seen(traced_locks: TracedLocks) -> None:
    backend = Backend()
    trace = traced_locks(backend, watch="good")
    backend.good()
    with pytest.raises(HoldFailure, match="no lock is traced"):
        trace.assert_not_held(during="good")


@pytest.mark.parametrize(
    ("marker", "arguments", "told"),
    [
        ("'_lock', 0.5", "", "max_hold needs the fixture traced_locks"),
        ("'_lock', 0.5", "traced_locks", "no lock '_lock' is traced"),
        (
            "'_lock'",
            "traced_locks",
            "test_it: @pytest.mark.max_hold('_lock'): missing 1 required positional argument: 'seconds'; write",
        ),
    ],
)
def test_a_limit_that_nobody_could_judge_fails(
    pytester: pytest.Pytester, marker: str, arguments: str, told: str
) -> None:
    pytester.makepyfile(f"import pytest\n@pytest.mark.max_hold({marker})\ndef test_it({arguments}): pass\n")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    assert told in result.stdout.str()
    assert result.ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize("arguments", ["monotonic_clock, traced_locks", "traced_locks, monotonic_clock"])
def test_a_lock_that_is_held_to_the_end_is_judged_on_the_clock(pytester: pytest.Pytester, arguments: str) -> None:
    pytester.makepyfile(
        f"""
import threading, time
import pytest

class Backend:
    def __init__(self):
        self._lock = threading.Lock()

@pytest.mark.max_hold("_lock", 0.5)
def test_holds({arguments}):
    backend = Backend()
    traced_locks(backend, "_lock")
    backend._lock.acquire()
    time.sleep(2)
"""
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*HoldFailure: _lock was held for 2 s, taken at *; max_hold('_lock', 0.5) allows*"])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("clock(); trace(); backend._lock.acquire(); time.sleep(2)", "2 s"),
        ("trace(); clock(); backend._lock.acquire(); time.sleep(2)", "2 s"),
        ("trace(); backend._lock.acquire(); clock(); time.sleep(2)", "2 s"),
        ("trace(); backend._lock.acquire(); clock(); time.sleep(2); backend._lock.release()", "2 s"),
        ("trace(); backend._lock.acquire(); clock(); time.sleep(0.25)", ""),
        ("trace(); clock(); backend._lock.acquire(); time.sleep(0.25)", ""),
    ],
)
def test_a_clock_that_the_test_asks_for_itself_is_the_one_that_counts(
    pytester: pytest.Pytester, body: str, told: str
) -> None:
    pytester.makepyfile(
        f"""
import threading, time
import pytest

class Backend:
    def __init__(self):
        self._lock = threading.Lock()

@pytest.mark.max_hold("_lock", 0.5)
def test_holds(traced_locks, request):
    backend = Backend()
    def clock(): request.getfixturevalue("monotonic_clock")
    def trace(): traced_locks(backend, "_lock")
    {body}
"""
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, errors=1 if told else 0)
    if told:
        result.stdout.fnmatch_lines([f"*HoldFailure: _lock was held for {told}, taken at *max_hold('_lock', 0.5)*"])


def test_another_thread_that_has_it_meanwhile_can_take_it(
    monotonic_clock: VirtualClock, traced_locks: TracedLocks
) -> None:
    backend = Backend()
    trace = traced_locks(backend, "_lock", watch="_wait")

    def keep() -> None:
        with backend._lock:
            time.sleep(2)
        time.sleep(0.5)
        with backend._lock:
            time.sleep(2)

    thread = threading.Thread(target=keep)
    thread.start()
    time.sleep(1)
    backend._wait()  # held when it begins, and when it ends
    thread.join()
    trace.assert_free(during="_wait", lock="_lock")


def test_an_assertion_shows_what_happened(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        app="""
import threading, time

class Backend:
    def __init__(self):
        self._lock = threading.Lock()

    def _wait(self):
        pass

    def load(self):
        with self._lock:
            self._wait()
""",
        test_app="""
from app import Backend
from pytest_vramsettle.contracts import lock_contract

def declared():
    target = lock_contract("app:Backend")
    return target.must_not_hold(target.lock("_lock"), at=target.call("_wait"))

def test_run(traced_locks):
    backend = Backend()
    trace = traced_locks(backend, "_lock", watch="_wait")
    backend.load()
    assert declared().check_run(trace).passes

def test_static():
    assert declared().check_static()
""",
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "E * where False = Outcome: violated: MainThread called _wait() while it held _lock, taken at app.py:11 in "
            "Backend.load; it was called at app.py:12 in Backend.load.passes",
            "E * assert Outcome: violated: _wait() is reached while _lock is held (app.py:12)",
        ]
    )
    assert "ast." not in result.stdout.str()
