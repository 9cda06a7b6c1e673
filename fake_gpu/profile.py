"""Facts about a real card, read from one data file each (profiles/*.toml) and checked when read."""

from __future__ import annotations

import difflib
import itertools
import os
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from fake_gpu import mig_layout, values
from fake_gpu.errors import InvalidValue
from fake_gpu.toml.file import decode, read_text
from fake_gpu.toml.table import Refused, Table, refusing

_HERE = Path(__file__).parent / "profiles"
_DTD: Final = re.compile(r"[A-Za-z0-9_.-]+")
_NVIDIA: Final = 0x10DE
"""NVIDIA's PCI vendor ID."""
_WITH_MIG: Final = frozenset({"ampere", "hopper", "blackwell"})
Architecture = Literal["kepler", "maxwell", "pascal", "volta", "turing", "ampere", "ada", "hopper", "blackwell"]
"""In the order in which they came."""
Brand = Literal["quadro", "tesla", "nvs", "grid", "geforce", "titan", "rtx", "nvidia", "quadro rtx", "nvidia rtx"]
Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
Mib = Annotated[int, msgspec.Meta(gt=0, lt=1 << 40)]
Generation = Annotated[int, msgspec.Meta(ge=1, le=7)]
"""Of PCI Express."""
Megahertz = Annotated[int, msgspec.Meta(ge=0, le=100_000)]
Watts = Annotated[float, msgspec.Meta(ge=0, le=100_000)]
Celsius = Annotated[int, msgspec.Meta(ge=0, le=150)]

CAPABILITIES: Final[dict[Architecture, tuple[tuple[int, int], tuple[int, int]]]] = {
    "kepler": ((3, 0), (3, 9)),
    "maxwell": ((5, 0), (5, 9)),
    "pascal": ((6, 0), (6, 9)),
    "volta": ((7, 0), (7, 4)),
    "turing": ((7, 5), (7, 9)),
    "ampere": ((8, 0), (8, 8)),
    "ada": ((8, 9), (8, 9)),
    "hopper": ((9, 0), (9, 9)),
    "blackwell": ((10, 0), (19, 9)),
}
"""The least and the greatest compute capability of each; what comes after Blackwell is imported as Blackwell."""


class Memory(Table, frozen=True, kw_only=True):
    """MiB; nvidia-smi rounds them up. `bus_width` in bits."""

    total_mib: Mib
    reserved_mib: Annotated[float, msgspec.Meta(ge=0)]
    bar1_mib: Mib
    bus_width: Annotated[int, msgspec.Meta(ge=32, le=16_384, multiple_of=32)] | None = None
    told: bool = True
    """False: the card uses the host's memory, and clients are told no figures."""

    def check(self) -> None:
        if self.reserved_mib >= self.total_mib:
            reason = f"it ({self.reserved_mib:g}) leaves nothing of memory.total_mib ({self.total_mib})"
            raise Refused(("reserved_mib",), reason)


class Pci(Table, frozen=True, kw_only=True):
    """`device_id` and `subsystem_id`: device in the high, vendor (0x10DE) in the low half-word, as NVML gives them."""

    device_id: Count
    subsystem_id: Count
    sub_class: Annotated[int, msgspec.Meta(ge=0, le=255)] = 2
    """0: a VGA controller, 2: a 3D controller."""
    max_generation: Generation
    max_width: Literal[1, 2, 4, 8, 12, 16, 32] = 16
    host_generation: Generation | None = None
    idle_generation: Generation | None = None
    """Generation of the link while the card idles; None: the highest, always."""

    def check(self) -> None:
        if self.device_id & 0xFFFF != _NVIDIA:
            reason = f"0x{self.device_id:08X} does not end in 10DE: the vendor, NVIDIA, is in the low half-word"
            raise Refused(("device_id",), reason)
        highest = min(self.max_generation, self.host_generation or self.max_generation)
        if self.idle_generation is not None and self.idle_generation > highest:
            reason = f"{self.idle_generation} is above {highest}, the highest that card and host have in common"
            raise Refused(("idle_generation",), reason)


class Power(Table, frozen=True, kw_only=True):
    """Watts. A `max_limit` of 0: the card does not say."""

    idle: Watts
    default_limit: Watts
    min_limit: Watts
    max_limit: Watts

    def check(self) -> None:
        if not self.min_limit <= self.default_limit <= self.max_limit:
            reason = f"{self.default_limit:g} lies outside min_limit and max_limit"
            raise Refused(("default_limit",), reason)
        if self.max_limit and self.idle > self.max_limit:
            raise Refused(("idle",), f"{self.idle:g} is above max_limit ({self.max_limit:g})")


class Clock(Table, frozen=True, kw_only=True):
    """MHz."""

    idle: Megahertz
    max: Annotated[int, msgspec.Meta(gt=0, le=100_000)]

    def check(self) -> None:
        if self.idle > self.max:
            raise Refused(("idle",), f"{self.idle} is above max ({self.max})")


ClockName = Literal["graphics", "sm", "memory", "video"]


class Clocks(Table, frozen=True, kw_only=True):
    graphics: Clock
    sm: Clock
    memory: Clock
    video: Clock
    supported_memory: tuple[Megahertz, ...] = ()
    """MHz, highest first; empty where the card has no choosable application clocks."""
    supported_graphics: tuple[tuple[Megahertz, ...], ...] = ()
    """MHz, highest first, that go with each of `supported_memory`; empty where they are not known one by one."""

    def check(self) -> None:
        _check_falling(self.supported_memory, "supported_memory")
        for place, clocks in enumerate(self.supported_graphics):
            _check_falling(clocks, "supported_graphics", place)
        given, needed = len(self.supported_graphics), len(self.supported_memory)
        if given not in (0, needed):
            reason = f"there are {given} lists: give one for each of the {needed} clocks of supported_memory, or none"
            raise Refused(("supported_graphics",), reason)


def _check_falling(clocks: tuple[int, ...], *steps: str | int) -> None:
    for place, (higher, lower) in enumerate(itertools.pairwise(clocks), 1):
        if lower >= higher:
            raise Refused((*steps, place), f"{lower} comes after {higher}: give them highest first, each once")
    if clocks and clocks[-1] == 0:
        raise Refused((*steps, len(clocks) - 1), "a supported clock is above 0 MHz")


class Temperature(Table, frozen=True, kw_only=True):
    """Degrees Celsius; None where the card does not say."""

    idle: Celsius
    memory_idle: Celsius | None = None
    slowdown: Celsius | None = None
    shutdown: Celsius | None = None
    memory_max: Celsius | None = None
    gpu_max: Celsius | None = None
    tells_margin: bool | None = None
    """Whether the card says how far it is from `gpu_max`, and its limits likewise; None: Hopper and later do."""

    def check(self) -> None:
        if self.shutdown is None:
            return
        if self.idle > self.shutdown:
            raise Refused(("idle",), f"{self.idle} is above shutdown ({self.shutdown})")
        if self.slowdown is not None and self.slowdown > self.shutdown:
            raise Refused(("slowdown",), f"{self.slowdown} is above shutdown ({self.shutdown})")


class MigDevice(Table, frozen=True, kw_only=True):
    """One compute instance of a partitioned card. What is left out of `name` is as `nvidia-smi -L` prints it."""

    name: str
    """Such as "3g.40gb"."""
    gpu_instance: Annotated[int, msgspec.Meta(ge=0, le=63)]
    compute_instance: Annotated[int, msgspec.Meta(ge=0, le=7)] = 0
    memory_mib: Mib
    idle_mib: Annotated[float, msgspec.Meta(ge=0)] = 0
    """MiB that are in use while nothing runs."""
    bar1_mib: Count = 0
    multiprocessors: Count = 0
    copy_engines: Count = 0
    encoders: Count = 0
    decoders: Count = 0
    ofa: Count = 0
    jpeg: Count = 0

    def check(self) -> None:
        with refusing("name"):
            mig_layout.parse_name(self.name)
        with refusing("memory_mib"):
            mig_layout.check_memory(self.name, self.memory_mib)
        if self.idle_mib > self.memory_mib:
            raise Refused(("idle_mib",), f"{self.idle_mib:g} is more than memory_mib ({self.memory_mib})")


class Profile(Table, frozen=True, kw_only=True):
    """One kind of card. None always means: this card has no such thing, and clients read `[N/A]` or NOT_SUPPORTED."""

    name: str
    architecture: Architecture
    brand: Brand
    compute_capability: tuple[Count, Count]
    cuda_cores: Annotated[int, msgspec.Meta(gt=0, le=1_000_000)] | None = None
    """None: not known, as in a profile made of nvidia-smi's output, which does not say."""
    memory: Memory
    pci: Pci
    power: Power
    clocks: Clocks
    temperature: Temperature
    idle_pstate: Annotated[int, msgspec.Meta(ge=0, le=15)] = 0
    fans: Annotated[int, msgspec.Meta(ge=0, le=32)] = 0
    fan_idle_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    ecc: bool | None = None
    """True or False: ECC memory, switched on or off. None: no ECC memory."""
    mig: bool | None = None
    """True or False: can be partitioned, and is or is not. None: cannot."""
    persistence: bool = True
    display: bool = False
    """A monitor is attached and its memory in use."""
    has_serial: bool = False
    nvlinks: Annotated[int, msgspec.Meta(ge=0, le=72)] = 0
    nvlinks_active: bool = True
    """Whether the links are connected to another card."""
    vbios: str = "00.00.00.00.00"
    part_number: str | None = None
    smi: dict[str, str] = msgspec.field(default_factory=dict)
    """Further fields of `nvidia-smi --query-gpu`, by their names there, as nvidia-smi prints them. `[N/A]` for one that
    the driver would know otherwise: the card does not say."""
    smi_more: dict[str, str] = msgspec.field(default_factory=dict)
    """Fields of --query-gpu that this fake does not know, by what is printed above them: {"new.field [W]": "1 W"}."""
    mig_devices: tuple[MigDevice, ...] = ()
    """What the card is partitioned into, where `mig` is true."""
    log: str | None = None
    """What `nvidia-smi -q` prints of it, in the form of smi/layout.txt; None: what cards of its kind print."""
    dtd: str | None = None
    """The document type that `nvidia-smi -q -x` names, such as "nvsmi_device_v12.dtd"; None: the driver's."""

    def check(self) -> None:
        self._check_texts()
        least, greatest = CAPABILITIES[self.architecture]
        if not least <= self.compute_capability <= greatest or self.compute_capability[1] > 9:
            major, minor = self.compute_capability
            reason = f"{major}.{minor} is none of {self.architecture}: those are {_range(least, greatest)}"
            raise Refused(("compute_capability",), reason)
        if self.fan_idle_percent and not self.fans:
            raise Refused(("fan_idle_percent",), "the card has no fans")
        if self.mig is not None and self.architecture not in _WITH_MIG:
            raise Refused(("mig",), f"{self.architecture} cards cannot be partitioned: leave it out")
        if self.mig_devices and not self.mig:
            raise Refused(("mig_devices",), "there are some, and mig is not true")
        with refusing("mig_devices"):
            mig_layout.check_devices(self.mig_devices, self.memory.total_mib)

    def _check_texts(self) -> None:
        with refusing("name"):
            values.name(self.name)
        with refusing("vbios"):
            values.text(self.vbios, values.VBIOS_LIMIT, forbidden=',"')
        if self.part_number is not None:
            with refusing("part_number"):
                values.text(self.part_number, values.PART_NUMBER_LIMIT, forbidden=',"')
        if self.dtd is not None and not _DTD.fullmatch(self.dtd):
            raise Refused(("dtd",), f"{self.dtd!r} is no file's name, such as 'nvsmi_device_v12.dtd'")
        for key, quoted in (("smi", self.smi), ("smi_more", self.smi_more)):
            for name, text in quoted.items():
                if not values.is_one_line(name + text):
                    raise Refused((key, name), f"{text!r} has characters that cannot be printed in one line")
        from fake_gpu.smi.layout import fault_in_texts  # whose fields are made of profiles

        fault = fault_in_texts(self.smi, self.log)
        if fault is not None:
            raise Refused(*fault)


def _range(least: tuple[int, int], greatest: tuple[int, int]) -> str:
    low, high = (f"{major}.{minor}" for major, minor in (least, greatest))
    return low if low == high else f"{low} to {high}"


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
    return parse_profile(read_text(path, what), what)


def parse_profile(text: str, what: str) -> Profile:
    """A profile from the text of a file. `what`: what errors call it. Raises InvalidValue as `read_profile`."""
    return decode(text, Profile, what)
