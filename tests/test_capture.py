"""Outputs read back: what one fake prints, another that is made of it prints again. No real card's output is needed."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from native_client import nvidia_smi

from bench import fidelity
from fake_gpu import Driver, Gpu, InvalidValue, Ramp, platforms
from fake_gpu.capture import Machine, read_machine
from fake_gpu.capture.compare import compared
from fake_gpu.profile import load_profile, read_profile
from fake_gpu.profile_file import to_toml
from fake_gpu.smi.answer import answer
from fake_gpu.smi.query_gpu import COLUMNS
from pytest_vramsettle import cli

Command = Callable[..., tuple[int, str, str]]
QUERY = f"--query-gpu={','.join(column.name for column in COLUMNS)}"
APPS = "--query-compute-apps=timestamp,gpu_uuid,pid,name,used_memory"
COMMANDS = (
    ("--version",),
    ("-L",),
    ("topo", "-m"),
    ("nvlink", "-s"),
    (),
    ("-q",),
    (QUERY, "--format=csv"),
    (APPS, "--format=csv"),
    ("--query-retired-pages=gpu_uuid,retired_pages.cause", "--format=csv"),
    ("pmon", "-c", "1"),
    ("dmon", "-c", "1"),
)


def busy_machine() -> Driver:
    """Three cards, of which one is partitioned; processes on two of them, one on both; a load that the model knows."""
    driver = Driver(driver_version="595.71.05", cuda_version=(13, 2))
    first, second, third = driver.add_gpu("h200"), driver.add_gpu("rtx-4090"), driver.add_gpu("h200")
    platforms.partition(third, "3g.71gb", "1g.18gb")
    driver.process({first: "10 GiB", second: "1 GiB"}, name="/usr/bin/both", pid=77)
    driver.process(second, "20 MiB", name="chrome --a=b, --c=d", pid=88)
    driver.process(second, "300 MiB", name="/usr/lib/xorg/Xorg", pid=12, compute_type="G")
    driver.process(third, "4 GiB", name="tenant", pid=99).run_in(third.instances[1])
    first.hold_unlisted("123.4 MiB")
    first.activity.gpu_percent, first.activity.power, first.activity.clocks_mhz["sm"] = 97, 612.34, 1815
    second.activity.said["encoder.stats.sessionCount"] = "2"
    driver.wall_time = lambda: 1_783_116_646.1095  # type: ignore[method-assign]
    return driver


def capture_of(driver: Driver, path: Path) -> Path:
    rule = "#" * 80
    parts = ["# a capture\n"]
    for command in COMMANDS:
        text = answer(driver, *command).text
        parts.append(f"{rule}\n# load :: {command}\n# $ nvidia-smi {' '.join(command)}\n{rule}\n{text}\n\n")
    path.write_text("".join(parts), encoding="utf-8")
    return path


def test_a_capture_comes_out_again(tmp_path: Path) -> None:
    machine = read_machine(capture_of(busy_machine(), tmp_path / "capture.txt"))
    assert len(machine.cards) == 3
    different = {one.shot.command: one.different for one in compared(machine) if one.different}
    assert different == {}


@pytest.mark.parametrize("arguments", [("-q",), ("-q", "-x")])
def test_one_output_is_enough_for_the_others(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    driver = busy_machine()
    path = tmp_path / "output"
    path.write_text(answer(driver, *arguments).text, encoding="utf-8")
    again = read_machine(path).driver()
    again.wall_time = driver.wall_time  # type: ignore[method-assign]
    for command in (("-q",), ("-q", "-x"), (APPS, "--format=csv")):
        expected = answer(driver, *command).text
        if arguments == ("-q",):  # which does not tell the clocks that a card can be set to
            expected = re.sub(r"\t+<supported_mem_clock>\n(?:.*\n)*?\t+</supported_mem_clock>\n", "", expected)
        assert answer(again, *command).text == expected, command
    fields = "name,memory.total,memory.reserved,memory.used,memory.free,utilization.gpu,clocks.sm,ecc.mode.current"
    query = (f"--query-gpu={fields}", "--format=csv")
    assert answer(again, *query).text == answer(driver, *query).text


def gpu_of(machine: Machine, driver: Driver) -> Gpu:
    return machine.add_to(driver)[1]


def test_what_is_read_lives(tmp_path: Path, driver: Driver) -> None:
    gpu = gpu_of(read_machine(capture_of(busy_machine(), tmp_path / "capture.txt")), driver)
    used = gpu.memory.used
    process = next(one for one in gpu.processes if one.pid == 12)
    process.kill(reclaim=Ramp.immediate())
    assert used - gpu.memory.used == 300 << 20
    assert "Xorg" not in answer(driver, "-q").text


def test_states(tmp_path: Path, driver: Driver) -> None:
    machine = read_machine(capture_of(busy_machine(), tmp_path / "capture.txt"))
    assert list(machine.states) == ["load"]
    with pytest.raises(InvalidValue, match=r"no state 'idle'.* there are load"):
        machine.add_to(driver, "idle")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hello", "nothing that can be read"),
        ("<?xml version='1.0'?><a/>", "not what `nvidia-smi -q -x` prints"),
        ("<?xml version='1.0'?><a>", "no XML"),
        ("<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'c'>]><a/>", "declares entities"),
        ("==============NVSMI LOG==============\n", "not what `nvidia-smi -q` prints"),
        (f"{'#' * 80}\n# idle :: -L\n# $ nvidia-smi -L\n{'#' * 80}\nGPU 0: x\n", "has no output of `nvidia-smi -q`"),
        ("<nvidia_smi_log><gpu id='x'><product_name>a</product_name></gpu></nvidia_smi_log>", "no total memory"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "output"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidValue, match=said):
        read_machine(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="No such file"):
        read_machine(tmp_path / "missing.xml")


# -- profiles as files


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_profile_is_written_and_read(tmp_path: Path, index: int) -> None:
    profile = read_machine(capture_of(busy_machine(), tmp_path / "capture.txt")).cards[index].profile
    path = tmp_path / "card.toml"
    path.write_text(to_toml(profile, "a test"), encoding="utf-8")
    assert read_profile(path) == profile
    driver = Driver()
    assert driver.add_gpu(str(path)).profile == driver.add_gpu(load_profile(path)).profile == profile


GOOD = (Path(__file__).parents[1] / "fake_gpu" / "profiles" / "h200.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("bar1_mib = 262144", "bar1_mb = 262144", r"line 17, memory\.bar1_mb: .*unknown field `bar1_mb`"),
        ("total_mib = 143771", "total_mib = -1", r"line 15, memory\.total_mib: Expected `int` >= 1"),
        ("nvlinks = 18", 'nvlinks = "many"', r"line 11, nvlinks: Expected `int`"),
        ("reserved_mib = 613.5", "reserved_mib = 143771", r"line 16, memory\.reserved_mib: .* leaves nothing"),
        ("default_limit = 700", "default_limit = 900", r"line 27, power\.default_limit: 900 lies outside"),
        ('"c2c.mode"', '"c2c.mod"', r"line 6\d, smi\.\"c2c\.mod\": .*which is no field"),
        ("[memory]", "[memory", r"not valid TOML: .*line 14"),
        ("ecc = true", 'ecc = true\nlog = "a | b | {nothing}"', r"line 9, log: .*shows 'nothing'"),
        ("ecc = true", 'ecc = true\nlog = "  a | b"', r"line 9, log: line 1 of the log is indented"),
    ],
)
def test_a_profile_that_is_not_valid_is_refused_by_key_and_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "card.toml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InvalidValue, match=said):
        load_profile(path)


# -- what this fake does not know, and what a card does not say


def test_fields_of_a_newer_driver(tmp_path: Path) -> None:
    path = capture_of(busy_machine(), tmp_path / "capture.txt")
    lines = path.read_text(encoding="utf-8").split("\n")
    place = next(number for number, line in enumerate(lines) if line.startswith("# $ nvidia-smi --query-gpu="))
    lines[place] = lines[place].replace(" --format", ",new.power,new.name --format")
    lines[place + 2] += ", new.power [W], new.name"
    for row in (3, 4, 5):
        lines[place + row] += f", {row}.50 W, [N/A]"
    path.write_text("\n".join(lines), encoding="utf-8")
    machine = read_machine(path)
    assert {one.shot.command: one.different for one in compared(machine) if one.different} == {}
    with machine.driver() as driver:
        done = nvidia_smi("--query-gpu=index,new.power", "--format=csv,nounits", "-i", "1")
        assert done.stdout == "index, new.power [W]\n1, 4.50\n"
        assert nvidia_smi("--query-gpu=newer", "--format=csv").returncode == 2
        assert driver.calls[0].code == 0


def test_a_card_that_uses_the_hosts_memory(tmp_path: Path) -> None:
    driver = Driver(driver_version="595.71.05", cuda_version=(13, 2))
    gpu = driver.add_gpu("h200")
    silent = {
        "enforced.power.limit": "[N/A]",
        "power.limit": "[N/A]",
        "fan.speed": "[N/A]",
        "ecc.mode.current": "[N/A]",
    }
    gpu.profile = msgspec.structs.replace(gpu.profile, smi={**gpu.profile.smi, **silent}, ecc=None)
    platforms.unified_memory(driver)
    driver.process(gpu, "3 GiB", pid=50, name="train")
    machine = read_machine(capture_of(driver, tmp_path / "capture.txt"))
    assert {one.shot.command: one.different for one in compared(machine) if one.different} == {}
    assert not machine.driver().gpus[0].view.memory


def test_windows(tmp_path: Path) -> None:
    driver = busy_machine()
    platforms.wddm(driver)
    machine = read_machine(capture_of(driver, tmp_path / "capture.txt"))
    assert {one.shot.command: one.different for one in compared(machine) if one.different} == {}
    assert not machine.driver().gpus[0].view.process_memory


# -- the commands


@pytest.fixture
def fake_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in this process. Returns its exit status and what it wrote."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fake-gpu", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.fake_gpu()
        written = capsys.readouterr()
        return int(ended.value.code or 0), written.out, written.err

    return run


def test_profile_import_and_compare(tmp_path: Path, fake_gpu: Command) -> None:
    output, target = tmp_path / "cards.xml", tmp_path / "card.toml"
    output.write_text(answer(busy_machine(), "-q", "-x").text, encoding="utf-8")
    done = fake_gpu("profile", "import", str(output), "-o", str(target), "--gpu", "1")
    assert done == (0, f"{target}: NVIDIA GeForce RTX 4090, 24564 MiB\n", "")
    assert load_profile(target).name == "NVIDIA GeForce RTX 4090"
    done = fake_gpu("profile", "import", str(output), "-o", str(target))
    assert (done[0], "is there already" in done[2]) == (1, True)
    done = fake_gpu("profile", "import", str(output), "--gpu", "9")
    assert (done[0], "--gpu 9: " in done[2]) == (1, True)
    done = fake_gpu("profile", "compare", str(output))
    lines = len(output.read_text(encoding="utf-8").splitlines())
    assert done == (0, f"nvidia-smi -q -x: {lines} of {lines} lines\n", "")
    output.write_text(output.read_text(encoding="utf-8").replace("<processes>", "<processes >", 1), encoding="utf-8")
    done = fake_gpu("profile", "compare", str(output))
    assert (done[0], "real: <processes >\n    fake: <processes>\n" in done[1]) == (1, True)


def test_the_page_of_comparisons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fidelity.main([str(tmp_path)]) == 2
    assert "there is no output of real cards" in capsys.readouterr().err
    capture_of(busy_machine(), tmp_path / "capture.txt")
    (tmp_path / "other.txt").write_text("nothing", encoding="utf-8")
    assert fidelity.main([str(tmp_path)]) == 0
    page = capsys.readouterr().out
    assert "| load | `nvidia-smi -q` | " in page
    assert "- other.txt: other.txt is nothing that can be read" in page
