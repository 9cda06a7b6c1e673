"""Facts about a real card, read from one data file each (profiles/*.toml) and checked when read."""

from __future__ import annotations

import difflib
import os
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from fake_gpu.errors import InvalidValue
from fake_gpu.toml_file import decode, place

_HERE = Path(__file__).parent / "profiles"

Architecture = Literal["kepler", "maxwell", "pascal", "volta", "turing", "ampere", "ada", "hopper", "blackwell"]
Brand = Literal["quadro", "tesla", "nvs", "grid", "geforce", "titan", "rtx", "nvidia", "quadro rtx", "nvidia rtx"]
Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(gt=0)]
Watts = Annotated[float, msgspec.Meta(ge=0)]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Memory(_Table, frozen=True, kw_only=True):
    """MiB; nvidia-smi rounds them up. `bus_width` in bits."""

    total_mib: Positive
    reserved_mib: Annotated[float, msgspec.Meta(ge=0)]
    bar1_mib: Positive
    bus_width: Positive | None = None
    told: bool = True
    """False: the card uses the host's memory, and clients are told no figures."""


class Pci(_Table, frozen=True, kw_only=True):
    """`device_id` and `subsystem_id`: device in the high, vendor (0x10DE) in the low half-word, as NVML gives them."""

    device_id: Positive
    subsystem_id: Count
    sub_class: Count = 2
    """0: a VGA controller, 2: a 3D controller."""
    max_generation: Positive
    max_width: Positive = 16
    host_generation: Positive | None = None
    idle_generation: Positive | None = None
    """Generation of the link while the card idles; None: the highest, always."""


class Power(_Table, frozen=True, kw_only=True):
    """Watts."""

    idle: Watts
    default_limit: Watts
    min_limit: Watts
    max_limit: Watts


class Clock(_Table, frozen=True, kw_only=True):
    """MHz."""

    idle: Count
    max: Positive


class Clocks(_Table, frozen=True, kw_only=True):
    graphics: Clock
    sm: Clock
    memory: Clock
    video: Clock
    supported_memory: tuple[Positive, ...] = ()
    """MHz, highest first; empty where the card has no choosable application clocks."""
    supported_graphics: tuple[tuple[Positive, ...], ...] = ()
    """MHz, highest first, that go with each of `supported_memory`; empty where they are not known one by one."""


class Temperature(_Table, frozen=True, kw_only=True):
    """Degrees Celsius; None where the card does not say."""

    idle: Count
    memory_idle: Count | None = None
    slowdown: Count | None = None
    shutdown: Count | None = None
    memory_max: Count | None = None
    gpu_max: Count | None = None
    tells_margin: bool | None = None
    """Whether the card says how far it is from `gpu_max`, and its limits likewise; None: Hopper and later do."""


class MigDevice(_Table, frozen=True, kw_only=True):
    """One compute instance of a partitioned card. What is left out of `name` is as `nvidia-smi -L` prints it."""

    name: str
    """Such as "3g.40gb"."""
    gpu_instance: Count
    compute_instance: Count = 0
    memory_mib: Positive
    idle_mib: Annotated[float, msgspec.Meta(ge=0)] = 0
    """MiB that are in use while nothing runs."""
    bar1_mib: Count = 0
    multiprocessors: Count = 0
    copy_engines: Count = 0
    encoders: Count = 0
    decoders: Count = 0
    ofa: Count = 0
    jpeg: Count = 0


class Profile(_Table, frozen=True, kw_only=True):
    """One kind of card. None always means: this card has no such thing, and clients read `[N/A]` or NOT_SUPPORTED."""

    name: str
    architecture: Architecture
    brand: Brand
    compute_capability: tuple[Count, Count]
    cuda_cores: Positive | None = None
    """None: not known, as in a profile made of nvidia-smi's output, which does not say."""
    memory: Memory
    pci: Pci
    power: Power
    clocks: Clocks
    temperature: Temperature
    idle_pstate: Annotated[int, msgspec.Meta(ge=0, le=15)] = 0
    fans: Count = 0
    fan_idle_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    ecc: bool | None = None
    """True or False: ECC memory, switched on or off. None: no ECC memory."""
    mig: bool | None = None
    """True or False: can be partitioned, and is or is not. None: cannot."""
    persistence: bool = True
    display: bool = False
    """A monitor is attached and its memory in use."""
    has_serial: bool = False
    nvlinks: Count = 0
    nvlinks_active: bool = True
    """Whether the links are connected to another card."""
    vbios: str = "00.00.00.00.00"
    part_number: str | None = None
    smi: dict[str, str] = {}
    """Further fields of `nvidia-smi --query-gpu`, by their names there, as nvidia-smi prints them. `[N/A]` for one that
    the driver would know otherwise: the card does not say."""
    smi_more: dict[str, str] = {}
    """Fields of --query-gpu that this fake does not know, by what is printed above them: {"new.field [W]": "1 W"}."""
    mig_devices: tuple[MigDevice, ...] = ()
    """What the card is partitioned into, where `mig` is true."""
    log: str | None = None
    """What `nvidia-smi -q` prints of it, in the form of smi/layout.txt; None: what cards of its kind print."""
    dtd: str | None = None
    """The document type that `nvidia-smi -q -x` names, such as "nvsmi_device_v12.dtd"; None: the driver's."""


@cache
def profile_names() -> tuple[str, ...]:
    """The names that `load_profile` knows, sorted."""
    return tuple(sorted(path.stem for path in _HERE.glob("*.toml")))


def load_profile(name: str | os.PathLike[str]) -> Profile:
    """The profile of that name, or of the file whose path ends in ".toml".

    Raises InvalidValue, with the names that there are, where there is none, and for a file that is not valid.
    """
    if isinstance(name, os.PathLike) or (isinstance(name, str) and name.endswith(".toml")):
        return read_profile(Path(name))
    known = profile_names()
    if not isinstance(name, str):
        raise InvalidValue(
            f"{name!r} is neither a profile's name nor a Profile; there are {', '.join(map(repr, known))}"
        )
    if name.endswith((".xml", ".txt", ".log")):
        raise InvalidValue(
            f"{name!r} is no profile: of what nvidia-smi -q -x or nvidia-smi -q has printed, make one first: "
            f"fake-gpu profile import {name}"
        )
    if name not in known:
        near = difflib.get_close_matches(name.lower().replace(" ", "-").replace("_", "-"), known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InvalidValue(
            f"there is no GPU profile {name!r}; there are {', '.join(map(repr, known))}, or the path of a .toml "
            f"file.{hint} For a card of your own, pass explicit values: add_gpu(name='My GPU', memory='48 GiB')"
        )
    return _own_profile(name)


@cache
def _own_profile(name: str) -> Profile:
    return read_profile(_HERE / f"{name}.toml")


def read_profile(path: Path) -> Profile:
    """A profile from a file. Raises InvalidValue, naming the file, the key and its line, for what does not fit."""
    what = f"the GPU profile {path}"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{what} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return parse_profile(text, what)


def parse_profile(text: str, what: str) -> Profile:
    """A profile from the text of a file. `what`: what errors call it. Raises InvalidValue as `read_profile`."""
    profile = decode(text, Profile, what)
    fault = _fault_of(profile)
    if fault is not None:
        key, reason = fault
        raise InvalidValue(f"{what} is not valid: {reason}{place(text, key)}")
    return profile


def _fault_of(profile: Profile) -> tuple[str, str] | None:
    """The key and the reason of what cannot be although each value alone can."""
    if profile.memory.reserved_mib >= profile.memory.total_mib:
        return "memory.reserved_mib", (
            f"memory.reserved_mib ({profile.memory.reserved_mib:g}) leaves nothing of memory.total_mib "
            f"({profile.memory.total_mib})"
        )
    if not profile.power.min_limit <= profile.power.default_limit <= profile.power.max_limit:
        return "power.default_limit", "power.default_limit lies outside min and max"
    if profile.mig_devices and not profile.mig:
        return "mig_devices", "there are mig_devices, and mig is not true"
    places = [(device.gpu_instance, device.compute_instance) for device in profile.mig_devices]
    if len(set(places)) < len(places):
        return "mig_devices", "two mig_devices have the same gpu_instance and compute_instance"
    from fake_gpu.smi.layout import fault_in_texts  # whose fields are made of profiles

    return fault_in_texts(profile.smi, profile.log)
