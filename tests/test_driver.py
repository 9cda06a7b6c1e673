"""The driver's model: GPUs, memory, deaths, the schedule, faults. Nothing here needs a native client."""

from __future__ import annotations

import pytest
from nvml_client import HandClock

from fake_gpu import Death, Driver, DriverStateError, Fault, InvalidValue, Ramp
from fake_gpu.driver import FIRST_VIRTUAL_PID
from fake_gpu.profile import load_profile, profile_names, read_profile
from fake_gpu.units import GIB, MIB


@pytest.fixture
def driver(clock: HandClock) -> Driver:
    return Driver(clock=clock)


def test_every_profile_makes_a_card_whose_memory_adds_up(driver: Driver) -> None:
    for name in profile_names():
        memory = driver.add_gpu(name).memory
        assert memory.total == memory.reserved + memory.used + memory.free
        assert memory.used == 0 < memory.reserved
    assert {"rtx-4090", "t4", "l40s", "h200"} <= set(profile_names())


def test_an_h200_reads_as_a_real_one(driver: Driver) -> None:
    memory = driver.add_gpu("h200").memory
    assert memory.total == 143771 * MIB
    assert -(-memory.reserved // MIB) == 614


def test_explicit_values(driver: Driver) -> None:
    gpu = driver.add_gpu(name="My GPU", memory="48 GiB", reserved="1 GiB", uuid="GPU-mine")
    assert (gpu.name, gpu.uuid, gpu.index) == ("My GPU", "GPU-mine", 0)
    assert gpu.memory == (48 * GIB, GIB, 0, 47 * GIB)
    assert driver.add_gpu("t4", memory="8 GiB").memory.total == 8 * GIB


def test_uuids_differ_and_repeat_in_the_next_run() -> None:
    first, second = Driver(), Driver()
    uuids = [first.add_gpu("t4").uuid for _ in range(3)]
    assert len(set(uuids)) == 3
    assert uuids == [second.add_gpu("t4").uuid for _ in range(3)]


def test_memory_of_the_dead_comes_back_along_the_ramp(driver: Driver, clock: HandClock) -> None:
    gpu = driver.add_gpu("rtx-4090")
    process = driver.process(gpu, used="20 GiB")
    idle = gpu.memory.free + 20 * GIB
    process.kill(reclaim=Ramp.linear("600ms", after="150ms"))
    missing = []
    for _ in range(5):
        missing.append(idle - gpu.memory.free)
        clock.go(0.2)
    assert [round(60 * size / (20 * GIB), 6) for size in missing] == [60, 55, 35, 15, 0]
    assert not process.alive
    assert gpu.processes == []
    assert process.used == {gpu: 0}


def test_the_default_ramp_begins_late_and_ends_in_time(driver: Driver, clock: HandClock) -> None:
    gpu = driver.add_gpu("t4")
    driver.process(gpu, used="4 GiB").kill()
    clock.go(0.15)
    assert gpu.memory.used == 4 * GIB
    clock.go(0.6)
    assert gpu.memory.used == 0


def test_a_process_on_several_gpus(driver: Driver, clock: HandClock) -> None:
    left, right = driver.add_gpu("l40s"), driver.add_gpu("l40s")
    process = driver.process({left: "10 GiB", right: "20 GiB"}, reclaim=Ramp.step("1s"))
    assert (left.memory.used, right.memory.used) == (10 * GIB, 20 * GIB)
    with pytest.raises(DriverStateError, match="is on 2 GPUs: say which one"):
        process.hold("1 GiB")
    process.hold("12 GiB", left)
    process.kill()
    clock.go(1)
    assert left.memory.used == right.memory.used == 0


def test_holding_more_and_less(driver: Driver) -> None:
    gpu = driver.add_gpu("t4")
    process = driver.process(gpu, used="1 GiB")
    process.hold("3 GiB")
    assert gpu.memory.used == 3 * GIB
    process.hold(0)
    assert gpu.memory.used == 0
    with pytest.raises(InvalidValue, match="100 GiB is more than"):
        process.hold("100 GiB")
    process.exit()
    with pytest.raises(DriverStateError, match="is dead and cannot allocate"):
        process.hold("1 GiB")
    with pytest.raises(DriverStateError, match="is dead already"):
        process.kill()


def test_virtual_pids_are_ones_that_no_kernel_hands_out(driver: Driver) -> None:
    gpu = driver.add_gpu("t4")
    pids = [driver.process(gpu, used="1 MiB").pid for _ in range(3)]
    assert pids == [FIRST_VIRTUAL_PID, FIRST_VIRTUAL_PID + 1, FIRST_VIRTUAL_PID + 2]
    assert min(pids) > 4194304


def test_listeners_learn_what_the_dead_held(driver: Driver, clock: HandClock) -> None:
    left, right = driver.add_gpu("t4"), driver.add_gpu("t4")
    other = driver.process(left, used="2 GiB")
    process = driver.process(left, used="4 GiB")
    free = {left.uuid: left.memory.free, right.uuid: right.memory.free}
    deaths: list[Death] = []
    cancel = driver.on_death(deaths.append)
    clock.go(1)
    process.kill()
    assert deaths == [
        Death(process.pid, clock.now, {left.uuid: 4 * GIB}, free, {left.uuid: {other.pid: 2 * GIB}, right.uuid: {}})
    ]
    cancel()
    other.kill()
    assert len(deaths) == 1


# -- what does not fit


def test_more_memory_than_the_card_has(driver: Driver) -> None:
    gpu = driver.add_gpu("t4")
    with pytest.raises(InvalidValue, match=r"20 GiB is more than .*Tesla T4.* has: 15 GiB in all"):
        driver.process(gpu, used="20 GiB")
    assert driver.processes == []


def test_memory_that_is_not_back_yet_is_in_the_way(driver: Driver, clock: HandClock) -> None:
    gpu = driver.add_gpu("t4")
    driver.process(gpu, used="10 GiB", name="vllm").kill(reclaim=Ramp.step("1s"))
    with pytest.raises(InvalidValue, match=r"8 GiB does not fit .* vllm \(pid \d+\): 10 GiB not back yet"):
        driver.process(gpu, used="8 GiB")
    clock.go(1)
    driver.process(gpu, used="8 GiB")


def test_an_unknown_profile_names_the_nearest(driver: Driver) -> None:
    with pytest.raises(InvalidValue, match=r"no GPU profile 'RTX 4090'; there are .*'h200'.*Did you mean 'rtx-4090'\?"):
        driver.add_gpu("RTX 4090")


def test_a_process_on_a_removed_gpu(driver: Driver) -> None:
    gpu = driver.add_gpu("t4")
    gpu.remove()
    with pytest.raises(DriverStateError, match=r"is removed: no process can hold memory there; restore\(\)"):
        driver.process(gpu, used="1 GiB")


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (lambda d, g: d.process(g), "say how much it holds"),
        (lambda d, g: d.process({g: "1 GiB"}, used="1 GiB"), "not both"),
        (lambda d, g: d.process(g, used="lots"), "'lots' is not a size"),
        (lambda d, g: d.add_gpu(memory="1 GiB", reserved="2 GiB"), "leaves nothing of 1 GiB"),
        (lambda d, g: d.add_gpu("t4", uuid=g.uuid), "has that UUID already"),
        (lambda d, g: d.renumber([0, 0]), r"give each of the 1 indices once, such as \[0\]"),
        (lambda d, g: d.renumber([]), "give each of the 1 indices once"),
        (lambda d, g: d.inject(Fault.hang(), via="nvml-smi"), "'nvidia-smi', 'nvml', or the name of an NVML function"),
        (lambda d, g: d.inject(Fault.exit(9), via="nvml"), r"Fault.exit\(9\) can only meet nvidia-smi"),
        (lambda d, g: d.inject(Fault.hang(), after=-1), "after=-1: give a whole number, 0 or more"),
        (lambda d, g: d.inject(Fault.hang(), times=0), "times=0: give a whole number, 1 or more"),
        (lambda d, g: Fault.nvml("GPU_ON_FIRE"), "no such NVML error; there are ALREADY_INITIALIZED"),
        (lambda d, g: Fault.nvml(12345), "no NVML error has this number"),
        (lambda d, g: Fault.exit(256), "from 0 to 255"),
        (lambda d, g: Fault.slow(0), "the delay has to be positive"),
        (lambda d, g: d.at("soon", print), "'soon' is not a duration"),
        (lambda d, g: d.at("1s", None), "give something to call"),
        (lambda d, g: d.add_gpu(5), "5"),
        (lambda d, g: d.add_gpu(name=5), "name: 5 does not fit: give a printable text"),
        (lambda d, g: d.add_gpu(name="a,b"), "they separate nvidia-smi's fields"),
        (lambda d, g: d.add_gpu(uuid="GPU-\n"), "give a printable text"),
        (lambda d, g: d.add_gpu(uuid="x" * 300), "1 to 79 bytes"),
        (lambda d, g: d.add_gpu(memory=0), "memory: 0: a card has more than 0 bytes"),
        (lambda d, g: d.add_gpu(memory=10**30), "less than 1 EiB"),
        (lambda d, g: d.process(0, used="1 GiB"), "0 is neither a GPU nor a mapping"),
        (lambda d, g: d.process({0: "1 GiB"}), "gpu=0: give the object that add_gpu returned"),
        (lambda d, g: d.process(g, used="1 GiB", reclaim="600ms"), "reclaim='600ms' is not a ramp: give one, such as"),
        (lambda d, g: d.process(g, used="1 GiB").kill(reclaim="600ms"), "reclaim='600ms' is not a ramp"),
        (lambda d, g: d.process(g, used="1 GiB", pid=2**40), "is not a PID"),
        (lambda d, g: d.process(g, used="1 GiB", pid="12"), "'12' is not a PID"),
        (lambda d, g: d.process(g, used="1 GiB", name=5), "name: 5: give a text"),
        (lambda d, g: d.process(g, used="1 GiB", compute_type="Z"), "give one of 'C', 'G', 'C\\+G'"),
        (lambda d, g: d.process(g, used=1, pid=d.process(g, used=1).pid), "holds memory here already"),
        (lambda d, g: d.attach("12", {g: "1 GiB"}), "'12' is not a PID"),
        (lambda d, g: d.attach(True, {g: "1 GiB"}), "True is not a PID"),
        (lambda d, g: d.attach(-1, {g: "1 GiB"}), "-1 is not a PID"),
        (lambda d, g: d.inject("hang"), "give a Fault"),
        (lambda d, g: d.inject(Fault.hang), r"call it: Fault.hang\(…\)"),
        (lambda d, g: d.inject(Fault.hang(), gpu=0), "gpu=0: give the object"),
        (lambda d, g: d.inject(Fault.hang(), times="3"), "times='3': give a whole number"),
        (lambda d, g: d.renumber(None), "renumber\\(None\\): give each of the 1 indices"),
        (lambda d, g: d.on_death(None), "give something to call with a Death"),
        (lambda d, g: Driver(clock=5), "is no clock: it has no is_real_time"),
        (lambda d, g: Driver(cuda_version=13.1), "give a pair of whole numbers"),
        (lambda d, g: Driver(driver_version=5), "driver_version: 5: give a text of two to four numbers"),
    ],
)
def test_bad_input_says_what_is_possible(driver: Driver, wrong: object, complaint: str) -> None:
    gpu = driver.add_gpu("t4")
    with pytest.raises(InvalidValue, match=complaint):
        wrong(driver, gpu)  # type: ignore[operator]


def test_a_gpu_of_another_driver(driver: Driver) -> None:
    with pytest.raises(DriverStateError, match="belongs to another Driver"):
        driver.process(Driver().add_gpu("t4"), used="1 GiB")


def test_profiles_are_checked(tmp_path: object) -> None:
    from pathlib import Path

    import fake_gpu.profile

    text = (Path(fake_gpu.profile.__file__).parent / "profiles" / "t4.toml").read_text()
    path = Path(str(tmp_path)) / "card.toml"
    for old, new, complaint in [
        ("bus_width = 256", "bus_widht = 256", "unknown field `bus_widht`"),
        ("total_mib = 15360", "total_mib = -1", "total_mib"),
        ("total_mib = 15360", "total_mib = 100", r"memory.reserved_mib: it \(388\) leaves nothing"),
        ("max_limit = 70", "max_limit = 65", "power.default_limit: 70 lies outside"),
        ('architecture = "turing"', 'architecture = "newton"', "newton"),
    ]:
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(InvalidValue, match=complaint):
            read_profile(path)
    assert load_profile("t4").name == "Tesla T4"


# -- presence and numbers


def test_remove_lose_restore(driver: Driver) -> None:
    first, second, third = (driver.add_gpu("l40s") for _ in range(3))
    second.remove()
    assert driver.gpus == (first, third)
    assert third.index == 1
    with pytest.raises(DriverStateError, match="has no index"):
        _ = second.index
    first.lose()
    assert driver.gpus == (first, third)
    second.restore()
    first.restore()
    assert driver.gpus == (first, second, third)


def test_renumber(driver: Driver) -> None:
    first, second, third = (driver.add_gpu("l40s") for _ in range(3))
    driver.renumber([2, 0, 1])
    assert driver.gpus == (third, first, second)
    first.remove()
    driver.renumber([1, 0])
    assert driver.gpus == (second, third)
    first.restore()
    assert driver.gpus == (second, first, third)


# -- the schedule


def test_what_is_due_runs_before_the_next_reading_at_its_own_time(driver: Driver, clock: HandClock) -> None:
    gpu = driver.add_gpu("t4")
    process = driver.process(gpu, used="8 GiB", reclaim=Ramp.linear("1s"))
    driver.at("300ms", process.kill)
    clock.go(0.8)
    assert gpu.memory.used == 4 * GIB  # dead for 0.5 s, although nobody looked before
    assert process.died_ns == clock.now - 500_000_000


def test_what_is_due_runs_in_order(driver: Driver, clock: HandClock) -> None:
    ran: list[str] = []
    driver.at("2s", lambda: ran.append("b"))
    driver.at("1s", lambda: ran.append("a"))
    driver.at("2s", lambda: ran.append("c"))
    clock.go(1.5)
    driver.sync()
    assert ran == ["a"]
    clock.go(1)
    driver.sync()
    assert ran == ["a", "b", "c"]


def test_a_scheduled_call_may_schedule_and_read(driver: Driver, clock: HandClock) -> None:
    gpu = driver.add_gpu("t4")
    seen: list[int] = []

    def again() -> None:
        seen.append(gpu.memory.used)
        driver.process(gpu, used="1 GiB")
        if len(seen) < 3:
            driver.at("100ms", again)

    driver.at("100ms", again)
    clock.go(1)
    assert gpu.memory.used == 3 * GIB
    assert seen == [0, GIB, 2 * GIB]


def test_what_a_scheduled_call_raises_is_raised_when_the_driver_stops(driver: Driver, clock: HandClock) -> None:
    driver.at("1s", lambda: 1 / 0)
    clock.go(2)
    driver.sync()
    with pytest.raises(ZeroDivisionError):
        driver.stop()
    driver.stop()


# -- faults are counted


def test_after_and_times_count_matching_calls(driver: Driver) -> None:
    gpu, other = driver.add_gpu("t4"), driver.add_gpu("t4")
    fault = Fault.nvml("TIMEOUT")
    take_back = driver.inject(fault, via="nvmlDeviceGetName", gpu=gpu, after=1, times=2)
    ours = frozenset({gpu.uuid})
    met = [
        driver.faults("nvml", "nvmlDeviceGetName", ours),
        driver.faults("nvml", "nvmlDeviceGetName", frozenset({other.uuid})),
        driver.faults("nvml", "nvmlDeviceGetUUID", ours),
        driver.faults("nvml", "nvmlDeviceGetName", ours),
        driver.faults("nvml", "nvmlDeviceGetName", ours),
        driver.faults("nvml", "nvmlDeviceGetName", ours),
    ]
    assert met == [(), (), (), (fault,), (fault,), ()]
    take_back()
    take_back()
    assert not driver.has_faults


def test_a_fault_shows_what_it_is() -> None:
    faults = [Fault.slow("1.2s"), Fault.hang(), Fault.exit(9), Fault.nvml("gpu_is_lost"), Fault.holds_pipe()]
    assert [eval(repr(fault), {"Fault": Fault}) for fault in faults] == faults
    assert Fault.nvml("NVML_ERROR_GPU_IS_LOST") == Fault.nvml(15)
