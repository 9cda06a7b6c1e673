"""Of which class an expression's value may be, read off assignments and annotations: cheap, and without paths."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_vramsettle.contracts.analysis import functions, lookup
from pytest_vramsettle.contracts.analysis.engine import Run
from pytest_vramsettle.contracts.analysis.values import ClassVal, Ext, Func, ModuleVal, Path
from pytest_vramsettle.contracts.source import BODY, ClassInfo, Function, Module, Parts, Unit, dotted

_DEEPEST = 6
_PLAIN = ast.Constant | ast.JoinedStr | ast.Compare
_HOLDING = (
    ast.List | ast.Tuple | ast.Set | ast.Dict | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    | ast.BinOp | ast.UnaryOp | ast.Lambda
)  # fmt: skip
_PLAIN_TYPES = frozenset({"str", "bytes", "int", "float", "bool", "None", "Path"})
_ENTERING = ("__enter__", "__aenter__")


@dataclass(frozen=True, slots=True)
class Guess:
    """Classes of the project; modules of it; `unknown` where it may be an object of any class. `holding`: of another
    project, or a container, which may hold such an object and hand it out.
    """

    classes: frozenset[ClassInfo] = frozenset()
    modules: frozenset[Module] = frozenset()
    unknown: bool = False
    holding: bool = False

    def __or__(self, other: Guess) -> Guess:
        unknown, holding = self.unknown or other.unknown, self.holding or other.holding
        return Guess(self.classes | other.classes, self.modules | other.modules, unknown, holding)

    @property
    def is_outside(self) -> bool:
        return not (self.classes or self.modules or self.unknown)


PLAIN = Guess()
"""A text, a number: neither has objects of the project."""
OUTSIDE = Guess(holding=True)
"""Of the standard library, or of another project."""
ANY = Guess(unknown=True)


class Guesses:
    """What is known for one run, each attribute and variable once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._attributes: dict[tuple[ClassInfo, str], Guess] = {}
        self._targets: dict[Unit, dict[Parts, list[ast.expr]]] = {}

    def relatives(self, cls: ClassInfo) -> list[ClassInfo]:
        """Its bases, its subclasses as far as they are the contract's class or that one's, and the bases of those."""
        found = dict.fromkeys(self.run.mro(cls))
        for each in self.run.scope.family():
            if cls in self.run.mro(each):
                found |= dict.fromkeys([each, *self.run.mro(each)])
        return list(found)

    def of(self, node: ast.expr, unit: Unit, depth: int = 0) -> Guess:
        if depth > _DEEPEST:
            return ANY
        if isinstance(node, _PLAIN):
            return PLAIN
        if isinstance(node, _HOLDING):
            return OUTSIDE
        if isinstance(node, ast.Name):
            return self._name(node.id, unit, depth)
        if isinstance(node, ast.Attribute):
            return self._attribute(self.of(node.value, unit, depth + 1), node.attr, depth)
        if isinstance(node, ast.Call):
            return self._made(node, unit, depth)
        if isinstance(node, ast.BoolOp):
            return self._any_of(node.values, unit, depth)
        if isinstance(node, ast.IfExp):
            return self._any_of([node.body, node.orelse], unit, depth)
        return self.of(node.value, unit, depth + 1) if isinstance(node, ast.NamedExpr) else ANY

    def _any_of(self, nodes: list[ast.expr], unit: Unit, depth: int) -> Guess:
        found = PLAIN
        for node in nodes:
            found |= self.of(node, unit, depth + 1)
        return found

    def _name(self, name: str, unit: Unit, depth: int) -> Guess:
        if name in ("self", "cls") and unit.cls is not None:
            return Guess(frozenset([unit.cls]))
        if unit.name != BODY and name in functions.local_names(unit.node):
            return self._local(name, unit, depth)
        found = PLAIN
        for value in lookup.global_name(name, unit.module, self.run):
            if isinstance(value, ClassVal):
                found |= Guess(frozenset([value.cls]))
            elif isinstance(value, ModuleVal):
                found |= Guess(modules=frozenset([value.module]))
            elif not (isinstance(value, Path) and isinstance(value.root, Ext)):
                found |= self._global(name, unit.module, depth)
        return found

    def _global(self, name: str, module: Module, depth: int) -> Guess:
        body = module.units[0]
        assigned = self._values(body, (name,))
        return self._any_of(assigned, body, depth) if assigned else ANY

    def _local(self, name: str, unit: Unit, depth: int) -> Guess:
        found: list[Guess] = []
        if isinstance(unit.node, Function):
            spec = unit.node.args
            named = [each for each in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs) if each.arg == name]
            found += [self.annotated(each.annotation, unit) for each in named]
        found += [self.of(value, unit, depth + 1) for value in self._values(unit, (name,))]
        whole = PLAIN
        for guess in found or [ANY]:
            whole |= guess
        return whole

    def _values(self, unit: Unit, target: Parts) -> list[ast.expr]:
        """All that this function or body assigns to it."""
        if unit not in self._targets:
            found = self._targets[unit] = {}
            for node, value in _assigned(unit):
                found.setdefault(dotted(node), []).append(value)
        return self._targets[unit].get(target, [])

    def annotated(self, annotation: ast.expr | None, unit: Unit) -> Guess:
        if annotation is None:
            return ANY
        cls = functions.annotated_class(annotation, unit, self.run)
        if cls is not None:
            return Guess(frozenset([cls]))
        parts = dotted(annotation)
        known = bool(parts) and all(
            isinstance(value, Path) and isinstance(value.root, Ext)
            for value in lookup.global_name(parts[0], unit.module, self.run)
        )
        if not known or parts[-1] in ("Any", "object", "Callable"):
            return ANY
        return PLAIN if parts[-1] in _PLAIN_TYPES else OUTSIDE

    def _attribute(self, owner: Guess, name: str, depth: int) -> Guess:
        found = Guess(unknown=owner.unknown, holding=owner.holding)
        for cls in owner.classes:
            found |= self._of_class(cls, name, depth)
        for module in owner.modules:
            found |= self._name(name, module.units[0], depth)
        return found

    def _of_class(self, cls: ClassInfo, name: str, depth: int) -> Guess:
        key = (cls, name)
        if key not in self._attributes:
            self._attributes[key] = ANY  # where it is defined by itself
            found, assigned = PLAIN, False
            for each in self.relatives(cls):
                units = [unit for _, unit in each.module.by_word.get(name, ()) if unit.cls is each]
                for unit in dict.fromkeys(units):
                    for guess in self._assigned_in(unit, name, depth):
                        found, assigned = found | guess, True
            self._attributes[key] = found if assigned else ANY
        return self._attributes[key]

    def _assigned_in(self, unit: Unit, name: str, depth: int) -> Iterator[Guess]:
        values = [*self._values(unit, ("self", name)), *self._values(unit, ("cls", name))]
        for value in [*values, *(self._values(unit, (name,)) if unit.name == BODY else ())]:
            yield self.of(value, unit, depth + 1)
        for node in unit.node.body if unit.name == BODY else ():
            if isinstance(node, ast.AnnAssign) and node.value is None and dotted(node.target) == (name,):
                yield self.annotated(node.annotation, unit)

    def _made(self, node: ast.Call, unit: Unit, depth: int) -> Guess:
        parts = dotted(node.func)
        if parts == ("super",):
            return Guess(frozenset([unit.cls])) if unit.cls is not None else ANY
        if len(parts) == 1 and not (unit.name != BODY and parts[0] in functions.local_names(unit.node)):
            found = PLAIN
            for value in lookup.global_name(parts[0], unit.module, self.run):
                found |= self._given_back(node, parts, unit, depth) if _is_foreign(value) else self._called(value)
            return found
        base = node.func.value if isinstance(node.func, ast.Attribute) else None
        owner = self.of(base, unit, depth + 1) if base is not None else ANY
        if isinstance(node.func, ast.Attribute) and node.func.attr in _ENTERING:
            return self._entered(owner, node.func.attr)
        if parts[-1:] in (("import_module",), ("__import__",)):
            return ANY
        if owner.is_outside:
            return self._given_back(node, parts, unit, depth)
        found = Guess(unknown=owner.unknown or bool(owner.classes) or not parts)
        for module in owner.modules:
            for value in lookup.global_name(parts[-1] if parts else "", module, self.run):
                found |= self._called(value)
        return found

    def _called(self, value: object) -> Guess:
        if isinstance(value, ClassVal):
            return Guess(frozenset([value.cls]))
        if isinstance(value, Func) and isinstance(value.node, Function) and not value.is_generator:
            return self.annotated(value.node.returns, value.unit)
        return ANY

    def _given_back(self, node: ast.Call, parts: Parts, unit: Unit, depth: int) -> Guess:
        """By code outside of the project: out of a container, or what it was given (`copy`, `closing`, `next`)."""
        makes = bool(parts) and parts[-1][:1].isupper()
        local = unit.name != BODY and parts[:1] and parts[0] in functions.local_names(unit.node)
        known = lookup.global_name(parts[0], unit.module, self.run) if parts and not local else []
        if not makes and not (known and all(_is_foreign(value) for value in known)):
            return ANY
        for each in (*node.args, *(keyword.value for keyword in node.keywords)):
            guess = self.of(each, unit, depth + 1)
            if guess.classes or (not makes and (guess.unknown or guess.holding)):
                return ANY
        return OUTSIDE

    def _entered(self, owner: Guess, name: str) -> Guess:
        """What `with` assigns: most managers give themselves, and one that was given an object of ours is unknown."""
        if owner.is_outside:
            return owner
        methods = [unit for cls in owner.classes for unit in self.run.methods(cls, name)]
        returned = [node for unit in methods for node in unit.own_nodes if isinstance(node, ast.Return)]
        itself = owner.classes and all(node.value is not None and dotted(node.value) == ("self",) for node in returned)
        return owner if returned and itself and not owner.unknown else ANY


def _is_foreign(value: object) -> bool:
    return isinstance(value, Path) and isinstance(value.root, Ext)


def _assigned(unit: Unit) -> Iterator[tuple[ast.expr, ast.expr]]:
    """What stands left and right of each assignment; of what a loop or an unpacking assigns nothing is known."""
    for node in unit.own_nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Tuple | ast.List):
                    yield from ((each, _SOMETHING) for each in target.elts)
                else:
                    yield target, node.value
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            yield node.target, node.value
        elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
            yield from ((each, _SOMETHING) for each in ast.walk(node.target) if isinstance(each, ast.Name))
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            entered = ast.Attribute(value=node.context_expr, attr=_ENTERING[0], ctx=ast.Load())
            yield node.optional_vars, ast.Call(func=entered, args=[], keywords=[])


_SOMETHING = ast.Await(value=ast.Constant(value=None))
"""An expression of which `Guesses.of` knows nothing."""


__all__ = ["ANY", "OUTSIDE", "PLAIN", "Guess", "Guesses"]
