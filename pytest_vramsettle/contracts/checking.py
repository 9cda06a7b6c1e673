"""From a declaration to a verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_vramsettle.contracts.analysis import rounds
from pytest_vramsettle.contracts.analysis.engine import Run, Scope
from pytest_vramsettle.contracts.analysis.rules import (
    Finding,
    FollowRule,
    HoldRule,
    PrecedeRule,
    RecheckRule,
    Watching,
    unclear,
)
from pytest_vramsettle.contracts.errors import SourceError
from pytest_vramsettle.contracts.names import missed, reach
from pytest_vramsettle.contracts.names.aliases import lock_paths, other_names
from pytest_vramsettle.contracts.names.missing import first_missing, missing_imports
from pytest_vramsettle.contracts.names.naming import find_name
from pytest_vramsettle.contracts.names.spelling import elsewhere, locks, unused
from pytest_vramsettle.contracts.reading import without_collections
from pytest_vramsettle.contracts.source import Unit, closest
from pytest_vramsettle.contracts.verdicts import Outcome, Verdict

if TYPE_CHECKING:
    from pytest_vramsettle.contracts.contract import Contract


def check(contract: Contract, scope: Scope) -> Outcome:
    """Raises `ContractError` where the function that it names is not there."""
    with without_collections():
        return _check(contract, scope)


def _check(contract: Contract, scope: Scope) -> Outcome:
    within = function_in(scope, contract.within) if contract.within is not None else None
    if contract.rule == "must_not_name":
        named = list(find_name(scope, contract.name, within))
        return _outcome(contract, scope, [*named, *(missing_imports(scope) if within is None else ())], "")
    rule = _rule(contract)
    paths = lock_paths(scope, contract.lock) if contract.lock else {}
    targets = {name for pattern in contract.patterns.values() for name in pattern.names} | {path[-1] for path in paths}
    names = targets | _recording_names(contract) | other_names(scope, contract.patterns.values())
    run = rounds.analyse(scope, rule, paths, names, within)
    if rule.required and any(finding.doubt is None for finding in rule.findings):
        suspects = missed.suspects(run)
        if suspects:
            rounds.again(run, rule, within, suspects)
    findings = [*rule.findings, *_deferred(run)]
    if not any(finding.doubt is None for finding in findings):
        findings += [*missing_imports(scope), *rounds.doubts(run, rule, targets, within)]
    misspelt = unused(contract, scope)
    if not findings and not misspelt:
        findings += reach.unaccounted(run)
        unreached = [role for role in ("at", "then", "kill") if role in rule.patterns and role not in rule.seen]
        if not findings and unreached and within is None and "lock" in rule.seen:
            findings += reach.mentioned(run, unreached[0])
    if not any(finding.doubt is None for finding in findings) and _is_of_no_lock(contract, scope):
        findings = []  # whatever else is not understood, that lock is not taken
    outcome = _outcome(contract, scope, findings, misspelt or _not_reached(contract, rule, scope))
    # It explains the other verdicts too: what nobody calls comes before nothing.
    return replace(outcome, note=misspelt) if misspelt else outcome


def _is_of_no_lock(contract: Contract, scope: Scope) -> bool:
    """Whether no code uses its lock, and there is none that could not be read."""
    alone = replace(contract, patterns={})
    return bool(contract.lock and unused(alone, scope)) and not any(missing_imports(scope))


def _recording_names(contract: Contract) -> set[str]:
    recordings = [pattern for pattern in contract.patterns.values() if pattern.kind == "recording"]
    return {name for pattern in recordings for name in ("recording", pattern.parts[-1])}


def _rule(contract: Contract) -> Watching:
    patterns = dict(contract.patterns)
    if contract.rule == "must_not_hold":
        return HoldRule(patterns, lock=contract.lock)
    if contract.rule == "must_precede":
        return PrecedeRule(patterns)
    if contract.rule == "must_follow":
        return FollowRule(patterns, every_exit=contract.every_exit, only_if=contract.only_if)
    return RecheckRule(patterns, lock=contract.lock, proceed_if=contract.proceed_if, still_held=contract.still_held)


def _outcome(contract: Contract, scope: Scope, findings: list[Finding], note: str) -> Outcome:
    sure = [finding for finding in findings if finding.doubt is None]
    verdict = Verdict.KEPT
    if sure:
        verdict, findings = Verdict.VIOLATED, sure
    elif findings:
        verdict = Verdict.CANNOT_TELL
    elif note:
        verdict = Verdict.VACUOUS
    shown = tuple(_distinct(findings)[:5])
    path = scope.module.path
    said = note if verdict is Verdict.VACUOUS else ""
    return Outcome(contract.id or contract.text, contract.text, verdict, shown, said, contract.waive, path)


def _distinct(findings: list[Finding]) -> list[Finding]:
    """Without those that say more of a fault that another one tells: `b` without `a`, since the kill or ever."""
    return [each for each in findings if not any(_is_part(other, each) for other in findings)]


def _is_part(one: Finding, other: Finding) -> bool:
    last = one.places[-1:] == other.places[-1:]
    return one is not other and last and len(one.places) < len(other.places) and other.message.startswith(one.message)


def function_in(scope: Scope, name: str) -> Unit:
    """Raises `SourceError` where neither the class nor its module has it."""
    cls = scope.cls
    if cls is not None:
        for each in scope.project.mro(cls):
            if name in each.methods:
                return each.methods[name]
    if name in scope.module.functions:
        return scope.module.functions[name]
    there = {method for each in scope.project.mro(cls) for method in each.methods} if cls is not None else set()
    owner = f"class {cls.name}" if cls is not None else f"module {scope.module.name}"
    # 'Backend.load' is 'load' here.
    near = closest(name.rpartition(".")[2], there | set(scope.module.functions))
    raise SourceError(f"{scope.module.path}: {owner} has no function {name!r}{near}{first_missing(scope)}")


def _not_reached(contract: Contract, rule: Watching, scope: Scope) -> str:
    wanted = {"must_not_hold": ("lock", "at"), "must_precede": ("then",), "must_follow": ("kill",)}
    where = f" in {contract.within}" if contract.within else ""
    for role in wanted.get(contract.rule, ("lock", "then")):
        if role in rule.seen:
            continue
        if role == "lock":
            others = locks(scope) - {contract.lock}
            near = closest(contract.lock, others) if contract.lock not in locks(scope) and others else ""
            return f"the lock {contract.lock!r} is never taken{where}{near}"
        pattern = contract.patterns[role]
        return f"{pattern.text} is never reached{where}{elsewhere(pattern, scope) if where else ''}"
    return ""


def _deferred(run: Run) -> list[Finding]:
    if not (run.joins and run.elsewhere):
        return []
    return [unclear(place, "what is waited for here under the lock is not known") for place in run.joins]
