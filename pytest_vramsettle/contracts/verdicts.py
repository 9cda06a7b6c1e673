"""What came of a contract."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pytest_vramsettle.contracts.analysis.rules import Finding


class Verdict(enum.Enum):
    """`kept` passes; the others fail, unless a waiver covers them."""

    KEPT = "kept"
    VIOLATED = "violated"
    CANNOT_TELL = "cannot tell"
    VACUOUS = "vacuous"


@dataclass(frozen=True, slots=True, repr=False)
class Outcome:
    """`findings` are those that the verdict rests on; `note` says which of the contract's names is used by no code.

    `str(outcome)` is the whole report, `bool(outcome)` whether it passes; its repr is a line, as assertions show it.
    """

    contract: str
    text: str
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    note: str = ""
    waived: str | None = None
    path: str = ""

    @property
    def passes(self) -> bool:
        """Kept without a waiver, or violated, or not to be told, with one: a waiver has to match something."""
        return self.is_waived or (self.verdict is Verdict.KEPT and self.waived is None)

    def __bool__(self) -> bool:
        return self.passes

    def __str__(self) -> str:
        from pytest_vramsettle.contracts.render import render

        return render(self)

    def __repr__(self) -> str:
        from pytest_vramsettle.contracts.render import summary

        return f"Outcome: {summary(self)}"

    @property
    def is_waived(self) -> bool:
        """Whether its waiver matches: one that says nothing, being vacuous, is not what a waiver is for."""
        return self.waived is not None and self.verdict in (Verdict.VIOLATED, Verdict.CANNOT_TELL)
