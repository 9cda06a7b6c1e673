"""Platforms that measure differently: NVML and nvidia-smi say the same of each."""

from __future__ import annotations

import pynvml
import pytest
from native_client import nvidia_smi
from nvml_client import HandClock

from fake_gpu import Driver, DriverStateError, Gpu, InvalidValue, Ramp, platforms
from fake_gpu.profile import MigDevice

USED = ("--query-gpu=memory.used", "--format=csv,noheader")
APPS = ("--query-compute-apps=pid,name,used_memory", "--format=csv,noheader")


@pytest.fixture
def gpu(driver: Driver) -> Gpu:
    gpu = driver.add_gpu("rtx-4090")
    driver.process(gpu, "2 GiB", name="server", pid=40)
    return gpu


def listed() -> list[tuple[int, int | None]]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    return [(one.pid, one.usedGpuMemory) for one in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]


def test_wddm(driver: Driver, gpu: Gpu) -> None:
    platforms.wddm(driver)
    assert listed() == [(40, None)]
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetCurrentDriverModel(handle) == pynvml.NVML_DRIVER_WDDM
    assert nvidia_smi(*APPS).stdout == "40, server, [N/A]\n"
    assert nvidia_smi(*USED).stdout == "2048 MiB\n"
    table = nvidia_smi().stdout
    assert "Driver-Model |" in table
    assert "WDDM  |" in table
    assert "Used GPU Memory               : Not available in WDDM driver model\n" in nvidia_smi("-q").stdout


def test_wsl(driver: Driver, gpu: Gpu) -> None:
    platforms.wsl(driver)
    assert listed() == []
    assert nvidia_smi(*APPS).stdout == ""
    assert nvidia_smi(*USED).stdout == "2048 MiB\n"


def test_a_container_shows_the_pids_of_the_host(driver: Driver, gpu: Gpu) -> None:
    platforms.container(driver)
    assert listed() == [(100_040, 2 << 30)]
    assert nvidia_smi(*APPS).stdout == "100040, [Not Found], 2048 MiB\n"
    with pytest.raises(InvalidValue, match="host_pids_from=0"):
        platforms.container(driver, host_pids_from=0)


def test_unified_memory(driver: Driver, gpu: Gpu) -> None:
    platforms.unified_memory(driver, gpu)
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0))
    assert listed() == [(40, 2 << 30)]
    assert nvidia_smi(*USED).stdout == "[N/A]\n"
    assert nvidia_smi(*APPS).stdout == "40, server, 2048 MiB\n"
    assert "Not Supported" in nvidia_smi().stdout


def test_mig(driver: Driver) -> None:
    gpu = driver.add_gpu("h200")
    platforms.partition(gpu, "3g.71gb", "1g.18gb")
    process = driver.process(gpu, "10 GiB", name="server", pid=4_200_000)
    process.run_in(gpu.instances[0])
    assert nvidia_smi("-L").stdout.splitlines()[1:] == [
        f"  MIG 3g.71gb     Device  0: (UUID: {gpu.instances[0].uuid})",
        f"  MIG 1g.18gb     Device  1: (UUID: {gpu.instances[1].uuid})",
    ]
    table = nvidia_smi().stdout
    assert "|  0    1   0   0  |           10240MiB / 70886MiB    | 48      0 |  3   0    3    0    3 |" in table
    assert "|    0    1    0          4200000      C   server" in table
    assert nvidia_smi("--query-gpu=utilization.gpu", "--format=csv,noheader").stdout == "[N/A]\n"
    for devices in ((), ("3 slices",), ("7g.141gb", "1g.18gb")):
        with pytest.raises(InvalidValue, match=r"partition|no MIG device"):
            platforms.partition(gpu, *devices)
    with pytest.raises(InvalidValue, match="not on that GPU"):
        driver.process(driver.add_gpu("t4"), "1 GiB").run_in(gpu.instances[0])


@pytest.mark.parametrize(
    ("profile", "devices", "said"),
    [
        ("rtx-4090", ("1g.3gb",), "cannot be partitioned"),
        ("t4", ("1g.2gb",), "cannot be partitioned"),
        ("h200", ("5g.71gb",), "'5g.71gb' is no MIG device"),
        ("h200", ("3g.40gb",), "has 140.4 GiB and no '3g.40gb': its name would be near 3g.70gb"),
        ("h200", ("4g.71gb", "4g.71gb"), r"device \[1\].name: the devices have 8 slices, and a card has 7"),
        ("h200", ("3g.71gb", "3g.71gb", "1g.18gb"), r"device \[2\].memory_mib: the devices have 159743 MiB"),
        ("h200", (5,), "5 is no MIG device"),
        (
            "h200",
            (
                MigDevice(name="3g.71gb", gpu_instance=1, memory_mib=70_000),
                MigDevice(name="3g.71gb", gpu_instance=1, memory_mib=70_000),
            ),
            r"device \[1\].compute_instance: another device",
        ),
    ],
)
def test_what_a_card_cannot_be_partitioned_into(
    driver: Driver, profile: str, devices: tuple[str | MigDevice, ...], said: str
) -> None:
    gpu = driver.add_gpu(profile)
    with pytest.raises(InvalidValue, match=said):
        platforms.partition(gpu, *devices)
    assert not gpu.instances


def test_compute_instances_share_the_slices_and_the_memory_of_their_gpu_instance(driver: Driver) -> None:
    gpu = driver.add_gpu("h200")
    halves = (
        MigDevice(name="1c.7g.141gb", gpu_instance=0, compute_instance=place, memory_mib=140_000) for place in (0, 1)
    )
    platforms.partition(gpu, *halves)
    first = driver.process(gpu, "100 GiB")
    second = driver.process(gpu, "20 GiB")
    with pytest.raises(InvalidValue, match=r"does not fit into .*: 16\.72 GiB of its 136\.7 GiB is free"):
        second.hold("37 GiB")
    first.kill(reclaim=Ramp.immediate())
    second.hold("37 GiB")


def test_a_card_in_use_cannot_be_partitioned(driver: Driver) -> None:
    gpu = driver.add_gpu("h200")
    process = driver.process(gpu, "1 GiB")
    with pytest.raises(DriverStateError, match="a card in use cannot be partitioned"):
        platforms.partition(gpu, "3g.71gb")
    process.kill(reclaim=Ramp.immediate())
    platforms.partition(gpu, "3g.71gb")


def test_a_process_of_a_partitioned_card_is_in_one_instance_and_fits_there(driver: Driver, clock: HandClock) -> None:
    gpu, other = driver.add_gpu("h200"), driver.add_gpu("h200")
    for card in (gpu, other):
        platforms.partition(card, "1g.18gb", "3g.71gb")
    small, large = gpu.instances
    first = driver.process(gpu, "10 GiB")
    second = driver.process(gpu, "10 GiB")
    assert (first.instance, second.instance) == (small, large)
    with pytest.raises(InvalidValue, match=r"does not fit into .*1g\.18gb.* now: 7\.55 GiB of its 17\.55 GiB is free"):
        second.run_in(small)
    assert second.instance is large
    with pytest.raises(InvalidValue, match=r"80 GiB fits into no instance .* free is 1g\.18gb: 7\.55 GiB, 3g\.71gb"):
        driver.process(gpu, "80 GiB")
    with pytest.raises(InvalidValue, match=r"does not fit into .*1g\.18gb"):
        first.hold("18 GiB")
    with pytest.raises(InvalidValue, match="a process runs in one instance"):
        first.hold("1 GiB", other)
    with pytest.raises(InvalidValue, match="is not on that GPU"):
        first.run_in(other.instances[0])
    first.kill(reclaim=Ramp.step("1s"))
    with pytest.raises(InvalidValue, match="does not fit"):
        second.run_in(small)  # what the dead held there is not back yet
    with pytest.raises(DriverStateError, match="is dead"):
        first.run_in(large)
    clock.go(1)
    second.run_in(small)


def test_mig_without_devices_yet(driver: Driver) -> None:
    gpu = driver.add_gpu("h200")
    platforms.partition(gpu, "1g.18gb")
    gpu.instances = ()
    assert "|  No MIG devices found  " in nvidia_smi().stdout


@pytest.mark.parametrize(
    ("platform", "error", "status"),
    [
        (platforms.version_mismatch, pynvml.NVMLError_LibRmVersionMismatch, 18),
        (platforms.driver_not_loaded, pynvml.NVMLError_DriverNotLoaded, 9),
    ],
)
def test_no_usable_driver(driver: Driver, gpu: Gpu, platform: object, error: type[Exception], status: int) -> None:
    assert callable(platform)
    end = platform(driver)
    with pytest.raises(error):
        pynvml.nvmlDeviceGetCount()
    assert nvidia_smi(*USED).returncode == status
    end()
    assert nvidia_smi(*USED).stdout == "2048 MiB\n"


def test_persistence_off_makes_first_calls_slow() -> None:
    with Driver() as driver:
        driver.add_gpu("rtx-4090")
        driver.add_gpu("t4")
        end = platforms.persistence_off(driver, "20ms")
        assert nvidia_smi("--query-gpu=persistence_mode", "--format=csv,noheader").stdout == "Disabled\nDisabled\n"
        pynvml.nvmlInit()
        pynvml.nvmlShutdown()
        slow = [call for call in driver.calls if call.faults]
        assert [call.via for call in slow] == ["nvidia-smi", "nvml"]
        end()
        assert nvidia_smi("--query-gpu=persistence_mode", "--format=csv,noheader").stdout == "Disabled\nEnabled\n"
        assert driver.calls[-1].faults == ()


@pytest.mark.parametrize("name", ["wddm", "wsl", "container", "unified_memory", "persistence_off"])
def test_a_platform_of_no_card_is_refused(name: str) -> None:
    with pytest.raises(DriverStateError, match=rf"platforms.{name}\(driver\): the driver has no GPU yet"):
        getattr(platforms, name)(Driver())
