"""Outputs that were edited, cut, concatenated or written by another system: what is refused, what is told."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from fake_gpu import Driver, InvalidValue, platforms
from fake_gpu.capture import read_machine
from fake_gpu.capture.compare import compared
from fake_gpu.profile import load_profile
from fake_gpu.smi.answer import answer
from pytest_vramsettle import cli


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str


class Profiles:
    """`fake-gpu profile`, in this process and in a directory of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def run(self, *arguments: str) -> Done:
        self._monkeypatch.setattr(sys, "argv", ["fake-gpu", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.fake_gpu()
        written = self._capsys.readouterr()
        return Done(int(ended.value.code or 0), written.out, written.err)

    def imported(self, text: str | bytes, *options: str, name: str = "card.txt") -> Done:
        """Of a file with this text."""
        Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return self.run("profile", "import", name, *options)

    def refused(self, text: str | bytes, *, name: str = "card.txt") -> str:
        """What is said of a file that is refused, after the command's own name."""
        done = self.imported(text, name=name)
        assert (done.code, done.out, Path("card.toml").exists()) == (1, "", False), done
        return done.err.removeprefix("fake-gpu profile import: ").strip()


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Profiles:
    monkeypatch.chdir(tmp_path)
    return Profiles(monkeypatch, capsys)


def printed(*arguments: str, cards: tuple[str, ...] = ("h200",)) -> str:
    driver = Driver()
    for card in cards:
        driver.add_gpu(card)
    driver.process(driver.gpus[0], "1 GiB", pid=7, name="train")
    return answer(driver, *arguments).text


def edited(text: str, label: str, value: str) -> tuple[str, int]:
    """The text with another value for the first entry of that label, and the entry's line."""
    found = re.search(rf"^ *{re.escape(label)} *: (.*)$", text, re.MULTILINE)
    assert found is not None, label
    return text[: found.start(1)] + value + text[found.end(1) :], text.count("\n", 0, found.start()) + 1


# -- values


@pytest.mark.parametrize(
    ("label", "value", "said"),
    [
        ("Total", "abc MiB", "expected a number of MiB or N/A"),
        ("Total", "", "expected a number of MiB or N/A"),
        ("Total", "143771", "expected a number of MiB or N/A"),
        ("Total", "0 MiB", "expected more than 0 MiB, or N/A (the host's memory)"),
        ("Total", "-5 MiB", "expected a number of MiB from 0 to 1073741824"),
        ("Total", "99999999999999999 MiB", "expected a number of MiB from 0 to 1073741824"),
        ("Total", "Insufficient Permissions", "ask where, and as whom, the whole card can be seen"),
        ("GPU Current Temp", "abc C", "expected a number of C or N/A"),
        ("GPU Current Temp", "35 F", "expected a number of C or N/A"),
        ("Average Power Draw", "zz W", "expected a number of W or N/A"),
        ("Gpu", "250 %", "expected a number of % from 0 to 100"),
        ("SM", "1 THz", "expected a number of MHz or N/A"),
        ("Performance State", "P99", "expected such as P8 or N/A"),
        ("Bus Id", "here", "expected such as 00000000:01:00.0 or N/A"),
        ("Device Id", "0xHERE", "expected such as 0x1EB810DE or N/A"),
        ("Driver Version", "N/A", "expected such as '590.48.01'"),
        ("Timestamp", "now", "expected such as 'Tue Jul 14 09:00:27 2026'"),
        ("Attached GPUs", "many", "expected a number"),
        ("Process ID", "x", "expected a number"),
        ("Used GPU Memory", "1024 MB", "expected a number of MiB or N/A"),
    ],
)
def test_a_value_that_cannot_be_read_is_refused_by_label_and_line(
    profiles: Profiles, label: str, value: str, said: str
) -> None:
    label = "GPU" if label == "Gpu" else label
    text, line = edited(printed("-q"), label, value)
    told = profiles.refused(text)
    assert told.startswith(f"card.txt:{line}: {label} is {value!r}: {said}"), told
    assert "\n" not in told


def test_all_that_is_wrong_is_told_at_once(profiles: Profiles) -> None:
    text, power = edited(printed("-q"), "Average Power Draw", "zz W")
    text, warm = edited(text, "GPU Current Temp", "hot")
    assert profiles.refused(text) == (
        f"card.txt:{warm}: GPU Current Temp is 'hot': expected a number of C or N/A\n"
        f"card.txt:{power}: Average Power Draw is 'zz W': expected a number of W or N/A"
    )


def test_an_element_of_the_xml(profiles: Profiles) -> None:
    text = printed("-q", "-x")
    line = text[: text.index("<total>")].count("\n") + 1
    told = profiles.refused(re.sub("<total>.*?</total>", "<total>much</total>", text, count=1), name="card.xml")
    assert told == f"card.xml:{line}: total is 'much': expected a number of MiB or N/A"


def test_a_block_without_what_no_profile_can_do_without(profiles: Profiles) -> None:
    text = re.sub(r"^ +Product Name.*\n", "", printed("-q"), flags=re.MULTILINE)
    assert profiles.refused(text).startswith("card.txt:9: GPU 00000000:01:00.0 has no product name")


def test_a_partition_without_memory(profiles: Profiles) -> None:
    driver = Driver()
    platforms.partition(driver.add_gpu("h200"), "3g.71gb")
    text = answer(driver, "-q").text
    at = text.index("Shared FB Memory Usage")
    text = text[:at] + re.sub(r"Total( +): \d+ MiB", r"Total\1: 0 MiB", text[at:], count=1)
    line = text.count("\n", 0, at) + 2
    told = profiles.refused(text)
    assert told == f"card.txt:{line}: Total of the MIG device is '0 MiB': expected a number of MiB above 0"


@pytest.mark.parametrize(
    ("edits", "label", "said"),
    [
        ({"Used": "999999 MiB"}, "Used", "is 999999 MiB, and Total is 143771 MiB"),
        ({"Used": "9000 MiB"}, "Total", "is 143771 MiB, and Reserved 614 + Used 9000 + Free "),
        ({"Max Power Limit": "650.00 W"}, "Current Power Limit", "is 700.00 W, and Max Power Limit is 650.00 W"),
        ({"Min Power Limit": "800.00 W"}, "Max Power Limit", "is 700.00 W, and Min Power Limit is 800.00 W"),
        ({"Total": "N/A"}, "Total", "is N/A, and Used is '1024 MiB'"),
    ],
)
def test_figures_that_contradict_each_other(profiles: Profiles, edits: dict[str, str], label: str, said: str) -> None:
    text = printed("-q")
    for name, value in edits.items():
        text, _ = edited(text, name, value)
    _, line = edited(text, label, "")
    assert f"card.txt:{line}: {label} {said}" in profiles.refused(text)


def test_a_default_outside_of_the_limits_is_noted(profiles: Profiles) -> None:
    text = printed("-q")
    for label in ("Current Power Limit", "Requested Power Limit", "Max Power Limit"):
        text, _ = edited(text, label, "650.00 W")
    done = profiles.imported(text)
    assert (done.code, "Default Power Limit is 700.00 W, outside of min and max" in done.err) == (0, True)
    assert load_profile(Path("card.toml")).power.max_limit == 700


def test_only_a_total_that_is_not_available_is_the_hosts_memory(profiles: Profiles) -> None:
    driver = Driver()
    driver.add_gpu("h200")
    platforms.unified_memory(driver)
    done = profiles.imported(answer(driver, "-q").text)
    assert (done.code, "Total is N/A: NVIDIA H200 is taken for a card that uses the host's memory" in done.err) == (
        0,
        True,
    )
    assert not load_profile(Path("card.toml")).memory.told
    text, _ = edited(answer(driver, "-q").text, "Current", "Enabled")  # the first is of MIG Mode
    Path("card.toml").unlink()
    assert "the card is partitioned" in profiles.refused(text)


# -- cut


def test_a_text_that_ends_amid_a_block(profiles: Profiles) -> None:
    text = printed("-q", cards=("h200", "t4"))
    cut = text[: text.index("    BAR1 Memory Usage")]
    line = cut.count("\n")
    assert profiles.refused(cut) == (
        f"card.txt:{line}: GPU 00000000:01:00.0 (1 of 2) ends here, in 'FB Memory Usage', and its Processes are "
        f"missing, and so is 1 attached GPU: the output is cut, or was asked for with -d: give all of nvidia-smi -q"
    )
    cut = text[: text.index("            Used GPU Memory")]
    assert "process '7' has no Used GPU Memory: the output is cut" in profiles.refused(cut)
    assert "is cut: it ends at line 8 and has no GPU" in profiles.refused(text[: text.index("GPU 0000")])


def test_a_text_that_ends_between_blocks(profiles: Profiles) -> None:
    text = printed("-q", cards=("h200", "t4"))
    block = text[: text.index("\nGPU 00000000:02")]
    line = block.count("\n")
    assert profiles.refused(block).startswith(
        f"card.txt:{line}: the output ends here, with GPU 00000000:01:00.0 (1 of 2), and 1 attached GPU is missing"
    )
    rule = "#" * 80
    capture = f"{rule}\n# idle :: -q\n# $ nvidia-smi -q\n{rule}\n{block}\n"
    assert profiles.refused(capture).startswith(f"card.txt:{line + 4}: the output ends here")


def test_what_i_prints_is_whole(profiles: Profiles) -> None:
    done = profiles.imported(printed("-q", "-i", "1", cards=("h200", "t4")))
    assert done.out == "card.toml: Tesla T4, 15360 MiB\n"
    assert done.err == (
        "note: card.txt:8: 2 GPUs are attached, and 1 of them stands in the output, as nvidia-smi -i prints it\n"
    )


def test_xml_that_is_cut(profiles: Profiles) -> None:
    text = printed("-q", "-x")
    cut = text[: text.index("<bar1_memory_usage>")]
    line = cut.count("\n") + 1
    told = profiles.refused(cut, name="card.xml")
    assert f"the output is cut: it ends at line {line}, in <gpu> (GPU 00000000:01:00.0, 1 of 1)" in told
    assert "the rest up to </nvidia_smi_log> is missing" in told
    assert "in <nvidia_smi_log>" in profiles.refused(text.replace("</nvidia_smi_log>", ""), name="card.xml")


def test_more_gpus_than_are_attached(profiles: Profiles) -> None:
    text, line = edited(printed("-q", cards=("h200", "t4")), "Attached GPUs", "1")
    assert profiles.refused(text) == f"card.txt:{line}: Attached GPUs is 1, and 2 GPUs follow: give one output"


# -- several outputs


def capture(log: str, arguments: str, rows: str) -> str:
    rule = "#" * 80
    sections = (("-q", log), (arguments, rows))
    return "".join(f"{rule}\n# idle :: x\n# $ nvidia-smi {name}\n{rule}\n{text}\n\n" for name, text in sections)


def test_outputs_of_one_capture_that_disagree(profiles: Profiles) -> None:
    text = capture(printed("-q"), "--query-gpu=name,memory.total --format=csv", "name, m\nNVIDIA H200, 99999 MiB\n")
    _, total = edited(text, "Total", "")
    row = text.count("\n", 0, text.index("NVIDIA H200, 9")) + 1
    assert profiles.refused(text) == (
        f"card.txt:{total}: Total is '143771 MiB', and in line {row} memory.total is '99999 MiB'"
    )


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("NVIDIA H200, 143771", "memory.total is '143771': expected a number of MiB or N/A"),
        ("NVIDIA H200", None),
        ("NVIDIA H200, 143771 MiB, 3", None),
    ],
)
def test_rows_of_a_query(profiles: Profiles, row: str, said: str | None) -> None:
    text = capture(printed("-q"), "--query-gpu=name,memory.total --format=csv", f"name, m\n{row}\n")
    done = profiles.imported(text)
    if said is None:  # no row: nothing that could be read
        assert (done.code, "--query-gpu has 0 GPUs, and -q 1: what it says is left out" in done.err) == (0, True)
    else:
        assert (done.code, said in done.err) == (1, True)


def test_a_row_that_is_cut(profiles: Profiles) -> None:
    text = capture(printed("-q"), "--query-gpu=name,uuid,memory.total --format=csv", "n, u, m\nNVIDIA H200, GPU\n")
    assert "this row of --query-gpu has 2 of 3 values: the output is cut" in profiles.refused(text)


def test_a_query_without_header_and_units(profiles: Profiles) -> None:
    arguments = "--query-gpu=name,memory.total,clocks.max.sm,compute_cap --format=csv,noheader,nounits"
    Path("capture.txt").write_text(
        capture(printed("-q"), arguments, "NVIDIA H200, 143771, 1980, 9.0\n"), encoding="utf-8"
    )
    machine = read_machine("capture.txt")
    assert machine.notes == ()
    assert [one.different for one in compared(machine)] == [(), ()]


def test_a_loop_leaves_many_outputs(profiles: Profiles) -> None:
    text, xml = printed("-q"), printed("-q", "-x")
    note = "outputs, one after the other: the first that is complete was read\n"
    done = profiles.imported(text + text + text[:500])
    assert (done.code, done.err) == (0, f"note: card.txt:1: 3 {note}")
    lines = xml.count("\n")
    done = profiles.imported(xml[: len(xml) // 2] + "\n" + xml + xml, "--force", name="card.xml")
    assert done.code == 0
    assert re.fullmatch(rf"note: card\.xml:\d+: 3 {note}", done.err)
    assert profiles.run("profile", "compare", "card.xml").out == f"nvidia-smi -q -x: {lines} of {lines} lines\n"
    broken, line = edited(text, "GPU Current Temp", "hot")
    Path("card.toml").unlink()
    assert profiles.refused(broken + text).startswith(f"card.txt:{line}: ")


def test_several_gpus(profiles: Profiles) -> None:
    text = printed("-q", cards=("h200", "t4"))
    listed = "0: NVIDIA H200 (00000000:01:00.0), 1: Tesla T4 (00000000:02:00.0)"
    done = profiles.imported(text)
    assert done.err == f"note: card.txt tells of 2 GPUs: {listed}. GPU 0 was taken; --gpu N takes another.\n"
    assert profiles.imported(text, "--gpu", "1", "--force").err == ""
    assert f"--gpu 2: card.txt tells of 2 GPUs, from 0: {listed}" in profiles.imported(text, "--gpu", "2").err
    assert "card.txt tells of 1 GPU, from 0" in profiles.imported(printed("-q"), "--gpu", "2").err


# -- how it came


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig"])
def test_what_powershell_writes(profiles: Profiles, encoding: str) -> None:
    text = printed("-q").replace("\n", "\r\n")
    assert profiles.imported(text.encode(encoding)).out == "card.toml: NVIDIA H200, 143771 MiB\n"


def test_what_is_no_text(profiles: Profiles) -> None:
    assert "neither UTF-8 nor UTF-16" in profiles.refused(b"\xff\xfe\x00")
    assert "card.txt is empty" in profiles.refused(" \n")


def test_standard_input(profiles: Profiles, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in ((), ("-o", "mine.toml")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(printed("-q", "-x").encode())))
        done = profiles.run("profile", "import", "-", *arguments)
        assert done.out == f"{'mine' if arguments else 'nvidia-h200'}.toml: NVIDIA H200, 143771 MiB\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hello")))
    assert "standard input is nothing that can be read" in profiles.run("profile", "import", "-").err


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names of open files are Linux's")
def test_a_file_by_its_descriptor(profiles: Profiles) -> None:
    Path("card.txt").write_text(printed("-q"), encoding="utf-8")
    with Path("card.txt").open(encoding="utf-8") as file:
        done = profiles.run("profile", "import", f"/dev/fd/{file.fileno()}")
    assert done.out == "nvidia-h200.toml: NVIDIA H200, 143771 MiB\n"


@pytest.mark.parametrize("value", ["", " ", " N/A", " None"])
def test_lists_that_are_empty(profiles: Profiles, value: str) -> None:
    text = printed("-q", cards=("h200", "t4"))
    text = text.replace(
        "    Processes     ", f"    Supported Clocks :{value}\n    MIG Device :{value}\n    Processes     "
    )
    text = re.sub(r"(    Processes +:).*", rf"\g<1>{value}", text)
    assert profiles.imported(text, "--gpu", "1").code == 0
    profile = load_profile(Path("card.toml"))
    assert (profile.mig_devices, profile.clocks.supported_memory) == ((), ())


def test_supported_clocks_of_the_text(profiles: Profiles) -> None:
    graphics = "".join(f"            Graphics : {clock} MHz\n" for clock in (1590, 300))
    clocks = f"    Supported Clocks\n        Memory : 5001 MHz\n{graphics}"
    text = printed("-q").replace("    Processes\n", f"{clocks}    Processes\n")
    assert profiles.imported(text).code == 0
    assert load_profile(Path("card.toml")).clocks.supported_graphics == ((1590, 300),)
    assert "Graphics is 'N/A': expected a number of MHz\n" in profiles.imported(text.replace(": 300 MHz", ": N/A")).err


def test_what_can_be_in_a_text_can_be_in_a_profile(profiles: Profiles) -> None:
    text, _ = edited(printed("-q"), "GPU Part Number", "'''\x07\\")
    assert profiles.imported(text).code == 0
    driver = Driver()
    driver.add_gpu("card.toml")
    assert "'''\x07\\" in answer(driver, "-q").text


@pytest.mark.parametrize("name", ["card.xml", "output.txt"])
def test_an_output_is_no_profile(name: str) -> None:
    with pytest.raises(InvalidValue, match=rf"'{name}' is no profile: .* fake-gpu profile import {name}"):
        Driver().add_gpu(name)
