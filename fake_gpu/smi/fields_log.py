"""Fields that `nvidia-smi -q` shows and `--query-gpu` does not name."""

from __future__ import annotations

from typing import Final

from fake_gpu.derived import bar1_used, pdi
from fake_gpu.smi.columns import Column, Value
from fake_gpu.smi.fields import field, fixed_all
from fake_gpu.smi.fields_place import reason
from fake_gpu.smi.run import Reading

_BRANDS: Final = {"geforce": "GeForce", "nvidia": "NVIDIA", "nvs": "NVS", "grid": "GRID", "rtx": "RTX"}
_ARCHITECTURES: Final = {"ada": "Ada Lovelace"}


def _brand(reading: Reading) -> Value:
    brand = reading.profile.brand
    return _BRANDS.get(brand) or " ".join(_BRANDS.get(word, word.title()) for word in brand.split())


def _architecture(reading: Reading) -> Value:
    name = reading.profile.architecture
    return _ARCHITECTURES.get(name, name.title())


def _bar1_free(reading: Reading) -> Value:
    said = reading.said.get("bar1.used", "")
    used = int(said.split()[0]) if said[:1].isdigit() else reading.run.mib(bar1_used(reading.gpu))
    return reading.profile.memory.bar1_mib - used


def _threshold(name: str) -> Column:
    return field(f"temperature.{name}", "", lambda r: getattr(r.profile.temperature, name))


def _margin(name: str) -> Column:
    """Below the temperature at which the card is at its limit: minus 8 for an H200 that shuts down at 95, not 87."""

    def read(reading: Reading) -> Value:
        limits = reading.profile.temperature
        at = getattr(limits, name)
        return None if at is None or limits.gpu_max is None else limits.gpu_max - at

    return field(f"tlimit.{name}", "", read)


COLUMNS: Final[tuple[Column, ...]] = (
    field("brand", "", _brand),
    field("architecture", "", _architecture),
    field("pdi", "", lambda r: pdi(r.gpu)),
    field("minor_number", "", lambda r: r.gpu.minor_number),
    field("board_id", "", lambda r: f"0x{r.gpu.pci_bus << 8 | r.gpu.pci_device:x}"),
    field("board_part_number", "", lambda r: r.profile.part_number),
    field("gsp_version", "", lambda r: r.run.driver_version),
    field("pcie.replays", "", lambda r: 0),
    field("pcie.tx", "KB/s", lambda r: r.gpu.activity.pcie_tx_kib_s),
    field("pcie.rx", "KB/s", lambda r: r.gpu.activity.pcie_rx_kib_s),
    field("bar1.total", "MiB", lambda r: r.profile.memory.bar1_mib),
    field("bar1.used", "MiB", lambda r: r.run.mib(bar1_used(r.gpu))),
    field("bar1.free", "MiB", _bar1_free),
    *fixed_all("fbc.stats.sessionCount fbc.stats.averageFps fbc.stats.averageLatency", "", 0),
    field("ecc.threshold_exceeded", "", lambda r: "No" if r.profile.ecc else None),
    field("ecc.sources", "", lambda r: 0 if r.profile.ecc else None),
    *(_threshold(name) for name in ("slowdown", "shutdown", "memory_max", "gpu_max")),
    _margin("slowdown"),
    _margin("shutdown"),
    _margin("gpu_max"),
    field("tlimit.memory_max", "", lambda r: 0 if r.profile.temperature.memory_idle is not None else None),
    field("memory.power.draw.average", "W", lambda r: None),
    field("voltage.graphics", "mV", lambda r: None),
    reason("display_clock_setting"),
    field("clocks.max.video", "MHz", lambda r: r.profile.clocks.video.max),
)
