"""Recording: against the fake driver in real time, with real processes; then the commands as they are run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from trace_rows import MS, header

from fake_gpu import Driver, Gpu, InvalidValue, Ramp
from fake_gpu.trace import ReclaimTrace, TraceWriter, sampler
from fake_gpu.trace.nvml_reader import NvmlUnusable
from fake_gpu.trace.record import Plan, Progress, RecordingFailed, record
from fake_gpu.units import GIB
from pytest_vramsettle import cli

CliRunner = pytest.importorskip("typer.testing").CliRunner

RAMP = Ramp.points([("30ms", 0.0), ("30ms", 0.4), ("60ms", 0.4), ("70ms", 1.0)])
SLEEPER = [sys.executable, "-S", "-c", "import time; print('ready', flush=True); time.sleep(60)"]
COMMAND = [sys.executable, "-c", "from pytest_vramsettle.cli import fake_gpu; fake_gpu()"]


def plan(**changes: str | bool) -> Plan:
    given = {"period": "2ms", "still": "20ms", "lead": "10ms", "rest": "50ms", "limit": "5s"} | changes
    return Plan(**given)  # type: ignore[arg-type]  # what is given is the tests' own


@pytest.fixture
def machine() -> Iterator[Driver]:
    """A fake machine in real time: 24 GiB, of which a co-tenant holds 2."""
    with Driver() as driver:
        driver.process(driver.add_gpu("rtx-4090"), used="2 GiB", name="co-tenant")
        yield driver


def attach(driver: Driver) -> Callable[[Progress], None]:
    """The program that is run holds memory once it is there."""
    done: list[int] = []

    def attach_once(progress: Progress) -> None:
        if not done:
            done.append(progress.pid)
            driver.attach(progress.pid, {driver.gpus[0]: "12 GiB"}, reclaim=RAMP)

    return attach_once


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def check(trace: ReclaimTrace, gpu: Gpu, pid: int) -> None:
    (traced,) = trace.header.gpus
    assert (traced.uuid, traced.name, traced.total) == (gpu.uuid, gpu.name, gpu.memory.total)
    assert traced.reserved == gpu.memory.reserved
    assert trace.header.killed == (pid,)
    sent, *gone, settled = [event.event for event in trace.events]
    # Who hears of the death first, NVML or whoever waits for the process, is chance.
    assert (sent, sorted(gone), settled) == ("kill_sent", ["pid_gone", "pid_gone_nvml"], "settled")
    (story,) = trace.stories
    assert story.held == {pid: 12 * GIB}
    assert all(list(frame.others.values()) == [2 * GIB] and frame.unlisted == 0 for frame in story.frames)
    assert trace.never_back == 0
    assert not trace.torn


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_a_command_is_run_killed_and_recorded(machine: Driver, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    recorded = record(path, SLEEPER, plan=plan(), progress=attach(machine))
    assert (recorded.path, recorded.outcome) == (path, "settled")
    trace = ReclaimTrace.read(path)
    check(trace, machine.gpus[0], machine.processes[-1].pid)
    assert trace.events[0].signal == "KILL"
    assert len(trace.samples) < recorded.readings  # what had not changed was not written again
    assert is_gone(machine.processes[-1].pid)
    again = trace.replay(Driver())
    assert again.gpus[0].profile.name == machine.gpus[0].name
    assert [process.used for process in again.dead] == [{again.gpus[0]: 12 * GIB}]
    again.kill()


def test_a_process_that_runs_already(machine: Driver, tmp_path: Path) -> None:
    process = machine.spawn(machine.gpus[0], used="12 GiB", reclaim=RAMP)
    recorded = record(tmp_path / "t.jsonl", pid=process.pid, plan=plan(signal="TERM"))
    assert recorded.outcome == "settled"
    trace = ReclaimTrace.read(tmp_path / "t.jsonl")
    check(trace, machine.gpus[0], process.pid)
    assert trace.events[0].signal == "TERM"


def test_the_moment_of_the_kill_may_be_a_line_of_its_output(machine: Driver, tmp_path: Path) -> None:
    recorded = record(tmp_path / "t.jsonl", SLEEPER, plan=plan(ready_line="read"), progress=attach(machine))
    assert recorded.outcome == "settled"


WITH_CHILD = ["sh", "-c", "sleep 60 & echo child $!; wait"]


def test_the_whole_group_is_signalled(machine: Driver, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    recorded = record(path, WITH_CHILD, plan=plan(group=True, ready_line="child"), progress=attach(machine))
    assert recorded.outcome == "settled"
    trace = ReclaimTrace.read(path)
    assert len(trace.header.killed) == 2
    assert {event.pid for event in trace.events if event.event == "pid_gone"} == set(trace.header.killed)


LINGERING = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.4), os._exit(0)))
print("ready", flush=True)
time.sleep(60)
"""


def test_the_rest_counts_from_the_death_though_all_is_back_before(machine: Driver, tmp_path: Path) -> None:
    attach_once = attach(machine)

    def give_back(progress: Progress) -> None:
        attach_once(progress)
        if progress.phase == "waiting for its memory" and machine.processes[-1].alive:
            machine.processes[-1].hold(0)

    path, command = tmp_path / "t.jsonl", [sys.executable, "-S", "-c", LINGERING]
    record(path, command, plan=plan(signal="TERM", ready_line="ready", rest="150ms"), progress=give_back)
    times = {event.event: event.t_ns for event in ReclaimTrace.read(path).events}
    assert times["settled"] - times["pid_gone"] >= 150 * MS


def test_its_children_are_gone_in_the_end(machine: Driver, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    recorded = record(path, WITH_CHILD, plan=plan(ready_line="child", limit="50ms"), progress=attach(machine))
    assert recorded.outcome == "not settled"  # the child lives on until the end
    leader, child = ReclaimTrace.read(path).header.killed
    until(lambda: is_gone(leader) and is_gone(child))


def test_memory_that_never_comes_back_ends_at_the_limit(machine: Driver, tmp_path: Path) -> None:
    process = machine.spawn(machine.gpus[0], used="12 GiB", reclaim=Ramp.never())
    recorded = record(tmp_path / "t.jsonl", pid=process.pid, plan=plan(limit="150ms"))
    assert recorded.outcome == "not settled"
    trace = ReclaimTrace.read(tmp_path / "t.jsonl")
    assert trace.never_back == 12 * GIB
    assert trace.events[-1].text == "not settled within 150ms"


def test_a_card_that_falls_off_the_bus_meanwhile(machine: Driver, tmp_path: Path) -> None:
    other = machine.add_gpu("t4")
    process = machine.spawn(machine.gpus[0], used="12 GiB", reclaim=RAMP)
    machine.on_death(lambda _: other.lose())
    record(tmp_path / "t.jsonl", pid=process.pid, plan=plan())
    trace = ReclaimTrace.read(tmp_path / "t.jsonl")
    assert trace.stories[1].readings[0].free == other.memory.free
    assert trace.stories[1].readings[-1].free is None


def test_what_cannot_be_recorded(machine: Driver, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with pytest.raises(RecordingFailed, match="ended by itself before it was to be killed; nothing recorded"):
        record(path, ["true"], plan=plan())
    with pytest.raises(RecordingFailed, match=r"holds memory .* not within 50ms; nothing recorded.*--after"):
        record(path, SLEEPER, plan=plan(ready_timeout="50ms"))
    with pytest.raises(InvalidValue, match="'no-such-program' cannot be run: No such file"):
        record(path, ["no-such-program"], plan=plan())
    with pytest.raises(InvalidValue, match="give a command to run, or the PID"):
        record(path)
    with pytest.raises(InvalidValue, match="the group of a process that runs already may be anybody's"):
        record(path, pid=machine.spawn(machine.gpus[0], used="1 GiB").pid, plan=plan(group=True, limit="50ms"))
    with pytest.raises(InvalidValue, match="both say when to kill"):
        plan(after="1s", ready_line="x")
    with pytest.raises(InvalidValue, match="give KILL, TERM or INT"):
        plan(signal="HUP")
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(InvalidValue, match="is there already"):
        record(path, SLEEPER, plan=plan())


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    with Driver(), pytest.raises(NvmlUnusable, match="counts no GPU here"):
        record(tmp_path / "t.jsonl", SLEEPER, plan=plan())


class OneCard:
    """A reader of one GPU."""

    def __init__(self) -> None:
        self.size = 5

    def free(self, index: int) -> int | None:
        return self.size

    def held(self, index: int) -> dict[int, int | None] | None:
        return None


def test_what_is_as_before_is_written_once_a_second_and_before_each_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0]
    monkeypatch.setattr(sampler, "now_ns", lambda: now[0])
    card = OneCard()
    with TraceWriter(tmp_path / "t.jsonl", header()) as writer:
        taker = sampler.Sampler(card, [0], writer)
        for now[0] in (0, 400 * MS, 900 * MS, 1300 * MS, 1400 * MS, 1500 * MS, 1600 * MS):
            card.size = 5 if now[0] < 1500 * MS else 6
            taker.sample()
        taker.finish()
    rows = [(row.t_ns // MS, dict(row.free)) for row in ReclaimTrace.read(tmp_path / "t.jsonl").samples]
    assert rows == [(0, {0: 5}), (1300, {}), (1400, {}), (1500, {0: 6}), (1600, {})]


# -- the commands


def until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.005)


@pytest.fixture
def running(machine: Driver, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`fake-gpu record` of a program that holds memory as soon as it is there."""
    told = tmp_path / "pid"
    options = ["--still", "20ms", "--lead", "10ms", "--rest", "50ms", "-o", str(tmp_path / "t.jsonl")]
    program = ["sh", "-c", f"echo $$ > {told}.new; mv {told}.new {told}; exec sleep 60"]
    process = subprocess.Popen(
        [*COMMAND, "record", *options, "--", *program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        until(told.exists)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_command_records(running: subprocess.Popen[str], machine: Driver, tmp_path: Path) -> None:
    pid = int((tmp_path / "pid").read_text())
    machine.attach(pid, {machine.gpus[0]: "12 GiB"}, reclaim=RAMP)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 0, err
    assert "GPU 0 NVIDIA GeForce RTX 4090: the dead held 12 GiB, 0 B never came back, settled 0." in out
    assert f"process {pid}: waiting for its memory" in err
    assert "t.jsonl: settled, " in err
    check(ReclaimTrace.read(tmp_path / "t.jsonl"), machine.gpus[0], pid)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_keeps_what_there_is(
    running: subprocess.Popen[str], machine: Driver, tmp_path: Path, number: int, status: int
) -> None:
    pid = int((tmp_path / "pid").read_text())
    machine.attach(pid, {machine.gpus[0]: "12 GiB"}, reclaim=Ramp.never())
    path = tmp_path / "t.jsonl"
    until(lambda: path.exists() and b"pid_gone_nvml" in path.read_bytes())
    running.send_signal(number)
    _, err = running.communicate(timeout=30)
    assert running.returncode == status
    assert "Traceback" not in err
    trace = ReclaimTrace.read(path)
    assert trace.never_back == 12 * GIB
    assert is_gone(pid)


def test_the_command_imports(tmp_path: Path) -> None:
    log = tmp_path / "nvidia-smi.csv"
    used = [900] * 3 + [300, 0, 0]
    log.write_text("".join(f"2026/11/23 14:03:22.{n}00, 0, GPU-a, {mib}, {1000 - mib}\n" for n, mib in enumerate(used)))
    runner, app = CliRunner(), cli._fake_gpu_app()
    done = runner.invoke(app, ["import", str(log)])
    assert done.exit_code == 0, done.output
    assert "found by the largest gain of free memory (900 MiB)" in done.stderr
    assert "the dead held 900 MiB, 0 B never came back, settled 0.200 s after the death" in done.stdout
    assert ReclaimTrace.read(tmp_path / "nvidia-smi.jsonl").settled_after == 0.2
    done = runner.invoke(app, ["import", str(log)])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("fake-gpu import: ")
    assert "nvidia-smi.jsonl is there already" in done.stderr
    done = runner.invoke(app, ["import", str(log), "--out", str(log), "--force"])
    assert (done.exit_code, "is the log itself" in done.stderr) == (1, True)
