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


ASKED = "            if self._cancel_event.is_set():\n                return False\n"


def rechecked(source: str, **keywords: bool) -> Proof:
    target = backend(source)
    lock, spawn = target.lock("_lock"), target.call("subprocess.Popen")
    contract = target.must_recheck(
        "_cancel_event.is_set", after=lock.acquired, before=spawn, within="load_model", **keywords
    )
    return prove(contract)


def test_one_of_two_places_is_spare_and_both_are_caught() -> None:
    proof = rechecked(BACKEND.replace(ASKED, ASKED * 2))
    assert proof.is_proved, lines(proof)
    assert "spare   kept         m.py:30: turn the answer round\n" in lines(proof)
    assert "caught  violated     m.py:30: turn the answer round, in all 2 places\n" in lines(proof)


@pytest.mark.parametrize(
    ("at", "added"),
    [
        ("        self._kill_process()\n", "        if self._cancel_event.is_set():\n            return False\n"),
        (ASKED, "            if self._other_event.is_set():\n                return False\n"),
        (ASKED, "            if self.is_set():\n                return False\n"),
        ("        return True\n", "        if self._cancel_event.is_set():\n            return False\n"),
    ],
)
def test_asks_that_a_recheck_is_not_about_are_left_alone(at: str, added: str) -> None:
    """Before the lock is taken, of something else, after the call."""
    proof = rechecked(BACKEND.replace(at, added + at))
    assert proof.is_proved, lines(proof)
    assert [edit.what for edit, _ in proof.edits] == [
        "never look at the answer",
        "turn the answer round",
        "let go of the lock and take it again",
    ]
    assert "spare" not in lines(proof)


@pytest.mark.parametrize(
    ("source", "edits"),
    [
        (
            BACKEND.replace(ASKED, "            if self._cancelled():\n                return False\n")
            + "\n    def _cancelled(self):\n        if self._cancel_event.is_set():\n            return True\n"
            "        return False\n",
            3,
        ),
        (BACKEND.replace("with self._lock:", "with self._taken() as _:")
         + "\n    def _taken(self):\n        return self._lock\n", 3),
        (BACKEND.replace("        with self._lock:\n", "        self._lock.acquire()\n        if True:\n"), 3),
    ],
)  # fmt: skip
def test_asks_are_found_in_helpers_and_however_the_lock_is_taken(source: str, edits: int) -> None:
    proof = rechecked(source)
    assert proof.is_proved, lines(proof)
    assert len(proof.edits) == edits


def test_an_ask_after_the_lock_was_let_go_counts_where_the_contract_allows_it() -> None:
    spawn = '            self._process = subprocess.Popen(["llama-server", model])\n'
    outside = (ASKED + spawn).replace("\n    ", "\n")[4:]
    source = BACKEND.replace(ASKED + spawn, "            pass\n" + outside)
    proof = rechecked(source, still_held=False)
    assert proof.is_proved
    assert "m.py:31: turn the answer round\n" in lines(proof)


ASYNC = """\
import asyncio


class Backend:
    def __init__(self):
        self._lock = asyncio.Lock()
        self._cancel_event = asyncio.Event()

    async def _wait(self):
        await asyncio.sleep(1)

    def poke(self):
        self._lock.locked()

    async def load_model(self):
        async with self._lock:
            if self._cancel_event.is_set():
                return
            await self.start()
        await self._wait()

    async def start(self):
        pass
"""


@pytest.mark.parametrize("made", ["asyncio.Lock()", "Lock()", "make_lock()"])
def test_an_asyncio_lock_is_awaited(made: str) -> None:
    target = backend(f"from asyncio import Lock\nfrom locks import make_lock\n{ASYNC.replace('asyncio.Lock()', made)}")
    proof = prove(target.must_not_hold(target.lock("_lock"), at=target.call("_wait")))
    assert proof.is_proved, lines(proof)
    assert len(proof.edits) == 2
    assert "async with self._lock:\n            await self._wait()" in proof.edits[0][0].text
    assert "await self._lock.acquire()\n        await self._wait()" in proof.edits[1][0].text
    recheck = target.must_recheck(
        "_cancel_event.is_set", after=target.lock("_lock").acquired, before=target.call("start"), within="load_model"
    )
    proof = prove(recheck)
    assert proof.is_proved, lines(proof)
    assert "self._lock.release(); await self._lock.acquire()\n" in proof.edits[-1][0].text


def test_where_nothing_can_be_awaited_an_asyncio_lock_is_not_taken() -> None:
    source = ASYNC.replace("        await self._wait()", "        self.done()").replace(
        "    def poke(self):\n", "    def done(self):\n        pass\n\n    def poke(self):\n        self.done()\n"
    )
    target = backend(source)
    proof = prove(target.must_not_hold(target.lock("_lock"), at=target.call("done")))
    assert proof.is_proved, lines(proof)
    places = {source.splitlines()[edit.line - 1].strip() for edit, _ in proof.edits}
    assert len(proof.edits) == 2
    assert {edit.line for edit, _ in proof.edits} == {source.splitlines().index("        self.done()", 18) + 1}, places


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
