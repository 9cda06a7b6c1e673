"""From what a card said to its profile."""

from __future__ import annotations

from typing import Any, Final, get_args

import msgspec

from fake_gpu.capture.live import IDENTITY, MODELLED, is_live
from fake_gpu.capture.seen import SeenCard, SeenInstance, is_absent, number, tells_nothing, watts
from fake_gpu.errors import InvalidValue
from fake_gpu.profile import (
    CAPABILITIES,
    Architecture,
    Brand,
    Clock,
    ClockName,
    Clocks,
    Memory,
    MigDevice,
    Pci,
    Power,
    Profile,
    Temperature,
)
from fake_gpu.smi.columns import plain
from fake_gpu.smi.layout import columns
from fake_gpu.smi.layout import write as write_layout
from fake_gpu.smi.run import Reading

_BY_CAPABILITY: Final = sorted(((least, name) for name, (least, _) in CAPABILITIES.items()), reverse=True)
"""The least compute capability of each architecture, the latest first."""
SHARED_MIB: Final = 131_072
"""MiB of a card that uses the host's memory and tells no figure."""
_SMS_OF_A_SLICE: Final = {"ampere": 14, "hopper": 16, "blackwell": 18}


def of(fields: dict[str, str], name: str) -> str:
    """What a field says; "[N/A]" for one that was not printed."""
    return fields.get(name, "[N/A]")


def optional(fields: dict[str, str], name: str) -> int | None:
    """The number in a field; None where the card does not say."""
    said = of(fields, name)
    return None if is_absent(said) or not said.lstrip("-")[:1].isdigit() else number(said)


def _on(fields: dict[str, str], name: str) -> bool | None:
    return {"Enabled": True, "Disabled": False}.get(of(fields, name))


def profile_of(card: SeenCard, *, reserved: float, nvlinks: int, active: bool, dtd: str | None) -> Profile:
    """The facts, before what nvidia-smi says beside them is quoted. Raises InvalidValue for another architecture."""
    fields = card.fields
    total = optional(fields, "memory.total")
    architecture, capability = _architecture(card)
    brand = of(fields, "brand").lower()
    return Profile(
        name=fields["name"],
        architecture=architecture,
        brand=brand if brand in get_args(Brand) else "nvidia",  # type: ignore[arg-type]  # it is one of them
        compute_capability=capability,
        memory=Memory(
            total_mib=SHARED_MIB if total is None else total,
            reserved_mib=max(0.0, reserved),
            bar1_mib=optional(fields, "bar1.total") or 256,
            told=total is not None,
        ),
        pci=_pci(fields),
        power=_power(fields),
        clocks=_clocks(card),
        temperature=_temperature(fields),
        idle_pstate=min(15, number(of(fields, "pstate").removeprefix("P"))),
        fans=0 if optional(fields, "fan.speed") is None else 1,
        fan_idle_percent=min(100, optional(fields, "fan.speed") or 0),
        ecc=_on(fields, "ecc.mode.current"),
        mig=_on(fields, "mig.mode.current"),
        persistence=of(fields, "persistence_mode") == "Enabled",
        display=of(fields, "display_active") == "Enabled",
        has_serial=not is_absent(of(fields, "serial")),
        nvlinks=nvlinks,
        nvlinks_active=active,
        vbios=of(fields, "vbios_version"),
        part_number=None if is_absent(of(fields, "board_part_number")) else fields["board_part_number"],
        mig_devices=tuple(_mig_device(instance, architecture) for instance in card.instances),
        smi_more=card.more,
        log="\n".join(write_layout(list(card.nodes))) + "\n" if card.nodes else None,
        dtd=dtd,
    )


def _architecture(card: SeenCard) -> tuple[Architecture, tuple[int, int]]:
    fields = card.fields
    major, _, minor = of(fields, "compute_cap").partition(".")
    if major.isdigit() and minor.isdigit():
        known = (int(major), int(minor))
        for least, name in _BY_CAPABILITY:
            if known >= least:
                return name, known
    named = of(fields, "architecture").lower().split(" ")[0]
    for least, name in _BY_CAPABILITY:
        if name == named:
            # -q does not tell the smaller Ampere chips from the A100, but only that one can be partitioned.
            small = name == "ampere" and is_absent(of(fields, "mig.mode.current"))
            return name, (8, 6) if small else least
    place = card.places.get("architecture")
    raise InvalidValue(
        f"{f'line {place.line}: ' if place else ''}the architecture is {of(fields, 'architecture')!r}: expected one of "
        f"{', '.join(name.title() for _, name in _BY_CAPABILITY)}"
    )


def _pci(fields: dict[str, str]) -> Pci:
    def hexadecimal(name: str, default: int) -> int:
        said = of(fields, name)
        return default if tells_nothing(said) else int(said, 16)

    highest = optional(fields, "pcie.link.gen.gpumax") or optional(fields, "pcie.link.gen.max") or 1
    host = optional(fields, "pcie.link.gen.hostmax")
    now = optional(fields, "pcie.link.gen.current")
    return Pci(
        device_id=hexadecimal("pci.device_id", 0x10DE),
        subsystem_id=hexadecimal("pci.sub_device_id", 0),
        sub_class=hexadecimal("pci.subClass", 2),
        max_generation=highest,
        max_width=optional(fields, "pcie.link.width.max") or 16,  # type: ignore[arg-type]  # checked when it is made
        host_generation=host,
        idle_generation=None if now is None else min(now, highest, host or highest),
    )


def _watts_or_0(fields: dict[str, str], name: str) -> float:
    return watts(fields, name) or 0.0


def _power(fields: dict[str, str]) -> Power:
    default = _watts_or_0(fields, "power.default_limit") or _watts_or_0(fields, "power.limit")
    highest = max(default, _watts_or_0(fields, "power.max_limit"))
    drawn = _watts_or_0(fields, "power.draw") or _watts_or_0(fields, "power.draw.average")
    return Power(
        idle=min(drawn, highest or drawn),  # a card that is busy may draw more for a moment
        default_limit=default,
        min_limit=min(default, _watts_or_0(fields, "power.min_limit")),
        max_limit=highest,
    )


def _clocks(card: SeenCard) -> Clocks:
    clocks: dict[str, Any] = {}
    for name in get_args(ClockName):
        idle = optional(card.fields, f"clocks.current.{name}") or 0
        clocks[name] = Clock(idle=idle, max=max(1, idle, optional(card.fields, f"clocks.max.{name}") or idle))
    supported = card.supported_clocks
    return Clocks(
        **clocks,
        supported_memory=tuple(memory for memory, _ in supported),
        supported_graphics=tuple(graphics for _, graphics in supported),
    )


def _temperature(fields: dict[str, str]) -> Temperature:
    margin = optional(fields, "temperature.gpu.tlimit")
    now = optional(fields, "temperature.gpu") or 0
    highest = optional(fields, "temperature.gpu_max") if margin is None else now + margin

    def limit(name: str) -> int | None:
        below = optional(fields, f"tlimit.{name}")
        if highest is not None and below is not None:
            return highest - below
        return optional(fields, f"temperature.{name}")

    return Temperature(
        idle=max(0, now),
        memory_idle=optional(fields, "temperature.memory"),
        slowdown=limit("slowdown"),
        shutdown=limit("shutdown"),
        memory_max=optional(fields, "temperature.memory_max"),
        gpu_max=highest,
        tells_margin=margin is not None,
    )


def _mig_device(instance: SeenInstance, architecture: str) -> MigDevice:
    fitting = max(1, instance.counts.get("multiprocessors", 0) // _SMS_OF_A_SLICE.get(architecture, 14))
    slices = max(one for one in (1, 2, 3, 4, 7) if one <= fitting)  # there are no others
    return MigDevice(
        name=f"{slices}g.{-(-instance.total // 1024)}gb",
        gpu_instance=instance.gpu_instance,
        compute_instance=instance.compute_instance,
        memory_mib=instance.total,
        idle_mib=instance.used,
        bar1_mib=instance.bar1_total,
        **instance.counts,
    )


def quoted(profile: Profile, reading: Reading, fields: dict[str, str]) -> Profile:
    """The profile with what nvidia-smi says otherwise than the facts have it. `reading`: of such a card."""
    smi = dict(profile.smi)
    for name, text in fields.items():
        column = columns().get(name)
        if column is None or name in IDENTITY or name in MODELLED:
            continue
        shown = column.cell(reading, True)
        if is_live(name):
            if is_absent(text) and not is_absent(shown):
                smi[name] = "[N/A]"
        elif plain(shown) != plain(text):
            smi[name] = text
    return msgspec.structs.replace(profile, smi=smi)
