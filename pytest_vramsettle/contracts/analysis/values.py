"""What an expression may stand for. Values are immutable and compare by what they say."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_vramsettle.contracts.source import ClassInfo, Function, Module, Parts, Unit


@dataclass(frozen=True, slots=True)
class Unknown:
    """Anything."""


UNKNOWN = Unknown()


@dataclass(frozen=True, slots=True)
class Const:
    """None, a bool, a number or a text."""

    value: object


@dataclass(frozen=True, slots=True)
class Answer:
    """What a re-check said."""

    value: bool


@dataclass(frozen=True, slots=True)
class Obj:
    """An instance. `site` tells apart the objects of one class: '' is the one that the contract is about."""

    cls: ClassInfo
    site: str


@dataclass(frozen=True, slots=True)
class Local:
    """A local variable or parameter of which nothing is known."""

    frame: int
    name: str


@dataclass(frozen=True, slots=True)
class Ext:
    """The world of dotted names: modules that are not the project's, and builtins."""


EXT = Ext()


@dataclass(frozen=True, slots=True)
class Path:
    """What is reached from `root` by attributes: `self._process.terminate`, `subprocess.Popen`."""

    root: Obj | Local | Ext | Unknown
    attrs: Parts


@dataclass(frozen=True, slots=True)
class Result:
    """What a call of an outside function returned; `late` where the kill had happened by then.

    `caught`: an exception in its handler, which is never None.
    """

    path: Path
    late: bool = False
    caught: bool = False


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that the contract names. `key` tells apart a dict's locks; `sure` is False where it only may be it."""

    name: str
    key: str = ""
    sure: bool = True


@dataclass(frozen=True, slots=True)
class LockMethod:
    """`lock.acquire`."""

    lock: Lock
    name: str


@dataclass(frozen=True, slots=True)
class Method:
    """A method of something that the analysis keeps an eye on, and that is not the project's."""

    owner: Value
    name: str


_NONE = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])


@dataclass(frozen=True, slots=True)
class Func:
    """A function of the project, with what is bound to its first parameters. `closure` are the frames around it."""

    unit: Unit
    node: Function | ast.Lambda | ast.GeneratorExp
    bound: tuple[Value, ...] = ()
    closure: tuple[int, ...] = ()
    manager: bool = False
    sure: bool = True

    @property
    def parameters(self) -> ast.arguments:
        """A generator expression has none."""
        return _NONE if isinstance(self.node, ast.GeneratorExp) else self.node.args

    @property
    def is_generator(self) -> bool:
        return isinstance(self.node, Function) and has_yield(self.node)

    @property
    def is_async(self) -> bool:
        return isinstance(self.node, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class ClassVal:
    """A class of the project."""

    cls: ClassInfo


@dataclass(frozen=True, slots=True)
class ModuleVal:
    """A module of the project."""

    module: Module


@dataclass(frozen=True, slots=True)
class Super:
    """`super()` in a method of `after`."""

    obj: Obj
    after: ClassInfo


@dataclass(frozen=True, slots=True)
class Deferred:
    """A call that has not run yet: a coroutine, generator, manager, or what a thread or pool runs elsewhere."""

    kind: str
    callee: Value
    args: tuple[Value, ...] = ()
    keywords: tuple[tuple[str, Value], ...] = ()


@dataclass(frozen=True, slots=True)
class Partial:
    """A callable with arguments."""

    callee: Value
    args: tuple[Value, ...]
    keywords: tuple[tuple[str, Value], ...]


@dataclass(frozen=True, slots=True)
class Seq:
    """A tuple, list, set or dict display: `items` in order, `keys` for a dict."""

    items: tuple[Value, ...]
    keys: tuple[Value, ...] | None = None


@dataclass(frozen=True, slots=True)
class Stack:
    """An ExitStack, a pool or a task group: what it has to do at its exit is in the state, by `site`."""

    kind: str
    site: str


@dataclass(frozen=True, slots=True)
class Suppress:
    """`contextlib.suppress(...)`."""

    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Null:
    """`contextlib.nullcontext(value)`."""

    value: Value = UNKNOWN


Value = (
    Unknown
    | Const
    | Answer
    | Obj
    | Path
    | Result
    | Lock
    | LockMethod
    | Method
    | Func
    | ClassVal
    | ModuleVal
    | Super
    | Deferred
    | Partial
    | Seq
    | Stack
    | Suppress
    | Null
)

NONE, TRUE, FALSE = Const(None), Const(True), Const(False)


@functools.lru_cache(maxsize=4096)
def has_yield(node: Function) -> bool:
    """Whether it is a generator function."""
    return any(isinstance(each, ast.Yield | ast.YieldFrom) for each in own_nodes(node))


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below, but not those of nested functions and classes."""
    waiting = list(ast.iter_child_nodes(node))
    while waiting:
        item = waiting.pop()
        yield item
        if not isinstance(item, Function | ast.Lambda | ast.ClassDef):
            waiting.extend(ast.iter_child_nodes(item))


def scope_names(node: ast.AST) -> tuple[frozenset[str], frozenset[str]]:
    """The local names of a function, and those that it declares nonlocal or global."""
    found: set[str] = set()
    outer: set[str] = set()
    if isinstance(node, Function | ast.Lambda):
        arguments = node.args
        every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        found.update(each.arg for each in every)
        found.update(each.arg for each in (arguments.vararg, arguments.kwarg) if each)
    for each in own_nodes(node):
        if isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load):
            found.add(each.id)
        elif isinstance(each, Function | ast.ClassDef | ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
            found.update([each.name] if each.name else [])
        elif isinstance(each, ast.Nonlocal | ast.Global):
            outer.update(each.names)
    return frozenset(found - outer), frozenset(outer)


def parts_of(value: Value) -> Iterator[Value]:
    """The value and all that it holds."""
    yield value
    if isinstance(value, Func):
        for item in value.bound:
            yield from parts_of(item)
    elif isinstance(value, Deferred | Partial):
        yield from parts_of(value.callee)
        for item in (*value.args, *(each for _, each in value.keywords)):
            yield from parts_of(item)
    elif isinstance(value, Seq):
        for item in value.items:
            yield from parts_of(item)
    elif isinstance(value, LockMethod):
        yield value.lock
    elif isinstance(value, Method):
        yield from parts_of(value.owner)


def truth(value: Value) -> bool | None:
    """Whether it is true; None where that is not known."""
    if isinstance(value, Const):
        return bool(value.value)
    if isinstance(value, Answer):
        return value.value
    if isinstance(value, Seq):
        return bool(value.items)
    if isinstance(value, Result) and value.caught:
        return True
    if isinstance(value, Unknown | Path | Result | Obj | Lock):
        return None  # of a project's object `__bool__` decides; a lock may be None
    return True
