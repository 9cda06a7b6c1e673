"""Real nvidia-smi output of real cards, where it lies beside the repository, and GPUs made of what it says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fake_gpu import Driver, Gpu, Ramp
from fake_gpu.profile import Architecture, Clock, Clocks, Memory, Pci, Power, Profile, Temperature
from fake_gpu.units import MIB

DIRECTORY = Path(__file__).resolve().parents[2] / "shared" / "captures" / "nvidia-smi"

_ARCHITECTURES: Mapping[str, Architecture] = {"7.5": "turing", "8.9": "ada", "9.0": "hopper"}

CARD_SPECIFIC = (
    "addressing_mode",
    "c2c.mode",
    "edpp_multiplier",
    "inforom.",
    "encoder.stats.",
    "clocks_event_reasons_counters.",
    "retired_pages.",
    "remapped_rows.",
    "fabric.state",
    "fabric.status",
    "fabric.cliqueId",
    "fabric.clusterUuid",
    "platform.module_id",
)
"""Fields that a profile has to quote; the fake makes everything else of facts and state."""


@dataclass(frozen=True)
class Capture:
    """One card's file. `state` is "idle" or "load"."""

    path: Path
    state: str

    def section(self, title: str) -> tuple[str, list[str]]:
        """The command of a section ("query-gpu …"), and its output, line by line."""
        text = self.path.read_text(encoding="utf-8")
        parts = re.split(r"^#{80}\n# (.+)\n(?:# \$ (.*)\n)?#{80}\n", text, flags=re.MULTILINE)
        for heading, command, output in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            if heading.startswith(title):
                return command or "", output.split("\n\n\n#")[0].rstrip("\n").split("\n")
        raise LookupError(f"{self.path.name} has no section {title!r}")

    def of_state(self, title: str) -> tuple[str, list[str]]:
        return self.section(f"{self.state} :: {title}")

    @property
    def fields(self) -> dict[str, str]:
        """Every field of --query-gpu by its name in the command, as it is printed."""
        command, lines = self.of_state("query-gpu")
        names = re.search(r"--query-gpu=(\S+)", command)
        assert names is not None
        return dict(zip(names[1].split(","), lines[1].split(", "), strict=True))

    @property
    def versions(self) -> tuple[str, tuple[int, int]]:
        """Of the driver and of CUDA."""
        _, lines = self.section("capabilities :: version")
        major, minor = lines[3].split(": ")[1].split(".")
        return lines[2].split(": ")[1], (int(major), int(minor))

    def __str__(self) -> str:
        return f"{self.path.name.split('__')[1]}-{self.state}"


def captures() -> list[Capture]:
    """All of them; none where the files are not there."""
    return [Capture(path, state) for path in sorted(DIRECTORY.glob("*.txt")) for state in ("idle", "load")]


def number(text: str) -> int:
    """The number in "345 MHz"; 0 where there is none."""
    found = re.match(r"-?[0-9]+", text)
    return int(found[0]) if found else 0


def optional(text: str) -> int | None:
    return None if "N/A" in text else number(text)


def on(text: str) -> bool | None:
    return {"Enabled": True, "Disabled": False}.get(text)


def _pci(fields: Mapping[str, str]) -> Pci:
    return Pci(
        device_id=int(fields["pci.device_id"], 16),
        subsystem_id=int(fields["pci.sub_device_id"], 16),
        sub_class=int(fields["pci.subClass"], 16),
        max_generation=number(fields["pcie.link.gen.gpumax"]),
        max_width=number(fields["pcie.link.width.max"]),
        host_generation=optional(fields["pcie.link.gen.hostmax"]),
        idle_generation=number(fields["pcie.link.gen.current"]),
    )


def _clocks(fields: Mapping[str, str]) -> Clocks:
    clocks: dict[str, Any] = {
        name: Clock(
            idle=number(fields[f"clocks.current.{name}"]), max=number(fields.get(f"clocks.max.{name}", "0")) or 1
        )
        for name in ("graphics", "sm", "memory", "video")
    }
    return Clocks(**clocks)


def _rounded_off(fields: Mapping[str, str]) -> float:
    """MiB by which reserved and used memory are less than what is printed, so that their sum comes out as printed."""
    total, *parts = (number(fields[f"memory.{name}"]) for name in ("total", "reserved", "used", "free"))
    return (sum(parts) - total) * 0.375


def profile_of(fields: Mapping[str, str]) -> Profile:
    """The facts in one line of --query-gpu. What its clocks do now is taken for what they do when idle."""
    watts = {name: float(fields[f"power.{name}"].removesuffix(" W")) for name in ("min_limit", "max_limit")}
    gpu_max = number(fields["temperature.gpu"]) + number(fields["temperature.gpu.tlimit"])
    return Profile(
        name=fields["name"],
        architecture=_ARCHITECTURES[fields["compute_cap"]],
        brand="nvidia",
        compute_capability=(number(fields["compute_cap"]), int(fields["compute_cap"].split(".")[1])),
        cuda_cores=1,
        memory=Memory(
            total_mib=number(fields["memory.total"]),
            reserved_mib=number(fields["memory.reserved"]) - _rounded_off(fields),
            bar1_mib=256,
        ),
        pci=_pci(fields),
        power=Power(idle=0, default_limit=float(fields["power.default_limit"].removesuffix(" W")), **watts),
        clocks=_clocks(fields),
        temperature=Temperature(idle=0, gpu_max=gpu_max, memory_idle=optional(fields["temperature.memory"])),
        fans=0 if "N/A" in fields["fan.speed"] else 1,
        ecc=on(fields["ecc.mode.current"]),
        mig=on(fields["mig.mode.current"]),
        persistence=fields["persistence_mode"] == "Enabled",
        display=fields["display_active"] == "Enabled",
        has_serial=fields["serial"] != "[N/A]",
        vbios=fields["vbios_version"],
        smi={name: text for name, text in fields.items() if name.startswith(CARD_SPECIFIC) and text != "[N/A]"},
    )


def add_card(driver: Driver, fields: Mapping[str, str]) -> Gpu:
    """A GPU that is and does what the line says."""
    gpu = driver.add_gpu(profile_of(fields), uuid=fields["uuid"])
    gpu.serial = None if fields["serial"] == "[N/A]" else fields["serial"]
    domain, bus, device = fields["pci.bus_id"].removesuffix(".0").split(":")
    gpu.pci_domain, gpu.pci_bus, gpu.pci_device = int(domain, 16), int(bus, 16), int(device, 16)
    activity = gpu.activity
    activity.gpu_percent = number(fields["utilization.gpu"])
    activity.memory_percent = number(fields["utilization.memory"])
    activity.encoder_percent = number(fields["utilization.encoder"])
    activity.decoder_percent = number(fields["utilization.decoder"])
    activity.temperature = number(fields["temperature.gpu"])
    activity.power = float(fields["power.draw"].removesuffix(" W"))
    activity.pstate = int(fields["pstate"].removeprefix("P"))
    activity.fan_percent = number(fields["fan.speed"])
    if gpu.profile.mig and fields["clocks_event_reasons.gpu_idle"] == "Not Active":
        activity.gpu_percent = 100  # a partitioned card does not say
    return gpu


def fill(driver: Driver, gpu: Gpu, fields: Mapping[str, str], listed: int = 0) -> None:
    """Brings used memory to what the line says, beyond the bytes of listed processes, by a process that is gone."""
    used = number(fields["memory.used"])
    if used:
        rest = round((used - _rounded_off(fields)) * MIB) - listed
        driver.process(gpu, rest).kill(reclaim=Ramp.never())


def wall_time(text: str, layout: str) -> float:
    """Seconds since the epoch of a local time; half a millisecond on, because cutting to milliseconds follows."""
    return datetime.strptime(text, layout).timestamp() + 0.0005
