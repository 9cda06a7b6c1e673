"""What a contract is given: misspelt names, files that are not there or not UTF-8, projects that are large."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from contract_backend import BACKEND, UNDER_LOCK

from pytest_vramsettle.contracts import Contract, ContractError, SourceError, Target, Verdict, lock_contract, render
from pytest_vramsettle.contracts.config import load


def backend(source: str = BACKEND) -> Target:
    return lock_contract("m:Backend", sources={"m": source})


def outside_lock(target: Target, **keywords: str) -> Contract:
    lock, wait = target.lock("_lock"), target.call("_wait_for_vram_settle")
    return target.must_not_hold(lock, at=wait, **keywords)


def put(root: Path, **files: str) -> Target:
    (root / "app").mkdir()
    for name, text in {"__init__": "", **files}.items():
        (root / "app" / f"{name}.py").write_text(text)
    return lock_contract("app.backend:Backend", roots=[root])


def test_a_misspelt_call_is_told_where_it_makes_a_violation() -> None:
    target = backend()
    spawn, kill = target.call("subprocess.Popen"), target.call("_process.terminate")
    first = target.must_precede(target.call("_wiat_for_vram_settle"), before=spawn, within="load_model")
    outcome = first.check_static()
    assert outcome.verdict is Verdict.VIOLATED
    said = "'_wiat_for_vram_settle()' is used by no code; did you mean '_wait_for_vram_settle'?"
    assert (outcome.note, said in render(outcome)) == (said, True)
    write = target.must_follow(target.write("_last_kil_monotonic"), after=kill, within="_kill_process").check_static()
    assert "'_last_kil_monotonic = ...' is used by no code; did you mean '_last_kill_monotonic'?" in render(write)
    value = target.write("_last_kill_monotonic", value="time.monotonik()")
    outcome = target.must_follow(value, after=kill, within="_kill_process").check_static()
    assert "'time.monotonik()' is called by no code; did you mean 'time.monotonic'?" in render(outcome)
    record = target.must_follow(target.recording("_kils"), after=kill, within="_kill_process").check_static()
    assert "'_kils.recording(...)' is used by no code" in render(record)


def test_the_owner_of_a_call_is_looked_at_too() -> None:
    target = backend()
    contract = target.must_not_hold(target.lock("_lock"), at=target.call("_proces.terminate"))
    outcome = contract.check_static()
    assert "'_proces.terminate()' is used by no code; did you mean '_process.terminate'?" in outcome.note


def test_a_comment_is_no_code() -> None:
    target = backend(BACKEND + "\n    # _lokc, which is not there\n    def other(self):\n        pass  # _lokc\n")
    outcome = target.must_not_hold(target.lock("_lokc"), at=target.call("_kill_process")).check_static()
    assert outcome.verdict is Verdict.VACUOUS
    assert outcome.note == "the lock '_lokc' is used by no code; did you mean '_lock'?"


def test_a_call_that_another_function_makes_says_which() -> None:
    target = backend()
    wait, kill = target.call("_wait_for_vram_settle"), target.call("_process.terminate")
    outcome = target.must_precede(wait, before=kill, within="_wait_for_vram_settle").check_static()
    assert "never reached in _wait_for_vram_settle; it is called in Backend._kill_process (m.py:20)" in outcome.note


def test_a_module_that_is_misspelt(tmp_path: Path) -> None:
    put(tmp_path, backend=BACKEND)
    with pytest.raises(SourceError, match=r"module 'app.bakend' is not there.*; did you mean 'app.backend'"):
        outside_lock(lock_contract("app.bakend:Backend", roots=[tmp_path])).check_static()


def test_a_vacuous_contract_cannot_be_waived() -> None:
    target = backend()
    outcome = target.must_not_hold(target.lock("_lokc"), at=target.call("_kill_process"), waive="soon").check_static()
    assert not outcome.passes
    text = render(outcome)
    assert "the waiver ('soon') matches nothing: the contract is vacuous; take the waiver away" in text
    assert "to mend it: correct the name" in text


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("from .base import Base", "module 'app.base' is not there: what 'Base' does is not known"),
        ("from app.base import Base", "module 'app.base' is not there"),
        ("from app import base\nBase = base.Base", "module 'app' has no 'base'"),
        ("import app.base\nBase = app.base.Base", "module 'app.base' is not there"),
        ("from .there import Bsae as Base", "module 'app.there' has no 'Bsae'; did you mean 'Base'?"),
    ],
)
def test_an_own_module_that_is_not_there_cannot_be_told(tmp_path: Path, first: str, said: str) -> None:
    source = f"{first}\n{BACKEND}".replace("class Backend:", "class Backend(Base):")
    target = put(tmp_path, backend=source, there="class Base:\n    pass\n")
    outcome = outside_lock(target).check_static()
    assert outcome.verdict is Verdict.CANNOT_TELL
    text = render(outcome)
    assert said in text
    assert "app/backend.py:1 in app.backend: imported here" in text
    contract = target.must_precede(target.call("a"), before=target.call("b"), within="of_the_base")
    if "there import" not in first:
        with pytest.raises(SourceError, match=r"no function 'of_the_base'.*; and module .*backend.py:1"):
            contract.check_static()


@pytest.mark.parametrize(
    ("imported", "helpers", "line"),
    [
        ("from . import helpers", "\ndef prepare(backend):\n    settle(backend)\n", "helpers.prepare(self)"),
        ("from .helpers import settle", "", "settle(self)"),
    ],
)
def test_a_helper_module_of_a_helper_that_is_not_there(tmp_path: Path, imported: str, helpers: str, line: str) -> None:
    source = f"{imported}\n{UNDER_LOCK}".replace("        self._wait_for_vram_settle()\n", f"        {line}\n")
    helpers = f"from .deep import settle\n{helpers}"
    target = put(tmp_path, backend=source, helpers=helpers)
    outcome = target.must_not_hold(target.lock("_lock"), at=target.call("_kill_process")).check_static()
    assert outcome.verdict is Verdict.CANNOT_TELL
    assert "module 'app.deep' is not there: what 'settle' does is not known" in render(outcome)


@pytest.mark.parametrize(
    "first",
    [
        "try:\n    from ._fast import wait\nexcept ImportError:\n    wait = None\nwait",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .types import Model\ndef f(model: Model): pass",
        "from ._version import __version__\nversion = __version__",
        "from .native import spin\nspin",
        "from . import __init__ as own\nown",
        "import numpy\nnumpy.zeros",
    ],
)
def test_an_import_that_may_be_missing_is_no_matter(tmp_path: Path, first: str) -> None:
    target = put(tmp_path, backend=f"{first}\n{BACKEND}")
    (tmp_path / "app" / "native.cpython-312-x86_64-linux-gnu.so").write_bytes(b"")
    outcome = outside_lock(target).check_static()
    assert outcome.verdict is Verdict.KEPT, render(outcome)


@pytest.mark.parametrize(
    ("cookie", "encoding"), [("# -*- coding: latin-1 -*-\n", "latin-1"), ("", "utf-8-sig"), ("", "utf-8")]
)
def test_files_are_read_in_their_encoding(tmp_path: Path, cookie: str, encoding: str) -> None:
    target = put(tmp_path, backend="")
    source = cookie + UNDER_LOCK.replace("with self._lock:", 'with self._lock:  # für später: "größer"')
    (tmp_path / "app" / "backend.py").write_bytes(source.replace("\n", "\r\n").encode(encoding))
    text = render(outside_lock(target).check_static())
    assert text.startswith("violated")
    assert 'with self._lock:  # für später: "größer"\n' in text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"# coding: latni-1\n", "backend.py, line 1 or 2: unknown encoding: latni-1; mend the coding cookie"),
        (b"import os\nx = 'f\xfcr'\n", "backend.py, line 2: byte 0xfc is no utf-8; save it as UTF-8"),
        (b"x = 1\n" * 31 + b"x = 'a\x00b'\n", "backend.py, line 32: does not parse"),
    ],
)
def test_bytes_that_are_no_text_are_named_with_the_line(tmp_path: Path, data: bytes, said: str) -> None:
    target = put(tmp_path, backend="")
    (tmp_path / "app" / "backend.py").write_bytes(data)
    with pytest.raises(SourceError) as caught:
        outside_lock(target).check_static()
    assert said in str(caught.value)


def test_a_form_feed_ends_no_line() -> None:
    text = render(outside_lock(backend(UNDER_LOCK.replace("class Backend:", "\f\nclass Backend:"))).check_static())
    assert "with self._lock:\n" in text
    assert ">    29 |         with self._lock:" in text


def test_the_standard_library_is_not_one_project() -> None:
    pool = lock_contract("concurrent.futures.thread:ThreadPoolExecutor", roots=[Path(os.__file__).parent])
    assert {module.name.partition(".")[0] for module in pool.scope.modules} == {"concurrent"}
    server = lock_contract("http.server:HTTPServer", roots=[Path(os.__file__).parent])
    assert "TCPServer" in [cls.name for cls in server.project.mro(server.scope.cls)]  # type: ignore[arg-type]  # it is one


@pytest.mark.parametrize(("folder", "read"), [("site-packages", {"one"}), ("src", {"one", "two"})])
def test_a_package_beside_it_is_of_the_project_but_not_among_installed_ones(
    tmp_path: Path, folder: str, read: set[str]
) -> None:
    root = tmp_path / folder
    for name, text in {"one": "import two\n\nclass Backend:\n    pass\n", "two": ""}.items():
        (root / name).mkdir(parents=True)
        (root / name / "__init__.py").write_text(text)
    assert {module.name for module in lock_contract("one:Backend", roots=[root]).scope.modules} == read


def test_what_no_code_can_keep_is_refused() -> None:
    target = backend()
    wait, spawn, kill = (target.call(name) for name in ("_wait_for_vram_settle", "Popen", "_kill_process"))
    lock = target.lock("_lock")
    with pytest.raises(ContractError, match=r"contradicts itself: .*: no call comes before itself"):
        target.must_precede(wait, before=wait, within="load_model")
    with pytest.raises(ContractError, match="no call is followed by itself"):
        target.must_follow(wait, after=wait, within="load_model")
    with pytest.raises(ContractError, match="what is asked and what may go on then are one call"):
        target.must_recheck(wait, after=lock.acquired, before=wait, within="load_model")
    target.must_precede(kill, before=wait, within="load_model")
    target.must_precede(wait, before=spawn, within="load_model")
    with pytest.raises(ContractError, match=r"_kill_process\(\) before _wait_for_vram_settle\(\) before Popen\(\)"):
        target.must_precede(spawn, before=kill, within="load_model")
    target.must_follow(wait, after=kill, within="load_model")
    with pytest.raises(ContractError, match="would have to follow the other, for ever"):
        target.must_follow(kill, after=wait, within="load_model")
    target.must_recheck("_cancel_event.is_set", after=lock.acquired, before=spawn, within="load_model")
    with pytest.raises(ContractError, match="the other where it is no"):
        target.must_recheck(
            "_cancel_event.is_set", after=lock.acquired, before=spawn, within="load_model", proceed_if=True
        )


@pytest.mark.parametrize("name", ["_lock", "_wait_for_vram_settle", "load_model", "monotonic"])
def test_a_name_that_another_contract_needs_may_not_be_forbidden(name: str) -> None:
    target = backend()
    outside_lock(target)
    stamp = target.write("_last_kill_monotonic", value="time.monotonic()")
    target.must_follow(stamp, after=target.call("_process.terminate"), within="load_model")
    with pytest.raises(ContractError, match=f"'{name}' may not be named, and the other contract needs it"):
        target.must_not_name(name)
    target.must_not_name("_lokc")


def test_contracts_of_two_classes_do_not_contradict_each_other(tmp_path: Path) -> None:
    text = """
[[tool.vramsettle.contracts]]
rule = "must_precede"
target = "app:{}"
first = "{}"
before = "{}"
within = "load"
"""
    path = tmp_path / "pyproject.toml"
    path.write_text(text.format("One", "_kill", "_wait") + text.format("Two", "_wait", "_kill"))
    assert len(load(path).contracts) == 2
    path.write_text(text.format("One", "_kill", "_wait") + text.format("One", "_wait", "_kill"))
    with pytest.raises(ContractError, match="each of the two calls would have to come before the other"):
        load(path)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("at", ["Popen", "_cancel_event.is_set"])
def test_a_lock_that_may_not_be_held_where_a_recheck_asks_for_it_is_refused(at: str, order: int) -> None:
    def declare(unheld_lock: str, *, still_held: bool) -> None:
        target = backend()
        spawn = target.call("Popen")

        def forbid() -> None:
            target.must_not_hold(target.lock(unheld_lock), at=target.call(at))

        def ask() -> None:
            lock = target.lock("_lock").acquired
            target.must_recheck(
                "_cancel_event.is_set", after=lock, before=spawn, within="load_model", still_held=still_held
            )

        for step in [forbid, ask][::order]:
            step()

    with pytest.raises(ContractError) as caught:
        declare("_lock", still_held=True)
    assert f"m:Backend must not hold _lock at {at}()" in str(caught.value)
    assert "_cancel_event.is_set() must be checked after _lock is taken, before Popen()" in str(caught.value)
    assert f"{at}() would have to run under _lock, and may not; still_held=False asks for less" in str(caught.value)
    declare("_lock", still_held=False)
    declare("_other", still_held=True)


def test_names_are_taken_for_what_they_can_be() -> None:
    target = backend()
    spawn, write = target.call("Popen"), target.write("_process")
    assert target.must_precede(target.call("Backend._kill_process"), before=spawn, within="load_model").enforce()
    with pytest.raises(SourceError, match=r"no function 'Backend.load_model'; did you mean 'load_model'\?"):
        target.must_precede(target.call("_kill_process"), before=spawn, within="Backend.load_model").enforce()
    with pytest.raises(ContractError, match=r"after= takes a call, as backend\.call"):
        target.must_follow(spawn, after=write, within="load_model")
    with pytest.raises(ContractError, match="at= takes a call"):
        target.must_not_hold(target.lock("_lock"), at=write)
    with pytest.raises(SourceError, match=r"module 'm.Backend' is not there: .*; did you mean 'm:Backend'\?"):
        outside_lock(lock_contract("m.Backend", sources={"m": BACKEND})).check_static()


PACKAGE = "from .base import Base\n\n\nclass Backend(Base):\n    def load(self):\n        self._wait()\n"
BASE = """\
import threading


class Base:
    def __init__(self):
        self._lock = threading.Lock()

    def _wait(self):
        pass

    def start(self):
        with self._lock:
            self.load()
"""


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        (("app/tools/__init__.py", "app/tools/base.py"), "app/tools/__init__.py"),
        (("app\\tools\\__init__.py", "app.tools.base"), "app/tools/__init__.py"),
        (("app.tools.__init__", "app.tools.base"), "app/tools/__init__.py"),
        (("app.tools", "app.tools.base"), "app/tools/__init__.py"),
        (("app/tools.py", "app/base.py"), "app/tools.py"),
        (("app.tools", "app.base"), "app/tools.py"),
    ],
)
def test_texts_are_given_by_modules_or_by_files(keys: tuple[str, str], path: str) -> None:
    target = lock_contract("app.tools:Backend", sources=dict(zip(keys, (PACKAGE, BASE), strict=True)))
    assert target.scope.module.path == path
    outcome = target.must_not_hold(target.lock("_lock"), at="_wait").check_static()
    assert outcome.verdict is Verdict.VIOLATED
    assert repr(outcome) == f"Outcome: violated: _wait() is reached while _lock is held ({path}:6)"


def test_an_import_between_texts_that_is_not_there_cannot_be_told() -> None:
    for key, missing in (("app.tools", "app.base"), ("app/tools/__init__.py", "app.tools.base")):
        target = lock_contract("app.tools:Backend", sources={key: PACKAGE})
        outcome = target.must_not_hold(target.lock("_lock"), at="_wait").check_static()
        assert outcome.verdict is Verdict.CANNOT_TELL
        assert f"module '{missing}' is not there: what 'Base' does is not known" in str(outcome)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["app/my-tools.py"], "'app/my-tools.py' names no module: write 'app.backend', or 'app/backend.py'"),
        (["app/tools"], "'app/tools' names no module"),
        (["app.tools", "app/tools.py"], "'app/tools.py' is module 'app.tools', of which there is another text already"),
    ],
)
def test_keys_that_name_no_module_are_refused(keys: list[str], said: str) -> None:
    with pytest.raises(SourceError) as caught:
        lock_contract("app.tools:Backend", sources=dict.fromkeys(keys, ""))
    assert said in str(caught.value)


def test_a_call_may_be_given_by_its_name() -> None:
    target, other = backend(), backend()
    wait, spawn, kill = "_wait_for_vram_settle", "subprocess.Popen", "_process.terminate"
    named = [
        target.must_not_hold(target.lock("_lock"), at=wait),
        target.must_precede(wait, before=spawn, within="load_model", reset_by=kill),
        target.must_follow(wait, after=kill, within="load_model"),
        target.must_recheck(
            "_cancel_event.is_set", after=target.lock("_lock").acquired, before=spawn, within="load_model"
        ),
    ]
    lock, call = other.lock("_lock"), other.call
    assert named == [
        other.must_not_hold(lock, at=call(wait)),
        other.must_precede(call(wait), before=call(spawn), within="load_model", reset_by=call(kill)),
        other.must_follow(call(wait), after=call(kill), within="load_model"),
        other.must_recheck(call("_cancel_event.is_set"), after=lock.acquired, before=call(spawn), within="load_model"),
    ]
    with pytest.raises(ContractError, match=r"call\('not a name'\): a dotted name is wanted"):
        target.must_precede(wait, before="not a name", within="load_model")


def test_one_fault_is_told_once() -> None:
    target = backend(BACKEND.replace("        self._wait_for_vram_settle()\n", ""))
    contract = target.must_precede(
        "_wait_for_vram_settle", before="subprocess.Popen", within="load_model", reset_by="_process.terminate"
    )
    (finding,) = contract.check_static().findings
    assert finding.message == "subprocess.Popen() is reached without _wait_for_vram_settle() before it"


def test_a_lock_that_no_code_uses_is_vacuous_whatever_else_cannot_be_told() -> None:
    source = BACKEND + "\n    def register(self, bus):\n        bus.subscribe(self._wait_for_vram_settle)\n"
    target = backend(source)
    wait = "_wait_for_vram_settle"
    assert target.must_not_hold(target.lock("_lock"), at=wait).check_static().verdict is Verdict.CANNOT_TELL
    outcome = target.must_not_hold(target.lock("_mutex"), at=wait).check_static()
    assert (outcome.verdict, outcome.findings) == (Verdict.VACUOUS, ())
    assert "the lock '_mutex' is used by no code" in str(outcome)


def test_an_outcome_is_its_report() -> None:
    kept = outside_lock(backend()).check_static()
    assert kept
    assert repr(kept) == "Outcome: kept: m:Backend must not hold _lock at _wait_for_vram_settle()"
    outcome = outside_lock(backend(UNDER_LOCK)).check_static()
    assert not outcome
    assert str(outcome) == render(outcome)
    waived = outside_lock(backend(UNDER_LOCK), waive="moves").check_static()
    assert waived
    assert repr(waived).endswith("(m.py:36); waived: moves")
    contract = outside_lock(backend())
    assert repr(contract) == f"<Contract {contract.id}: {contract.text}>"
