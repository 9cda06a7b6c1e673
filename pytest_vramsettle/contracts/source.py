"""Source files of one project, found and parsed without importing them.

A `Unit` is what the analysis starts from and inlines: a function of a module, a method of a class, or the statements
that a module or class body runs itself. Functions nested in a unit belong to it.
"""

from __future__ import annotations

import ast
import difflib
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vramsettle.contracts.errors import SourceError
from pytest_vramsettle.contracts.reading import (
    Directories,
    given_modules,
    is_library,
    is_production,
    offered_modules,
    read_source,
    without_collections,
)

if TYPE_CHECKING:
    from pytest_vramsettle.contracts.analysis.hotness import Index

Function = ast.FunctionDef | ast.AsyncFunctionDef
Parts = tuple[str, ...]

_WORD = re.compile(r"(self\.|cls\.|super\(\)\.|[.\"'])?([A-Za-z_]\w*)")
_IMPORT = re.compile(
    r"^[ \t;]*(?:.*[;:][ \t]*)?"
    r"(?:from[ \t]+(\.*)[ \t]*([\w.]*)[ \t]+import[ \t]*(\([^)]*\)|[^\n;]*)|import[ \t]+([^\n;#]*))",
    re.MULTILINE,
)
BODY = "<body>"
"""The name of the unit that holds the statements of a module or class body."""


@dataclass(eq=False)
class Unit:
    """`words` are the identifiers of its text, comments and strings included, each with what stands before it."""

    module: Module
    cls: ClassInfo | None
    name: str
    node: Function | ast.Module | ast.ClassDef

    @cached_property
    def text(self) -> str:
        node = self.node
        if isinstance(node, Function):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            return "\n".join(self.module.lines[first - 1 : node.end_lineno])
        skipped = (*Function.__args__, ast.ClassDef)
        kept = [statement for statement in node.body if not isinstance(statement, skipped)]
        return "\n".join("\n".join(self.module.lines[each.lineno - 1 : each.end_lineno]) for each in kept)

    @cached_property
    def words(self) -> frozenset[tuple[str, str]]:
        return frozenset(_WORD.findall(self.text))

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """All of its tree."""
        return tuple(ast.walk(self.node))

    @property
    def own_nodes(self) -> Iterator[ast.AST]:
        """All of its tree but, of a body, the functions and classes in it: those are units themselves."""
        if isinstance(self.node, Function):
            yield from self.nodes
            return
        for statement in self.node.body:
            if not isinstance(statement, Function | ast.ClassDef):
                yield from ast.walk(statement)

    @cached_property
    def index(self) -> Index:
        """Of its nodes, for all contracts that look at it."""
        from pytest_vramsettle.contracts.analysis.hotness import Index

        return Index(self)

    @property
    def qualified(self) -> str:
        """'Backend.load', 'load', or the name of the module or class whose body it is."""
        owner = self.cls.name if self.cls else ""
        if self.name == BODY:
            return owner or self.module.name
        return f"{owner}.{self.name}" if owner else self.name

    def __repr__(self) -> str:
        return f"<Unit {self.module.name}:{self.qualified}>"


@dataclass(eq=False)
class ClassInfo:
    """A class at the top of a module, or in another class there."""

    module: Module
    name: str
    node: ast.ClassDef
    methods: dict[str, Unit] = field(default_factory=dict)
    setters: dict[str, Unit] = field(default_factory=dict)
    others: dict[str, list[Unit]] = field(default_factory=dict)
    """Methods that stand in another branch of an `if` or `try` than the one in `methods`."""

    @property
    def outside_bases(self) -> Iterator[Parts]:
        """Full names of its bases, as this module imports them."""
        for base in self.node.bases:
            parts = dotted(base)
            if parts and parts[0] in self.module.imports:
                yield from ((*origin, *parts[1:]) for origin in self.module.origins[parts[0]])

    def __repr__(self) -> str:
        return f"<class {self.module.name}:{self.name}>"


@dataclass(eq=False)
class Module:
    """One file. `imports` says for each name what dotted path it stands for."""

    name: str
    path: str
    text: str
    is_package: bool = False

    @cached_property
    def lines(self) -> list[str]:
        """As the syntax tree counts them: a form feed ends none."""
        return self.text.removesuffix("\n").split("\n")

    @cached_property
    def identifiers(self) -> frozenset[str]:
        return frozenset(re.findall(r"[A-Za-z_]\w*", self.text))

    @cached_property
    def tree(self) -> ast.Module:
        try:
            with without_collections():
                return ast.parse(self.text, self.path)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None) or self.text.count("\n", 0, max(self.text.find("\0"), 0)) + 1
            raise SourceError(
                f"{self.path}, line {line}: does not parse: {getattr(error, 'msg', error)}; mend it first"
            ) from None

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        self.classes.clear()
        self._others.clear()
        return tuple(self._units(self.tree, None))

    @cached_property
    def classes(self) -> dict[str, ClassInfo]:
        found: dict[str, ClassInfo] = {}
        return found

    @cached_property
    def functions(self) -> dict[str, Unit]:
        return {unit.name: unit for unit in self.units if unit.cls is None and unit.name != BODY}

    @cached_property
    def others(self) -> dict[str, list[Unit]]:
        """Functions that stand in another branch of an `if` or `try` than the one in `functions`."""
        return dict(self._others) if self.units else {}

    @cached_property
    def _others(self) -> dict[str, list[Unit]]:
        found: dict[str, list[Unit]] = {}
        return found

    def _units(self, node: ast.Module | ast.ClassDef, cls: ClassInfo | None) -> Iterator[Unit]:
        yield Unit(self, cls, BODY, node)
        defined: dict[str, list[Unit]] = {}
        others = self._others if cls is None else cls.others
        for statement, branching in _definitions(node.body):
            if isinstance(statement, ast.ClassDef):
                inner = ClassInfo(self, statement.name if cls is None else f"{cls.name}.{statement.name}", statement)
                self.classes[inner.name] = inner
                yield from self._units(statement, inner)
            else:
                unit = Unit(self, cls, statement.name, statement)
                if cls is not None:
                    target = cls.setters if _is_setter(statement) else cls.methods
                    target[statement.name] = unit
                if not _is_setter(statement):
                    # One that is defined in any case hides those above it; one in a branch does not.
                    before = defined.get(statement.name, []) if branching else []
                    defined[statement.name] = [*before, unit]
                    others[statement.name] = before
                yield unit

    @cached_property
    def by_word(self) -> dict[str, list[tuple[str, Unit]]]:
        """For each identifier the units that mention it, with what stands before it."""
        found: dict[str, list[tuple[str, Unit]]] = {}
        for unit in self.units:
            for prefix, word in unit.words:
                found.setdefault(word, []).append((prefix, unit))
        return found

    @cached_property
    def imports(self) -> dict[str, Parts]:
        return {name: origins[0] for name, origins in self.origins.items() if name != "*"}

    @cached_property
    def origins(self) -> dict[str, list[Parts]]:
        """Of each imported name all that it may stand for, by `try` or by a function's own import; of '*' modules."""
        found: dict[str, list[Parts]] = {}
        importing = [number for number, line in enumerate(self.lines, 1) if "import" in line]
        for node in _imports(self.tree, importing):
            for alias in node.names:
                if isinstance(node, ast.Import):
                    parts = tuple(alias.name.split("."))
                    name, origin = alias.asname or parts[0], parts if alias.asname else parts[:1]
                elif alias.name == "*":
                    name, origin = "*", self.base_of(node)
                else:
                    name, origin = alias.asname or alias.name, (*self.base_of(node), alias.name)
                origins = found.setdefault(name, [])
                if origin not in origins:
                    origins.append(origin)
        return found

    @cached_property
    def mentioned_modules(self) -> frozenset[str]:
        """What its import statements may name, read off the text: most modules need not be parsed."""
        return frozenset(name for _, name in self._mentioned_modules)

    @cached_property
    def relative_modules(self) -> frozenset[str]:
        """Those of them that a relative import names."""
        return frozenset(name for dots, name in self._mentioned_modules if dots)

    @cached_property
    def _mentioned_modules(self) -> frozenset[tuple[str, str]]:
        found: set[tuple[str, str]] = set()
        for dots, base, names, plain in _IMPORT.findall(self.text):
            if plain:
                parts = [part.split() for part in plain.split(",")]
                found.update(("", part[0]) for part in parts if part)
                continue
            full = ".".join(self._base(len(dots), base))
            found.add((dots, full))
            found.update((dots, f"{full}.{name}") for name in re.findall(r"[A-Za-z_]\w*", names))
        return frozenset(found)

    def base_of(self, node: ast.ImportFrom) -> Parts:
        """The module from which it imports, in full."""
        return self._base(node.level, node.module or "")

    def _base(self, level: int, name: str) -> Parts:
        named = tuple(name.split(".")) if name else ()
        if not level:
            return named
        own = tuple(self.name.split("."))
        keep = len(own) - level + (1 if self.is_package else 0)
        return own[: max(keep, 0)] + named


def _definitions(
    body: Sequence[ast.stmt], *, branching: bool = False
) -> Iterator[tuple[Function | ast.ClassDef, bool]]:
    """Also those under `if TYPE_CHECKING:`, `try:` and the like; whether it is such a one."""
    for statement in body:
        if isinstance(statement, Function | ast.ClassDef):
            yield statement, branching
        elif isinstance(statement, ast.If | ast.Try | ast.With):
            yield from _definitions(statement.body, branching=True)
            yield from _definitions(getattr(statement, "orelse", []), branching=True)
            for handler in getattr(statement, "handlers", []):
                yield from _definitions(handler.body, branching=True)
            yield from _definitions(getattr(statement, "finalbody", []), branching=True)


def _is_setter(node: Function) -> bool:
    return any(isinstance(each, ast.Attribute) and each.attr in ("setter", "deleter") for each in node.decorator_list)


def _imports(tree: ast.Module, lines: list[int]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Statements on these lines, or around them."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        for name in ("body", "orelse", "handlers", "finalbody", "cases"):
            items = () if isinstance(node, ast.Lambda | ast.IfExp) else getattr(node, name, ())
            waiting.extend(item for item in items if _spans(item, lines))


def _spans(node: ast.AST, lines: list[int]) -> bool:
    first, last = getattr(node, "lineno", 0), getattr(node, "end_lineno", None)
    index = bisect_left(lines, first)
    return last is None or (index < len(lines) and lines[index] <= last)


class Project:
    """Modules by name, from `roots` (directories, searched in order) or from `sources` (texts by module name)."""

    def __init__(self, roots: Iterable[str | Path] = (), *, sources: Mapping[str, str] | None = None) -> None:
        """Of `sources` see `given_modules`. Raises `SourceError` for a key that names no module."""
        self.roots = tuple(dict.fromkeys(Path(root) for root in roots))
        self.sources, self._packages = given_modules(sources or {})
        self._known: dict[str, Module | None] = {}
        self._homes: tuple[Path, ...] = ()
        self._tops: frozenset[str] = frozenset()
        self._directories = Directories()

    def with_source(self, name: str, text: str) -> Project:
        """The same project, with another text for one module; everything else is parsed once for both."""
        other = Project(self.roots)
        other.sources, other._packages = {**self.sources, name: text}, self._packages
        other._known = dict(self._known)
        old = self._known.get(name)
        if old is not None:
            other._known[name] = Module(name, old.path, text, is_package=old.is_package)
        other._homes, other._tops, other._directories = self._homes, self._tops, self._directories
        return other

    def module(self, name: str) -> Module:
        """Raises `SourceError` where there is no such file."""
        found = self._known.get(name) or self._read(name, self.roots)
        if found is None:
            near = self._as_class(name) or closest(name, offered_modules(name, self.roots, self.sources), known=False)
            raise SourceError(f"module {name!r} is not there: no {name.replace('.', '/')}.py in {self._places()}{near}")
        self._known[name] = found
        if name not in self.sources:
            self._at_home(found)
        return found

    def _as_class(self, name: str) -> str:
        """For 'app.backend.Backend', where 'app.backend:Backend' is meant."""
        parent, _, last = name.rpartition(".")
        origin = self._read(parent, self.roots) if parent else None
        return f"; did you mean '{parent}:{last}'?" if origin is not None and last in origin.identifiers else ""

    def _places(self) -> str:
        if not self.roots:
            return "the given sources"
        there = [str(root) for root in self.roots if root.is_dir()]
        return ", ".join(there[:4]) + (f" and {len(there) - 4} more" if len(there) > 4 else "")

    def _at_home(self, module: Module) -> None:
        """What it imports is looked for where it lies. In a library's directory that is its own package alone."""
        home = _root_of(module)
        if is_library(home):
            self._tops |= {module.name.partition(".")[0]}
        if home not in self._homes:
            self._homes = (*self._homes, home)

    def follow(self, name: str) -> Module | None:
        """A module that another one imports; None where it is not of this project."""
        if name not in self._known and is_production(name):
            self._known[name] = None
        if name not in self._known:
            top = name.partition(".")[0]
            homes = [home for home in self._homes if top in self._tops or not is_library(home)]
            self._known[name] = self._read(name, homes)
        return self._known[name]

    def _read(self, name: str, roots: Iterable[Path]) -> Module | None:
        if name in self.sources:
            is_package = name in self._packages
            file = name.replace(".", "/") + ("/__init__.py" if is_package else ".py")
            return Module(name, file, self.sources[name], is_package=is_package)
        relative = Path(*name.split("."))
        for root in roots:
            for path in (root / relative.with_suffix(".py"), root / relative / "__init__.py"):
                if path.is_file():
                    return Module(name, str(path), read_source(path), is_package=path.name == "__init__.py")
        return None

    def offers(self, name: str) -> bool:
        """Whether there is such a module, if only as a directory, a compiled one, or one of types."""
        if self.follow(name) is not None or any(each.startswith(f"{name}.") for each in self.sources):
            return True
        return self.is_opaque(name) or any(self._directories.is_one(home, name) for home in self._homes)

    def is_opaque(self, name: str) -> bool:
        """Whether it is there, and is not read: what it has is not asked."""
        return is_production(name) or any(self._directories.is_opaque(home, name) for home in self._homes)

    def imported(self, start: Module) -> list[Module]:
        """`start` and the project's modules that it imports, and those that they import."""
        found = {start.name: start}
        waiting = [start]
        while waiting:
            for name in waiting.pop().mentioned_modules:
                other = self.follow(name) if name and name not in found else None
                if other is not None:
                    found[name] = other
                    waiting.append(other)
        return list(found.values())

    def resolve(self, module: Module, parts: Parts) -> Unit | ClassInfo | Module | None:
        """What a dotted path that begins in `module` stands for, where it is of this project."""
        if len(parts) == 1 and module.units:
            name = parts[0]
            if name in module.functions or name in module.classes:
                return module.functions.get(name) or module.classes[name]
        if parts[0] in module.imports:
            return self.absolute((*module.imports[parts[0]], *parts[1:]))
        return module.classes.get(".".join(parts)) or self._by_star(module, parts)

    def _by_star(self, module: Module, parts: Parts) -> Unit | ClassInfo | Module | None:
        for base in module.origins.get("*", ()):
            origin = self.follow(".".join(base))
            if origin is not None and origin is not module and parts[0] in origin.identifiers:
                found = self.resolve(origin, parts)
                if found is not None:
                    return found
        return None

    def absolute(self, parts: Parts) -> Unit | ClassInfo | Module | None:
        """What a full dotted path stands for."""
        for cut in range(len(parts), 0, -1):
            module = self.follow(".".join(parts[:cut]))
            if module is not None:
                rest = parts[cut:]
                return self.resolve(module, rest) if rest else module
        return None

    def class_of(self, module: Module, name: str) -> ClassInfo:
        """Raises `SourceError` where the module has none of that name."""
        if module.units and name in module.classes:
            return module.classes[name]
        found = self.resolve(module, tuple(name.split(".")))
        if isinstance(found, ClassInfo):
            return found
        raise SourceError(
            f"{module.path}: there is no class {name!r} in module {module.name!r}{closest(name, module.classes)}"
        )

    def bases(self, cls: ClassInfo) -> list[ClassInfo]:
        """Those in the project."""
        found = [self._base(cls.module, parts) for base in cls.node.bases if (parts := dotted(base))]
        return [base for base in found if base is not None]

    def _base(self, module: Module, parts: Parts) -> ClassInfo | None:
        found = self.resolve(module, parts)
        top = module.imports.get(parts[0], ("",))[0]
        if found is None and self._tops and top and top not in self._tops:
            # A library's class brings in the package of its base.
            self._tops |= {top}
            self._known = {name: each for name, each in self._known.items() if each is not None}
            found = self.resolve(module, parts)
        return found if isinstance(found, ClassInfo) else None

    def mro(self, cls: ClassInfo, below: tuple[ClassInfo, ...] = ()) -> list[ClassInfo]:
        """The class and its bases in the project, in the order in which Python looks a method up.

        Raises `SourceError` where a class is its own base, by way of others. `below`: classes that this is a base of.
        """
        if cls in below:
            names = " → ".join(each.node.name for each in (*below[below.index(cls) :], cls))
            raise SourceError(f"{cls.module.path}:{cls.node.lineno}: a class is among its own bases: {names}")
        merged, lists = [cls], [self.mro(base, (*below, cls)) for base in self.bases(cls) if base is not cls]
        lists.append(self.bases(cls))
        lists = [list(each) for each in lists if each]
        while lists:
            head = next((each[0] for each in lists if not any(each[0] in other[1:] for other in lists)), lists[0][0])
            merged.append(head)
            lists = [rest for each in lists if (rest := [item for item in each if item is not head])]
        return merged


def _root_of(module: Module) -> Path:
    path = Path(module.path)
    up = len(module.name.split(".")) + (1 if module.is_package else 0)
    return path.parents[up - 1]


def dotted(node: ast.AST) -> Parts:
    """('a', 'b', 'c') of `a.b.c`, with subscripts of generics left out; () of anything else."""
    if isinstance(node, ast.Subscript):
        return dotted(node.value)
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return (node.id, *reversed(parts)) if isinstance(node, ast.Name) else ()


def closest(name: str, there: Iterable[str], *, known: bool = True) -> str:
    """'; did you mean "load"?', or what is there (nothing where `known` is false)."""
    names = sorted(there)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    if not known:
        return ""
    return f"; there are {', '.join(names[:8])}" if names else "; there are none"
