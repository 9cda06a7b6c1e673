"""`@pytest.mark.reclaim_traces("traces/*.jsonl")`: a test for each recorded trace."""

from __future__ import annotations

import glob
import os
import warnings
from pathlib import Path

import pytest

from fake_gpu import InvalidValue
from fake_gpu.trace import ReclaimTrace

FIXTURE = "reclaim_trace"


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Gives the test a parameter for each file that its markers' patterns match. Raises CollectError."""
    name = f"{metafunc.definition.nodeid}: @pytest.mark.reclaim_traces"
    if FIXTURE not in metafunc.fixturenames:
        raise pytest.Collector.CollectError(f"{name} gives its traces to the fixture {FIXTURE}: take it as an argument")
    here, rootdir = metafunc.definition.path.parent, metafunc.config.rootpath
    found: dict[Path, None] = {}
    for marker in metafunc.definition.iter_markers("reclaim_traces"):
        if marker.kwargs or not marker.args:
            raise pytest.Collector.CollectError(f"{name} takes patterns, such as 'traces/*.jsonl', and nothing else")
        for pattern in marker.args:
            found.update(dict.fromkeys(_files(pattern, here, rootdir, name)))
    paths = sorted(found)
    metafunc.parametrize(FIXTURE, paths, ids=_ids(paths), indirect=True)


def _files(pattern: object, here: Path, rootdir: Path, name: str) -> list[Path]:
    if not isinstance(pattern, (str, os.PathLike)):
        raise pytest.Collector.CollectError(f"{name} takes patterns, such as 'traces/*.jsonl', not {pattern!r}")
    bases = dict.fromkeys((here, rootdir))
    for base in bases:
        # An absolute pattern takes no notice of the base.
        files = [Path(path) for path in glob.glob(os.path.join(base, pattern), recursive=True) if os.path.isfile(path)]
        if files:
            return files
    looked = " and in ".join(map(str, bases))
    raise pytest.Collector.CollectError(
        f"{name}: no file matches {os.fspath(pattern)!r} in {looked}: a test without traces would test nothing"
    )


def _ids(paths: list[Path]) -> list[str]:
    """File names without .jsonl and .gz; where two are alike, with what tells their directories apart."""
    stems = [path.name.removesuffix(".gz").removesuffix(".jsonl") for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    common = os.path.commonpath([path.parent for path in paths])
    return [os.path.relpath(path, common) for path in paths]


def read(request: pytest.FixtureRequest) -> ReclaimTrace:
    """The trace of this run. Fails the test's setup with file, line and reason where it is none."""
    path = getattr(request, "param", None)
    if path is None:
        pytest.fail(f"{FIXTURE} needs @pytest.mark.reclaim_traces('traces/*.jsonl') on the test", pytrace=False)
    try:
        trace = ReclaimTrace.read(path)
    except InvalidValue as error:
        pytest.fail(str(error), pytrace=False)
    if trace.torn:
        warnings.warn(pytest.PytestWarning(f"{path}: its last line was cut off and left out"), stacklevel=2)
    return trace
