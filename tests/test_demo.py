"""`vramsettle demo`: the rounds on the virtual clock, the drawings, and the real command once."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_gpu import NativesMissing
from pytest_vramsettle import __version__, cli
from pytest_vramsettle.clock import VirtualClock
from pytest_vramsettle.demo import drawing, placing, race, show
from pytest_vramsettle.demo.chart import ASCII, BLOCKS, ROWS
from pytest_vramsettle.demo.race import WAYS, Round, VirtualRace, Way

Console = pytest.importorskip("rich.console").Console
pytest.importorskip("typer")

COMMAND = Path(sys.executable).with_name("vramsettle")
MISREAD = re.compile(r"^ +Misread (\d+) MiB: ", re.MULTILINE)


def render(renderable: object, width: int = 80, encoding: str = "utf-8") -> str:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=out, width=width, highlight=False).print(renderable)
    out.seek(0)
    return out.read()


def run_after_a_glance_and(nap: float) -> Round:
    """A round whose wait is one probe and a sleep of so many virtual seconds."""

    def wait(kills: object) -> None:
        placing.read_free_memory()
        time.sleep(nap)

    with VirtualClock() as clock, race.machine(clock) as fresh:
        return fresh.race(Way("A glance and a nap", "nap", wait))


@pytest.fixture(scope="module")
def virtual() -> VirtualRace:
    return race.race_virtually()


# -- the rounds


def test_hasty_rounds_misread_and_the_verified_one_does_not(virtual: VirtualRace) -> None:
    hasty, upstream, verified = virtual.rounds
    assert hasty.misread_mib == upstream.misread_mib == race.SERVER_MIB
    assert 0 <= verified.misread_mib <= race.ROUNDING_MIB
    assert [one.said for one in virtual.rounds] == [None, "settled", "settled"]
    assert [drawing.gpu_of(one.placement) for one in virtual.rounds] == ["GPU 1", "GPU 1", "GPU 0"]
    assert verified.placement.on_cpu == 0 < hasty.placement.on_cpu
    assert all(one.right.on_cpu == 0 for one in virtual.rounds)


def test_rounds_decide_when_their_waits_return(virtual: VirtualRace) -> None:
    hasty, upstream, verified = virtual.rounds
    assert hasty.decided == 0.0
    assert upstream.decided == pytest.approx(0.25)
    assert verified.back <= verified.decided <= verified.back + 0.25
    assert virtual.virtual_seconds > upstream.decided + verified.decided  # and the loads


def test_probes_are_the_runs_of_nvidia_smi(virtual: VirtualRace) -> None:
    hasty, upstream, verified = (one.timeline.probes for one in virtual.rounds)
    assert hasty == (0.0,)
    assert upstream == pytest.approx((0.0, 0.25, 0.25))  # two of the wait, one of the loader
    assert len(verified) > 5
    assert all(one.timeline.probes[-1] == one.decided for one in virtual.rounds)


def test_the_timeline_is_the_ramp(virtual: VirtualRace) -> None:
    timeline = virtual.rounds[0].timeline
    before, after = timeline.free_at(0, -0.05), timeline.free_at(0, race.BEGINS + race.LASTS)
    assert before is not None
    assert after == before + race.SERVER_MIB
    assert timeline.free_at(0, race.BEGINS) == before
    assert timeline.free_at(0, race.BEGINS + race.LASTS / 2) == pytest.approx(before + race.SERVER_MIB / 2)
    assert set(timeline.free[1]) == {timeline.free_at(1, 0.0)}  # the co-tenant neither takes nor gives
    assert timeline.free_at(0, 99.0) is None


def test_a_decision_on_the_way_up_is_told_as_it_was() -> None:
    one = run_after_a_glance_and(0.95)
    assert one.share_back == pytest.approx(0.5)
    assert one.misread_mib == race.SERVER_MIB // 2
    assert drawing.when(one) == "No wait. Decided 0.95 s after the kill: 50% of the memory back."
    assert drawing.where(one) == "GPU 0: 42 of 64 layers fit, 22 offloaded to the CPU. GPU 0 would take all."


def test_a_wait_that_is_lucky_is_not_blamed() -> None:
    one = run_after_a_glance_and(1.5)
    assert one.misread_mib == 0
    assert drawing.when(one) == "No wait. Decided 1.50 s after the kill: the memory back for 0.20 s."
    text = drawing.verdict(one).plain
    assert BLOCKS.good in text
    assert BLOCKS.bad not in text


def test_an_axis_grows_with_a_late_decision() -> None:
    one = run_after_a_glance_and(7)
    assert one.timeline.end > 7
    assert len(render(drawing.finished(1, one, 80)).splitlines()) == ROWS + 7


# -- the drawings


def test_everything_fits_80_columns_and_ascii(virtual: VirtualRace) -> None:
    with VirtualClock() as clock, race.machine(clock) as fresh:
        pages = [drawing.opening(fresh.setting(), ASCII), drawing.virtually(virtual.rounds, virtual)]
    pages += [drawing.finished(number, one, 80, ASCII) for number, one in enumerate(virtual.rounds, 1)]
    pages += [drawing.summary(virtual.rounds, ASCII), drawing.what_next()]
    for page in pages:
        text = render(page, encoding="ascii")
        assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
        assert text.isascii()


def test_rounds_that_differ_are_named(virtual: VirtualRace) -> None:
    assert "The same outcomes" in drawing.virtually(virtual.rounds, virtual).plain
    swapped = (virtual.rounds[2], *virtual.rounds[1:])
    text = drawing.virtually(swapped, virtual).plain
    assert "They differ in round 1 (GPU 1: 29 of 64" in text
    assert "The same outcomes" not in text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0 ms"), (0.0042, "4 ms"), (0.012, "0.01 s"), (1.316, "1.32 s"), (26.0, "26.00 s")]
)
def test_durations_are_short(value: float, text: str) -> None:
    assert drawing.seconds(value) == text


def test_a_terminal_sees_the_round_while_it_runs() -> None:
    out = io.StringIO()
    console = Console(force_terminal=True, width=80, file=out, highlight=False)
    with VirtualClock() as clock, race.machine(clock) as fresh:
        one = show.Showing(console, fresh, 1, WAYS[0], 80, BLOCKS).run()
    assert clock.elapsed >= one.timeline.end  # it goes on until the ramp is over
    frames = out.getvalue().split(WAYS[0].title)[1:]
    assert len(frames) > 10
    assert frames[0].count("█") < frames[-1].count("█")


# -- the command


def test_it_prints_its_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["vramsettle", "--version"])
    with pytest.raises(SystemExit) as ended:
        cli.vramsettle()
    assert not ended.value.code
    assert capsys.readouterr().out == f"vramsettle {__version__}\n"


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as ended:
        cli.vramsettle()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"vramsettle needs {package}: install pytest-vramsettle[lab]")


def test_what_the_driver_refuses_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(console: object) -> None:
        raise NativesMissing("no compiler")

    monkeypatch.setattr(show, "show", refuse)
    monkeypatch.setattr(sys, "argv", ["vramsettle", "demo"])
    with pytest.raises(SystemExit) as ended:
        cli.vramsettle()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "vramsettle demo: no compiler\n"


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A short path: the driver's socket is in there."""
    directory = Path(tempfile.mkdtemp(prefix="demo-"))
    yield directory
    shutil.rmtree(directory)


def start(scratch: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "TMPDIR": str(scratch), "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
    return subprocess.Popen(
        [COMMAND, "demo"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    )


def left_behind(session: int, scratch: Path) -> list[str]:
    """Living processes of a session, and directories of a driver."""
    return [path.name for path in scratch.iterdir()] + [
        f"process {pid}" for pid in os.listdir("/proc") if pid.isdigit() and lives_in(int(pid), session)
    ]


def lives_in(pid: int, session: int) -> bool:
    """Whether it is one of this session's; one that is dead and waits for init to reap it is not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        return os.getsid(pid) == session and state not in "ZX"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_the_check_sees_what_is_left(scratch: Path) -> None:
    sleeper = subprocess.Popen(["sleep", "60"], start_new_session=True)
    (scratch / "fgpu-0-x").mkdir()
    try:
        assert left_behind(sleeper.pid, scratch) == ["fgpu-0-x", f"process {sleeper.pid}"]
    finally:
        sleeper.kill()
        sleeper.wait()


def test_the_command_shows_the_race_in_real_time_and_leaves_nothing(scratch: Path, virtual: VirtualRace) -> None:
    command = start(scratch)
    out, err = command.communicate(timeout=50)
    assert (command.returncode, err) == (0, "")
    assert left_behind(command.pid, scratch) == []
    assert "\x1b" not in out
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    misread = [int(mib) for mib in MISREAD.findall(out)]
    assert len(misread) == 3
    assert min(misread[:2]) > 10_000
    assert 0 <= misread[2] <= race.ROUNDING_MIB
    for number, one in enumerate(virtual.rounds, 1):
        assert f"{number}  {one.way.title}" in out
        assert drawing.where(one) in out
    assert "The same outcomes, placements and misreads." in " ".join(out.split())
    assert re.search(r"\d\.\d\d virtual seconds took \d+\.\d\d real ones", " ".join(out.split()))


def test_ctrl_c_leaves_nothing(scratch: Path) -> None:
    command = start(scratch)
    assert command.stdout is not None
    while not command.stdout.readline().startswith(f"1  {WAYS[0].title}"):
        pass
    command.send_signal(signal.SIGINT)
    _, err = command.communicate(timeout=30)
    assert (command.returncode, err) == (130, "")
    assert left_behind(command.pid, scratch) == []
