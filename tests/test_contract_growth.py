"""What a check costs grows as the project does: counted in calls, which are the same on every machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_vramsettle.contracts import Verdict, lock_contract

BACKEND = """
import threading
{imports}

class Backend:
    def __init__(self):
        self._lock = threading.Lock()

    def load(self, item):
        with self._lock:
            item.step(1)
        self._wait()

    def _wait(self):
        return None
"""

MODULE = """
import threading
{imports}

class Thing{number}:
    def __init__(self, owner):
        self._lock = threading.Lock()
        self.owner = owner

    def step(self, item):
        item.update(self, item)
        self.owner.step(item)

    def update(self, other, service):
        service.manager.update(self, other)
        with self._lock:
            other.step(service)
"""


def write(folder: Path, count: int) -> None:
    """A flat package, whose modules import five others each."""
    (folder / "__init__.py").write_text("")
    (folder / "backend.py").write_text(
        BACKEND.format(imports="\n".join(f"from . import mod_{number}" for number in range(count)))
    )
    for number in range(count):
        others = [(number + step) % count for step in (1, 2, 3, 5, 8)]
        imports = "\n".join(f"from .mod_{other} import Thing{other}" for other in others)
        (folder / f"mod_{number}.py").write_text(MODULE.format(imports=imports, number=number))


def calls_of_a_check(root: Path, count: int) -> int:
    package = root / f"app{count}"
    package.mkdir()
    write(package, count)
    backend = lock_contract(f"app{count}.backend:Backend", roots=[root])
    contract = backend.must_not_hold(backend.lock("_lock"), at=backend.call("_wait"))
    counted = 0

    def count_calls(frame: object, event: str, argument: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count_calls)
    try:
        outcome = contract.check_static()
    finally:
        sys.setprofile(before)
    assert outcome.verdict is Verdict.KEPT
    return counted


def test_four_times_the_modules_cost_four_times_as_much(tmp_path: Path) -> None:
    small, large = (calls_of_a_check(tmp_path, count) for count in (24, 96))
    assert large < 4.2 * small


@pytest.mark.parametrize("line", ["if True: from .gone import Step", "import threading; from .gone import Step"])
def test_an_import_beside_something_else_is_missed_too(line: str, tmp_path: Path) -> None:
    (tmp_path / "backend.py").write_text(BACKEND.format(imports=line) + "\nstep = Step()\n")
    backend = lock_contract("backend:Backend", roots=[tmp_path])
    outcome = backend.must_not_hold(backend.lock("_lock"), at=backend.call("_wait")).check_static()
    assert outcome.verdict is Verdict.CANNOT_TELL
    assert "module 'gone' is not there" in outcome.findings[0].message
