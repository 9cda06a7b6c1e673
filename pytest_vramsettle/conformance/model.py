"""What a scenario is, what was seen of an implementation in it, and what is said of that. Data alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from pytest_vramsettle.timeline import Timeline, draw

if TYPE_CHECKING:
    from pytest_vramsettle.conformance.stage import Stage

SECOND = 1_000_000_000
MIB = 1024 * 1024

_WIDTH = 100
"""Columns of a drawing."""

Kind = str
"""What is judged: "settle", "kills", "probe", "reload"; a suite of another kind brings its own scenarios."""
Level = Literal["upstream", "verified"]
LEVELS: tuple[Level, ...] = ("upstream", "verified")
Status = Literal["passed", "failed", "gap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an implementation claims. What it does not claim is not judged, and listed as a gap.

    Everything is claimed unless it is said otherwise: each is something without which somebody has lost memory or time.
    """

    cadence: bool = True
    """Probes at once and then every 0.25 s, so that the number of probes is known (level `upstream`)."""
    tells_outcome: bool = True
    """Says whether the next reading may be trusted: returns a bool, or an object that is true or false.

    Waits that end alike whether memory is back or not leave the caller to guess (level `verified`).
    """
    bounds_probe: bool = True
    """`max_wait` holds whatever a probe does: a wedged nvidia-smi blocks for its own timeout, often 10 s.

    Of a probe: it ends where nvidia-smi or NVML never answer. An NVML call in one's own process cannot be ended.
    """
    long_reclaims: bool = True
    """Waits for memory that takes more than `max_wait` of 2 s: 26 s are reported for pinned host memory."""
    by_uuid: bool = True
    """Knows GPUs by UUID: indices change when a card comes back."""
    co_tenants: bool = True
    """Is not fooled by other processes that allocate and release meanwhile."""
    sees_truncation: bool = True
    """A probe takes no answer that was cut off in the middle of a number: it looks for the newline at the end.

    Without it "0, 15360" that was cut to "0, 1" places a model on 1 MiB.
    """
    logs_failures: bool = True
    """A failure of the probe that is not raised is logged, at any level."""
    kills_in_time: bool = True
    """The kill itself is not put off for more than a second by a probe that hangs, where it takes a reading before."""

    @classmethod
    def named(cls, *off: str) -> Capabilities:
        """All but these. Raises ValueError for a name that is none."""
        known = [field.name for field in fields(cls)]
        unknown = [name for name in off if name not in known]
        if unknown:
            raise ValueError(f"there is no capability {', '.join(unknown)}; there are {', '.join(known)}")
        return cls(**{name: name not in off for name in known})


@dataclass(frozen=True, slots=True)
class Sighting:
    """One probe as the driver saw it: all calls of one instant, and NVML calls that follow each other at once.

    Nanoseconds since the scenario began.
    """

    at_ns: int
    answered_ns: int | None
    """None: never, or not by itself."""
    via: str
    status: int | None
    """Exit status of nvidia-smi, or NVML's return code."""
    free: tuple[int, ...]
    """True free bytes by index at the answer."""
    covered: bool = True
    """False where the fake does not know what was asked."""

    def __str__(self) -> str:
        end = "no answer" if self.answered_ns is None else f"status {self.status}"
        took = (
            "" if self.answered_ns in (None, self.at_ns) else f" after {seconds((self.answered_ns or 0) - self.at_ns)}"
        )
        head = f"{seconds(self.at_ns)}  {self.via}: {end}{took}"
        if not self.covered:
            return f"{head}; the fake does not cover what was asked"
        if self.failed:
            return head
        free = ", ".join(f"{size // MIB}" for size in self.free)
        return f"{head}; free MiB by index: {free or 'no GPU'}"

    @property
    def failed(self) -> bool:
        """Whether it was answered with an error, or not at all."""
        return self.status != 0 or self.answered_ns is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What an implementation did in a scenario. Instants are nanoseconds since the scenario began, sizes bytes."""

    began_ns: int
    """When the implementation was called."""
    ended_ns: int
    """When it returned or raised; when it was given up, if it did neither."""
    returned: bool
    result: Any = None
    error: str | None = None
    """What it raised, with where."""
    probes: tuple[Sighting, ...] = ()
    missing: int = 0
    """What the dead had not given back at the return."""
    logs: tuple[logging.LogRecord, ...] = ()
    left: tuple[str, ...] = ()
    """Processes, and pipes, that were not there before."""
    notes: tuple[tuple[str, Any], ...] = ()
    """What this scenario alone looks at."""

    @property
    def elapsed_ns(self) -> int:
        """From the call to its end."""
        return self.ended_ns - self.began_ns

    def note(self, name: str) -> Any:
        """Of `notes`. Raises KeyError."""
        return dict(self.notes)[name]

    @property
    def trusted(self) -> bool | None:
        """Whether it said that the next reading may be trusted; None where it said nothing."""
        if isinstance(self.result, bool) or hasattr(self.result, "outcome"):
            return bool(self.result)
        return None

    @property
    def outcome(self) -> str:
        """How it ended, in a few words."""
        if not self.returned:
            return f"raised {self.error.partition(':')[0]}" if self.error else "never returned"
        return str(self.result.outcome) if hasattr(self.result, "outcome") else f"returned {short(self.result, 40)}"

    @property
    def said(self) -> str:
        """Its result in words."""
        if not self.returned:
            return f"it raised {self.error}" if self.error else "it did not return"
        if hasattr(self.result, "outcome"):
            return f"it returned {self.result.outcome!r} ({'true' if self.result else 'false'})"
        return f"it returned {short(self.result)}"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that has to be so. `judge` returns what is wrong, or None."""

    expects: str
    judge: Callable[[Observation], str | None]
    needs: str | None = None
    """The capability without which this is not judged, while the rest of the scenario is."""
    levels: tuple[Level, ...] = LEVELS


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A machine, what happens on it, and what an implementation has to do there."""

    name: str
    kind: Kind
    levels: tuple[Level, ...]
    about: str
    """What goes wrong in the world that this stands for."""
    scripted: str
    """What the machine does, for whoever reads a failure."""
    machine: Callable[[Stage], None]
    """Sets up GPUs and processes, before the implementation is made."""
    play: Callable[[Stage, Any], Observation]
    """Kills, schedules, calls the implementation."""
    checks: tuple[Check, ...]
    needs: str | None = None
    """The capability without which the whole scenario is a gap."""
    part: str | None = None
    """The optional part of the subject (a fixture of the suite) without which it is a gap."""
    may_raise: bool = False
    """Whether raising an Exception is an answer here."""
    leaves: bool = False
    """Whether the script itself leaves a process that is not the implementation's to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is said of one scenario."""

    scenario: str
    kind: Kind
    status: Status
    problems: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()
    """What was not judged, and why; a passed scenario can have some."""
    story: str = ""
    """What was scripted, seen, returned and expected."""
    timeline: Timeline | None = None

    def describe(self, *, drawn: bool = True) -> str:
        """All of it, as plain text; without the drawing, where that is shown beside it."""
        lines = [f"{self.kind} scenario {self.scenario}: {self.status}"]
        lines += [f"  {problem}" for problem in self.problems]
        lines += [f"  not judged: {gap}" for gap in self.gaps]
        if self.status == "failed":
            lines += ["", self.story]
            if drawn and self.timeline is not None:
                lines += ["", *draw(self.timeline, _WIDTH)]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold; the timeline as drawn."""
        told = {name: value for name, value in asdict(self).items() if name != "timeline"}
        told["timeline"] = None if self.timeline is None else "\n".join(draw(self.timeline, _WIDTH))
        return told


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is said of an implementation."""

    kind: Kind
    level: Level
    verdicts: tuple[Verdict, ...]

    @property
    def passes(self) -> bool:
        """Whether nothing failed; gaps are no failures."""
        return not self.failed

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the scenarios that failed."""
        return tuple(one.scenario for one in self.verdicts if one.status == "failed")

    @property
    def gaps(self) -> tuple[str, ...]:
        """'scenario: what was not judged', each."""
        return tuple(f"{one.scenario}: {gap}" for one in self.verdicts for gap in one.gaps)

    def describe(self) -> str:
        """Failures with their pictures, then gaps, then the count."""
        parts = [one.describe() for one in self.verdicts if one.status == "failed"]
        if self.gaps:
            parts.append("\n".join(["not judged:", *(f"  {gap}" for gap in self.gaps)]))
        counts = [f"{sum(one.status == status for one in self.verdicts)} {status}" for status in STATUSES]
        parts.append(f"{self.kind}, level {self.level}: {', '.join(counts)}")
        return "\n\n".join(parts)


STATUSES: tuple[Status, ...] = ("passed", "failed", "gap")


def seconds(nanoseconds: int) -> str:
    """'0.250 s'; exact where a millisecond does not tell."""
    return f"{nanoseconds / SECOND:.3f} s" if nanoseconds % 1_000_000 == 0 else f"{nanoseconds / SECOND:.9f} s"


def short(value: object, limit: int = 160) -> str:
    """A repr that cannot fill the screen, nor raise."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
    return text if len(text) <= limit else f"{text[:limit]}…"
