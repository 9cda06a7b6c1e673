"""Which nodes of a function matter, for a set of names: indexed once, then found in the time that the answer takes."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from pytest_vramsettle.contracts.source import BODY, Function, Unit, dotted

STACKS = frozenset({"ExitStack", "AsyncExitStack", "ThreadPoolExecutor", "ProcessPoolExecutor", "TaskGroup"})
_SELF = ("self", "cls")


class Index:
    """The nodes of one unit by the words that they say, and what each of them leads to when it is hot.

    Of a module's or class's body the functions and classes in it are left out: they are units of their own.
    """

    def __init__(self, unit: Unit) -> None:
        self.nodes: list[ast.AST] = []
        self.tests: list[tuple[ast.AST, frozenset[str]]] = []
        self._parents: list[int] = []
        self._saying: dict[str, list[int]] = {}
        self._always: list[int] = []
        self._given: set[str] = set()
        self._gives: dict[int, list[str]] = {}
        self._numbers: dict[int, int] = {}
        self._collect(unit)
        for number, node in enumerate(self.nodes):
            for word in _said(node):
                self._saying.setdefault(word, []).append(number)
            if isinstance(node, ast.Yield | ast.YieldFrom) or _is_blind(node):
                self._always.append(number)
            if isinstance(node, ast.withitem | ast.Assign):
                self._given.update(_stacks(node))
            for giver, words in _led_to(node):
                self._gives.setdefault(self._numbers[id(giver)], []).extend(words)
            if isinstance(node, ast.If | ast.While | ast.IfExp | ast.BoolOp):
                self.tests.append((node, _words_of(node.values[0] if isinstance(node, ast.BoolOp) else node.test)))

        self._add_flags()

    def _add_flags(self) -> None:
        """What a hot `try` or `if` assigns to a variable that is tested: later branches depend on it."""
        tested = frozenset(word for _, words in self.tests for word in words)
        for number, node in enumerate(self.nodes):
            if not isinstance(node, ast.Assign) or not _is_flag(node.value):
                continue
            names = [each.id for each in node.targets if isinstance(each, ast.Name) and each.id in tested]
            while names and number >= 0:
                if isinstance(self.nodes[number], ast.Try | ast.If):
                    self._gives.setdefault(number, []).extend(names)
                number = self._parents[number]

    def _collect(self, unit: Unit) -> None:
        waiting: list[tuple[ast.AST, int]] = [(unit.node, -1)]
        while waiting:
            node, parent = waiting.pop()
            number = self._numbers[id(node)] = len(self.nodes)
            self.nodes.append(node)
            self._parents.append(parent)
            for child in ast.iter_child_nodes(node):
                own = unit.name != BODY or parent != -1 or not isinstance(child, (*Function.__args__, ast.ClassDef))
                # Contexts and operators are shared by all nodes that have them.
                if own and child._fields:
                    waiting.append((child, number))

    def settle(self, names: Iterable[str], hot: set[int]) -> set[str]:
        """Fills `hot` with the ids of what matters. Gives the names that this adds to those given."""
        given = names if isinstance(names, set | frozenset) else frozenset(names)
        added = self._given - given
        words = [word for word in self._saying if word in given or word in added]
        found: set[int] = set()
        waiting = list(self._always)
        while words or waiting:
            if words:
                waiting += self._saying.get(words.pop(), ())
            while waiting:
                number = waiting.pop()
                while number >= 0 and number not in found:
                    found.add(number)
                    for word in self._gives.get(number, ()):
                        if word not in given and word not in added:
                            added.add(word)
                            words.append(word)
                    number = self._parents[number]
        hot.clear()
        hot.update(id(self.nodes[number]) for number in found)
        return added


def _is_flag(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) or (isinstance(value, ast.Constant) and value.value in (True, False, None))


def _said(node: ast.AST) -> Iterator[str]:
    """The words by which `mentions` knows it."""
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.value
    elif isinstance(node, ast.keyword | ast.arg):
        if node.arg is not None:
            yield node.arg
    elif isinstance(node, Function | ast.ClassDef):
        yield node.name


def mentions(node: ast.AST, names: set[str]) -> bool:
    """Whether this node itself says one of the names."""
    return any(word in names for word in _said(node))


def _led_to(node: ast.AST) -> Iterator[tuple[ast.AST, Iterable[str]]]:
    """What hot statements assign, what hot branches depend on, and what hot calls are given; and who has to be hot."""
    if isinstance(node, ast.Assign):
        yield node, _stored(node.targets)
        if isinstance(node.value, ast.Name) and node.value.id != "self":
            yield node, [node.value.id]
    elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
        yield node, _stored([node.target])
    elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
        yield node.iter, _stored([node.target])
    elif isinstance(node, ast.withitem) and node.optional_vars is not None:
        yield node, _stored([node.optional_vars])
    elif isinstance(node, ast.Match):
        yield node.subject, captured(node)
    elif isinstance(node, ast.If | ast.While | ast.IfExp | ast.Assert):
        yield node, _tested(node.test)
    elif isinstance(node, ast.BoolOp):
        yield node, _tested(node)
    elif isinstance(node, ast.Attribute):
        yield node, [name for name in dotted(node)[:1] if name not in _SELF]
    elif isinstance(node, ast.Call):
        yield node, _handed(node)
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.Name):
        yield node, [node.value.id]
    elif isinstance(node, Function):
        yield node, [node.name]


def _handed(node: ast.Call) -> Iterator[str]:
    yield from (name for name in dotted(node.func)[:1] if name not in _SELF)
    for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
        if isinstance(argument, ast.Name) and argument.id != "self":
            yield argument.id
        elif isinstance(argument, ast.Starred) and isinstance(argument.value, ast.Name):
            yield argument.value.id


def captured(node: ast.Match | ast.pattern) -> Iterator[str]:
    """The variables that the patterns bind."""
    patterns = [case.pattern for case in node.cases] if isinstance(node, ast.Match) else [node]
    for each in (found for pattern in patterns for found in ast.walk(pattern)):
        if isinstance(each, ast.MatchAs | ast.MatchStar) and each.name is not None:
            yield each.name
        elif isinstance(each, ast.MatchMapping) and each.rest is not None:
            yield each.rest


def _is_blind(node: ast.AST) -> bool:
    """`getattr(x, name)(...)`, `x.join()`, `x.result()`: by their text they may run anything, or wait for it."""
    made = node.func if isinstance(node, ast.Call) else None
    if isinstance(node, ast.Call) and isinstance(made, ast.Attribute):
        if made.attr == "__init__":  # again, and what it assigns with it; not that of a base
            return not isinstance(made.value, ast.Call)
        return made.attr == "result" or (made.attr == "join" and not node.args)
    if not isinstance(made, ast.Call) or dotted(made.func) != ("getattr",) or len(made.args) < 2:
        return False
    return not isinstance(made.args[1], ast.Constant)


def _stored(targets: Iterable[ast.expr]) -> Iterator[str]:
    for target in targets:
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and node.id != "self":
                yield node.id


def _stacks(node: ast.withitem | ast.Assign) -> Iterator[str]:
    """Variables to which managers and tasks are added: what is called on them matters, whatever it is given."""
    made = node.context_expr if isinstance(node, ast.withitem) else node.value
    if isinstance(made, ast.Call) and (dotted(made.func) or ("",))[-1] in STACKS:
        targets = [node.optional_vars] if isinstance(node, ast.withitem) else node.targets
        yield from _stored(target for target in targets if target is not None)


def _tested(test: ast.expr) -> Iterator[str]:
    for node in ast.walk(test):
        if isinstance(node, ast.Name) and node.id not in _SELF:
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in _SELF:
            yield node.attr


def _words_of(test: ast.expr) -> frozenset[str]:
    names = {each.id for each in ast.walk(test) if isinstance(each, ast.Name)}
    return frozenset(names | {each.attr for each in ast.walk(test) if isinstance(each, ast.Attribute)})
