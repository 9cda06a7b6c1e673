"""Whether what one GPU's output says can be, all together."""

from __future__ import annotations

from typing import Final

from fake_gpu.capture.findings import Findings
from fake_gpu.capture.seen import SeenCard, is_absent, number, tells_nothing, watts

_ROUNDING_MIB: Final = 3
"""Total, reserved, used and free are rounded one by one: seen are +2 (RTX 4080 SUPER) and -1 (T4)."""


def check_card(card: SeenCard, findings: Findings) -> None:
    """Tells `findings` of a total memory that is none, and of figures that contradict each other."""
    if "memory.total" in card.fields:
        _check_total(card, findings)
        _check_memory(card, findings)
    _check_bar1(card, findings)
    _check_power(card, findings)


def check_agreement(card: SeenCard, other: SeenCard, findings: Findings) -> None:
    """Tells `findings` where two outputs give one card another name, UUID or total memory."""
    for name in ("name", "uuid", "memory.total"):
        one, two = card.fields.get(name), other.fields.get(name)
        if one is None or two is None or one == two or (is_absent(one) and is_absent(two)):
            continue
        here, there = card.places[name], other.places[name]
        findings.refuse(here.line, f"{here.label} is {one!r}, and in line {there.line} {there.label} is {two!r}")


def mib(card: SeenCard, name: str) -> int | None:
    """A field's MiB; None where the card tells none."""
    text = card.fields.get(name, "")
    return number(text) if text[:1].isdigit() else None


def _refuse(card: SeenCard, name: str, text: str, findings: Findings) -> None:
    """Tells of a field, by what it is called where it stands."""
    place = card.places[name]
    findings.refuse(place.line, f"{place.label} is {text}")


def _check_total(card: SeenCard, findings: Findings) -> None:
    text = card.fields["memory.total"]
    if mib(card, "memory.total") == 0:
        _refuse(card, "memory.total", f"{text!r}: expected more than 0 MiB, or N/A (the host's memory)", findings)
    elif is_absent(text):
        _check_unified(card, findings)
    elif tells_nothing(text):
        _refuse(
            card, "memory.total", f"{text.strip('[]')!r}: ask where, and as whom, the whole card can be seen", findings
        )


def _check_unified(card: SeenCard, findings: Findings) -> None:
    """N/A is what a card without memory of its own says, and what a part of one may."""
    told = next((name for name in ("memory.used", "memory.free") if mib(card, name) is not None), None)
    if told is not None:
        _refuse(card, "memory.total", f"N/A, and {card.places[told].label} is {card.fields[told]!r}", findings)
    elif card.fields.get("mig.mode.current") == "Enabled":
        _refuse(card, "memory.total", "N/A, and the card is partitioned: ask outside of its parts", findings)


def _check_memory(card: SeenCard, findings: Findings) -> None:
    total = mib(card, "memory.total")
    parts = {name: mib(card, name) for name in ("memory.reserved", "memory.used", "memory.free")}
    known = {name: figure for name, figure in parts.items() if figure is not None}
    if not total or "memory.used" not in known or "memory.free" not in known:
        return
    of = card.places["memory.total"].label
    for name, figure in known.items():
        if figure > total:
            _refuse(card, name, f"{figure} MiB, and {of} is {total} MiB", findings)
            return
    # Drivers before 510 count what is reserved as used, and do not print it.
    if abs(sum(known.values()) - total) > _ROUNDING_MIB:
        shown = " + ".join(f"{card.places[name].label} {figure}" for name, figure in known.items())
        _refuse(card, "memory.total", f"{total} MiB, and {shown} are {sum(known.values())} MiB", findings)


def _check_bar1(card: SeenCard, findings: Findings) -> None:
    total, used = mib(card, "bar1.total"), mib(card, "bar1.used")
    if total is not None and used is not None and used > total:
        _refuse(card, "bar1.used", f"{used} MiB of BAR1, and its Total is {total} MiB", findings)


def _check_power(card: SeenCard, findings: Findings) -> None:
    least, most = watts(card.fields, "power.min_limit"), watts(card.fields, "power.max_limit")
    if least is not None and most is not None and least > most:
        of = card.places["power.min_limit"].label
        _refuse(card, "power.max_limit", f"{most:.2f} W, and {of} is {least:.2f} W", findings)
        return
    for name in ("enforced.power.limit", "power.limit"):
        limit = watts(card.fields, name)
        if limit is not None and most is not None and limit > most:
            of = card.places["power.max_limit"].label
            _refuse(card, name, f"{limit:.2f} W, and {of} is {most:.2f} W", findings)
    default = watts(card.fields, "power.default_limit")
    if default is None:
        return
    if (least is not None and default < least) or (most is not None and default > most):
        place = card.places["power.default_limit"]
        findings.note(
            place.line, f"{place.label} is {default:.2f} W, outside of min and max: the profile's are widened to it"
        )
