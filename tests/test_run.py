"""`fake-gpu run`: the program is in the foreground, and the machine is what options or a file say."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_command import COMMAND, run

from fake_gpu import InvalidValue
from fake_gpu.machine.spec import read_machine_spec
from pytest_vramsettle import cli

CliRunner = pytest.importorskip("typer.testing").CliRunner

MEMORY = ["nvidia-smi", "--query-gpu=index,name,memory.used", "--format=csv,noheader,nounits"]
APPS = ["nvidia-smi", "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader,nounits"]


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where the driver's directory is made, so that what is left of it can be seen."""
    place = tmp_path / "t"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    yield
    assert list(place.iterdir()) == []


def test_a_machine_of_options() -> None:
    options = ["--gpu", "2xh200", "--gpu", "rtx-4090", "--process", "1:20 GiB:server", "--process", "2:1GiB"]
    done = run(*options, "--", "sh", "-c", f"{' '.join(MEMORY)}; {' '.join(APPS)}")
    *cards, first, second = done.stdout.splitlines()
    assert cards == ["0, NVIDIA H200, 0", "1, NVIDIA H200, 20480", "2, NVIDIA GeForce RTX 4090, 1024"]
    assert re.fullmatch(r"\d+, server, 20480", first)
    assert re.fullmatch(r"\d+, llama-server, 1024", second)
    assert (done.returncode, done.stderr) == (0, "")
    assert not Path(f"/proc/{first.split(',')[0]}").exists()


def test_a_machine_of_a_file_and_options(tmp_path: Path) -> None:
    file = tmp_path / "machine.toml"
    file.write_text(
        'driver_version = "570.1"\n[[gpu]]\nmemory = "10 GiB"\nunlisted = "1 GiB"\n[gpu.activity]\ngpu_percent = 30\n'
        '[[process]]\nmemory = "2 GiB"\n[[event]]\nat = "50ms"\nkill = 0\n[[fault]]\nkind = "exit"\nstatus = 9\n'
        'via = "nvidia-smi"\nafter = 2\ntimes = 1\n'
    )
    query = "nvidia-smi --query-gpu=driver_version,utilization.gpu,memory.used --format=csv,noheader,nounits"
    # The process dies on time although nobody asks the driver anything meanwhile.
    wait = f'pid=$({APPS[0]} --query-compute-apps=pid {APPS[2]}); while [ -d "/proc/$pid" ]; do sleep 0.02; done'
    script = f"{query}; {wait}; {query}"
    done = run("--machine", str(file), "--gpu", "t4", "--reclaim", "never", "--report", "--", "sh", "-c", script)
    cards = "570.1, 30, 3072\n570.1, 0, 0\n"
    assert done.stdout.startswith(cards)
    assert "NVIDIA-SMI has failed" in done.stdout
    assert done.returncode == 9
    assert "fake-gpu run: nvidia-smi: 3 times\n" in done.stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["sh", "-c", "exit 7"], 7, ""),
        (["sh", "-c", "kill -KILL $$"], 137, ""),
        (["no-such-program"], 127, "'no-such-program' cannot be run: no directory of PATH has"),
        (["/no/such/program"], 127, "'/no/such/program' cannot be run: there is no such file"),
        ([""], 127, "'' cannot be run"),
        (["/"], 126, "'/' cannot be run: Permission denied"),
    ],
)
def test_the_exit_status_is_the_programs(words: list[str], status: int, said: str) -> None:
    done = run("--", *words)
    assert done.returncode == status
    assert said in done.stderr
    assert bool(done.stderr) == bool(said)


@pytest.mark.parametrize(
    ("content", "mode", "status", "out", "said"),
    [
        (b'echo "$@"\nexit 4\n', 0o755, 4, "a b c\n", ""),  # a script that names no interpreter
        (b"#!/no/such/sh\n", 0o755, 127, "", "needs an interpreter that is not there"),
        (b"\x7fnot for this machine\0", 0o755, 126, "", "Exec format error"),
        (b"#!/bin/sh\n", 0o644, 126, "", "Permission denied"),
    ],
)
def test_files_as_a_shell_takes_them(
    tmp_path: Path, content: bytes, mode: int, status: int, out: str, said: str
) -> None:
    file = tmp_path / "program"
    file.write_bytes(content)
    file.chmod(mode)
    done = run("--", str(file), "a b", "c")
    assert (done.returncode, done.stdout) == (status, out)
    assert said in done.stderr


def test_a_program_that_ctrl_c_ends() -> None:
    """This command ends by the signal too, so that a script does not go on with its next line."""
    assert run("--", "sh", "-c", "kill -INT $$").returncode == -signal.SIGINT
    assert run("--", "sh", "-c", "exit 130").returncode == 130


def test_a_parent_that_ignores_the_death_of_children() -> None:
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    words = [sys.executable, "-c", ignoring, *COMMAND, "--", "sh", "-c", "exit 6"]
    assert subprocess.run(words, timeout=30, check=False).returncode == 6


def test_without_a_command_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/sh")
    done = run(stdin="nvidia-smi -L\nexit 4\n")
    assert (done.stdout.count("GPU 0:"), done.returncode) == (1, 4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gpu", "h20"], "Did you mean 'h200'?"),
        (["--gpu", "0xh200"], "--gpu 0xh200: give a profile"),
        (["--gpu", "00xh200"], "--gpu 00xh200: give a profile"),
        (["--gpu", "65xt4"], "a machine has 64 GPUs at most"),
        (["--process", "GiB"], "--process GiB: give a GPU's index and a size"),
        (["--process", "0:1GiB:"], "--process 0:1GiB:: '': give a text of 1 to 8192 characters"),
        (["--process", "3:1GiB"], "there is no GPU 3: the machine has 1"),
        (["--process", "0:900 GiB"], "900 GiB is more than"),
        (["--reclaim", "slowly"], "'slowly' is no way for memory to come back"),
        (["--machine", "/nowhere.toml"], "the machine /nowhere.toml cannot be read"),
    ],
)
def test_options_that_cannot_be(options: list[str], said: str) -> None:
    done = CliRunner().invoke(cli._fake_gpu_app(), ["run", *options, "--", "true"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert said in done.stderr


# -- files

MACHINE = """
# a comment with [[gpu]]
[[gpu]]
profile = "h200"
count = 2
[gpu.activity]
gpu_percent = 40

[[gpu]]
name = '''
memory = 1'''

[[process]]
gpu = [0, 1]
memory = "20 GiB"

[[event]]
at = "10s"
lose = 1
"""


@pytest.mark.parametrize(
    ("changed", "into", "said"),
    [
        ("count", "cuont", "line 5, gpu[0].cuont: Object contains unknown field `cuont`"),
        ("[[event]]", "[[evnt]]", "line 17, evnt: Object contains unknown field `evnt`"),
        ("gpu_percent = 40", "gpu_percent = 140", "line 7, gpu[0].activity.gpu_percent: Expected `int` <= 100"),
        ("count = 2", "count = 0", "line 5, gpu[0].count: Expected `int` >= 1"),
        ("[0, 1]", '["a"]', "line 14, process[0].gpu[0]: Expected `int`, got `str`"),
        ("at =", "# at =", "line 17, event[0].at: Object missing required field `at`"),
        ("count = 2", "count =", "is not valid TOML: Invalid value (at line 5, column 8)"),
        ("[gpu.activity]\n", "activity.power = -1\nactivity.", "line 6, gpu[0].activity.power: Expected `float` >= 0"),
    ],
)
def test_a_file_that_does_not_fit(tmp_path: Path, changed: str, into: str, said: str) -> None:
    assert changed in MACHINE
    file = tmp_path / "m.toml"
    file.write_text(MACHINE.replace(changed, into, 1))
    with pytest.raises(InvalidValue, match=re.escape(said)) as refused:
        read_machine_spec(file)
    assert str(file) in str(refused.value)


@pytest.mark.parametrize(
    ("changed", "into", "said"),
    [
        ('"h200"', '"h2000"', "line 4, gpu[0].profile: there is no GPU profile 'h2000'"),
        ("[0, 1]", "[0, 7]", "line 14, process[0].gpu[1]: there is no GPU 7: the machine has 3, counted from 0"),
        ("[0, 1]", "[]", "line 14, process[0].gpu: give the indices"),
        ("20 GiB", "20 GB of it", "line 15, process[0].memory: '20 GB of it' is not a size"),
        ("20 GiB", "900 GiB", "line 15, process[0].memory: 900 GiB is more than"),
        ("lose = 1", "kill = 1", "line 19, event[0].kill: there is no process 1: the machine has 1"),
        ("lose = 1", "kill = 0\nlose = 0", "line 19, event[0].kill: an event is one of"),
        ("10s", "soon", "line 18, event[0].at: 'soon' is not a duration"),
        (
            "[[event]]",
            '[[fault]]\nkind = "slow"\n[[event]]',
            "line 17, fault[0].delay: a fault of the kind 'slow' needs",
        ),
        ("[[event]]", '[[fault]]\nkind = "hang"\nstatus = 1\n[[event]]', "status belongs to faults of the kind 'exit'"),
        ("# a comment", 'reclaim = "fast" #', "line 2, reclaim: 'fast' is no way for memory to come back"),
    ],
)
def test_a_machine_that_cannot_be(tmp_path: Path, changed: str, into: str, said: str) -> None:
    file = tmp_path / "m.toml"
    text = MACHINE.replace("name = '''\nmemory = 1'''", 'name = "a"  #\n#')
    assert changed in text
    file.write_text(text.replace(changed, into, 1))
    done = CliRunner().invoke(cli._fake_gpu_app(), ["run", "--machine", str(file), "--", "true"])
    assert done.exit_code == 1
    assert said in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gpu", "h20"], "fake-gpu run: --gpu h20: there is no GPU profile 'h20'"),
        (["--process", "9:1GiB"], "fake-gpu run: there is no GPU 9: the machine has 3"),
        (["--reclaim", "slowly"], "fake-gpu run: 'slowly' is no way"),
    ],
)
def test_a_wrong_option_is_not_blamed_on_the_file(tmp_path: Path, options: list[str], said: str) -> None:
    file = tmp_path / "m.toml"
    file.write_text('reclaim = "never"\n' + MACHINE.replace("name = '''\nmemory = 1'''", 'name = "a"'))
    done = CliRunner().invoke(cli._fake_gpu_app(), ["run", "--machine", str(file), *options, "--", "true"])
    assert done.exit_code == 1
    assert said in done.stderr


def test_the_file_of_the_documentation(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "run.md").read_text(encoding="utf-8")
    file = tmp_path / "m.toml"
    file.write_text(page.partition("```toml\n")[2].partition("```")[0])
    done = run("--machine", str(file), "--", "sh", "-c", f"{' '.join(MEMORY)}; {' '.join(APPS)}")
    assert done.stdout.splitlines()[:3] == ["0, NVIDIA H200, 21504", "1, NVIDIA H200, 1024", "2, My GPU, 0"]
    assert (done.returncode, done.stderr) == (0, "")
