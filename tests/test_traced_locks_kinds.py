"""Which locks can be traced, of which owners; what is refused leaves nothing behind."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from test_traced_locks import Backend

from pytest_vramsettle.clock import VirtualClock
from pytest_vramsettle.contracts import ContractError, HoldFailure, Verdict, lock_contract
from pytest_vramsettle.contracts.tracing import TracedLocks


def test_what_is_no_lock_is_refused(traced_locks: TracedLocks) -> None:
    backend = Backend()
    with pytest.raises(ContractError, match="this Backend has no attribute '_lokc'; did you mean '_lock'"):
        traced_locks(backend, "_lokc")
    with pytest.raises(ContractError, match="no lock, it has no acquire"):
        traced_locks(backend, "good")
    with pytest.raises(ContractError, match="has no function 'wait' to watch; did you mean '_wait'"):
        traced_locks(backend, "_lock", watch="wait")
    with pytest.raises(HoldFailure, match="'_wait' is not watched"):
        traced_locks.assert_not_held(during="_wait")
    with pytest.raises(HoldFailure, match="no lock 'x' is traced"):
        traced_locks.longest("x")


def test_a_condition_of_asyncio_lets_go_while_it_waits(
    monotonic_clock: VirtualClock, traced_locks: TracedLocks
) -> None:
    async def main() -> None:
        backend = Backend(asyncio.Condition())
        ready = backend._lock
        trace = traced_locks(backend, "_lock", watch="_wait")

        async def wait() -> None:
            async with backend._lock:
                await asyncio.sleep(1)
                await backend._lock.wait()
                await asyncio.sleep(2)

        task = asyncio.create_task(wait())
        await asyncio.sleep(3)
        backend._wait()
        async with ready:  # who kept the real one wakes those who wait on the traced one
            ready.notify()
        await task
        assert [(hold.seconds, hold.holder) for hold in trace.holds] == [(1.0, task), (2.0, task)]
        assert all(
            "test_traced_locks_kinds.py" in hold.where and "main.<locals>.wait" in hold.where for hold in trace.holds
        )
        trace.assert_free(during="_wait", lock="_lock")

    asyncio.run(main())


def test_a_condition_over_an_asyncio_lock_that_is_traced(traced_locks: TracedLocks) -> None:
    async def main() -> None:
        backend = Backend(asyncio.Lock())
        backend._ready = asyncio.Condition(backend._lock)  # type: ignore[assignment,arg-type]  # another kind of backend
        trace = traced_locks(backend, "_lock")
        async with backend._ready:  # type: ignore[attr-defined]  # as above
            assert trace.held_by(asyncio.current_task())[0][0] == "_lock"

    asyncio.run(main())


def test_where_a_condition_was_entered_is_told(monotonic_clock: VirtualClock, traced_locks: TracedLocks) -> None:
    backend = Backend()
    trace = traced_locks(backend, "_ready")
    with backend._ready:
        backend._ready.wait(timeout=0.5)
    assert len(trace.holds) == 2
    assert all("test_where_a_condition_was_entered_is_told" in hold.where for hold in trace.holds)


@pytest.mark.parametrize(
    "make", [threading.Semaphore, threading.BoundedSemaphore, asyncio.Semaphore, asyncio.BoundedSemaphore]
)
def test_semaphores_are_refused(make: Any, traced_locks: TracedLocks) -> None:
    backend = Backend(make())
    real = backend._lock
    with pytest.raises(ContractError, match=r"'_lock' is .*: a semaphore counts, nobody holds it"):
        traced_locks(backend, "_lock")
    assert backend._lock is real


def test_what_is_refused_leaves_nothing_behind(traced_locks: TracedLocks) -> None:
    backend = Backend()
    backend._model = "a.gguf"  # type: ignore[attr-defined]  # no lock
    before = dict(vars(backend))
    with pytest.raises(ContractError, match=r"'_model' is 'a\.gguf': no lock"):
        traced_locks(backend, "_lock", "_other", "_model", watch="_wait")
    assert vars(backend) == before
    assert (traced_locks.names, traced_locks.watched) == ([], [])
    with pytest.raises(ContractError, match="has no function '_weit' to watch; did you mean '_wait'"):
        traced_locks(backend, "_lock", watch="_weit")
    assert vars(backend) == before
    with pytest.raises(ContractError, match=r"Backend\.good is .*: no lock"):
        traced_locks(Backend, "shared", "good")
    assert isinstance(Backend.shared, type(threading.Lock()))


class Slotted:
    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def wait(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Frozen:
    _lock: Any = field(default_factory=threading.Lock)


def test_slots() -> None:
    owner = Slotted()
    real, slot = owner._lock, vars(Slotted)["_lock"]
    with TracedLocks() as trace:
        trace(owner, "_lock")
        with owner._lock:
            pass
        assert len(trace.holds) == 1
        with pytest.raises(ContractError, match="has no attribute '_lok'; did you mean '_lock'"):
            trace(owner, "_lok")
        with pytest.raises(ContractError, match=r"'wait' cannot be replaced .*: traced_locks\(Slotted, watch='wait'\)"):
            trace(owner, watch="wait")
    assert owner._lock is real
    with TracedLocks() as trace:
        trace(Slotted, "_lock", watch="wait")
        other = Slotted()
        with other._lock:
            other.wait()
        assert [hold.lock for hold in trace.holds] == ["_lock"]
        with pytest.raises(HoldFailure, match="called wait"):
            trace.assert_not_held(during="wait")
    assert vars(Slotted)["_lock"] is slot
    with other._lock:
        pass


def test_an_attribute_that_cannot_be_written_says_what_can(traced_locks: TracedLocks) -> None:
    owner = Frozen()
    with pytest.raises(
        ContractError, match=r"this Frozen: '_lock' cannot be replaced .*: traced_locks\(Frozen, '_lock'\)"
    ):
        traced_locks(owner, "_lock")
    traced_locks(Frozen, "_lock")
    with Frozen()._lock:
        pass
    assert len(traced_locks.holds) == 1


def test_a_class_whose_instances_never_assign_the_lock_has_shown_nothing(traced_locks: TracedLocks) -> None:
    trace = traced_locks(Backend, "_lokc", watch="_wait")
    backend = Backend()
    backend._wait = lambda: None  # type: ignore[method-assign]  # it is not to sleep
    trace(backend, watch="_wait")
    backend._wait()
    with pytest.raises(HoldFailure, match="no instance has assigned '_lokc' since it is traced"):
        trace.assert_not_held(during="_wait")
    target = lock_contract("m:Backend", sources={"m": "class Backend: pass\n"})
    contract = target.must_not_hold(target.lock("_lokc"), at=target.call("_wait"))
    assert contract.check_run(trace).verdict is Verdict.VACUOUS


def test_a_default_of_the_class_stays_readable(traced_locks: TracedLocks) -> None:
    class Lazy:
        _lock: Any = None

        def load(self) -> None:
            if self._lock is None:
                self._lock = threading.Lock()
            with self._lock:
                pass

    trace = traced_locks(Lazy, "_lock")
    Lazy().load()
    assert [hold.lock for hold in trace.holds] == ["_lock"]


def test_locks_of_one_name_of_two_objects_are_not_taken_for_one(traced_locks: TracedLocks) -> None:
    one, other = Backend(), Backend()
    trace = traced_locks(one, "_lock")
    assert traced_locks(one, "_lock", "_other") is trace
    with pytest.raises(ContractError, match="'_lock' of another Backend is traced already"):
        traced_locks(other, "_lock")
    with TracedLocks() as second:
        second(other, "_lock")
        with one._lock, other._lock:
            pass
    assert (len(trace.holds), len(second.holds)) == (1, 1)


def test_the_task_that_held_it_is_named(traced_locks: TracedLocks) -> None:
    async def main() -> None:
        backend = Backend(asyncio.Lock())
        trace = traced_locks(backend, "_lock", watch="good")
        backend.good = lambda: None  # type: ignore[method-assign]  # it is not to sleep
        trace(backend, watch="good")
        async with backend._lock:
            backend.good()
        with pytest.raises(HoldFailure, match=r"^Task-\d+ called good\(\) while it held _lock, taken at .* in .*main"):
            trace.assert_not_held(during="good")

    asyncio.run(main())


def test_what_is_refused_leaves_no_memory_of_it(traced_locks: TracedLocks) -> None:
    first, other = Backend(), Backend()
    with pytest.raises(ContractError, match="has no attribute '_lokc'"):
        traced_locks(first, "_lock", "_lokc")
    traced_locks(other, "_lock")  # it is not taken for the other's
    with TracedLocks() as trace:
        trace(Backend, "_other")
        with pytest.raises(ContractError, match="no lock"):
            trace(Slotted, "_lock", "wait")
        assert (trace.names, trace.awaited) == (["_other"], {"_other"})


def test_threads_hold_locks_that_a_task_took_in_them(traced_locks: TracedLocks) -> None:
    """A lock of threading, in a coroutine: the thread holds it, not the task."""

    async def main() -> None:
        backend = Backend()
        backend._wait = lambda: None  # type: ignore[method-assign]  # it is not to sleep
        trace = traced_locks(backend, "_lock", watch="_wait")
        with backend._lock:
            backend._wait()
        with pytest.raises(HoldFailure, match=r"called _wait\(\) while it held _lock"):
            trace.assert_not_held(during="_wait")

    asyncio.run(main())


def test_none_may_be_assigned_to_what_is_traced(traced_locks: TracedLocks) -> None:
    trace = traced_locks(Backend, "_lock")
    backend = Backend()
    backend._lock = None
    assert backend._lock is None
    with pytest.raises(HoldFailure, match="no instance has assigned '_other'"):
        trace(Backend, "_other").longest("_other")
    backend._lock = threading.Lock()
    with backend._lock:
        pass
    assert [hold.lock for hold in trace.holds] == ["_lock"]


def test_none_is_no_lock_that_was_seen(traced_locks: TracedLocks) -> None:
    class Late:
        def __init__(self) -> None:
            self._lock: Any = None

    trace = traced_locks(Late, "_lock")
    Late()
    with pytest.raises(HoldFailure, match="no instance has assigned '_lock'"):
        trace.longest("_lock")


class Loading:
    """Whose wait is a coroutine."""

    def __init__(self, lock: Any = None) -> None:
        self._lock = lock or asyncio.Lock()
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()

    async def _wait(self) -> str:
        self.began.set()
        await self.may_end.wait()
        return "done"

    async def _wait_with_a_lock_of_its_own(self) -> None:
        async with self._lock:
            pass


def test_a_coroutine_is_looked_at_when_it_is_awaited(traced_locks: TracedLocks) -> None:
    async def main() -> None:
        loading = Loading()
        loading.may_end.set()
        trace = traced_locks(loading, "_lock", watch="_wait")
        assert await loading._wait() == "done"
        trace.assert_not_held(during="_wait")
        waiting = loading._wait()
        async with loading._lock:
            await waiting
        assert len(trace.calls) == 2
        with pytest.raises(
            HoldFailure, match=r"called _wait\(\) while it held _lock, taken at .*main; it was called at"
        ):
            trace.assert_not_held(during="_wait")

    asyncio.run(main())


def test_a_coroutine_that_another_task_awaits(traced_locks: TracedLocks) -> None:
    async def main() -> None:
        loading = Loading()
        loading.may_end.set()
        trace = traced_locks(loading, "_lock", watch=["_wait", "_wait_with_a_lock_of_its_own"])
        await loading._wait_with_a_lock_of_its_own()
        trace.assert_not_held(during="_wait_with_a_lock_of_its_own")
        assert loading._wait.__name__ == "_wait"
        async with loading._lock:
            task = asyncio.create_task(loading._wait())
        await task
        caller = asyncio.current_task()
        assert [call.holder for call in trace.calls] == [caller, caller]  # who called it held the lock
        with pytest.raises(HoldFailure, match=r"called _wait\(\) while it held _lock"):
            trace.assert_not_held(during="_wait")

    asyncio.run(main())


@pytest.mark.parametrize("when", ["before", "between", "after", "never"])
def test_a_lock_is_free_at_some_moment_of_a_coroutine(traced_locks: TracedLocks, when: str) -> None:
    async def main() -> None:
        loading = Loading()
        trace = traced_locks(loading, "_lock", watch="_wait")
        if when != "before":
            await loading._lock.acquire()
        waiting = asyncio.create_task(_by_itself(loading))
        await loading.began.wait()
        if when in ("before", "never"):
            await asyncio.sleep(0)
        else:
            loading._lock.release()
        if when in ("before", "between"):
            await loading._lock.acquire()
        loading.may_end.set()
        await waiting
        if when == "never":
            with pytest.raises(
                HoldFailure, match=r"another thread could not take _lock while _wait\(\) ran, called at"
            ):
                trace.assert_free(during="_wait", lock="_lock")
        else:
            trace.assert_free(during="_wait", lock="_lock")

    asyncio.run(main())


async def _by_itself(loading: Loading) -> None:
    await loading._wait()


def test_a_coroutine_that_is_never_begun_warns_once(
    traced_locks: TracedLocks, recwarn: pytest.WarningsRecorder
) -> None:
    async def main() -> None:
        loading = Loading()
        traced_locks(loading, "_lock", watch="_wait")
        loading._wait()

    asyncio.run(main())
    assert [str(each.message) for each in recwarn] == ["coroutine 'Loading._wait' was never awaited"]
