"""`vramsettle conform`, as a command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pytest_vramsettle import cli

pytest.importorskip("rich")
pytest.importorskip("typer")

MODULE = """
import ctypes, os, subprocess
from pytest_vramsettle.conformance import KillRoutine, SettleSubject
from pytest_vramsettle.kills import KillRecord
from pytest_vramsettle.settle import wait_for_vram_settle

def two_samples(*, since_kill, max_wait):
    print("a wait that talks")
    wait_for_vram_settle(since_kill=since_kill, max_wait=max_wait, policy="two-samples")

def injected(probe, since_kill, max_wait):
    wait_for_vram_settle(since_kill=since_kill, max_wait=max_wait, policy="two-samples", probe=probe)

def make():
    return two_samples

def breaks(*, since_kill, max_wait):
    "Ends its process where nothing was killed, and hangs with the interpreter's lock where max_wait is 1.1 s."
    if not since_kill:
        os.kill(os.getpid(), 9)
    if max_wait == 1.1:
        ctypes.PyDLL(None).sleep(100)
    two_samples(since_kill=since_kill, max_wait=max_wait)

def probe():
    out = subprocess.run(["nvidia-smi", "--query-gpu=index,memory.free", "--format=csv,noheader,nounits"],
                         capture_output=True, text=True, timeout=10, check=True).stdout
    return [tuple(map(int, line.split(","))) for line in out.splitlines()]

def kills():
    held = []
    def kill():
        for process in filter(None, held):
            process.kill()
            process.wait()
    return KillRoutine(adopt=held.append, kill=kill, stamp=lambda: 0.0)

def verified():
    record = KillRecord()
    return SettleSubject(
        wait=lambda *, since_kill, max_wait: wait_for_vram_settle(record, max_wait=max_wait),
        recording=record.recording)

def number():
    return 5

def raises():
    raise OSError("no \\x1b[31mbackend here")
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_backend.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, output, errors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["vramsettle", "conform", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.vramsettle()
    captured = capfd.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def test_a_wait_that_passes(capfd: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capfd, "own_backend:make")
    assert status == 0
    assert out.endswith("settle, level upstream: 20 passed, 0 failed, 1 gap\n")
    assert "  holds-no-lock: no lock was given" in out
    assert "a wait that talks" not in out


def test_what_breaks_fails_alone(capfd: pytest.CaptureFixture[str]) -> None:
    only = [word for name in ("ramp", "cold-start", "uneven-max-wait", "still") for word in ("--only", name)]
    status, out, _ = run(capfd, "own_backend:breaks", "--limit", "1", *only)
    assert status == 1
    assert "it ended the worker process: killed by SIGKILL" in out
    assert "it hung: the worker process took more than 1 real seconds to answer" in out
    assert "own_backend.py" in out
    assert out.endswith("settle, level upstream: 2 passed, 2 failed, 0 gap\n")


def test_json_and_the_kinds(capfd: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capfd, "own_backend:kills", "--only", "kills-and-stamps", "--format", "json")
    told = json.loads(out)
    assert (status, told["kind"], told["level"]) == (1, "kills", "upstream")
    (verdict,) = told["verdicts"]
    assert verdict["status"] == "failed"
    assert any("SIGTERM" in problem for problem in verdict["problems"])
    assert "deaths" in verdict["timeline"]
    assert "kill" in verdict["timeline"]
    status, out, _ = run(capfd, "own_backend:probe", "--only", "one-gpu", "--format", "json")
    assert (status, json.loads(out)["kind"]) == (0, "probe")
    status, out, _ = run(capfd, "own_backend:verified", "--level", "verified", "--only", "late-start")
    assert (status, out.splitlines()[-1]) == (0, "settle, level verified: 1 passed, 0 failed, 0 gap")
    status, out, _ = run(capfd, "pytest_vramsettle.demo.backend:Backend", "--only", "cold-load")
    assert (status, out.splitlines()[-1]) == (0, "reload, level upstream: 1 passed, 0 failed, 0 gap")
    status, out, _ = run(capfd, "own_backend:injected", "--only", "ramp", "--without", "cadence")
    assert (status, out.count("makes exactly 3 probes: the capability cadence is not claimed")) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("own_backend:nothing",), "'own_backend' has no 'nothing'"),
        (("own_backend:number",), "made 5: a wait takes since_kill and max_wait"),
        (("own_backend:raises",), r"raised OSError: no \x1b[31mbackend here. --kind says what it is"),
        (("own_backend:make", "--only", "rmap"), "there is no scenario 'rmap'; there are called-late"),
        (("own_backend:make", "--without", "speed"), "there is no capability speed; there are cadence"),
        (("own_backend:make", "--limit", "0"), "a limit of 0 s leaves no time"),
    ],
)
def test_what_cannot_be_asked(capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], text: str) -> None:
    status, out, err = run(capfd, *arguments)
    assert (status, out) == (2, "")
    assert text in err
