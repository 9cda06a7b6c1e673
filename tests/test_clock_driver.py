"""The clock and the driver in each other's hands: calls that read the one while a jump of the other changes it."""

from __future__ import annotations

import threading
import time

import pynvml
from nvml_client import initialised

from fake_gpu import Driver, Fault, Ramp
from fake_gpu.units import GIB
from pytest_vramsettle.clock import VirtualClock

ROUNDS = 300


def test_readings_and_jumps_that_change_what_is_read_do_not_lock_each_other_out():
    """A reading asks the clock with the driver's lock taken; a jump changes the driver from within the clock."""
    with VirtualClock() as clock, initialised(Driver(clock=clock)) as driver:
        gpu = driver.add_gpu(memory="80 GiB", reserved="0 MiB")
        driver.inject(Fault.slow("3ms"), via="nvmlDeviceGetMemoryInfo")
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        seen: set[int] = set()

        def read() -> None:
            for _ in range(ROUNDS):
                seen.add(pynvml.nvmlDeviceGetMemoryInfo(handle).used // GIB)

        def change() -> None:
            process = driver.process(gpu, used="20 GiB")
            driver.at("5ms", lambda: process.kill(reclaim=Ramp.step(after="5ms")))

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        for _ in range(ROUNDS // 4):
            change()
            time.sleep(0.016)
        for reader in readers:
            reader.join()
    assert seen == {0, 20}
    assert clock.elapsed_ns == ROUNDS // 4 * 16_000_000


def test_a_thread_in_real_time_reads_the_driver_while_the_clock_jumps():
    over = threading.Event()
    with VirtualClock() as clock, initialised(Driver(clock=clock)) as driver:
        gpu = driver.add_gpu(memory="80 GiB", reserved="0 MiB")
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        seen: list[int] = []

        def read() -> None:
            while not over.is_set():
                seen.append(pynvml.nvmlDeviceGetMemoryInfo(handle).used // GIB)

        with clock.real_time():
            reader = threading.Thread(target=read)
            reader.start()
        for _ in range(ROUNDS):
            process = driver.process(gpu, used="20 GiB")
            driver.at("1ms", lambda process=process: process.kill(reclaim=Ramp.linear("2ms")))
            time.sleep(0.01)
        assert clock.elapsed_ns == ROUNDS * 10_000_000
        over.set()
        reader.join()
    assert seen
    assert set(seen) <= set(range(21))
