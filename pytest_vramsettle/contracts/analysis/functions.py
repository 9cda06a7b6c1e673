"""Walking through a function of the project from a call of it."""

from __future__ import annotations

import ast
import functools
from dataclasses import replace

from pytest_vramsettle.contracts.analysis import comprehensions, expressions, lookup, statements
from pytest_vramsettle.contracts.analysis.engine import (
    DEEPEST,
    Exit,
    Frame,
    Keywords,
    OnYield,
    Run,
    TooMuch,
    Ways,
    scope_names,
)
from pytest_vramsettle.contracts.analysis.state import Place, State, merge
from pytest_vramsettle.contracts.analysis.values import (
    NONE,
    UNKNOWN,
    ClassVal,
    Const,
    Func,
    ModuleVal,
    Obj,
    Partial,
    Path,
    Seq,
    Value,
    parts_of,
)
from pytest_vramsettle.contracts.source import ClassInfo, Function, Unit, dotted

AGAIN = 2
"""How often a function is walked through inside itself."""

_scope = functools.lru_cache(maxsize=4096)(scope_names)


def local_names(node: ast.AST) -> frozenset[str]:
    """Its parameters, and the variables that it assigns."""
    return _scope(node)[0]


def enter(run: Run, function: Func, frame: Frame | None, node: ast.AST) -> Frame:
    """A frame for one call. Its number is the same whenever the same call is walked through."""
    chain = () if frame is None else (*frame.chain, frame.place(node))
    number = run.number(frame.number if frame else 0, id(node), id(function.node), function.closure)
    names, outer = _scope(function.node)
    return Frame(
        run, function.unit, function.node, number, run.slice(function.unit), function.closure, chain,
        locals=names, outer=outer,
    )  # fmt: skip


def worth_walking(function: Func, args: tuple[Value, ...], keywords: Keywords, run: Run) -> bool:
    """Whether anything of interest can happen in it: by its text, by what it gets, or by what is around it."""
    if function.unit in run.relevance.units or function.closure:
        return True
    given = (*args, *(value for _, value in keywords), *function.bound[1:])
    owners = {pattern.parts[:-1] for pattern in run.rule.patterns.values()}
    own = any(isinstance(value, Path) and value.attrs and value.attrs in owners for value in given)
    return own or any(run.tracks(value) for value in given)


def invoke(
    function: Func,
    args: tuple[Value, ...],
    keywords: Keywords,
    state: State,
    frame: Frame,
    node: ast.AST,
    on_yield: OnYield | None = None,
) -> Ways:
    """Walks through it; what it raises goes on in the caller."""
    run = frame.run
    place = frame.place(node)
    if len(frame.chain) >= DEEPEST:
        raise TooMuch(place, f"calls are nested deeper than {DEEPEST}")
    if sum(1 for each in frame.chain if each.node is node) >= AGAIN:
        frame.raises(state, node)
        return [(state, UNKNOWN)]
    run.inlined.add(function.unit)
    inner = enter(run, function, frame, node)
    inner.on_yield = on_yield
    ways: Ways = []
    for bound in bind_arguments(function, args, keywords, state, inner):
        ways += _walk(function, bound, inner)
    for egress in inner.sink:
        frame.sink.append(replace(egress, state=egress.state.leave(inner.number)))
    return _merged(ways)


def _walk(function: Func, state: State, inner: Frame) -> Ways:
    if isinstance(function.node, ast.Lambda):
        inner.run.enter(function.node.body, [state], inner, whole=True)
        ended = expressions.evaluate(function.node.body, state, inner)
    elif isinstance(function.node, ast.GeneratorExp):
        ended = comprehensions.consume(function, state, inner)
    else:
        ended = [(after, NONE) for after in statements.block(function.node.body, [state], inner)]
    ended += [(egress.state, egress.value) for egress in inner.sink if egress.kind == "return"]
    inner.sink[:] = [egress for egress in inner.sink if egress.kind == "raise"]
    return [(_left(after, value, inner), value) for after, value in ended]


def _left(state: State, value: Value, inner: Frame) -> State:
    """The frame's variables go, unless a function that was made in it lives on."""
    for item in (value, *(item for (owner, _), item in state.store.items() if owner != inner.number)):
        if any(isinstance(part, Func) and inner.number in part.closure for part in parts_of(item)):
            return state
    return state.leave(inner.number)


def _merged(ways: Ways) -> Ways:
    found: dict[Value, list[State]] = {}
    for state, value in ways:
        found.setdefault(value, []).append(state)
    return [(state, value) for value, states in found.items() for state in merge(states)]


def bind_arguments(
    function: Func, args: tuple[Value, ...], keywords: Keywords, state: State, inner: Frame
) -> list[State]:
    """Parameters of which something is known get it; default values are evaluated."""
    spec = function.parameters
    named = [each.arg for each in (*spec.posonlyargs, *spec.args)]
    given: dict[str, Value] = {}
    values = (*function.bound, *args)
    given.update(zip(named, values, strict=False))
    if spec.vararg is not None:
        given[spec.vararg.arg] = Seq(tuple(values[len(named) :]))
    others = []
    for name, value in keywords:
        if name in named or name in {each.arg for each in spec.kwonlyargs}:
            given[name] = value
        else:
            others.append((name, value))
    if spec.kwarg is not None:
        given[spec.kwarg.arg] = Seq(tuple(value for _, value in others), tuple(Const(name) for name, _ in others))
    _add_annotated(function, given, inner)
    interesting = {name for name, value in given.items() if not isinstance(value, Const) and value != UNKNOWN}
    inner.slice.grow(name for name in interesting if name not in ("self", "cls"))
    if values and named:
        inner.me = values[0]
    for name, value in given.items():
        state = state.put((inner.number, name), value)
    return _with_defaults(spec, given, state, inner)


def _with_defaults(spec: ast.arguments, given: dict[str, Value], state: State, inner: Frame) -> list[State]:
    positional = [*spec.posonlyargs, *spec.args]
    pairs = list(zip(positional[len(positional) - len(spec.defaults) :], spec.defaults, strict=True))
    pairs += [(name, value) for name, value in zip(spec.kwonlyargs, spec.kw_defaults, strict=True) if value is not None]
    for parameter, default in pairs:
        if parameter.arg in given:
            continue
        if isinstance(default, ast.Constant):
            state = state.put((inner.number, parameter.arg), Const(default.value)) if inner.chain else state
            continue
        value = _default(default, state, inner)
        if value != UNKNOWN:
            inner.slice.grow([parameter.arg])
            state = state.put((inner.number, parameter.arg), value)
    return [state]


def default_slot(default: ast.expr) -> tuple[str, str]:
    """Where a default value of a nested function is kept from its definition on."""
    return "default", str(id(default))


def _default(default: ast.expr, state: State, inner: Frame) -> Value:
    """Of interest only where it is a lock or a callable that is watched, by whatever name."""
    run, unit = inner.run, inner.unit
    kept = state.get(default_slot(default))
    if kept is not None:
        return kept
    if inner.node is not unit.node or not inner.slice.is_hot(default):
        return UNKNOWN
    around = Frame(run, unit, unit.module.tree, 0, inner.slice)
    value = expressions.evaluate(default, state, around)[0][1]
    return value if run.tracks(value) else UNKNOWN


def _add_annotated(function: Func, given: dict[str, Value], inner: Frame) -> None:
    """A parameter that is annotated with a class of the project, in a call from outside."""
    spec = function.parameters
    for parameter in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs):
        if parameter.arg in given or parameter.annotation is None:
            continue
        cls = annotated_class(parameter.annotation, function.unit, inner.run)
        if cls is not None:
            site = "" if function.unit.cls is None and inner.run.is_family(cls) else "other"
            given[parameter.arg] = Obj(cls, site)


def annotated_class(annotation: ast.expr, unit: Unit, run: Run) -> ClassInfo | None:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            annotation = ast.parse(annotation.value, mode="eval").body
        except SyntaxError:
            return None
    if isinstance(annotation, ast.BinOp):
        return annotated_class(annotation.left, unit, run) or annotated_class(annotation.right, unit, run)
    parts = dotted(annotation) if isinstance(annotation, ast.Name | ast.Attribute) else ()
    found = run.project.resolve(unit.module, parts) if parts else None
    return found if isinstance(found, ClassInfo) else None


def annotated_field(cls: ClassInfo, name: str, run: Run) -> Obj | None:
    """`helper: Helper` in a class body, as dataclasses have it."""
    for owner in run.mro(cls):
        for statement in owner.node.body:
            if isinstance(statement, ast.AnnAssign) and dotted(statement.target) == (name,):
                found = run.project.resolve(owner.module, dotted(statement.annotation) or ("",))
                return Obj(found, "" if run.is_family(found) else name) if isinstance(found, ClassInfo) else None
    return None


def bind(value: Value, first: Value) -> Value:
    """A function found in a class, fetched through an instance."""
    if isinstance(value, Func):
        return replace(value, bound=(first, *value.bound))
    return Partial(value, (first,), ()) if isinstance(value, Partial | Obj | ClassVal) else value


def decorated(function: Func, state: State, frame: Frame, node: ast.AST) -> Ways:
    """What the function's name stands for once its decorators have run."""
    decorators = function.node.decorator_list if isinstance(function.node, Function) else []
    ways: Ways = [(state, function)]
    for decorator in reversed(decorators):
        parts = dotted(decorator.func if isinstance(decorator, ast.Call) else decorator)
        name = (parts or ("",))[-1]
        if name in lookup.WRAPPED or name in lookup.TRANSPARENT or name in lookup.PROPERTIES:
            continue
        ways = [way for each, value in ways for way in _decorate(decorator, value, function, each, frame, node)]
    return ways


def _decorate(decorator: ast.expr, value: Value, function: Func, state: State, frame: Frame, node: ast.AST) -> Ways:
    run = frame.run
    around = Frame(run, function.unit, function.unit.module.tree, 0, run.slice(function.unit), chain=frame.chain)
    around.sink = frame.sink
    ways: Ways = []
    parts = dotted(decorator.func if isinstance(decorator, ast.Call) else decorator)
    if frame.number in function.closure[:1]:  # defined in this very function
        around, named = frame, lookup.look_up(parts[0], state, frame) if parts else []
    elif parts and function.unit.cls is not None and parts[0] in function.unit.cls.methods:
        around.node = function.unit.cls.node
        named = lookup.look_up(parts[0], state, around)
    else:
        named = lookup.global_name(parts[0], function.unit.module, run) if parts else []
    if not any(isinstance(each, Func | ClassVal | ModuleVal) for each in named):
        # Not the project's: it is taken to call the function, once.
        return [(state, replace(value, sure=False) if isinstance(value, Func) else value)]
    around.slice.grow(parts[:1])
    for after, made in expressions.evaluate(decorator, state, around):
        if isinstance(made, Func):
            ways += invoke(made, (value,), (), after, frame, node)
        else:
            run.escape(value, frame.place(node), "goes through a decorator that this analysis does not follow")
            ways.append((after, value))
    return ways


def run_root(run: Run, function: Func, state: State) -> list[Exit]:
    """The analysis of one unit from outside; every way out of it."""
    run.root = function.unit
    run.walked.add(function.unit)
    inner = enter(run, function, None, function.node)
    ended: list[Exit] = []
    for bound in bind_arguments(function, (), (), state, inner):
        if not isinstance(function.node, Function):
            continue
        after = statements.block(function.node.body, [bound], inner)
        ended += [Exit("end", state, _end_of(function, inner)) for state in after]
    return [*ended, *inner.sink]


def _end_of(function: Func, inner: Frame) -> Place:
    last = function.node.body[-1] if isinstance(function.node, Function) else function.node
    return inner.place(last)


def is_plain(unit: Unit) -> bool:
    """Whether its name is that of a method, not of a property or a body."""
    return isinstance(unit.node, Function) and not lookup.has_decorator(unit, lookup.PROPERTIES)


def fields_in_order(cls: ClassInfo) -> list[str]:
    """Of a dataclass."""
    return [dotted(each.target)[0] for each in cls.node.body if isinstance(each, ast.AnnAssign) and dotted(each.target)]


def forget_rebound(values: tuple[Value, ...], state: State) -> State:
    """Whoever is given a closure may call it: what it declares nonlocal is not known any more."""
    for part in (part for value in values for part in parts_of(value)):
        if isinstance(part, Func) and part.closure:
            rebound = _scope(part.node)[1]
            state = state.drop((number, name) for number in part.closure for name in rebound)
    return state


def touches_locks(value: Value, run: Run) -> bool:
    """Whether a function in it is relevant at all."""
    return any(isinstance(part, Func) and part.unit in run.relevance.units for part in parts_of(value))


def nested(node: Function, frame: Frame) -> Func:
    """A function that is defined in another one."""
    manager = any(dotted(each)[-1:] in {(name,) for name in lookup.WRAPPED} for each in node.decorator_list)
    return Func(frame.unit, node, closure=(frame.number, *frame.closure), manager=manager)


def body_owner(unit: Unit) -> str:
    """Under which name what a module or class body assigns is kept."""
    return f"{unit.module.name}.{unit.cls.name}" if unit.cls is not None else unit.module.name
