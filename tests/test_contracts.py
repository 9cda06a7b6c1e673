"""Contracts from a test: the fixture, messages, waivers, several files, and what is said of wrong declarations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from contract_backend import BACKEND, EXAMPLE, UNDER_LOCK

from pytest_vramsettle.contracts import (
    Contract,
    ContractError,
    ContractFailure,
    SourceError,
    Target,
    Verdict,
    lock_contract,
    render,
)


def backend(source: str = BACKEND, **others: str) -> Target:
    return lock_contract("m:Backend", sources={"m": source, **others})


def outside_lock(target: Target, **keywords: str) -> Contract:
    lock, wait = target.lock("_lock"), target.call("_wait_for_vram_settle")
    return target.must_not_hold(lock, at=wait, **keywords)


def make_app(pytester: pytest.Pytester, source: str) -> None:
    package = pytester.mkpydir("myapp")
    (package / "backend.py").write_text(source + '\nraise RuntimeError("imported")\n')


def test_the_example_passes_and_nothing_is_imported(pytester: pytest.Pytester) -> None:
    make_app(pytester, BACKEND)
    pytester.makepyfile(EXAMPLE)
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_a_failure_shows_both_places_and_the_calls(pytester: pytest.Pytester) -> None:
    make_app(pytester, UNDER_LOCK)
    pytester.makepyfile(EXAMPLE)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*violated: myapp.backend:Backend must not hold _lock at _wait_for_vram_settle()",
            "*backend.py:28 in Backend.load_model: _lock is taken here",
            "*>    28 |         with self._lock:",
            "* ^^^^^^^^^^",
            "*backend.py:36 in Backend._prepare: _wait_for_vram_settle() is called here",
            "*by these calls:",
            "*backend.py:29 in Backend.load_model: self._prepare()",
        ]
    )


def test_columns_are_counted_in_characters() -> None:
    source = UNDER_LOCK.replace("with self._lock:", '"ä"; self._lock.acquire()\n        if 1:')
    text = render(outside_lock(backend(source)).check_static())
    lines = text.splitlines()
    index = next(number for number, line in enumerate(lines) if '"ä"' in line)
    assert lines[index + 1].index("^") == lines[index].index("self._lock")


def test_a_waiver_needs_a_failure_and_a_reason() -> None:
    assert outside_lock(backend(UNDER_LOCK), waive="moves next month").enforce().verdict is Verdict.VIOLATED
    with pytest.raises(ContractFailure, match=r"the waiver \('moves'\) matches nothing"):
        outside_lock(backend(), waive="moves").enforce()
    with pytest.raises(ContractError, match="takes the reason"):
        outside_lock(backend(), waive=" ")


@pytest.mark.parametrize(
    ("declare", "note"),
    [
        (
            lambda b: b.must_not_hold(b.lock("_lokc"), at=b.call("_kill_process")),
            "the lock '_lokc' is used by no code; did you mean '_lock'",
        ),
        (lambda b: b.must_not_hold(b.lock("_lock"), at=b.call("_wait")), r"'_wait\(\)' is used by no code"),
        (
            lambda b: b.must_precede(
                b.call("_kill_process"), before=b.call("time.sleep"), within="load_model", reset_by=b.call("nothing")
            ),
            r"'nothing\(\)' is used by no code",
        ),
        (
            lambda b: b.must_precede(b.call("time.monotonic"), before=b.call("time.sleep"), within="_kill_process"),
            r"time.sleep\(\) is never reached in _kill_process",
        ),
    ],
)  # fmt: skip
def test_what_cannot_fail_is_vacuous(declare: Callable[[Target], Contract], note: str) -> None:
    contract = declare(backend())
    with pytest.raises(ContractFailure, match=note):
        contract.enforce()
    assert contract.check_static().verdict is Verdict.VACUOUS


def test_a_lock_that_is_never_taken_is_vacuous() -> None:
    source = BACKEND.replace("with self._lock:", "if self._lock:")
    outcome = outside_lock(backend(source)).check_static()
    assert (outcome.verdict, outcome.note) == (Verdict.VACUOUS, "the lock '_lock' is never taken")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("m:Backned", "m.py: there is no class 'Backned' in module 'm'; did you mean 'Backend'?"),
        ("n:Backend", "module 'n' is not there: no n.py in"),
        ("m Backend", "'m Backend' names no target: write 'package.module:Class'"),
    ],
)
def test_a_target_that_is_not_there(spec: str, said: str) -> None:
    with pytest.raises(ContractError) as caught:
        outside_lock(lock_contract(spec, sources={"m": BACKEND})).check_static()
    assert said in str(caught.value)


def test_a_function_that_is_not_there() -> None:
    target = backend()
    contract = target.must_precede(target.call("_kill_process"), before=target.call("time.sleep"), within="load_modle")
    with pytest.raises(SourceError, match="class Backend has no function 'load_modle'; did you mean 'load_model'"):
        contract.check_static()


def test_a_file_that_does_not_parse_is_named_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import os\n\ndef f(:\n    pass\n")
    with pytest.raises(SourceError, match=r"broken.py, line 3: does not parse"):
        outside_lock(lock_contract("broken:Backend", roots=[tmp_path])).check_static()


def test_contradictions_are_refused() -> None:
    target = backend()
    wait, spawn = target.call("_wait_for_vram_settle"), target.call("subprocess.Popen")
    target.must_precede(wait, before=spawn, within="load_model")
    with pytest.raises(ContractError, match="each of the two calls would have to come before the other"):
        target.must_precede(spawn, before=wait, within="load_model")
    with pytest.raises(ContractError, match="'Popen' may not be named, and the other contract needs it"):
        target.must_not_name("Popen")


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(ContractError, match="a dotted name is wanted"):
        backend().call("a b")


def test_base_classes_mixins_and_helpers_of_other_modules_are_followed(tmp_path: Path) -> None:
    package = tmp_path / "app"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "base.py").write_text(
        "class Base:\n    def reload(self):\n        with self._lock:\n            self._prepare()\n"
    )
    (package / "helpers.py").write_text("def settle(backend):\n    backend._wait_for_vram_settle()\n")
    (package / "backend.py").write_text(
        "import threading\nfrom . import helpers\nfrom .base import Base\n\n"
        "class Backend(Base):\n    def __init__(self):\n        self._lock = threading.Lock()\n"
        "    def _prepare(self):\n        helpers.settle(self)\n    def _wait_for_vram_settle(self):\n        pass\n"
    )
    text = render(outside_lock(lock_contract("app.backend:Backend", roots=[tmp_path])).check_static())
    assert text.startswith("violated")
    assert "base.py:3 in Base.reload: _lock is taken here" in text
    assert "helpers.py:2 in settle: _wait_for_vram_settle() is called here" in text


def test_a_module_can_be_the_target() -> None:
    source = (
        "import threading\nLOCK = threading.Lock()\ndef wait(): pass\ndef load():\n    with LOCK:\n        wait()\n"
    )
    target = lock_contract("m", sources={"m": source})
    assert target.must_not_hold(target.lock("LOCK"), at=target.call("wait")).check_static().verdict is Verdict.VIOLATED


def test_too_many_paths_cannot_be_told() -> None:
    flags = "".join(
        f"        if a{n}: self._lock.acquire()\n        if b{n}: self._lock.release()\n" for n in range(20)
    )
    names = ", ".join(f"a{n}, b{n}" for n in range(20))
    again = flags + flags
    source = BACKEND + f"\n    def other(self, {names}):\n{again}        self._wait_for_vram_settle()\n"
    outcome = outside_lock(backend(source)).check_static()
    assert outcome.verdict in (Verdict.CANNOT_TELL, Verdict.VIOLATED)


def test_what_is_not_understood_cannot_be_told_and_says_where() -> None:
    source = BACKEND + "\n    def register(self, bus):\n        bus.subscribe(self._wait_for_vram_settle)\n"
    outcome = outside_lock(backend(source)).check_static()
    assert outcome.verdict is Verdict.CANNOT_TELL
    text = render(outcome)
    assert "is handed to a call that this analysis does not follow" in text
    assert "bus.subscribe(self._wait_for_vram_settle)" in text
    assert "to mend it: rewrite the place in a way that can be followed" in text


def test_classes_that_are_each_others_bases_are_told() -> None:
    source = "class Backend(Other):\n    def load(self): pass\n\nclass Other(Backend):\n    pass\n"
    with pytest.raises(SourceError, match=r"a class is among its own bases: Backend → Other → Backend"):
        outside_lock(backend(source)).check_static()


def test_a_name_where_a_target_belongs_is_told() -> None:
    target = backend()
    lock, wait = target.lock("_lock"), target.call("_wait_for_vram_settle")
    with pytest.raises(ContractError, match=r"lock= takes what backend.lock\('_lock'\) gives, not '_lock'"):
        target.must_not_hold("_lock", at=wait)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ContractError, match=r"at= takes what backend.call\('_wait'\) gives, not NamedLock"):
        target.must_not_hold(lock, at=lock)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ContractError, match=r"after= takes what backend.lock\('_lock'\).acquired gives"):
        target.must_recheck("_cancel_event.is_set", after=lock, before=wait, within="load_model")  # type: ignore[arg-type]  # the mistake


def test_a_lock_may_be_named_with_self() -> None:
    target = backend()
    wait = target.call("self._wait_for_vram_settle()")
    assert target.must_not_hold(target.lock("self._lock"), at=wait).check_static().verdict is Verdict.KEPT


def test_a_recording_of_the_projects_own_counts_as_the_contract_says() -> None:
    source = """
import contextlib

class Kills:
    @contextlib.contextmanager
    def recording(self, pid):
        baseline = read(pid)
        try:
            yield
        finally:
            self.entries.append((pid, baseline))

class Backend:
    def __init__(self):
        self._kills = Kills()

    def _kill_process(self):
        if self._process is None:
            return
        with self._kills.recording(self._process.pid):
            self._process.terminate()
            self._process.wait()
"""
    backend = lock_contract("m:Backend", sources={"m": source})
    kill = backend.call("_process.terminate")
    contract = backend.must_follow(backend.recording("_kills"), after=kill, within="_kill_process", only_if=True)
    assert contract.check_static().verdict.value == "kept"
    late = source.replace("            self._process.wait()\n", "        self._process.terminate()\n")
    backend = lock_contract("m:Backend", sources={"m": late})
    contract = backend.must_follow(
        backend.recording("_kills"), after=backend.call("_process.terminate"), within="_kill_process", only_if=True
    )
    assert contract.check_static().verdict.value == "violated"
