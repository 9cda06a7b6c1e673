"""What a name, an attribute and an element of a container stand for."""

from __future__ import annotations

import ast
import builtins
import re
from dataclasses import replace

from pytest_vramsettle.contracts.analysis import functions
from pytest_vramsettle.contracts.analysis.engine import Frame, Run, Ways, builtin
from pytest_vramsettle.contracts.analysis.properties import PROPERTIES, raises
from pytest_vramsettle.contracts.analysis.state import State
from pytest_vramsettle.contracts.analysis.values import (
    EXT,
    UNKNOWN,
    ClassVal,
    Const,
    Deferred,
    Func,
    Local,
    Lock,
    LockMethod,
    Method,
    ModuleVal,
    Obj,
    Path,
    Seq,
    Stack,
    Super,
    Value,
)
from pytest_vramsettle.contracts.names.aliases import FOREIGN
from pytest_vramsettle.contracts.source import ClassInfo, Function, Module, Parts, Unit, dotted

WRAPPED = frozenset({"contextmanager", "asynccontextmanager"})
CACHES = frozenset({"lru_cache", "cache"})
TRANSPARENT = frozenset(
    {"staticmethod", "classmethod", "abstractmethod", "override", "overload", "final", "wraps", "lru_cache", "cache"}
)


def look_up(name: str, state: State, frame: Frame) -> list[Value]:
    """All that it may stand for."""
    cls = frame.unit.cls
    if isinstance(frame.node, ast.ClassDef) and cls is not None:
        if (name,) in frame.run.locks and frame.run.is_family(cls):
            return [Lock(frame.run.locks[(name,)])]
        if name in cls.methods:
            return [function_value(cls.methods[name])]
    if isinstance(frame.node, ast.Module) and (name,) in frame.run.locks:  # by what it was assigned it is any lock
        return global_name(name, frame.unit.module, frame.run)
    for number in (frame.number, *frame.closure):
        value = state.get((number, name))
        if value is not None:
            return [value]
    for number in frame.closure:
        kept = frame.run.fields_of((number, name))
        if kept:
            return kept
    if name in frame.locals and not isinstance(frame.node, ast.Module):
        return [Path(Local(frame.number, name), ())]
    if frame.closure and name in functions.local_names(frame.unit.node):
        return [Path(Local(frame.closure[-1], name), ())]
    return global_name(name, frame.unit.module, frame.run)


def global_name(name: str, module: Module, run: Run) -> list[Value]:
    if (name,) in run.locks and _is_lock_here(name, module, run):
        return [Lock(run.locks[(name,)])]
    kept = run.fields_of((module.name, name))
    if kept:
        return kept
    if module.units and (name in module.functions or name in module.classes):
        return _project_value(run.project.resolve(module, (name,)))
    if name in module.imports:
        return list(dict.fromkeys(value for origin in module.origins[name] for value in _imported(run, module, origin)))
    if "*" in module.origins and (found := run.project.resolve(module, (name,))) is not None:
        return _project_value(found)
    if hasattr(builtins, name):
        return [builtin(name)]
    return [Path(UNKNOWN, (name,))]


def _is_lock_here(name: str, module: Module, run: Run) -> bool:
    if module is run.scope.module:
        return name not in module.imports or run.scope.cls is None or run.locks[(name,)] != name
    parts = module.imports.get(name)
    return parts is not None and ".".join(parts[:-1]) == run.scope.module.name


def _imported(run: Run, module: Module, origin: Parts) -> list[Value]:
    found = run.project.absolute(origin)
    if found is not None:
        return _project_value(found)
    source = run.project.follow(".".join(origin[:-1])) if len(origin) > 1 else None
    if source is not None and source is not module:
        return global_name(origin[-1], source, run)
    return [Path(EXT, origin)]


def _project_value(found: Unit | ClassInfo | Module | None) -> list[Value]:
    """A function that is defined in each branch of an `if` or `try` is several."""
    if isinstance(found, Unit):
        others = found.module.others.get(found.name, ()) if found.cls is None else ()
        return [function_value(unit) for unit in (found, *others)]
    if isinstance(found, ClassInfo):
        return [ClassVal(found)]
    return [] if found is None else [ModuleVal(found)]


def function_value(unit: Unit) -> Func:
    """Undecorated but for what the standard library's decorators say."""
    node = unit.node
    if not isinstance(node, Function):
        raise TypeError(f"{unit!r} is no function")
    names = {dotted(each)[-1:] for each in node.decorator_list}
    return Func(unit, node, manager=any(name in {(each,) for each in WRAPPED} for name in names))


def has_decorator(unit: Unit, names: frozenset[str]) -> bool:
    node = unit.node
    return isinstance(node, Function) and any(
        (dotted(each.func if isinstance(each, ast.Call) else each) or ("",))[-1] in names
        for each in node.decorator_list
    )


def attribute(owner: Value, name: str, state: State, frame: Frame, node: ast.AST) -> Ways:
    """All that `owner.name` may stand for; a property runs."""
    surely = isinstance(owner, Obj | Super | ClassVal | ModuleVal | Lock | Seq | Const | Func | LockMethod)
    if not isinstance(node, ast.Call):
        frame.run.understood(node, known=surely or (isinstance(owner, Path) and owner.root == EXT))
    if isinstance(owner, Obj):
        return _of_object(owner, name, state, frame, node)
    if isinstance(owner, Super):
        unit = frame.run.method(owner.obj.cls, name, owner.after)
        if unit is None:
            return [(state, Path(owner.obj, ("super", name)))]
        return _member(unit, owner.obj, state, frame, node)
    if isinstance(owner, ClassVal):
        return _of_class(owner, name, state, frame, node)
    if isinstance(owner, ModuleVal):
        return [(state, value) for value in global_name(name, owner.module, frame.run)]
    if isinstance(owner, Lock):
        return [(state, LockMethod(owner, name))]
    if isinstance(owner, Path):
        return [(state, _path(owner, name, frame))]
    if isinstance(owner, Seq | Deferred | Stack):
        return [(state, Method(owner, name))]
    if isinstance(owner, Const | Func | LockMethod):
        return [(state, UNKNOWN)]
    return [(state, _path(Path(UNKNOWN, ()), name, frame))]


def _path(owner: Path, name: str, frame: Frame) -> Value:
    attrs = (*owner.attrs, name)
    if isinstance(owner.root, Obj) and frame.run.is_family(owner.root.cls) and attrs in frame.run.locks:
        return Lock(frame.run.locks[attrs])
    if (not isinstance(owner.root, Obj) and owner.root != EXT) or (isinstance(owner.root, Obj) and len(attrs) > 1):
        for path, lock in frame.run.locks.items():
            if path[-1] == name and frame.run.scope.cls is not None:
                return Lock(lock, sure=False)
    return Path(owner.root, attrs)


def _of_object(owner: Obj, name: str, state: State, frame: Frame, node: ast.AST) -> Ways:
    run = frame.run
    if run.is_family(owner.cls) and (name,) in run.locks:
        # Two objects of the class have two locks: only the contract's own is surely the one that is meant.
        return [(state, Lock(run.locks[(name,)], sure=owner.site != "other"))]
    if (FOREIGN, name) in run.locks:
        return [(state, Lock(run.locks[FOREIGN, name], sure=False))]
    value = state.get((owner, name))
    if value is not None:
        return [(state, value)]
    units = run.methods(owner.cls, name)
    if units:
        ways = [way for unit in units for way in _member(unit, owner, state, frame, node)]
        if functions.is_plain(units[0]):  # an attribute of that name hides it, a property it does not
            ways += [(state, kept) for kept in run.fields_of((owner, name))]
            ways += [
                way for value in _of_bodies(run, owner.cls, name) for way in _got(value, owner, state, frame, node)
            ]
        return ways
    kept = run.fields_of((owner, name))
    if not kept:
        made = _of_bodies(run, owner.cls, name)
        return [way for value in made for way in _got(value, owner, state, frame, node)] or _not_kept(
            owner, name, state, run
        )
    return [(state.put((owner, name), value), value) if len(kept) > 1 else (state, value) for value in kept]


def _of_bodies(run: Run, cls: ClassInfo, name: str) -> list[Value]:
    """What class bodies, and those who patch classes, assign to it."""
    return [value for each in run.mro(cls) for value in run.fields_of((f"{each.module.name}.{each.name}", name))]


def _got(value: Value, owner: Obj, state: State, frame: Frame, node: ast.AST) -> Ways:
    """A value of a class, fetched through an instance: a function is bound, `property(f)` runs it."""
    if isinstance(value, Method) and value.name == "property" and isinstance(value.owner, Func):
        return functions.invoke(replace(value.owner, bound=(owner,)), (), (), state, frame, node)
    return [(state, functions.bind(value, owner))]


def _not_kept(owner: Obj, name: str, state: State, run: Run) -> Ways:
    inner = next((base for base in run.mro(owner.cls) if f"{base.name}.{name}" in base.module.classes), None)
    if inner is not None:
        return [(state, ClassVal(inner.module.classes[f"{inner.name}.{name}"]))]
    annotated = functions.annotated_field(owner.cls, name, run)
    return [(state, annotated if annotated is not None else Path(owner, (name,)))]


def _member(unit: Unit, owner: Obj, state: State, frame: Frame, node: ast.AST) -> Ways:
    function = function_value(unit)
    if has_decorator(unit, PROPERTIES):
        if unit not in frame.run.relevance.units:
            frame.run.skip(unit, node)
            if raises(unit):
                frame.raises(state, node)
                state = state.age(frame.run.lasting)
            return [(state, Path(owner, (unit.name,)))]
        ways = functions.invoke(Func(unit, function.node, (owner,)), (), (), state, frame, node)
        if has_decorator(unit, frozenset({"cached_property"})):
            doubted = state.doubted(frame.place(node), "its value may be kept from an earlier look")
            ways.append((doubted, Path(owner, (unit.name,))))
        return ways
    if has_decorator(unit, frozenset({"staticmethod"})):
        return [(state, function)]
    first: Value = ClassVal(owner.cls) if has_decorator(unit, frozenset({"classmethod"})) else owner
    ways = []
    for after, value in functions.decorated(function, state, frame, node):
        ways.append((after, functions.bind(value, first)))
    return ways


def _of_class(owner: ClassVal, name: str, state: State, frame: Frame, node: ast.AST) -> Ways:
    run = frame.run
    if run.is_family(owner.cls) and (name,) in run.locks:
        return [(state, Lock(run.locks[(name,)]))]
    unit = run.method(owner.cls, name)
    if unit is not None:
        function = function_value(unit)
        if has_decorator(unit, frozenset({"classmethod"})):
            return [(state, Func(unit, function.node, (owner,), manager=function.manager))]
        return functions.decorated(function, state, frame, node)
    kept = [value for cls in run.mro(owner.cls) for value in run.fields_of((f"{cls.module.name}.{cls.name}", name))]
    if kept:
        return [(state, value) for value in kept]
    inner = owner.cls.module.classes.get(f"{owner.cls.name}.{name}")
    return [(state, ClassVal(inner) if inner is not None else Path(EXT, (owner.cls.name, name)))]


def display(node: ast.expr, frame: Frame) -> ast.Tuple | ast.List | ast.Set | None:
    """The display that is looped over, in place or as a tuple at the top of the module; None without items."""
    if isinstance(node, ast.Name) and node.id not in frame.locals and not frame.closure:
        body = frame.unit.module.tree.body
        assigned = [each for each in body if isinstance(each, ast.Assign) and dotted(each.targets[0]) == (node.id,)]
        constant = re.compile(rf"\b{node.id}\b\s*(\.|\[|[-+|&]?=(?!=)|,[^()\n]*=(?!=))")
        if len(assigned) != 1 or len(constant.findall(frame.unit.module.text)) != 1:
            return None
        node = assigned[0].value
        if not all(isinstance(each, ast.Constant) for each in getattr(node, "elts", ())):
            return None  # what is in it is found by its name
    if not isinstance(node, ast.Tuple | ast.List | ast.Set) or not node.elts:
        return None
    return None if any(isinstance(each, ast.Starred) for each in node.elts) else node


def element(owner: Value, key: Value, frame: Frame, node: ast.AST) -> list[Value]:
    """`owner[key]`."""
    if isinstance(owner, Lock):
        return [Lock(owner.name, key=_key_text(key), sure=owner.sure)]
    if isinstance(owner, Path) and owner.attrs[-1:] == ("__dict__",) and isinstance(key, Const):
        base = (
            owner.root if len(owner.attrs) == 1 and isinstance(owner.root, Obj) else Path(owner.root, owner.attrs[:-1])
        )
        return [value for _, value in attribute(base, str(key.value), State({}), frame, node)]
    if not isinstance(owner, Seq):
        frame.run.escape(owner, frame.place(node), "is looked into in a way that this analysis does not follow")
        return [UNKNOWN]
    if owner.keys is not None:
        if isinstance(key, Const) and key in owner.keys:
            return [owner.items[owner.keys.index(key)]]
        return list(dict.fromkeys(owner.items)) or [UNKNOWN]
    if isinstance(key, Const) and isinstance(key.value, int) and -len(owner.items) <= key.value < len(owner.items):
        return [owner.items[key.value]]
    return list(dict.fromkeys(owner.items)) or [UNKNOWN]


def _key_text(key: Value) -> str:
    if isinstance(key, Const):
        return repr(key.value)
    if isinstance(key, Path) and isinstance(key.root, Local):
        return ".".join((key.root.name, *key.attrs))
    return "?" if not isinstance(key, Path) else ".".join(key.attrs)


__all__ = ["PROPERTIES", "attribute", "display", "element", "function_value", "global_name", "look_up"]
