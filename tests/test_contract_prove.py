"""`vramsettle check --prove`, and what pyproject.toml cannot say."""

from __future__ import annotations

from pathlib import Path

import pytest
from contract_backend import BACKEND, UNDER_LOCK

from pytest_vramsettle.contracts import ContractError, Target, lock_contract
from pytest_vramsettle.contracts.config import load
from pytest_vramsettle.contracts.prove import Proof, Report, prove


def backend(source: str = BACKEND) -> Target:
    return lock_contract("m:Backend", sources={"m": source})


def lines(proof: Proof) -> str:
    return Report((proof,)).text


def test_a_contract_for_which_no_edit_can_be_made_is_not_proved() -> None:
    source = BACKEND.replace("self._wait_for_vram_settle()", "(lambda: self._wait_for_vram_settle)()()")
    target = backend(source)
    contract = target.must_follow(
        target.recording("_kills"), after=target.call("_process.terminate"), within="load_model"
    )
    proof = prove(contract)
    assert not Report((proof,)).passes
    contract = target.must_precede(target.call("_kill_process"), before=target.call("Popen"), within="load_model")
    assert prove(contract).is_proved
    empty = Proof(contract, contract.check_static(), ())
    assert not Report((empty,)).passes
    assert "nothing to break: cannot be proved" in lines(empty)
    assert lines(empty).endswith("0 of 0 edits caught; 0 of 1 contracts proved")


def test_a_call_in_an_expression_is_taken_away_too() -> None:
    source = BACKEND.replace(
        "        self._wait_for_vram_settle()\n", "        if self._wait_for_vram_settle():\n            pass\n"
    )
    target = backend(source)
    wait, spawn = target.call("_wait_for_vram_settle"), target.call("subprocess.Popen")
    proof = prove(target.must_precede(wait, before=spawn, within="load_model"))
    assert [edit.what for edit, _ in proof.edits] == ["take _wait_for_vram_settle() away"]
    assert proof.is_proved


def test_a_stamp_that_is_a_call_is_taken_away() -> None:
    source = BACKEND.replace("self._last_kill_monotonic = time.monotonic()", "self._stamp()")
    target = backend(source + "\n    def _stamp(self):\n        pass\n")
    kill = target.call("_process.terminate")
    contract = target.must_follow(target.call("_stamp"), after=kill, within="_kill_process", every_exit=False)
    proof = prove(contract)
    assert proof.is_proved, lines(proof)
    assert "take _stamp() away" in lines(proof)


def test_one_of_two_places_is_spare_and_both_are_caught() -> None:
    asked = "        if self._cancel_event.is_set():\n            return False\n"
    early = asked + "        self._kill_process()\n        self._wait"
    source = BACKEND.replace("        self._kill_process()\n        self._wait", early)
    target = backend(source)
    lock, spawn = target.lock("_lock"), target.call("subprocess.Popen")
    proof = prove(target.must_recheck("_cancel_event.is_set", after=lock.acquired, before=spawn, within="load_model"))
    assert proof.is_proved, lines(proof)
    assert "spare   kept         m.py:27: turn the answer round\n" in lines(proof)
    assert "caught  violated     m.py:27: turn the answer round, in all 2 places\n" in lines(proof)


def test_other_functions_that_call_it_are_no_matter() -> None:
    target = backend(BACKEND + "\n    def other(self):\n        self._wait_for_vram_settle()\n")
    wait, spawn = target.call("_wait_for_vram_settle"), target.call("subprocess.Popen")
    proof = prove(target.must_precede(wait, before=spawn, within="load_model"))
    assert proof.is_proved, lines(proof)


def test_a_waived_contract_is_not_tried_and_a_waiver_that_matches_nothing_fails() -> None:
    for source, passes, said in (
        (UNDER_LOCK, True, "not tried: it is violated as the source stands, and waived (moves)"),
        (BACKEND, False, "the waiver ('moves') matches nothing"),
        ("class Backend:\n    pass\n", False, "not tried: it is vacuous as the source stands"),
    ):
        target = backend(source)
        lock, wait = target.lock("_lock"), target.call("_wait_for_vram_settle")
        report = Report((prove(target.must_not_hold(lock, at=wait, waive="moves")),))
        assert (report.passes, said in report.text) == (passes, True), report.text


@pytest.mark.parametrize("name", ["__init__", "backend"])
def test_edits_of_a_package_keep_its_relative_imports(tmp_path: Path, name: str) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("")
    (tmp_path / "app" / "base.py").write_text("class Base:\n    pass\n")
    source = "from .base import Base\n" + BACKEND.replace("class Backend:", "class Backend(Base):")
    (tmp_path / "app" / f"{name}.py").write_text(source)
    spec = "app:Backend" if name == "__init__" else "app.backend:Backend"
    target = lock_contract(spec, roots=[tmp_path])
    proof = prove(target.must_not_hold(target.lock("_lock"), at=target.call("_wait_for_vram_settle")))
    assert proof.is_proved
    assert {verdict.value for _, verdict in proof.edits} == {"violated"}


PRECEDE = """
[[tool.vramsettle.contracts]]
id = "%s"
rule = "must_precede"
target = "myapp.backend:Backend"
first = "%s"
before = "%s"
within = "load_model"
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            PRECEDE % ("one", "a", "b") + PRECEDE % ("two", "b", "a"),
            "contradict each other: number 1 (one, line 2), number 2 (two, line 10): each of the two calls would",
        ),
        (
            PRECEDE % ("self", "a", "a"),
            "line 2: [[tool.vramsettle.contracts]] number 1 (self): this contract contradicts itself",
        ),
        (
            PRECEDE % ("one", "a", "b") + PRECEDE % ("two", "a", "b"),
            "number 2 (two, line 10) says the same as number 1 (one, line 2): take one of them away",
        ),
        (
            PRECEDE % ("one", "a", "b") * 2,
            "line 10: [[tool.vramsettle.contracts]] number 2 (one): another contract has",
        ),
        ("[tool.vramsettle.contracts]\nrule = 'x'\n", "is to be an array of tables: [[tool.vramsettle.contracts]]"),
        ("tool = 1\n", ""),
        ("[tool]\nvramsettle = 1\n", "tool.vramsettle is to be a table"),
        ("[tool.vramsettle]\nroots = 'src'\n", "roots is to be a list of directories"),
        ("[tool.vramsettle]\nroots = ['scr']\n", "there is no directory 'scr' beside this file"),
        (PRECEDE % ("one", "a", ""), "line 2: [[tool.vramsettle.contracts]] number 1 (one): before is empty"),
        (PRECEDE.replace("must_precede", "must_preced") % ("one", "a", "b"), "did you mean 'must_precede'?"),
    ],
)
def test_what_a_pyproject_cannot_say(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    if not said:
        assert load(tmp_path / "pyproject.toml").contracts == ()
        return
    with pytest.raises(ContractError) as caught:
        load(tmp_path / "pyproject.toml")
    assert said in str(caught.value)


def test_bytes_that_are_no_toml(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes(b"[tool]\nx = '\xfc'\n")
    with pytest.raises(ContractError, match=r"pyproject.toml: cannot be read: .* 0xfc"):
        load(tmp_path / "pyproject.toml")
