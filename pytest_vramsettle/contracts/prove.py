"""`vramsettle check --prove`: break the user's own source in memory, and see whether the contract notices."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from pytest_vramsettle.contracts.contract import Contract
from pytest_vramsettle.contracts.errors import ContractError
from pytest_vramsettle.contracts.patterns import Pattern
from pytest_vramsettle.contracts.render import unmatched
from pytest_vramsettle.contracts.source import Function, Module, Unit, dotted
from pytest_vramsettle.contracts.verdicts import Outcome, Verdict

Node = TypeVar("Node", bound=ast.AST)

MOST_EDITS = 6
"""For each kind of edit."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A wrong edit: what it does, at which line of which file, and the module's text with it.

    `is_partial`: it changes one of several places, so that the contract may be kept all the same.
    """

    what: str
    path: str
    line: int
    module: str
    text: str
    is_partial: bool = False


@dataclass(frozen=True, slots=True)
class Proof:
    """`caught` are the edits with which the contract was no longer kept."""

    contract: Contract
    before: Outcome
    edits: tuple[tuple[Edit, Verdict], ...]

    @property
    def caught(self) -> int:
        return sum(verdict is not Verdict.KEPT for _, verdict in self.edits)

    @property
    def missed(self) -> int:
        return sum(verdict is Verdict.KEPT and not edit.is_partial for edit, verdict in self.edits)

    @property
    def is_proved(self) -> bool:
        """It is kept, and each edit (of one or more) broke it."""
        return self.before.passes and not self.before.is_waived and self.caught > 0 and not self.missed

    @property
    def lines(self) -> list[str]:
        lines = [f"{self.contract.id}: {self.contract.text}"]
        if self.before.verdict is not Verdict.KEPT:
            waived = f", and waived ({self.before.waived})" if self.before.is_waived else ""
            note = f" ({self.before.note})" if self.before.note else ""
            return [*lines, f"  not tried: it is {self.before.verdict.value} as the source stands{note}{waived}"]
        for edit, verdict in self.edits:
            mark = "caught" if verdict is not Verdict.KEPT else ("spare " if edit.is_partial else "MISSED")
            lines.append(f"  {mark}  {verdict.value:11}  {edit.path}:{edit.line}: {edit.what}")
        if self.before.waived is not None:
            lines.append(f"  {unmatched(self.before)}; take the waiver away")
        if not self.edits:
            lines.append("  nothing to break: cannot be proved (the code has no statement that an edit could change)")
        elif not self.caught:
            lines.append("  cannot fail: no edit broke it")
        return lines


@dataclass(frozen=True, slots=True)
class Report:
    """`passes`: each contract is proved, or fails and is waived."""

    proofs: tuple[Proof, ...]

    @property
    def passes(self) -> bool:
        return all(proof.is_proved or proof.before.is_waived for proof in self.proofs)

    @property
    def text(self) -> str:
        """A table: each edit, and what the contract said of it. A spare place is one that another one makes up for."""
        caught, missed = sum(proof.caught for proof in self.proofs), sum(proof.missed for proof in self.proofs)
        proved = sum(proof.is_proved for proof in self.proofs)
        waived = sum(proof.before.is_waived for proof in self.proofs)
        last = f"{proved} of {len(self.proofs)} contracts proved" + (f", {waived} waived" if waived else "")
        lines = [line for proof in self.proofs for line in proof.lines]
        return "\n".join([*lines, f"{caught} of {caught + missed} edits caught; {last}"])


def prove(contract: Contract) -> Proof:
    """Each edit alone, on the source as it stands. Raises `ContractError` as `check_static` does."""
    before = contract.check_static()
    if before.verdict is not Verdict.KEPT:
        return Proof(contract, before, ())
    tried = []
    project = contract.target.scope.project
    for edit in edits(contract):
        try:
            verdict = contract.check_static(project.with_source(edit.module, edit.text)).verdict
        except ContractError:
            verdict = Verdict.CANNOT_TELL
        tried.append((edit, verdict))
    return Proof(contract, before, tuple(tried))


def edits(contract: Contract) -> list[Edit]:
    """Those that fit the rule, change something, and leave a file that parses; some of each kind."""
    makers = {
        "must_not_hold": _under_lock,
        "must_precede": _without_first,
        "must_follow": _without_stamp,
        "must_recheck": _without_check,
        "must_not_name": _with_name,
    }
    return [edit for edit in makers[contract.rule](contract) if _parses(edit.text)]


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def _units(contract: Contract) -> list[Unit]:
    scope = contract.target.scope
    family = scope.project.mro(scope.cls) if scope.cls is not None else []
    units = [unit for module in scope.modules for unit in module.units if isinstance(unit.node, Function)]
    return [unit for unit in units if unit.cls is None or scope.cls is None or unit.cls in family]


def _reached(contract: Contract) -> list[Unit]:
    """Those that the function which the contract is about may call, by their names."""
    units = _units(contract)
    if contract.within is None:
        return units
    found = [unit for unit in units if unit.name == contract.within]
    for unit in found:
        words = {word for _, word in unit.words}
        found += [
            each
            for each in units
            if each not in found and (each.name in words or (each.cls is not None and each.cls.name in words))
        ]
    return found


def _every(places: Sequence[tuple[Unit, Node]], build: Callable[[Unit, Node], Edit]) -> Iterator[Edit]:
    """Each place alone and, where there are several, all of a module at once: that has to break it."""
    for unit, node in places[:MOST_EDITS]:
        yield replace(build(unit, node), is_partial=len(places) > 1)
    modules = {unit.module.name for unit, _ in places}
    for name in sorted(modules) if len(places) > 1 else ():
        own = [place for place in places if place[0].module.name == name]
        edit, module = None, own[0][0].module
        for unit, node in sorted(own, key=_position, reverse=True):
            edit = build(replace(unit, module=module), node)
            module = replace(module, text=edit.text)
        if edit is not None and len(own) > 1:
            what = f"{edit.what}, in all {len(own)} places"
            yield replace(edit, what=what, is_partial=len(modules) > 1)


def _position(place: tuple[Unit, ast.AST]) -> tuple[int, int]:
    return getattr(place[1], "lineno", 0), getattr(place[1], "col_offset", 0)


def _calls(unit: Unit, pattern: Pattern) -> Iterator[tuple[ast.stmt, ast.Call]]:
    """Each such call, with the innermost statement around it."""
    waiting: list[tuple[ast.AST, ast.stmt | None]] = [(unit.node, None)]
    while waiting:
        node, around = waiting.pop(0)
        if isinstance(node, ast.Call) and around is not None:
            named = dotted(node.func)[-len(pattern.parts) :]
            yield from [(around, node)] if named == pattern.parts else []
        around = node if isinstance(node, ast.stmt) and node is not unit.node else around
        waiting += [(child, around) for child in ast.iter_child_nodes(node)]


def _statements(contract: Contract, role: str) -> list[tuple[Unit, ast.stmt]]:
    return [(unit, statement) for unit, statement, _ in _found(contract, role)][:MOST_EDITS]


def _found(contract: Contract, role: str) -> list[tuple[Unit, ast.stmt, ast.Call]]:
    pattern = contract.patterns[role]
    return [(unit, *each) for unit in _reached(contract) for each in _calls(unit, pattern)]


def _under_lock(contract: Contract) -> Iterator[Edit]:
    for unit, node in _statements(contract, "at"):
        lock = _Taking.of(contract, unit, node)
        if lock is not None:
            yield _wrapped(unit, node, f"{lock.entering} {lock.text}:", f"put under {lock.text}")
            yield _inserted(unit, node, f"{lock.acquiring}{lock.text}.acquire()", f"take {lock.text} and keep it")


@dataclass(frozen=True, slots=True)
class _Taking:
    """How the contract's lock is taken at a statement: what stands before its name in a `with`, and before a call."""

    text: str
    entering: str
    acquiring: str

    @classmethod
    def of(cls, contract: Contract, unit: Unit, node: ast.stmt) -> _Taking | None:
        """None where that statement cannot take it: there is no `self`, or nothing can be awaited."""
        owner = "self." if contract.target.scope.cls is not None else ""
        if owner and unit.cls is None:
            return None
        if not _is_async(contract):
            return cls(owner + contract.lock, "with", "")
        awaits = isinstance(_function_around(unit, node), ast.AsyncFunctionDef)
        return cls(owner + contract.lock, "async with", "await ") if awaits else None


def _is_async(contract: Contract) -> bool:
    """Whether the lock is one of asyncio: by what is assigned to it or, where that is not told, how it is entered."""
    parts = tuple(contract.lock.split("."))
    entered = False
    for module in contract.target.scope.modules:
        for node in ast.walk(module.tree) if parts[-1] in module.identifiers else ():
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                made = dotted(node.value.func)
                if made and any(dotted(each)[-1:] == parts[-1:] for each in targets):
                    origin = module.imports.get(made[0], made[:1])[0]
                    if origin in ("asyncio", "threading"):
                        return origin == "asyncio"
            elif isinstance(node, ast.AsyncWith):
                entered = entered or any(_is_lock(item.context_expr, parts) for item in node.items)
    return entered


def _is_lock(node: ast.expr, parts: tuple[str, ...]) -> bool:
    return dotted(node)[-len(parts) :] == parts


def _function_around(unit: Unit, node: ast.AST) -> ast.AST:
    """The innermost one."""
    found: ast.AST = unit.node
    for each in ast.walk(unit.node):  # breadth first: what stands further in comes later
        if isinstance(each, Function) and any(inner is node for inner in ast.walk(each)):
            found = each
    return found


def _without_first(contract: Contract) -> Iterator[Edit]:
    yield from _taken_away(contract, "first")
    if "reset" in contract.patterns:
        reset = ".".join(contract.patterns["reset"].parts)
        owner = "self." if contract.target.scope.cls is not None and "." in reset else ""
        for unit, node in _statements(contract, "then"):
            if unit.name == contract.within:
                yield _inserted(unit, node, f"{owner}{reset}()", f"call {reset}() just before")


def _taken_away(contract: Contract, role: str) -> Iterator[Edit]:
    text = contract.patterns[role].text
    what = f"take {text} away"
    found = _found(contract, role)
    alone = [(unit, node) for unit, node, _ in found if isinstance(node, ast.Expr)]
    # In an expression of one line the call alone is put another in place of.
    inside = [(unit, call) for unit, node, call in found if not isinstance(node, ast.Expr)]
    if alone and inside:
        partial = [*_every(alone, lambda unit, node: _replaced(unit, node, "pass", what))]
        partial += _every(inside, lambda unit, call: _swapped(unit, call, "unlikely()", what))
        yield from (replace(edit, is_partial=True) for edit in partial)
        return
    yield from _every(alone, lambda unit, node: _replaced(unit, node, "pass", what))
    yield from _every(alone, lambda unit, node: _wrapped(unit, node, "if unlikely():", f"call {text} on a condition"))
    yield from _every(inside, lambda unit, call: _swapped(unit, call, "unlikely()", what))


def _stamps(unit: Unit, pattern: Pattern) -> Iterator[ast.Assign | ast.AnnAssign | ast.With]:
    for node in ast.walk(unit.node):
        if isinstance(node, ast.Assign | ast.AnnAssign) and pattern.kind == "write" and unit.name != "__init__":
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if pattern.parts[-1:] in [dotted(target)[-1:] for target in targets]:
                yield node
        elif isinstance(node, ast.With) and pattern.kind == "recording":
            items = [ast.unparse(item.context_expr) for item in node.items]
            if any(f"{'.'.join(pattern.parts)}.recording" in item for item in items):
                yield node


def _without_stamp(contract: Contract) -> Iterator[Edit]:
    pattern = contract.patterns["stamp"]
    if pattern.kind == "call":
        yield from _taken_away(contract, "stamp")
    stamps = [(unit, stamp) for unit in _reached(contract) for stamp in _stamps(unit, pattern)]
    yield from _every(stamps, lambda unit, stamp: _unstamped(unit, stamp, f"take {pattern.text} away"))
    for unit, node in _statements(contract, "kill"):
        if unit.name != contract.within or not isinstance(node, ast.Expr | ast.Assign):
            continue  # the caller goes on all the same
        if any(_sees_to_it(each) and _around(each, node) for each in ast.walk(unit.node)):
            continue  # what is on the way out is run all the same
        yield _appended(unit, node, "return None", "leave just after the kill")


def _unstamped(unit: Unit, stamp: ast.Assign | ast.AnnAssign | ast.With, what: str) -> Edit:
    return _emptied(unit, stamp) if isinstance(stamp, ast.With) else _replaced(unit, stamp, "pass", what)


def _sees_to_it(node: ast.AST) -> bool:
    return isinstance(node, ast.With | ast.AsyncWith) or (isinstance(node, ast.Try) and bool(node.finalbody))


def _around(outer: ast.AST, node: ast.stmt) -> bool:
    first, last = getattr(outer, "lineno", 0), getattr(outer, "end_lineno", 0)
    return bool(first <= node.lineno <= last)


def _without_check(contract: Contract) -> Iterator[Edit]:
    asks = _asks(contract)
    tests = [(unit, node) for unit, node in asks if isinstance(node, ast.If)]
    edits = [*_every(tests, lambda unit, node: _tested(unit, node, "False and", "never look at the answer"))]
    edits += _every(tests, lambda unit, node: _tested(unit, node, "not", "turn the answer round"))
    # What is asked elsewhere than in an `if` stays.
    yield from (replace(edit, is_partial=edit.is_partial or len(tests) < len(asks)) for edit in edits)
    for unit, node in _statements(contract, "then"):
        lock = _Taking.of(contract, unit, node)
        if unit.name == contract.within and lock is not None:
            again = f"{lock.text}.release(); {lock.acquiring}{lock.text}.acquire()"
            yield _inserted(unit, node, again, "let go of the lock and take it again")


def _asks(contract: Contract) -> list[tuple[Unit, ast.stmt]]:
    """The statements that ask what the contract is about: after the lock was taken, before what it guards."""
    found = {id(node): (unit, node) for unit, node, _ in _found(contract, "check")}
    asks = [(unit, node) for unit, node in found.values() if not _is_past(contract, unit, node)]
    regions = _Regions(contract)
    # Where the lock is taken in a way that its name does not tell, all of them may be meant.
    return [ask for ask in asks if regions.has(*ask)] or asks


def _is_past(contract: Contract, unit: Unit, node: ast.stmt) -> bool:
    """Whether it stands below all that it could guard; in a loop it may come before that all the same."""
    guarded = [then for _, then in _calls(unit, contract.patterns["then"])]
    looping = any(isinstance(each, ast.For | ast.While | ast.AsyncFor) and _around(each, node) for each in _nodes(unit))
    return bool(guarded) and not looping and all(then.lineno < node.lineno for then in guarded)


def _nodes(unit: Unit) -> Iterator[ast.AST]:
    return ast.walk(unit.node)


class _Regions:
    """The code that runs after the lock was taken, by its lines, and the functions that are called there."""

    def __init__(self, contract: Contract) -> None:
        self._parts = tuple(contract.lock.split("."))
        self._is_let_go = not contract.still_held
        units = _reached(contract)
        self._taken = {unit: list(self._in(unit)) for unit in units}
        words = {
            each.attr if isinstance(each, ast.Attribute) else each.id
            for unit in units
            for each in _nodes(unit)
            if isinstance(each, ast.Attribute | ast.Name) and self._spans(unit, each.lineno)
        }
        self._whole: list[Unit] = [unit for unit in units if unit.name in words]
        for unit in self._whole:
            called = {word for _, word in unit.words}
            self._whole += [each for each in units if each not in self._whole and each.name in called]

    def _in(self, unit: Unit) -> Iterator[tuple[int, int]]:
        last = getattr(unit.node, "end_lineno", 0)
        for node in _nodes(unit):
            if isinstance(node, ast.With | ast.AsyncWith):
                if any(_is_lock(item.context_expr, self._parts) for item in node.items):
                    yield node.lineno, last if self._is_let_go else node.end_lineno or node.lineno
            elif isinstance(node, ast.Attribute) and node.attr == "acquire" and _is_lock(node.value, self._parts):
                yield node.lineno, last

    def _spans(self, unit: Unit, line: int) -> bool:
        return any(first <= line <= last for first, last in self._taken[unit])

    def has(self, unit: Unit, node: ast.stmt) -> bool:
        return self._spans(unit, node.lineno) or unit in self._whole


def _with_name(contract: Contract) -> Iterator[Edit]:
    for unit in [unit for unit in _units(contract) if contract.within in (None, unit.name)][:2]:
        if isinstance(unit.node, Function):
            first = unit.node.body[-1]
            yield _inserted(unit, first, f"{contract.name} = True", f"assign {contract.name}")
            yield _inserted(unit, first, f"setattr(object, {contract.name!r}, True)", f"setattr {contract.name}")
    module = contract.target.scope.module
    if contract.within is None and module.tree.body:
        last = module.tree.body[-1]
        yield _appended(module.units[0], last, f"{contract.name} = True", f"assign {contract.name} in the module")


def _edit(unit: Unit, node: ast.AST, lines: Sequence[str], what: str) -> Edit:
    text = "\n".join(lines) + "\n"
    line = getattr(node, "lineno", 1)
    return Edit(what, unit.module.path, line, unit.module.name, text)


def _cut(module: Module, node: ast.stmt) -> tuple[list[str], list[str], list[str], str]:
    """The lines before, of and after a statement, and its indentation."""
    lines = module.lines
    first, last = node.lineno - 1, node.end_lineno or node.lineno
    indent = lines[first][: len(lines[first]) - len(lines[first].lstrip())]
    return lines[:first], lines[first:last], lines[last:], indent


def _wrapped(unit: Unit, node: ast.stmt, head: str, what: str) -> Edit:
    before, own, after, indent = _cut(unit.module, node)
    body = [f"    {line}" for line in own]
    return _edit(unit, node, [*before, f"{indent}{head}", *body, *after], what)


def _inserted(unit: Unit, node: ast.stmt, line: str, what: str) -> Edit:
    before, own, after, indent = _cut(unit.module, node)
    return _edit(unit, node, [*before, indent + line, *own, *after], what)


def _appended(unit: Unit, node: ast.stmt, line: str, what: str) -> Edit:
    before, own, after, indent = _cut(unit.module, node)
    return _edit(unit, node, [*before, *own, indent + line, *after], what)


def _replaced(unit: Unit, node: ast.stmt, line: str, what: str) -> Edit:
    before, _, after, indent = _cut(unit.module, node)
    return _edit(unit, node, [*before, indent + line, *after], what)


def _swapped(unit: Unit, call: ast.Call, text: str, what: str) -> Edit:
    lines = list(unit.module.lines)
    line = lines[call.lineno - 1].encode()
    lines[call.lineno - 1] = (line[: call.col_offset] + text.encode() + line[call.end_col_offset :]).decode()
    return _edit(unit, call, lines, what)


def _emptied(unit: Unit, node: ast.With) -> Edit:
    before, own, after, indent = _cut(unit.module, node)
    inside = own[node.body[0].lineno - node.lineno :]
    return _edit(unit, node, [*before, f"{indent}if True:", *inside, *after], "take the recording away")


def _tested(unit: Unit, node: ast.If, prefix: str, what: str) -> Edit:
    before, own, after, indent = _cut(unit.module, node)
    word = own[0].lstrip().partition(" ")[0]
    rest = own[node.body[0].lineno - node.lineno :]
    head = f"{indent}{word} {prefix} ({ast.unparse(node.test)}):"
    return _edit(unit, node, [*before, head, *rest, *after], what)


__all__ = ["Edit", "Proof", "Report", "edits", "prove"]
