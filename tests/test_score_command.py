"""`vramsettle score` and `vramsettle plot`, as commands."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from trace_rows import DEAD, MS, gone, header, killed, sample

from fake_gpu.trace import Event, ReclaimTrace
from pytest_vramsettle import cli
from pytest_vramsettle.score.scenarios import SERVER_PID
from pytest_vramsettle.score.traced import scenario_of

pytest.importorskip("rich")
pytest.importorskip("typer")

GIB = 2**30


def trace(path: Path, *, killed: bool = True, back: bool = True, tenant: bool = False) -> Path:
    """Two GPUs; 20 GiB come back on the first between 0.2 and 1.2 s after the death, none on the other.

    A tenant of the second takes 5 GiB more 0.5 s after the death.
    """
    lines: list[dict[str, object]] = [
        {
            "kind": "header",
            "format": "vramsettle-trace",
            "version": 1,
            "gpus": [
                {"index": 0, "uuid": "GPU-a", "total": 80 * GIB},
                {"index": 1, "uuid": "GPU-b", "total": 80 * GIB},
            ],
        }
    ]
    for tenths in range(-5, 20):
        if killed and tenths == 0:
            lines.append({"kind": "event", "t_ns": 9_999_000_000, "event": "pid_gone", "pid": 7})
        share = min(1.0, max(0.0, (tenths - 2) / 10)) if back else 0.0
        taken = 5 * GIB if tenant and tenths >= 5 else 0
        free = {"0": 4 * GIB + round(20 * GIB * share), "1": 70 * GIB - taken}
        held = {"1": {"88": 10 * GIB + taken}} if tenant else {}
        lines.append({"kind": "sample", "t_ns": 10_000_000_000 + tenths * 100_000_000, "free": free, "held": held})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


class Ran:
    """One run of the command in this process, and what it said."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> None:
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["vramsettle", *map(str, arguments)])
            # The processes of the score look for modules here as well.
            patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
            with pytest.raises(SystemExit) as ended:
                cli.vramsettle()
        self.status = ended.value.code or 0
        self.out, self.err = capsys.readouterr()


def test_a_score_is_a_table_of_each_policy_for_each_group(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sheet = tmp_path / "score.csv"
    ran = Ran(capsys, "score", "-n", 17, "--csv", sheet, "--workers", 1)
    assert ran.status == 0
    assert "single tenant, 11 reloads a policy (late-start, steps" in ran.out
    assert all(len(line.rstrip()) <= 80 for line in ran.out.splitlines())
    for policy in ("verified", "two-samples", "ollama", "vllm", "instructlab", "xinference", "comfyui-mcp"):
        assert sum(line.startswith(f"{policy} ") for line in ran.out.splitlines()) == 3
    assert len(sheet.read_text().splitlines()) == 1 + 17 * 7
    again = tmp_path / "again.csv"
    assert Ran(capsys, "score", "-n", 17, "--csv", again, "--workers", 2).out == ran.out
    assert again.read_bytes() == sheet.read_bytes()
    for name in ("one.svg", "two.svg"):
        assert Ran(capsys, "plot", sheet, "-o", tmp_path / name).status == 0
    picture = (tmp_path / "one.svg").read_bytes()
    assert picture.startswith(b"<?xml")
    assert picture == (tmp_path / "two.svg").read_bytes()


@pytest.mark.parametrize(
    ("policy", "status", "told"),
    [
        ("verified", 0, "All within the limits."),
        ("waits_to_score:at_once", 1, "waits_to_score:at_once, single tenant: misreads"),
        ("waits_to_score:raises", 1, "late-start/0: raised: RuntimeError"),
    ],
)
def test_the_gate(capsys: pytest.CaptureFixture[str], policy: str, status: int, told: str) -> None:
    ran = Ran(
        capsys, "score", "-p", policy, "-n", 12, "--class", "late-start", "--workers", 1, "--max-misread-mib", 256
    )
    assert ran.status == status
    assert told in ran.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["score", "-p", "verifed"], "there is no policy 'verifed'"),
        (["score", "-p", "not_there:wait"], "the module 'not_there' cannot be imported"),
        (["score", "-n", 0], "the corpus is empty"),
        (["score", "--class", "drop"], "there is no class of scenarios 'drop'"),
        (["score", "/nowhere/t.jsonl"], "/nowhere/t.jsonl cannot be read"),
        (["score", "--csv", "/nowhere/s.csv"], "/nowhere/s.csv cannot be written: No such file"),
        (["score", "--max-waste", "inf"], "the limit of the waste"),
        (["plot", "drop/1", "-o", "t.svg"], "there is no scenario 'drop/1'"),
        (["plot", "drip/1", "-o", "/nowhere/t.svg"], "/nowhere/t.svg: No such file"),
        (["plot", "drip/1", "-o", "picture"], "give it a suffix"),
        (["plot", "drip/1", "-o", "t.xyz"], "xyz"),
        (["plot", "/nowhere/s.csv", "-o", "t.svg"], "/nowhere/s.csv: No such file"),
    ],
)
def test_what_cannot_be_asked(capsys: pytest.CaptureFixture[str], arguments: list[object], told: str) -> None:
    ran = Ran(capsys, *arguments)
    assert ran.status == 2
    assert told in ran.err
    assert ran.err.startswith(f"vramsettle {arguments[0]}: ")


def test_traces_are_scored_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    recorded = trace(tmp_path / "h200.jsonl")
    sheet = tmp_path / "s.csv"
    assert Ran(capsys, "score", recorded, "-p", "verified", "-p", "two-samples", "--csv", sheet).status == 0
    rows = [row.split(",") for row in sheet.read_text().splitlines()[1:]]
    assert [(row[0], row[3], row[6]) for row in rows] == [
        ("trace/h200.jsonl", "verified", "0"),
        ("trace/h200.jsonl", "two-samples", rows[1][6]),
    ]
    for name in ("t.svg", "t.png"):
        assert Ran(capsys, "plot", recorded, "-o", tmp_path / name).status == 0
        assert (tmp_path / name).stat().st_size > 5000


def test_limits_that_judge_nothing_are_no_pass(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shared = trace(tmp_path / "shared.jsonl", tenant=True)
    limit = ("--max-misread-mib", 256, "-p", "waits_to_score:at_once", "--workers", 1)
    ran = Ran(capsys, "score", shared, *limit)
    assert (ran.status, "nothing was judged" in ran.err) == (2, True)
    assert Ran(capsys, "score", shared, *limit, "--shared").status == 1
    assert Ran(capsys, "score", "--class", "never", "-n", 1, *limit).status == 2


def test_a_trace_as_a_scenario(tmp_path: Path) -> None:
    made = scenario_of(trace(tmp_path / "t.jsonl"))
    assert [(card.uuid, card.total, card.held) for card in made.cards] == [
        ("GPU-a", 80 * GIB, 20 * GIB),
        ("GPU-b", 80 * GIB, 0),
    ]
    assert made.back_ns == pytest.approx(1.2e9, abs=2e6)
    assert made.group == "single tenant"
    # 1 ms after the death is the first sample after it.
    at = 700_000_000 + 1_000_000
    assert (made.free(0, at), made.free(1, at)) == (14 * GIB, 70 * GIB)
    made = scenario_of(trace(tmp_path / "shared.jsonl", tenant=True))
    assert made.group == "shared"
    assert [made.free(1, at - 300_000_000), made.free(1, at)] == [70 * GIB, 65 * GIB]
    for wrong in ({"killed": False}, {"back": False}):
        with pytest.raises(ValueError, match=r"w\.jsonl"):
            scenario_of(trace(tmp_path / "w.jsonl", **wrong))


def test_a_trace_tells_when_the_baseline_was_and_when_the_driver_forgot_the_process(tmp_path: Path) -> None:
    unlisted = Event(t_ns=3300 * MS, event="pid_gone_nvml", pid=DEAD)
    rows = (sample(0, 4 * GIB, on_0={DEAD: 20 * GIB}), killed(1000), gone(3000), unlisted, sample(4000, 24 * GIB))
    ReclaimTrace(header(), rows).write(tmp_path / "t.jsonl")
    made = scenario_of(tmp_path / "t.jsonl")
    assert (made.baseline_ns, made.listed_ns) == (-2000 * MS, 300 * MS)
    assert made.reading(299 * MS, holders=True).gpus[0].holders == {SERVER_PID: 20 * GIB}
    assert made.reading(300 * MS, holders=True).gpus[0].holders == {}


def test_a_sheet_without_reloads_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sheet = tmp_path / "s.csv"
    assert Ran(capsys, "score", "-n", 2, "--class", "never", "-p", "vllm", "--workers", 1, "--csv", sheet).status == 0
    assert Ran(capsys, "plot", sheet, "-o", tmp_path / "s.png").status == 0
    sheet.write_text(sheet.read_text().splitlines()[0] + "\n")
    ran = Ran(capsys, "plot", sheet, "-o", tmp_path / "s.png")
    assert (ran.status, "no reload to draw" in ran.err) == (2, True)


def test_without_matplotlib_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ran = Ran(capsys, "plot", "drip/1", "-o", "t.svg")
    assert (ran.status, "pip install 'pytest-vramsettle[lab]'" in ran.err) == (2, True)


def test_the_help_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, "--help")
    assert "score" in ran.out
    assert "plot" in ran.out
