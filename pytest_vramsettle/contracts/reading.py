"""Files: in which encoding they are, which of them belong to libraries, and what lies where a module was looked for."""

from __future__ import annotations

import functools
import gc
import io
import os
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pytest_vramsettle.contracts.errors import SourceError

_PRODUCTION = frozenset({"settle", "kills", "probes", "policies", "peers"})

_OTHER = frozenset({".so", ".pyd", ".pyx", ".pyi"})


@contextmanager
def without_collections() -> Iterator[None]:
    """A collection amid half a million new nodes finds nothing, and takes longer than the parser does."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def read_source(path: Path) -> str:
    """As Python reads it: by its byte order mark or its coding cookie (PEP 263), with `\\n` at each line's end.

    Raises `SourceError` for a cookie that is wrong, and for bytes that are not of its encoding, with their line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error}") from None
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    except SyntaxError as error:
        raise SourceError(
            f"{path}, line 1 or 2: {error.msg}; mend the coding cookie, or save the file as UTF-8"
        ) from None
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        reason = f"byte 0x{data[error.start]:02x} is no {encoding}"
        raise SourceError(
            f"{path}, line {line}: {reason}; save it as UTF-8, or name its encoding in a cookie"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def given_modules(sources: Mapping[str, str]) -> tuple[dict[str, str], frozenset[str]]:
    """Texts by the names of their modules, and which of these are packages.

    A key is a module's name ('app.backend') or its file's ('app/backend.py'). A package is 'app/__init__.py',
    'app.__init__', or a name that begins those of others. Raises `SourceError` for any other key, and for two of one
    module.
    """
    texts: dict[str, str] = {}
    packages: set[str] = set()
    for key, text in sources.items():
        path = key.removesuffix(".py").replace("\\", "/").replace("/", ".") if key.endswith(".py") else key
        name = path.removesuffix(".__init__")
        if not all(part.isidentifier() for part in name.split(".")):
            raise SourceError(f"sources: {key!r} names no module: write 'app.backend', or 'app/backend.py'")
        if name in texts:
            raise SourceError(f"sources: {key!r} is module {name!r}, of which there is another text already")
        texts[name] = text
        if name != path:
            packages.add(name)
    packages |= {name for name in texts if any(other.startswith(f"{name}.") for other in texts)}
    return texts, frozenset(packages)


@functools.cache
def is_library(home: Path) -> bool:
    """Whether packages lie here that have nothing to do with each other: the standard library, or site-packages."""
    standard = {Path(found).resolve() for key in ("stdlib", "platstdlib") if (found := sysconfig.get_path(key))}
    return home.name in ("site-packages", "dist-packages") or home.resolve() in standard


def is_production(name: str) -> bool:
    """Whether this is a module of the settle wait and the kill record, where it lies beside what uses it.

    What these do is known: they take no lock of their callers, and call of theirs only what they are given.
    """
    package, _, module = name.partition(".")
    return package == "pytest_vramsettle" and module in _PRODUCTION


def offered_modules(name: str, roots: Iterable[Path], sources: Iterable[str]) -> Iterator[str]:
    """Modules that lie where `name` was looked for."""
    yield from sources
    parent, _, _ = name.rpartition(".")
    for root in roots:
        folder = root.joinpath(*parent.split(".")) if parent else root
        try:
            there = sorted(folder.iterdir()) if folder.is_dir() and not is_library(root) else []
        except OSError:
            continue
        for path in there:
            if path.suffix == ".py" or (path / "__init__.py").is_file():
                yield f"{parent}.{path.stem}" if parent else path.stem


class Directories:
    """What lies in directories; each is listed once, however many modules are looked for in it."""

    def __init__(self) -> None:
        self._listed: dict[tuple[Path, str], tuple[frozenset[str], frozenset[str]]] = {}

    def is_opaque(self, home: Path, name: str) -> bool:
        """Whether the module is there in a form that is not read: compiled, or of types."""
        parent, _, last = name.rpartition(".")
        return last in self._list(home, parent)[0]

    def is_one(self, home: Path, name: str) -> bool:
        """Whether the module is a directory."""
        parent, _, last = name.rpartition(".")
        return last in self._list(home, parent)[1]

    def _list(self, home: Path, package: str) -> tuple[frozenset[str], frozenset[str]]:
        key = home, package
        if key not in self._listed:
            folder = home.joinpath(*package.split(".")) if package else home
            opaque: set[str] = set()
            folders: set[str] = set()
            with suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    if Path(entry.name).suffix in _OTHER:
                        opaque.add(entry.name.partition(".")[0])
                    if entry.is_dir():
                        folders.add(entry.name)
            self._listed[key] = frozenset(opaque), frozenset(folders)
        return self._listed[key]
