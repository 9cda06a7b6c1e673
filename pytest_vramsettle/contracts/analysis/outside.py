"""Functions of the standard library that matter here: threads, pools, tasks, stacks, partials, getattr."""

from __future__ import annotations

import ast
from collections.abc import Callable

from pytest_vramsettle.contracts.analysis import calls, lookup, managers, statements, tries
from pytest_vramsettle.contracts.analysis.engine import Frame, Keywords, Ways
from pytest_vramsettle.contracts.analysis.state import State, merge
from pytest_vramsettle.contracts.analysis.values import (
    EXT,
    NONE,
    UNKNOWN,
    Answer,
    Const,
    Deferred,
    Func,
    Lock,
    Method,
    Null,
    Obj,
    Partial,
    Path,
    Seq,
    Stack,
    Super,
    Suppress,
    Value,
    truth,
)

Arguments = tuple[Value, ...]
Known = Callable[[Arguments, Keywords, State, Frame, ast.AST], Ways | None]

_CONSUMING = frozenset({"list", "tuple", "set", "frozenset", "sum", "sorted", "max", "min", "deque", "dict", "join"})
_PASSING = frozenset({"iter", "aiter", "enumerate", "reversed"})


def known_call(
    callee: Path, args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST
) -> Ways | None:
    """None where nothing is known of it."""
    name = callee.attrs[-1]
    if name in _CONSUMING and args and isinstance(args[0], Deferred):
        return [(after, UNKNOWN) for after, _ in calls.run_deferred(args[0], state, frame, node)]
    if name in ("any", "all") and args and isinstance(args[0], Deferred):
        ran = calls.run_deferred(args[0], state, frame, node)
        return [(after, UNKNOWN) for after in merge([state, *(after for after, _ in ran)])]
    if name in ("list", "tuple", "sorted", "set") and args and isinstance(args[0], Seq):
        return [(state, Seq(args[0].items))]
    if name == "enumerate" and args and isinstance(args[0], Seq):
        return [(state, Seq(tuple(Seq((UNKNOWN, item)) for item in args[0].items)))]
    if name in _PASSING and args and isinstance(args[0], Deferred | Seq):
        return [(state, args[0])]
    if name == "bool" and args:
        known = truth(args[0])
        if known is not None:
            return [(state, Answer(known) if isinstance(args[0], Answer) else Const(known))]
    handler = _BY_PATH.get(callee.attrs) or _KNOWN.get(name)
    return handler(args, keywords, state, frame, node) if handler is not None else None


def _super(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    me = args[1] if len(args) > 1 else frame.me
    number = frame.closure[-1] if frame.closure else frame.number
    if not isinstance(me, Obj):
        me = next(
            (value for (owner, _), value in state.store.items() if owner == number and isinstance(value, Obj)), me
        )
    if isinstance(me, Obj) and frame.unit.cls is not None:
        return [(state, Super(me, frame.unit.cls))]
    return None


def _getattr(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    if len(args) < 2:
        return None
    if isinstance(args[1], Const) and isinstance(args[1].value, str):
        return lookup.attribute(args[0], args[1].value, state, frame, node)
    if isinstance(args[0], Obj) and frame.run.is_family(args[0].cls):
        place = frame.place(node)
        state = state.doubted(place, "the attribute that getattr() is asked for is not a constant")
        return [(state, Lock(lock, sure=False)) for lock in dict.fromkeys(frame.run.locks.values())] or None
    return None


def _vars(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    return [(state, Path(args[0], ("__dict__",)))] if args and isinstance(args[0], Obj) else None


def _setattr(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    if len(args) == 3 and isinstance(args[1], Const) and isinstance(args[1].value, str):
        return [(statements.assign_attribute(args[0], args[1].value, args[2], state, frame, node), NONE)]
    return None


def _partial(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    return [(state, Partial(args[0], args[1:], keywords))] if args else None


def _thread(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    given = dict(keywords)
    target = given.get("target", args[1] if len(args) > 1 else UNKNOWN)
    return [(state, _started(target, given.get("args", UNKNOWN), given.get("kwargs", UNKNOWN)))]


def _started(target: Value, args: Value, keywords: Value) -> Deferred:
    named: list[tuple[str, Value]] = []
    if isinstance(keywords, Seq) and keywords.keys is not None:
        pairs = zip(keywords.keys, keywords.items, strict=True)
        named = [(str(key.value), value) for key, value in pairs if isinstance(key, Const)]
    return Deferred("thread", target, args.items if isinstance(args, Seq) else (), tuple(named))


def _timer(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    target, passed, named = (
        args[index] if len(args) > index else dict(keywords).get(name, UNKNOWN)
        for index, name in ((1, "function"), (2, "args"), (3, "kwargs"))
    )
    return [(state, _started(target, passed, named))]


def _stack(kind: str) -> Known:
    def make(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
        site = f"{frame.number}:{getattr(node, 'lineno', 0)}:{getattr(node, 'col_offset', 0)}"
        return [(state.put(("stack", site), UNKNOWN), Stack(kind, site))]

    return make


def _suppress(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    return [(state, Suppress(tuple(tries.exception_name(value) for value in args)))]


def _null(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    return [(state, Null(args[0] if args else dict(keywords).get("enter_result", UNKNOWN)))]


def _condition(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    inner = args[0] if args else dict(keywords).get("lock", UNKNOWN)
    return [(state, inner)] if isinstance(inner, Lock) else None


def _task(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    if not args or not isinstance(args[0], Deferred):
        return None
    task = Deferred("task", args[0])
    calls.explore(task, state, frame, node)
    return [(state, task)]


def _awaiting(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    if dict(keywords).get("return_exceptions", Const(False)) != Const(False):
        return None  # it goes on whether they returned or not
    items = tuple(item for value in args for item in (value.items if isinstance(value, Seq) else (value,)))
    return [(state, Deferred("gather", UNKNOWN, tuple(item for item in items if isinstance(item, Deferred))))]


def _waited(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    """For all of them, unless a timeout or `return_when` ends it before."""
    items = _all_deferred(args)
    if items is None:
        return None
    ran = calls.run_deferred(Deferred("wait", UNKNOWN, items), state, frame, node)
    return [*ran, (state, UNKNOWN)] if len(args) > 1 or keywords else ran


def _waited_later(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    items = _all_deferred(args)
    if items is None or len(args) > 1 or keywords:
        return None
    return [(state, Deferred("wait", UNKNOWN, items))]


def _all_deferred(args: Arguments) -> tuple[Deferred, ...] | None:
    """Of a display of futures; None where one of them is not known."""
    given = args[0].items if args and isinstance(args[0], Seq) and args[0].keys is None else ()
    items = tuple(item for item in given if isinstance(item, Deferred))
    return items if items and len(items) == len(given) else None


def _context(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    return [(state, Path(EXT, _CONTEXT))]


def _in_context(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    return calls.apply(args[0], args[1:], keywords, state, frame, node) if args else None


def _called_back(
    function: Value, owner: Value, keywords: Keywords, state: State, frame: Frame, node: ast.AST
) -> Ways | None:
    """A future of a pool that is done already runs it at once; a task does so later, and in its loop."""
    ways = _later((function,), keywords, state, frame, node)
    if ways is None or (isinstance(owner, Deferred) and owner.kind == "task"):
        return ways
    doubted = state.doubted(frame.place(node), "whether the future is done already, and this runs here, is not known")
    return [*ways, *calls.apply(function, (UNKNOWN,), (), doubted, frame, node)]


def _run_now(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    return calls.run_deferred(args[0], state, frame, node) if args and isinstance(args[0], Deferred) else None


def _to_thread(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    return [(state, Deferred("future", args[0], args[1:], keywords))] if args else None


def _map(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    for value in args[1:]:
        frame.run.escape(value, frame.place(node), "is handed on by map() in a way that is not followed")
    if len(args) == 2 and isinstance(args[1], Seq) and args[1].keys is None:
        return [(state, Deferred("map", args[0], args[1].items))]
    return [(state, Deferred("map", args[0], (UNKNOWN,)))] if len(args) > 1 else None


def _range(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    numbers = [value.value for value in args if isinstance(value, Const) and isinstance(value.value, int)]
    if len(numbers) != len(args) or not 1 <= len(numbers) <= 3 or numbers[2:] == [0]:
        return None
    # Two rounds show what a second one meets.
    return [(state, Seq((UNKNOWN,) * min(2, len(range(*numbers)))))]


def _later(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    for value in args:
        if frame.run.tracks(value):
            calls.explore(Deferred("thread", value), state, frame, node)
    return [(state, UNKNOWN)]


def _property(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    getter = args[0] if args else dict(keywords).get("fget", UNKNOWN)
    return [(state, Method(getter, "property"))] if isinstance(getter, Func) else None


def _manager(args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    if args and isinstance(args[0], Func):
        function = args[0]
        made = Func(function.unit, function.node, function.bound, function.closure, manager=True)
        return [(state, made)]
    return None


_KNOWN: dict[str, Known] = {
    "super": _super,
    "getattr": _getattr,
    "setattr": _setattr,
    "__setattr__": _setattr,
    "partial": _partial,
    "partialmethod": _partial,
    "Thread": _thread,
    "Process": _thread,
    "Timer": _timer,
    "ExitStack": _stack("exit"),
    "AsyncExitStack": _stack("exit"),
    "ThreadPoolExecutor": _stack("pool"),
    "ProcessPoolExecutor": _stack("pool"),
    "TaskGroup": _stack("pool"),
    "suppress": _suppress,
    "nullcontext": _null,
    "Condition": _condition,
    "create_task": _task,
    "ensure_future": _task,
    "run_coroutine_threadsafe": _task,
    "wait_for": _awaiting,
    "shield": _awaiting,
    "gather": _awaiting,
    "run": _run_now,
    "to_thread": _to_thread,
    "map": _map,
    "vars": _vars,
    "register": _later,
    "range": _range,
    "property": _property,
    "cached_property": _property,
    "contextmanager": _manager,
    "asynccontextmanager": _manager,
}


_CONTEXT = ("contextvars", "Context")

_BY_PATH: dict[tuple[str, ...], Known] = {
    ("concurrent", "futures", "wait"): _waited,
    ("asyncio", "wait"): _waited_later,
    ("contextvars", "copy_context"): _context,
    _CONTEXT: _context,
    (*_CONTEXT, "run"): _in_context,
}

NAMES = frozenset({*_KNOWN, *(path[-1] for path in _BY_PATH)} - {"wait"})
"""Calls of these are looked at wherever they stand."""


def known_method(
    callee: Path, args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST
) -> Ways | None:
    """Methods of pools, loops and threads that are recognised by name, whatever they are called on."""
    name = callee.attrs[-1]
    if name in ("join", "result", "start") and isinstance(callee.root, Obj) and len(callee.attrs) == 1:
        return _own_thread(callee.root, name, state, frame, node)
    if name in ("join", "result", "exception") and not (name == "join" and args and callee.root == EXT):
        frame.run.joined(state, frame.place(node))
        return None
    carried = [value for value in args if frame.run.tracks(value)]
    if not carried:
        return None
    if name == "run_in_executor" and isinstance(args[0], Stack):  # whose end waits for it
        return managers.stack_call(args[0], "submit", args[1:], keywords, state, frame, node)
    if name in ("submit", "apply_async", "run_in_executor", "create_task", "start_soon"):
        index = args.index(carried[0])
        kind = "future" if name in ("submit", "apply_async") else "task"
        future = Deferred(kind, carried[0], args[index + 1 :], keywords)
        calls.explore(future, state, frame, node)
        frame.raises(state, node)
        return [(state, future)]
    if name == "run_until_complete" and isinstance(carried[0], Deferred):
        return calls.run_deferred(carried[0], state, frame, node)
    if name == "add_done_callback":
        return _called_back(carried[0], UNKNOWN, keywords, state, frame, node)
    if name in ("call_soon", "call_later", "call_soon_threadsafe", "call_at"):
        return _later(args, keywords, state, frame, node)
    if name in ("map", "imap"):
        return [(state, Deferred("map", carried[0], (UNKNOWN,)))]
    return None


def _own_thread(owner: Obj, name: str, state: State, frame: Frame, node: ast.AST) -> Ways | None:
    unit = frame.run.method(owner.cls, "run")
    if unit is None:
        return None
    body = Deferred("thread", Func(unit, lookup.function_value(unit).node, (owner,)))
    if name == "start":
        calls.explore(body, state, frame, node)
        return [(state, NONE)]
    return calls.run_deferred(body, state, frame, node)


def method_call(method: Method, args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways:
    """A method of something deferred, of a stack, or of a display."""
    owner, name = method.owner, method.name
    if isinstance(owner, Stack):
        return managers.stack_call(owner, name, args, keywords, state, frame, node)
    if isinstance(owner, Deferred):
        return _deferred_call(owner, name, args, keywords, state, frame, node)
    if isinstance(owner, Seq) and owner.keys is not None and name in ("get", "pop") and args:
        return [(state, value) for value in lookup.element(owner, args[0], frame, node)]
    if isinstance(owner, Seq) and owner.keys is not None and name == "values":
        return [(state, Seq(owner.items))]
    if isinstance(owner, Seq) and owner.keys is not None and name == "items":
        return [(state, Seq(tuple(Seq(pair) for pair in zip(owner.keys, owner.items, strict=True))))]
    if isinstance(owner, Seq) and name in ("append", "add", "insert", "extend", "update", "setdefault"):
        for value in args:
            frame.run.escape(value, frame.place(node), "is put into a container that this analysis does not follow")
    return calls.unknown_call(method, args, keywords, state, frame, node)


def _deferred_call(
    owner: Deferred, name: str, args: Arguments, keywords: Keywords, state: State, frame: Frame, node: ast.AST
) -> Ways:
    if name == "start":
        calls.explore(owner, state, frame, node)
        return [(state, NONE)]
    if name in ("join", "result", "exception", "run"):
        ran = calls.run_deferred(owner, state, frame, node)
        if args or keywords:
            frame.raises(state, node)
            return [*ran, (state, UNKNOWN)]
        return ran
    if name in ("__next__", "send", "asend", "__anext__"):
        frame.run.escape(owner, frame.place(node), "is stepped through by hand")
    if name == "add_done_callback" and args and frame.run.tracks(args[0]):
        return _called_back(args[0], owner, keywords, state, frame, node) or []
    frame.raises(state, node)
    return [(state, UNKNOWN)]


__all__ = ["known_call", "known_method", "method_call"]
