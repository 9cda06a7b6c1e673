"""What a card is doing, for clients that show it. What cannot be is refused where it is set, not in a client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Final, Generic, TypeVar, get_args, get_type_hints

import msgspec

from fake_gpu import values
from fake_gpu.errors import InvalidValue
from fake_gpu.profile import ClockName, Megahertz

Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]
Celsius = Annotated[int, msgspec.Meta(ge=0, le=200)]
Watts = Annotated[float, msgspec.Meta(ge=0)]
Pstate = Annotated[int, msgspec.Meta(ge=0, le=15)]
KibPerSecond = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]

_OVERSHOOT: Final = 1.5
"""Of the limit: the driver holds the average to it, and a sensor shows moments above."""

_NVML_WATTS: Final = 4_000_000

_V = TypeVar("_V")


def check_power(power: float, limit: float) -> None:
    """Raises InvalidValue for watts that a card with this highest limit never draws. A limit of 0: not known."""
    if limit and power > _OVERSHOOT * limit:
        raise InvalidValue(
            f"{power:g} W is more than the card ever draws: its highest limit is {limit:g} W, and moments are up to "
            f"{_OVERSHOOT * limit:g} W"
        )
    if not power <= _NVML_WATTS:  # NaN is neither below nor above
        raise InvalidValue(f"{power:g} W is no figure that NVML can tell: it keeps milliwatts in 32 bits")


class Checked(MutableMapping[str, _V], Generic[_V]):
    """A mapping whose entries are checked when they are set."""

    def __init__(self, check: Callable[[object, object], _V], entries: Mapping[str, _V]) -> None:
        self._check = check
        self._entries: dict[str, _V] = {}
        self.update(entries)

    def __getitem__(self, key: str) -> _V:
        return self._entries[key]

    def __setitem__(self, key: str, value: _V) -> None:
        self._entries[key] = self._check(key, value)

    def __delitem__(self, key: str) -> None:
        del self._entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return repr(self._entries)


@dataclass(slots=True)
class Activity:
    """What a card is doing, for clients that show it. Set these at will; they do not follow from anything.

    Setting what no card does raises InvalidValue, which is a ValueError.
    """

    power_limit: float = 0.0
    """Watts: the card's highest limit. 0: not known."""
    fans: int | None = None
    """How many the card has. None: not known."""
    clock_limits: Mapping[str, int] = field(default_factory=dict)
    """MHz: the card's highest clocks, by their names. One that is left out is not known."""
    gpu_percent: Percent = 0
    memory_percent: Percent = 0
    encoder_percent: Percent = 0
    decoder_percent: Percent = 0
    temperature: Celsius = 0
    """Degrees Celsius."""
    power: Watts = 0.0
    """Watts."""
    pstate: Pstate = 0
    fan_percent: Percent = 0
    busy: bool = False
    """Clocks and PCIe link at their highest instead of idle."""
    pcie_rx_kib_s: KibPerSecond = 0
    pcie_tx_kib_s: KibPerSecond = 0
    clocks_mhz: MutableMapping[str, int] = field(default_factory=dict)
    """MHz of "graphics", "sm", "memory" and "video" where they are neither idle nor at their highest."""
    said: MutableMapping[str, str] = field(default_factory=dict)
    """What nvidia-smi prints for these fields, whatever else holds: {"pcie.replays": "2"}."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _MAPPINGS:
            if not isinstance(value, Mapping):
                raise InvalidValue(f"activity.{name} = {value!r}: give a mapping")
            value = Checked(self._checked_clock if name == "clocks_mhz" else _checked_text, value)
        elif name in _kinds():
            value = _fitting(f"activity.{name}", value, _kinds()[name])
        if name == "fan_percent" and value and self.fans == 0:
            raise InvalidValue(f"activity.fan_percent = {value}: the card has no fans")
        if name == "power" and isinstance(value, float):
            try:
                check_power(value, self.power_limit)
            except InvalidValue as error:
                raise InvalidValue(f"activity.power = {value:g}: {error}") from error
        object.__setattr__(self, name, value)  # super() does not know a class that slots have made anew

    def _checked_clock(self, name: object, mhz: object) -> int:
        checked = _checked_clock(name, mhz)
        highest = self.clock_limits.get(str(name))
        if highest is not None and checked > highest:
            raise InvalidValue(f"activity.clocks_mhz[{name!r}] = {checked}: the card's highest is {highest} MHz")
        return checked


@cache
def _kinds() -> dict[str, Any]:
    return get_type_hints(Activity, include_extras=True)


def _fitting(what: str, value: object, kind: object) -> Any:
    try:
        fitting = msgspec.convert(value, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidValue(f"{what} = {value!r}: {error}") from error
    return fitting


def _checked_clock(name: object, mhz: object) -> int:
    if name not in get_args(ClockName):
        raise InvalidValue(
            f"activity.clocks_mhz[{name!r}]: there is no such clock; there are {', '.join(get_args(ClockName))}"
        )
    return _fitting(f"activity.clocks_mhz[{name!r}]", mhz, Megahertz)  # type: ignore[no-any-return]  # it is an int


_ENGINES: Final = ("sm", "mem", "enc", "dec", "jpg", "ofa")


def checked_engine(name: object, percent: object) -> int:
    """An entry of `Process.percent`. Raises InvalidValue."""
    if name not in _ENGINES:
        raise InvalidValue(f"percent[{name!r}]: there is no such engine; there are {', '.join(_ENGINES)}")
    return _fitting(f"percent[{name!r}]", percent, Percent)  # type: ignore[no-any-return]  # it is an int


def _checked_text(name: object, text: object) -> str:
    if not isinstance(name, str) or not isinstance(text, str) or not values.is_one_line(name + text):
        raise InvalidValue(f"activity.said[{name!r}] = {text!r}: give a field's name and a text, each of one line")
    return text


_MAPPINGS: Final = frozenset({"clocks_mhz", "said"})
