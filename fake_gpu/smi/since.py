"""Which drivers have which fields of --query-gpu, as far as their own lists (--help-query-gpu) have been seen."""

from __future__ import annotations

import re
from typing import Final

_NOT_IN_590: Final = re.compile(
    r"kmd_version|fabric\.health\.partition_assigned|remapped_rows\.(un)?correctable_inactive",
)
"""590.48.01 does not list them, 595.71.05 does."""

_NOT_IN_535: Final = re.compile(
    r"pci\.(base|sub)Class|vgpu_device_capability\.(homogeneous_placements|mig_timeSlicing(_mode)?)"
    r"|display_attached|inforom\.checksum_validation|gpu_recovery_action|clocks_event_reasons_counters\..*"
    r"|dramEncryption\..*|ecc\.errors\.uncorrected\.\w+\.sram\..*|remapped_rows\..*|gpu\.power\..*|module\..*"
    r"|power_smoothing\..*|edpp_multiplier|c2c\.mode|fabric\.(?!state|status).*|platform\..*|hostname",
)
"""535.129.03 does not list them, 590.48.01 does. Where between they came has not been seen."""

FIRST_EVENT_REASONS: Final = 535
"""Until then `clocks_throttle_reasons` was their only name: a T4 with 515 has it in its log, 535 has the new one."""


def has_field(branch: int, name: str) -> bool:
    """Whether a driver of this branch (590; 0: not known) can be asked for a field, by that name."""
    if not branch or branch >= 595:
        return True
    if _NOT_IN_590.fullmatch(name) or (branch <= 535 and _NOT_IN_535.fullmatch(name)):
        return False
    return branch >= FIRST_EVENT_REASONS or not name.startswith("clocks_event_reasons.")
