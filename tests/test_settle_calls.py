"""The wait as it is called: in real time, with callables in their threads, under asyncio; its arguments and result."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from settle_world import GPU, SECOND

from pytest_vramsettle.kills import KillRecord
from pytest_vramsettle.settle import TRUSTED, SettleResult, async_wait_for_vram_settle, wait_for_vram_settle


def seconds_until(outcome: str, act: Callable[[], None], wait: Callable[[], SettleResult]) -> float:
    """Real seconds from `act`, done after 100 ms, to the wait's return."""
    acted: list[float] = []

    def later() -> None:
        time.sleep(0.1)
        acted.append(time.monotonic())
        act()

    thread = threading.Thread(target=later)
    thread.start()
    result = wait()
    returned = time.monotonic()
    thread.join()
    assert result.outcome == outcome
    return returned - acted[0]


class TestInRealTime:
    """Callables run in a thread of their own; the bounds are generous for a busy machine."""

    def test_a_callable_that_hangs_is_abandoned_and_not_called_again(self) -> None:
        release, calls = threading.Event(), []

        def hangs() -> list[tuple[int, int]]:
            calls.append(1)
            release.wait()
            return [(0, 1)]

        started = time.monotonic()
        for policy, outcome in (
            ("two-samples", "timed_out"),
            ("two-samples", "probe_failed"),
            ("verified", "timed_out"),
        ):
            result = wait_for_vram_settle(since_kill=started, probe=hangs, policy=policy, max_wait=0.2)
            assert (result.outcome, len(calls)) == (outcome, 1)
        assert time.monotonic() - started < 8
        release.set()
        while any(thread.name == "vram-probe" for thread in threading.enumerate()):
            time.sleep(0.001)
        result = wait_for_vram_settle(since_kill=started, probe=hangs, policy="two-samples", interval=0.01)
        assert (result.outcome, len(calls)) == ("settled", 3)

    def test_the_bound_method_of_a_backend(self) -> None:
        class Backend:
            last_kill_monotonic = time.monotonic()

            def get_gpu_free_memory(self) -> list[tuple[int, int]]:
                return [(0, 10000), (1, 20000)]

        backend = Backend()
        result = wait_for_vram_settle(
            max_wait=2.0,
            interval=0.01,
            tolerance_mib=256,
            since_kill=backend.last_kill_monotonic,
            probe=backend.get_gpu_free_memory,
            policy="two-samples",
        )
        assert result.outcome == "settled"
        assert result.samples[0].free_mib == {0: 10000.0, 1: 20000.0}

    def test_cancel_during_a_probe(self) -> None:
        cancel, release = threading.Event(), threading.Event()
        took = seconds_until(
            "cancelled",
            cancel.set,
            lambda: wait_for_vram_settle(
                since_kill=time.monotonic(), probe=lambda: [(0, int(release.wait(5)))], cancel=cancel
            ),
        )
        release.set()
        assert took < 1.0  # the probe itself takes 5 s

    def test_a_newer_kill_during_a_probe(self) -> None:
        kills, release = KillRecord(), threading.Event()
        kills.stamp()
        took = seconds_until(
            "superseded", kills.stamp, lambda: wait_for_vram_settle(kills, probe=lambda: [(0, int(release.wait(5)))])
        )
        release.set()
        assert took < 1.0  # the probe itself takes 5 s

    def test_an_exception_that_is_no_exception_of_a_probe_is_passed_on(self) -> None:
        def leaves() -> list[tuple[int, int]]:
            raise SystemExit(3)

        with pytest.raises(SystemExit):
            wait_for_vram_settle(since_kill=time.monotonic(), probe=leaves)

    def test_no_lock_is_held_and_two_waits_go_on_together(self) -> None:
        kills = KillRecord()
        kills.stamp()
        results: list[SettleResult] = []
        threads = [
            threading.Thread(
                target=lambda: results.append(
                    wait_for_vram_settle(kills, probe=lambda: [(0, 1000)], policy="two-samples", interval=0.05)
                )
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [result.outcome for result in results] == ["settled"] * 8


class TestAsyncio:
    def test_the_loop_goes_on(self) -> None:
        async def main() -> tuple[SettleResult, int]:
            ticks = 0
            wait = asyncio.create_task(
                async_wait_for_vram_settle(
                    since_kill=time.monotonic(), probe=lambda: [(0, 1000)], policy="two-samples", interval=0.1
                )
            )
            while not wait.done():
                ticks += 1
                await asyncio.sleep(0.01)
            return wait.result(), ticks

        result, ticks = asyncio.run(main())
        assert result.outcome == "settled"
        assert ticks > 3

    def test_cancelling_the_task_ends_the_thread(self) -> None:
        async def main() -> None:
            wait = asyncio.create_task(
                async_wait_for_vram_settle(since_kill=time.monotonic(), probe=lambda: [(0, 1000)], interval=20.0)
            )
            await asyncio.sleep(0.05)
            wait.cancel()
            with pytest.raises(asyncio.CancelledError):
                await wait

        asyncio.run(main())
        deadline = time.monotonic() + 1.0
        while any(thread.name == "vram-settle" for thread in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def test_errors_belong_to_the_task(self) -> None:
        def leaves() -> list[tuple[int, int]]:
            raise GeneratorExit

        with pytest.raises(GeneratorExit):
            asyncio.run(async_wait_for_vram_settle(since_kill=time.monotonic(), probe=leaves))
        with pytest.raises(ValueError, match="max_wait"):
            asyncio.run(async_wait_for_vram_settle(max_wait=-1))


class TestArguments:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("max_wait", -0.1),
            ("max_wait", float("nan")),
            ("max_wait", float("inf")),
            ("interval", 0.0),
            ("interval", float("nan")),
            ("tolerance_mib", -1),
            ("tolerance_mib", float("nan")),
            ("since_kill", float("nan")),
            ("policy", "two_samples"),
        ],
    )
    def test_what_cannot_be_is_refused(self, name: str, value: object) -> None:
        with pytest.raises(ValueError, match=str(value) if name != "policy" else "two-samples"):
            wait_for_vram_settle(**{name: value})  # type: ignore[arg-type]

    def test_the_record_and_a_time_together_are_refused(self) -> None:
        with pytest.raises(ValueError, match="since_kill"):
            wait_for_vram_settle(KillRecord(), since_kill=1.0)

    def test_a_probe_that_is_none(self) -> None:
        with pytest.raises(TypeError, match="no probe"):
            wait_for_vram_settle(probe=3)  # type: ignore[arg-type]


def test_trust() -> None:
    assert {outcome for outcome in ("settled", "timed_out", "no_gpu", "stable_unverified") if outcome in TRUSTED} == {
        "settled",
        "no_gpu",
    }
    assert bool(SettleResult("settled", 1, "verified"))
    assert not SettleResult("stable_unverified", 1, "verified")


def test_a_result_says_what_there_is_to_know() -> None:
    result = SettleResult("timed_out", 2 * SECOND, "verified", (), (), 512, {GPU: 512, "GPU-two": 0}, (7,), 20480)
    assert str(result) == (
        "timed_out after 2.000 s and 0 samples (verified); 512 of 20480 MiB missing (GPU-one: 512 MiB); held by PID 7"
    )
    assert repr(result) == f"<SettleResult: {result}>"


def test_production_code_brings_in_the_standard_library_only() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "from pytest_vramsettle import kills, policies, probes, settle\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names) - {'pytest_vramsettle'}), 'asyncio' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "False"]
