"""`with`: locks, managers of the project, stacks, `suppress`, `recording`, and those of which nothing is known."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace

from pytest_vramsettle.contracts.analysis import calls, expressions, functions, statements, tries
from pytest_vramsettle.contracts.analysis.engine import Exit, Frame, Keywords, Ways
from pytest_vramsettle.contracts.analysis.state import State, merge
from pytest_vramsettle.contracts.analysis.values import (
    NONE,
    TRUE,
    UNKNOWN,
    Const,
    Deferred,
    Func,
    Lock,
    Null,
    Obj,
    Partial,
    Path,
    Seq,
    Stack,
    Suppress,
    Value,
    truth,
)
from pytest_vramsettle.contracts.source import ClassInfo, Unit, dotted

Body = Callable[[list[State]], list[State]]
"""Runs what is inside: the states at its normal end; other ways out are in the frame's sink."""

Closing = Callable[[State, Exit | None], list[tuple[State, bool]]]
"""What happens on the way out; whether it swallows what was raised."""


def with_statement(node: ast.With | ast.AsyncWith, states: list[State], frame: Frame) -> list[State]:
    """All items, from the left."""
    return _item(node, 0, states, frame)


def _item(node: ast.With | ast.AsyncWith, index: int, states: list[State], frame: Frame) -> list[State]:
    if index == len(node.items):
        return statements.block(node.body, states, frame)
    item = node.items[index]
    frame.run.enter(item, states, frame, whole=True)
    states = frame.run.suspected(item, states, frame)
    grouped: dict[Value, list[State]] = {}
    for state in states:
        for after, value in entered(item.context_expr, state, frame):
            grouped.setdefault(value, []).append(after)
    ended: list[State] = []
    for value, before in grouped.items():

        def body(entered: Ways, item: ast.withitem = item) -> list[State]:
            bound = []
            for state, what in entered:
                bound += statements.assign(item.optional_vars, what, state, frame) if item.optional_vars else [state]
            return _item(node, index + 1, merge(bound), frame)

        for state in merge(before):
            ended += around(value, state, frame, item.context_expr, body)
    return merge(ended)


def entered(node: ast.expr, state: State, frame: Frame) -> Ways:
    """A manager of the project is looked at even where nothing is named in it: it may swallow what is raised."""
    if isinstance(node, ast.Call) and not frame.slice.is_hot(node):
        parts = dotted(node.func)
        own = parts[0] in ("self", "cls") if parts else False
        found = frame.run.project.resolve(frame.unit.module, parts) if parts and not own else None
        cls = frame.unit.cls
        unit = frame.run.method(cls, parts[1]) if own and cls is not None and len(parts) == 2 else found
        if isinstance(unit, Unit | ClassInfo):
            return calls.call(node, state, frame)
    return expressions.evaluate(node, state, frame)


def around(value: Value, state: State, frame: Frame, node: ast.AST, body: Callable[[Ways], list[State]]) -> list[State]:
    """Enters the manager, runs the body, leaves it."""
    run = frame.run
    run.understood(node, known=True)
    role = _recording(node, frame)
    if role is not None:  # whatever it is made of: the contract says what it does
        return _recorded(role, state, frame, node, body)
    if isinstance(value, Lock):
        taken = run.acquire(value, state, frame, node)
        return closing(
            [(taken, TRUE)],
            frame,
            body,
            lambda after, egress: [(run.release(value, after, frame.place(node)), False)],
        )
    if isinstance(value, Deferred) and value.kind in ("manager", "generator"):
        return _generator(value, state, frame, node, body)
    if isinstance(value, Suppress):
        return closing([(state, NONE)], frame, body, lambda after, egress: _suppressed(value, after, egress))
    if isinstance(value, Stack):
        return closing([(state, value)], frame, body, lambda after, egress: _unwind(value, after, frame, node))
    if isinstance(value, Obj) and _method(value, "enter", frame) is not None:
        return _object(value, state, frame, node, body)
    if isinstance(value, Const | Null):
        return body([(state, value.value if isinstance(value, Null) else UNKNOWN)])
    run.understood(node, known=False)
    run.escape(value, frame.place(node), "is entered as a manager that this analysis does not know")
    frame.raises(state, node)
    return body([(state.age(run.lasting), value if isinstance(value, Path | Partial) else UNKNOWN)])


def _recorded(role: str, state: State, frame: Frame, node: ast.AST, body: Callable[[Ways], list[State]]) -> list[State]:
    run, place = frame.run, frame.place(node)
    frame.raises(state, node)
    return closing(
        [(state, UNKNOWN)],
        frame,
        body,
        lambda after, egress: [(each, False) for each, _ in run.rule.done(run, role, after, place, UNKNOWN)],
    )


def closing(entered: Ways, frame: Frame, body: Callable[[Ways], list[State]], close: Closing) -> list[State]:
    """`close` on every way out."""
    outer, frame.sink = frame.sink, []
    try:
        normal = body(entered)
    finally:
        exits, frame.sink = frame.sink, outer
    ended = [after for state in normal for after, _ in close(state, None)]
    for egress in exits:
        for after, swallowed in close(egress.state, egress):
            if swallowed:
                ended.append(after)
            else:
                frame.sink.append(replace(egress, state=after))
    return ended


def _suppressed(value: Suppress, state: State, egress: Exit | None) -> list[tuple[State, bool]]:
    if egress is None or egress.kind != "raise":
        return [(state, False)]
    caught = tries.catches(value.types, egress.error)
    return [(state, swallowed) for swallowed in (True, False) if caught is None or caught == swallowed]


def _recording(node: ast.AST, frame: Frame) -> str | None:
    """The role of `self._kills.recording(...)`, where a contract names it."""
    for role, pattern in frame.run.rule.patterns.items():
        if pattern.kind == "recording" and isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            text = ast.unparse(node.func)
            if text.partition(".")[2] == ".".join((*pattern.parts, "recording")):
                return role
    return None


def _method(owner: Obj, name: str, frame: Frame) -> Func | None:
    unit = frame.run.method(owner.cls, f"__{name}__") or frame.run.method(owner.cls, f"__a{name}__")
    if unit is None or not functions.is_plain(unit) or isinstance(unit.node, ast.Module | ast.ClassDef):
        return None
    return Func(unit, unit.node, (owner,))


def _object(owner: Obj, state: State, frame: Frame, node: ast.AST, body: Callable[[Ways], list[State]]) -> list[State]:
    enter, leave = _method(owner, "enter", frame), _method(owner, "exit", frame)
    entered: Ways = functions.invoke(enter, (), (), state, frame, node) if enter is not None else [(state, owner)]
    raised = Path(UNKNOWN, ("exception",))

    def close(after: State, egress: Exit | None) -> list[tuple[State, bool]]:
        if leave is None:
            return [(after, False)]
        failed = egress is not None and egress.kind == "raise"
        given: tuple[Value, ...] = (raised, raised, raised) if failed else (NONE, NONE, NONE)
        ways = functions.invoke(leave, given, (), after, frame, node)
        return [
            (back, swallowed)
            for back, answer in ways
            for swallowed in ((True, False) if failed and truth(answer) is None else (failed and bool(truth(answer)),))
        ]

    return closing(entered, frame, body, close)


def _generator(
    value: Deferred, state: State, frame: Frame, node: ast.AST, body: Callable[[Ways], list[State]]
) -> list[State]:
    """A `@contextmanager`: the body runs where the generator yields."""

    def on_yield(back: State, item: Value, inner: Frame, where: ast.AST) -> list[State]:
        outer, frame.sink = frame.sink, []
        chain, frame.chain = frame.chain, frame.chain
        try:
            normal = body([(back, item)])
        finally:
            exits, frame.sink = frame.sink, outer
            frame.chain = chain
        return [*normal, *resume(exits, inner, pending, node)]

    pending: list[Exit] = []
    outer, frame.sink = frame.sink, []
    try:
        ways = calls.perform(value.callee, value.args, value.keywords, state, frame, node, on_yield)
    finally:
        raised, frame.sink = frame.sink, outer
    return settle_pending([after for after, _ in ways], raised, pending, frame, node)


def resume(exits: list[Exit], inner: Frame, pending: list[Exit], node: ast.AST) -> list[State]:
    """What the body raised is raised in the generator; any other way out waits until the generator has ended."""
    back = []
    for egress in exits:
        if egress.kind == "raise":
            inner.sink.append(egress)
        else:
            pending.append(egress)
            back.append(egress.state.put(("pending", str(id(node))), Const(len(pending) - 1)))
    return back


def settle_pending(
    normal: list[State], raised: list[Exit], pending: list[Exit], frame: Frame, node: ast.AST
) -> list[State]:
    """The ways out that had to wait are taken now."""
    slot = ("pending", str(id(node)))
    ended = []
    for state in normal:
        waiting = state.get(slot)
        if isinstance(waiting, Const) and isinstance(waiting.value, int):
            frame.sink.append(replace(pending[waiting.value], state=state.put(slot, UNKNOWN)))
        else:
            ended.append(state)
    for egress in raised:
        waiting = egress.state.get(slot)
        if egress.error == "GeneratorExit" and isinstance(waiting, Const) and isinstance(waiting.value, int):
            frame.sink.append(replace(pending[waiting.value], state=egress.state.put(slot, UNKNOWN)))
        else:
            frame.sink.append(replace(egress, state=egress.state.put(slot, UNKNOWN)))
    return ended


def stack_call(
    stack: Stack, name: str, args: tuple[Value, ...], keywords: Keywords, state: State, frame: Frame, node: ast.AST
) -> Ways:
    """`stack.enter_context(...)`, `stack.callback(...)`, `pool.submit(...)`."""
    slot = ("stack", stack.site)
    kept = state.get(slot)
    items = kept.items if isinstance(kept, Seq) else ()
    first = args[0] if args else UNKNOWN
    if name in ("enter_context", "enter_async_context"):
        return _enter_on(first, items, slot, state, frame, node)
    if name == "push_async_callback":
        return [(state.put(slot, Seq((*items, Deferred("awaited", first, args[1:], keywords)))), first)]
    if name == "callback":
        return [(state.put(slot, Seq((*items, Partial(first, args[1:], keywords)))), first)]
    if name in ("push", "push_async_exit"):
        return [(state.put(slot, Seq((*items, first))), first)]
    if name in ("submit", "create_task", "start_soon"):
        future = Deferred("future", first, args[1:], keywords)
        calls.explore(future, state, frame, node)
        return [(state.put(slot, Seq((*items, future))), future)]
    if name in ("close", "aclose", "shutdown"):
        return [(after, UNKNOWN) for after, _ in _unwind(stack, state, frame, node)]
    if name == "map" and args:
        over = args[1] if len(args) == 2 else UNKNOWN
        for value in args[1:]:
            frame.run.escape(value, frame.place(node), "is handed on by map() in a way that is not followed")
        mapped = Deferred("map", first, over.items if isinstance(over, Seq) and over.keys is None else (UNKNOWN,))
        return [(state.put(slot, Seq((*items, mapped))), mapped)]
    if name == "pop_all":
        other = Stack(stack.kind, f"{stack.site}+")
        return [(state.put(slot, UNKNOWN).put(("stack", other.site), Seq(items)), other)]
    return calls.unknown_call(UNKNOWN, args, keywords, state, frame, node)


def _enter_on(
    value: Value, items: tuple[Value, ...], slot: tuple[str, str], state: State, frame: Frame, node: ast.AST
) -> Ways:
    run = frame.run
    if isinstance(value, Lock):
        return [(run.acquire(value, state, frame, node).put(slot, Seq((*items, value))), TRUE)]
    if isinstance(value, Obj):
        enter = _method(value, "enter", frame)
        if enter is not None:
            ways = functions.invoke(enter, (), (), state, frame, node)
            return [(after.put(slot, Seq((*items, value))), result) for after, result in ways]
    if isinstance(value, Null | Suppress):
        return [(state.put(slot, Seq((*items, value))), value.value if isinstance(value, Null) else UNKNOWN)]
    frame.raises(state, node)
    if isinstance(value, Deferred):
        state = _enter_generator(value, state, frame, node)
        return [(state.put(slot, Seq((*items, value))), UNKNOWN)]
    run.escape(value, frame.place(node), "is entered by a stack in a way that this analysis does not follow")
    return [(state, UNKNOWN)]


def _enter_generator(value: Deferred, state: State, frame: Frame, node: ast.AST) -> State:
    """Up to its yield: the locks that it holds there stay held until the stack is unwound."""
    found: list[State] = []

    def on_yield(back: State, item: Value, inner: Frame, where: ast.AST) -> list[State]:
        found.append(back.leave(inner.number))
        return []

    calls.perform(value.callee, value.args, value.keywords, state, frame, node, on_yield)
    if not found:
        return state
    if len(found) > 1:
        return found[0].doubted(frame.place(node), "this manager yields in several ways")
    return found[0]


def _unwind(stack: Stack, state: State, frame: Frame, node: ast.AST) -> list[tuple[State, bool]]:
    """Last in, first out."""
    slot = ("stack", stack.site)
    kept = state.get(slot)
    states = [state.put(slot, UNKNOWN)]
    swallows = doubtful = False
    for item in reversed(kept.items if isinstance(kept, Seq) else ()):
        following: list[State] = []
        for each in states:
            following += _unwind_item(item, each, frame, node)
        states = merge(following)
        swallows = swallows or isinstance(item, Suppress)
        doubtful = doubtful or _may_swallow(item, frame)
    # Also where nothing was raised: the two answers are then the same.
    ways = [(each, swallowed) for each in states for swallowed in ((True, False) if swallows else (False,))]
    if doubtful and not swallows:
        reason = "whether something on this stack swallows what was raised is not followed"
        ways += [(each.doubted(frame.place(node), reason), True) for each in states]
    return ways


def _may_swallow(item: Value, frame: Frame) -> bool:
    """A manager of the project that catches around its yield, or an exit that returns something."""
    function = item.callee if isinstance(item, Deferred) and item.kind == "manager" else item
    if isinstance(function, Obj):
        function = _method(function, "exit", frame) or UNKNOWN
    if not isinstance(function, Func):
        return False
    if isinstance(function.node, ast.Lambda):
        return not _is_false(function.node.body)
    if isinstance(item, Deferred):
        return any(
            isinstance(each, ast.ExceptHandler) or (isinstance(each, ast.Name | ast.Attribute) and _is_suppress(each))
            for each in ast.walk(function.node)
        )
    return any(
        isinstance(each, ast.Return) and not (each.value is None or _is_false(each.value))
        for each in ast.walk(function.node)
    )


def _is_suppress(node: ast.expr) -> bool:
    return (dotted(node) or ("",))[-1] == "suppress"


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and not node.value


def _unwind_item(item: Value, state: State, frame: Frame, node: ast.AST) -> list[State]:
    run = frame.run
    if isinstance(item, Lock):
        return [run.release(item, state, frame.place(node))]
    if isinstance(item, Func):
        raised = (UNKNOWN, UNKNOWN, UNKNOWN)
        return [after for after, _ in calls.apply(item, raised, (), state, frame, node)]
    if isinstance(item, Partial):
        return [after for after, _ in calls.apply(item.callee, item.args, item.keywords, state, frame, node)]
    if isinstance(item, Obj):
        leave = _method(item, "exit", frame)
        if leave is not None:
            return [after for after, _ in functions.invoke(leave, (NONE, NONE, NONE), (), state, frame, node)]
    if isinstance(item, Deferred) and item.kind in ("future", "map", "awaited"):
        return [after for after, _ in calls.run_deferred(item, state, frame, node)]
    if isinstance(item, Deferred):
        run.escape(item.callee, frame.place(node), "goes on after its yield, when the stack is left: not followed")
        # What the manager took on its way in it lets go on its way out: each lock held through it, once.
        for held in state.held:
            state = run.release(held.lock, state, held.place) if _took(item, held.place.unit.name) else state
    return [state]


def _took(item: Deferred, name: str) -> bool:
    return isinstance(item.callee, Func) and item.callee.unit.name == name
