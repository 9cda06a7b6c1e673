"""What the value of each field has to look like: a number, its unit, how large it can be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Final

from fake_gpu.capture.seen import tells_nothing
from fake_gpu.checks import PID_LIMIT
from fake_gpu.smi.layout import columns

MOST_MIB: Final = 1 << 30
"""1 PiB: some thousand times what the largest card has, and small enough for NVML's 64 bits of bytes."""
_MOST_COUNT: Final = (1 << 64) - 1
_NUMBER: Final = re.compile(r"(-?\d+(?:\.\d+)?)(?: ?(\S.*))?")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number of `unit` ("" for none) from `least` to `most`. `shown`: the field's text has the unit in it."""

    unit: str
    least: int
    most: int
    shown: bool = True

    @property
    def expected(self) -> str:
        """What such a value looks like."""
        return f"{self.expected_told} or N/A"

    @property
    def expected_told(self) -> str:
        """The same of one that has to be told."""
        return f"expected a number{self._of}"

    @property
    def _of(self) -> str:
        return f" of {self.unit}" if self.unit else ""

    def fault(self, text: str, *, bare: bool = False) -> str | None:
        """What is wrong with a value; None for a good one, and for one that the card does not tell.

        `bare`: the unit may be left out.
        """
        if tells_nothing(text):
            return None
        found = _NUMBER.fullmatch(text)
        unit = self.unit if self.shown else ""
        if found is None or (found[2] or "") not in ((unit, "") if bare else (unit,)):
            return self.expected
        if not self.least <= float(found[1]) <= self.most:
            return f"expected a number{self._of} from {self.least} to {self.most}"
        return None


@dataclass(frozen=True, slots=True)
class Form:
    """A value of a fixed form."""

    form: re.Pattern[str]
    example: str

    @property
    def expected(self) -> str:
        """What such a value looks like."""
        return f"expected such as {self.example} or N/A"

    def fault(self, text: str, *, bare: bool = False) -> str | None:
        """What is wrong with a value; None for a good one, and for one that the card does not tell."""
        good = tells_nothing(text) or self.form.fullmatch(text)
        return None if good else self.expected


MIB: Final = Quantity("MiB", 0, MOST_MIB)
COUNT: Final = Quantity("", 0, _MOST_COUNT)
PID: Final = Quantity("", 1, PID_LIMIT)
_MOST_MHZ: Final = 1_000_000
CLOCK: Final = Quantity("MHz", 1, _MOST_MHZ)
"""One that a card can be set to."""
_BY_UNIT: Final = {
    "MiB": MIB,
    "%": Quantity("%", 0, 100),
    "W": Quantity("W", 0, 1_000_000),
    "MHz": Quantity("MHz", 0, _MOST_MHZ),
    "mV": Quantity("mV", 0, 1_000_000),
}
_CELSIUS: Final = Quantity("C", -273, 1000, shown=False)
_FAN: Final = Quantity("%", 0, 1000)
"""NVML documents that a fan may turn faster than its 100 %."""
_LINK: Final = Quantity("", 1, 64)
_HEXADECIMAL: Final = Form(re.compile(r"(?:0x)?[0-9A-Fa-f]{1,8}"), "0x1EB810DE")
_BUS_ID: Final = Form(re.compile(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]"), "00000000:01:00.0")
_EXACT: Final[dict[str, Quantity | Form]] = {
    "fan.speed": _FAN,
    "edpp_multiplier": Quantity("%", 0, 1000),
    "pstate": Form(re.compile(r"P(?:\d|1[0-5])"), "P8"),
    "pci.bus_id": _BUS_ID,
    "uuid": Form(re.compile(r"[^\s,]+"), "GPU-5c2c7e1e-0000-0000-0000-000000000000"),
    "minor_number": COUNT,
    "index": COUNT,
    "pcie.replays": COUNT,
    "ecc.errors.uncorrected.aggregate.sram.thresholdExceeded": Form(re.compile("Yes|No"), "No"),
    "compute_cap": Quantity("", 1, 100),
    "retired_pages.single_bit_ecc.count": COUNT,
    "retired_pages.double_bit.count": COUNT,
}
_BY_PREFIX: Final[tuple[tuple[str, Quantity | Form], ...]] = (
    ("temperature.", _CELSIUS),
    ("tlimit.", _CELSIUS),
    ("pcie.link.", _LINK),
    ("encoder.stats.", COUNT),
    ("fbc.stats.", COUNT),
    *((f"ecc.errors.{kind}corrected.", COUNT) for kind in ("", "un")),
    *((f"pci.{name}", _HEXADECIMAL) for name in ("domain", "bus", "device", "sub_device_id", "subClass", "baseClass")),
)


@cache
def form_of(name: str) -> Quantity | Form | None:
    """What a field's value has to be; None for any text."""
    if name in _EXACT:
        return _EXACT[name]
    unit = columns()[name].unit if name in columns() else ""
    if unit:
        return _BY_UNIT.get(unit, Quantity(unit, 0, _MOST_COUNT))
    return next((form for prefix, form in _BY_PREFIX if name.startswith(prefix)), None)
