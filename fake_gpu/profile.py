"""Facts about a real card, read from one data file each (profiles/*.toml) and checked when read."""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from fake_gpu.errors import InvalidValue

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


class Temperature(_Table, frozen=True, kw_only=True):
    """Degrees Celsius; None where the card does not say."""

    idle: Count
    memory_idle: Count | None = None
    slowdown: Count | None = None
    shutdown: Count | None = None
    memory_max: Count | None = None
    gpu_max: Count | None = None


class Profile(_Table, frozen=True, kw_only=True):
    """One kind of card. None always means: this card has no such thing, and clients read `[N/A]` or NOT_SUPPORTED."""

    name: str
    architecture: Architecture
    brand: Brand
    compute_capability: tuple[Count, Count]
    cuda_cores: Positive
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
    vbios: str = "00.00.00.00.00"
    part_number: str | None = None
    smi: dict[str, str] = {}
    """Further fields of `nvidia-smi --query-gpu`, by their names there, as nvidia-smi prints them."""


@cache
def profile_names() -> tuple[str, ...]:
    """The names that `load_profile` knows, sorted."""
    return tuple(sorted(path.stem for path in _HERE.glob("*.toml")))


@cache
def load_profile(name: str) -> Profile:
    """The profile of that name. Raises InvalidValue, with the names that there are, where there is none."""
    known = profile_names()
    if not isinstance(name, str):
        raise InvalidValue(
            f"{name!r} is neither a profile's name nor a Profile; there are {', '.join(map(repr, known))}"
        )
    if name not in known:
        near = difflib.get_close_matches(name.lower().replace(" ", "-").replace("_", "-"), known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InvalidValue(
            f"there is no GPU profile {name!r}; there are {', '.join(map(repr, known))}.{hint} For a card of your "
            f"own, pass explicit values: add_gpu(name='My GPU', memory='48 GiB')"
        )
    return read_profile(_HERE / f"{name}.toml")


def read_profile(path: Path) -> Profile:
    """A profile from a file. Raises InvalidValue, naming the file and the key, for anything that does not fit."""
    try:
        profile = msgspec.toml.decode(path.read_bytes(), type=Profile)
    except OSError as error:
        raise InvalidValue(f"the GPU profile {path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:  # ValidationError is one of these
        raise InvalidValue(f"the GPU profile {path} is not valid: {error}") from error
    if profile.memory.reserved_mib >= profile.memory.total_mib:
        raise InvalidValue(
            f"the GPU profile {path} is not valid: memory.reserved_mib ({profile.memory.reserved_mib:g}) leaves "
            f"nothing of memory.total_mib ({profile.memory.total_mib})"
        )
    if not profile.power.min_limit <= profile.power.default_limit <= profile.power.max_limit:
        raise InvalidValue(f"the GPU profile {path} is not valid: power.default_limit lies outside min and max")
    return profile
