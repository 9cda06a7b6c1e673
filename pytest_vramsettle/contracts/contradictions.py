"""Contracts that no code can keep: alone, two by two, or in a circle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pytest_vramsettle.contracts.errors import ContractError

if TYPE_CHECKING:
    from pytest_vramsettle.contracts.contract import Contract

Named = Callable[["Contract"], str]
"""How a contract is named in the error: by its text, or by its id and where it is declared."""


def refuse_contradictions(contracts: Sequence[Contract], named: Named = lambda each: repr(each.text)) -> None:
    """Raises `ContractError` that names the contracts, and says why no code can keep them."""
    for contract in contracts:
        why = _in_itself(contract)
        if why:
            raise ContractError(f"this contract contradicts itself: {named(contract)}: {why}")
    for index, one in enumerate(contracts):
        for other in contracts[index + 1 :]:
            why = _between(one, other) or _between(other, one)
            if why:
                raise ContractError(f"these contracts contradict each other: {named(one)} and {named(other)}: {why}")
    circle = _circle(contracts)
    if circle:
        names = ", ".join(named(contract) for contract in circle)
        raise ContractError(f"these contracts contradict each other: {names}: {_around(circle)}")


def refuse_repetitions(contracts: Sequence[Contract], named: Named) -> None:
    """Raises `ContractError` where one says what another has said; whether they are waived makes no difference."""
    known: dict[object, Contract] = {}
    for contract in contracts:
        first = known.setdefault(_meaning(contract), contract)
        if first is not contract:
            raise ContractError(f"{named(contract)} says the same as {named(first)}: take one of them away")


def _meaning(contract: Contract) -> object:
    return (
        contract.target.spec, contract.rule, contract.lock, contract.within, contract.name, contract.every_exit,
        contract.only_if, contract.proceed_if, contract.still_held, tuple(sorted(contract.patterns.items())),
    )  # fmt: skip


def _in_itself(contract: Contract) -> str:
    roles = contract.patterns
    if contract.rule == "must_precede" and roles["first"] == roles["then"]:
        return "no call comes before itself"
    if contract.rule == "must_follow" and roles["stamp"] == roles["kill"]:
        return "no call is followed by itself for ever"
    if contract.rule == "must_recheck" and roles["check"] == roles["then"]:
        return "what is asked and what may go on then are one call"
    return ""


def _between(one: Contract, other: Contract) -> str:
    if one.target.spec != other.target.spec:
        return ""
    if one.rule == "must_not_name" and one.within in (None, other.within):
        named = {part for pattern in other.patterns.values() for part in (*pattern.parts, *pattern.value)}
        named |= {*other.lock.split("."), other.within or ""} - {""}
        if other.rule != "must_not_name" and one.name in named:
            return f"{one.name!r} may not be named, and the other contract needs it"
    if (one.rule, other.rule) == ("must_not_hold", "must_recheck"):
        return _unheld_and_held(one, other)
    if one.rule != other.rule or one.within != other.within:
        return ""
    if one.rule == "must_recheck":
        same = one.patterns == other.patterns and one.lock == other.lock
        opposed = same and one.proceed_if is not other.proceed_if
        return "one goes on where the answer is yes, the other where it is no" if opposed else ""
    if one.rule == "must_follow":
        crossed = (other.patterns["kill"], other.patterns["stamp"])
        mutual = (one.patterns["stamp"], one.patterns["kill"]) == crossed
        return "each of the two calls would have to follow the other, for ever" if mutual else ""
    return ""


def _unheld_and_held(unheld: Contract, recheck: Contract) -> str:
    """A re-check with `still_held` has the lock held at what is asked, and at what may go on then."""
    if unheld.lock != recheck.lock or not recheck.still_held or unheld.patterns["at"] not in recheck.patterns.values():
        return ""
    call = unheld.patterns["at"].text
    return f"{call} would have to run under {unheld.lock}, and may not; still_held=False asks for less"


def _circle(contracts: Sequence[Contract]) -> list[Contract]:
    """Contracts `must_precede` of one function that lead round in a circle, each before the next."""
    orders = [each for each in contracts if each.rule == "must_precede"]

    def lead(path: list[Contract]) -> list[Contract]:
        last = path[-1]
        if last.patterns["then"] == path[0].patterns["first"]:
            return path
        for each in orders:
            joined = (each.target.spec, each.within) == (last.target.spec, last.within)
            if joined and each not in path and each.patterns["first"] == last.patterns["then"]:
                found = lead([*path, each])
                if found:
                    return found
        return []

    return next((found for each in orders if (found := lead([each]))), [])


def _around(circle: Sequence[Contract]) -> str:
    if len(circle) == 2:
        return "each of the two calls would have to come before the other"
    return " before ".join([each.patterns["first"].text for each in circle] + [circle[0].patterns["first"].text])
