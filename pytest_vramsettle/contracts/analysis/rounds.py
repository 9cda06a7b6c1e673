"""Runs a rule over all functions that matter, and comes to a verdict."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator

from pytest_vramsettle.contracts.analysis import functions, lookup, statements
from pytest_vramsettle.contracts.analysis.engine import Exit, Frame, Run, Scope, TooMuch, scope_names
from pytest_vramsettle.contracts.analysis.hotness import mentions
from pytest_vramsettle.contracts.analysis.rules import Finding, HoldRule, Watching, unclear
from pytest_vramsettle.contracts.analysis.state import Doubt, Place, State
from pytest_vramsettle.contracts.analysis.values import Func, Obj
from pytest_vramsettle.contracts.source import BODY, ClassInfo, Function, Parts, Unit

ROUNDS = 4
FOLLOWED = frozenset({"__init__", "__enter__", "__exit__", "__aenter__", "__aexit__", "__call__"})
"""Special methods that are walked through where they run."""


def analyse(scope: Scope, rule: Watching, locks: dict[Parts, str], names: set[str], within: Unit | None) -> Run:
    """Round after round, until no attribute is found any more that may hold what is of interest."""
    run = Run(scope, rule, locks, names)
    for _ in range(ROUNDS):
        before = {slot: set(values) for slot, values in run.fields.items()}
        rule.reset()
        run.forget()
        run.steps = 0
        _one_round(run, rule, within)
        if {slot: set(values) for slot, values in run.fields.items()} == before:
            break
        for (owner, name), values in list(run.fields.items()):
            if any(isinstance(value, Obj) or run.tracks(value) for value in values):
                own = isinstance(owner, Obj) and not run.is_family(owner.cls)
                run.relevance.add([name], owner.cls if own and isinstance(owner, Obj) else None)
        run.forget_slices()
    return run


def again(run: Run, rule: Watching, within: Unit | None, suspects: dict[int, str]) -> None:
    """One more round, in which these places may do what the contract requires."""
    run.suspects.update(suspects)
    rule.reset()
    run.forget()
    run.all_steps = 0
    run.spent.clear()
    _one_round(run, rule, within)


def unseen(run: Run, names: set[str]) -> Iterator[Place]:
    """Names in what was walked through, of which nothing was made."""
    for unit in run.walked | run.inlined:
        yield from _unseen(run, unit, names)


def _one_round(run: Run, rule: Watching, within: Unit | None) -> None:
    units = list(run.relevance.units)
    for unit in units:
        if unit.name == BODY:
            _run_body(run, unit)
    start = State({}, marks=rule.start)
    if within is None:
        for unit in units:
            for function in _entries(run, unit):
                _run_one(run, rule, function, start)
        for function in _made_in_bodies(run):
            _run_one(run, rule, function, start)
        return
    kept, seen = dict(rule.findings), set(rule.seen)
    inside = _as_overridden(run, within)
    methods = {name for cls in run.scope.family() for each in run.mro(cls) for name in each.methods}
    for unit in units:
        if unit not in inside and (unit.name == "__init__" or _replaces(unit, methods)):
            for function in _entries(run, unit):
                _run_one(run, rule, function, start)
    rule.findings.clear()
    rule.findings.update(kept)
    rule.seen &= seen
    run.escapes.clear()
    run.regions.clear()
    for unit in inside:
        for function in _entries(run, unit):
            _run_one(run, rule, function, start)


def _replaces(unit: Unit, methods: set[str]) -> bool:
    """Whether it puts something else in the place of a method."""
    return any(
        isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr in methods
        for node in unit.nodes
    )


def _as_overridden(run: Run, within: Unit) -> list[Unit]:
    """The function, as its other definitions and the subclasses' have it too."""
    if within.cls is None:
        return [within, *within.module.others.get(within.name, ())]
    found = [within, *within.cls.others.get(within.name, ())]
    for cls in run.scope.family():
        found += [unit for unit in run.methods(cls, within.name) if unit not in found]
    return found


def _entries(run: Run, unit: Unit) -> Iterator[Func]:
    """The unit as it is called from outside, once for each class that it may be called on."""
    if not isinstance(unit.node, Function):
        return
    if unit.cls is None:
        yield Func(unit, unit.node)
        return
    owners: list[Obj] = []
    if run.is_family(unit.cls):
        for cls in run.scope.family():
            # One that overrides a method which matters matters too, also where its own does nothing.
            own = cls is run.scope.cls or any(
                other in run.relevance.units or name in run.relevance.names for name, other in cls.methods.items()
            )
            if own and (unit in run.methods(cls, unit.name) or _reached_by_super(run, cls, unit)):
                owners.append(Obj(cls, ""))
    owners = owners or [Obj(unit.cls, "" if run.is_family(unit.cls) else "root")]
    for owner in owners:
        if lookup.has_decorator(unit, frozenset({"staticmethod"})):
            yield Func(unit, unit.node)
        else:
            yield Func(unit, unit.node, (owner,))


def _made_in_bodies(run: Run) -> list[Func]:
    """Methods that a class body makes by a call: `load = locked(_load)`."""
    found = []
    for cls in run.scope.family():
        for (owner, _), values in run.fields.items():
            if owner == f"{cls.module.name}.{cls.name}":
                found += [functions.bind(value, Obj(cls, "")) for value in values if isinstance(value, Func)]
    return [function for function in found if isinstance(function, Func)]


def _reached_by_super(run: Run, cls: ClassInfo, unit: Unit) -> bool:
    return cls is run.scope.cls and unit.cls in run.mro(cls) and run.method(cls, unit.name) is not unit


def _run_body(run: Run, unit: Unit) -> None:
    node = unit.node
    run.root = unit
    frame = Frame(run, unit, node, run.number("body", id(node)), run.slice(unit), locals=scope_names(node)[0])
    body = [each for each in getattr(node, "body", []) if frame.slice.is_hot(each)]
    skipped = (*Function.__args__, ast.ClassDef)
    own = [each for each in body if not isinstance(each, skipped)]
    with contextlib.suppress(TooMuch):  # the functions that are of interest are walked through on their own
        statements.block(own, [State({}, marks=run.rule.start)], frame)


def _run_one(run: Run, rule: Watching, function: Func, start: State) -> None:
    run.steps = 0
    try:
        egresses = _outcomes(run, function, start)
    except TooMuch as error:
        doubt = Doubt(error.place, error.reason)
        rule.findings[
            Finding("there are too many ways through this function", (("here", error.place),), doubt=doubt)
        ] = None
        return
    except RecursionError:
        place = Place.of(function.unit, function.node)
        doubt = Doubt(place, "expressions or calls are nested too deeply")
        rule.findings[Finding("this function is nested too deeply", (("here", place),), doubt=doubt)] = None
        return
    for egress in egresses:
        rule.left(run, egress)
        if egress.kind == "return":
            run.escape(egress.value, egress.place, "is returned to callers that are not known")


def _outcomes(run: Run, function: Func, start: State) -> list[Exit]:
    """Through its decorators, where they are the project's."""
    node = function.node
    plain = not isinstance(node, Function) or not node.decorator_list or function.manager
    if plain or lookup.has_decorator(function.unit, lookup.PROPERTIES):
        return functions.run_root(run, function, start)
    run.root = function.unit
    frame = Frame(run, function.unit, function.unit.module.tree, 0, run.slice(function.unit))
    found: list[Exit] = []
    for after, value in functions.decorated(Func(function.unit, node), start, frame, node):
        if isinstance(value, Func) and value.node is node:
            found += functions.run_root(run, function, start)
        elif isinstance(value, Func):
            made = functions.bind(value, function.bound[0]) if function.bound else value
            if isinstance(made, Func):
                found += functions.run_root(run, made, after)
                run.inlined.add(function.unit)
    return found


def doubts(run: Run, rule: Watching, names: set[str], within: Unit | None) -> list[Finding]:
    """What was not understood: what went where nothing is followed, and mentions that nothing was made of."""
    found = []
    for escape in run.escapes:
        handed_on = "returned to callers" in escape.reason or "handed out by" in escape.reason
        if not (handed_on and escape.inside in run.inlined):
            found.append(unclear(escape.place, escape.reason))
    if isinstance(rule, HoldRule):
        found += [finding for finding, unit in rule.leaks.items() if unit not in run.inlined]
        for place, unit in run.yields.items():
            if unit not in run.inlined:
                found.append(unclear(place, f"{rule.lock} is held while others run what is between the yields"))
    for unit in run.targets.units:
        if unit.name == "__del__" and not _may_end_anywhere(run, unit):
            continue
        if unit.name.startswith("__") and unit.name.endswith("__") and unit.name not in FOLLOWED:
            reason = "it reaches what the contract watches, and operators may run it, which is not followed"
            found.append(unclear(Place.of(unit, unit.node), reason))
    return [*found, *(unclear(place, "this mention is not understood") for place in unseen(run, names))]


def _may_end_anywhere(run: Run, unit: Unit) -> bool:
    """An object of another class may end under the lock; one whose own lock is held does not."""
    return isinstance(run.rule, HoldRule) and (unit.cls is None or not run.is_family(unit.cls))


def _unseen(run: Run, unit: Unit, names: set[str]) -> Iterator[Place]:
    """Names in statements that were reached, which no evaluation has come by."""
    is_hot = run.slice(unit).is_hot  # whatever says one of the names is
    waiting: list[tuple[ast.AST, bool]] = [(unit.node, False)]
    while waiting:
        node, reached = waiting.pop()
        if isinstance(node, ast.stmt):
            reached = id(node) in run.visited
        if (
            isinstance(node, ast.Name | ast.Attribute)
            and reached
            and mentions(node, names)
            and id(node) not in run.seen
        ):
            yield Place.of(unit, node)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            items = value if isinstance(value, list) else [value]
            waiting += [(item, reached) for item in items if isinstance(item, ast.AST) and is_hot(item)]
