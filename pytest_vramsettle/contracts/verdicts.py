"""What came of a contract."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pytest_vramsettle.contracts.rules import Finding


class Verdict(enum.Enum):
    """`kept` passes; the others fail, unless a waiver covers them."""

    KEPT = "kept"
    VIOLATED = "violated"
    CANNOT_TELL = "cannot tell"
    VACUOUS = "vacuous"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`findings` are those that the verdict rests on; `note` says what is missing where it is vacuous."""

    contract: str
    text: str
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    note: str = ""
    waived: str | None = None
    path: str = ""

    @property
    def passes(self) -> bool:
        """Kept without a waiver, or not kept with one: a waiver has to match something."""
        return (self.verdict is Verdict.KEPT) == (self.waived is None)
