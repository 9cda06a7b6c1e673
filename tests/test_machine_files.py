"""Machine files: whatever cannot be is refused before anything starts, by its own key and its own line."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_gpu import InvalidValue
from fake_gpu.machine.furnish import furnish, new_driver
from fake_gpu.machine.spec import read_machine_spec

FILE = """driver_version = "590.48.01"
cuda_version = "13.1"
reclaim = "linear 2s"
platform = "version-mismatch"
wake = "1.2s"

[[gpu]]
profile = "h200"
count = 2
platform = "container"
persistence = true
mig = ["3g.71gb", "1g.18gb"]
unlisted = "1 GiB"
[gpu.activity]
gpu_percent = 40
memory_percent = 40
encoder_percent = 40
decoder_percent = 40
temperature = 60
power = 310.0
pstate = 0
busy = true
pcie_rx_kib_s = 5
pcie_tx_kib_s = 6

[[gpu]]
name = "My GPU"
memory = "48 GiB"
reserved = "1 GiB"
uuid = "GPU-1"

[[gpu]]
profile = "rtx-4090"
uuid = "GPU-2"
[gpu.activity]
fan_percent = 40

[[process]]
gpu = 0
memory = "20 GiB"
instance = 0
name = "llama-server"
type = "C"
reclaim = "step 3s"
ignores_sigterm = true

[[process]]
gpu = [0, 1]
memory = "1 GiB"

[[fault]]
kind = "slow"
delay = "300ms"
via = "nvidia-smi"
gpu = 1
after = 3
times = 10

[[fault]]
kind = "nvml"
error = "GPU_IS_LOST"

[[fault]]
kind = "exit"
status = 9

[[event]]
at = "1s"
lose = 1

[[event]]
at = "3s"
restore = 1

[[event]]
at = "2s"
remove = 2

[[event]]
at = "4s"
kill = 0
"""
LINES = FILE.split("\n")

TIME = ('"soon"', "-1", "inf", "nan", "true")
SIZE = ('"lots"', "-1", "1.5", "true", '"-1 GiB"')
PERCENT = ("-1", "101", "1.5", '"x"', "true")
COUNT = ("-1", "1.5", '"x"', "true", "[]")
TEXT = ("5", "true", "[]", "{}")

WRONG = {
    "driver_version": ('"abc"', '"590"', '"590.48.01\\n"', '"590.48.01, x"', '""', *TEXT),
    "cuda_version": ('"13"', '"13.1.0"', '"13.1\\n"', '"x"', "13.1", *TEXT),
    "reclaim": ('"fast"', '"linear -1s"', '"trace /nowhere"', '"trace \\u0000"', '""', *TEXT),
    "platform": ('"wsl"', '"version_mismatch"', *TEXT),
    "wake": ("0", *TIME),
    "gpu[0].platform": ('"version-mismatch"', '"unified_memory"', *TEXT),
    "gpu[0].persistence": ("1", '"off"'),
    "gpu[0].mig": ('["9g.1gb"]', '["x"]', '["7g.141gb", "1g.18gb"]', '"3g.71gb"', "5"),
    "process[0].instance": ("2", *COUNT),
    "gpu[0].profile": ('"h2000"', '"/nowhere.toml"', '"\\u0000.toml"', '""', *TEXT),
    "gpu[0].count": ("0", "65", *COUNT),
    "gpu[0].unlisted": ('"141 GiB"', *SIZE),
    "gpu[0].activity.gpu_percent": PERCENT,
    "gpu[0].activity.memory_percent": PERCENT,
    "gpu[0].activity.encoder_percent": PERCENT,
    "gpu[0].activity.decoder_percent": PERCENT,
    "gpu[0].activity.temperature": ("-1", "201", "1.5", '"x"'),
    "gpu[0].activity.power": ("-1", "1e9", "1051", "nan", "inf", '"x"', "true"),
    "gpu[0].activity.pstate": ("-1", "16", "99", '"P0"', "0.5"),
    "gpu[0].activity.busy": ("1", '"yes"'),
    "gpu[0].activity.pcie_rx_kib_s": ("4294967296", *COUNT),
    "gpu[0].activity.pcie_tx_kib_s": ("4294967296", *COUNT),
    "gpu[2].profile": ('"h2000"',),
    "gpu[2].activity.fan_percent": PERCENT,
    "gpu[1].name": ('"a,b"', "'a\"b'", '"a\\nb"', f'"{"x" * 96}"', '""', *TEXT),
    "gpu[1].memory": ("0", '"2 EiB"', "1152921504606846976", *SIZE),
    "gpu[1].reserved": ('"48 GiB"', '"49 GiB"', *SIZE),
    "gpu[1].uuid": ('"GPU-1, GPU-2"', '"GPU 1"', '"a\\nb"', f'"{"x" * 80}"', '""', *TEXT),
    "gpu[2].uuid": ('"GPU-1"',),
    "process[0].gpu": ("4", "[]", "-1", '"0"', "true", "0.5"),
    "process[0].memory": SIZE,
    "process[0].name": ('"a\\nb"', '""', '"\\u0000"', *TEXT),
    "process[0].type": ('"X"', "5", "true"),
    "process[0].reclaim": ('"fast"', "5"),
    "process[0].ignores_sigterm": ("1", '"yes"'),
    "process[1].gpu": ("[]",),
    "process[1].gpu[0]": ('["x", 1]', "[-1, 1]", "[9, 1]"),
    "process[1].gpu[1]": ("[0, 0]", "[0, 9]", "[0, true]", "[0, 0.5]"),
    "fault[0].kind": ('"slowly"', "5", '"SLOW"'),
    "fault[0].delay": (*TIME, "0"),
    "fault[0].via": ('"nvml-smi"', '"nvmlNoSuchThing"', *TEXT),
    "fault[0].gpu": ("4", *COUNT),
    "fault[0].after": COUNT,
    "fault[0].times": ("0", *COUNT),
    "fault[1].error": ('"GPU_ON_FIRE"', '"SUCCESS"', '""', "5"),
    "fault[2].status": ("-1", "256", '"9"', "true"),
    "event[0].at": TIME,
    "event[0].lose": ("4", *COUNT),
    "event[1].restore": ("0", "4", *COUNT),
    "event[2].remove": ("4", *COUNT),
    "event[3].kill": ("2", *COUNT),
}
"""By the path of each key of the file above: values that it cannot have."""


def refused(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidValue) as told:
        new_driver(read_machine_spec(path), path)
    return str(told.value)


def place_of(key: str) -> int:
    """The index of the line on which a key of the file above stands, found by reading it as a person does."""
    table, _, last = re.sub(r"\[(\d+)\]$", "", key).rpartition(".")
    name, number = re.fullmatch(r"(\w*)(?:\[(\d+)\])?.*", table).groups()  # type: ignore[union-attr]  # it matches
    start = 0
    if name:
        heads = [place for place, line in enumerate(LINES) if line == f"[[{name}]]"]
        start = heads[int(number)]
    return next(place for place in range(start, len(LINES)) if LINES[place].startswith(f"{last} = "))


EDITS = [(key, value) for key, values in WRONG.items() for value in values]


def test_every_key_of_the_file_is_edited(tmp_path: Path) -> None:
    """And the file itself is right."""
    path = tmp_path / "machine.toml"
    path.write_text(FILE, encoding="utf-8")
    new_driver(read_machine_spec(path), path)
    edited = {place_of(key) for key in WRONG}
    keys = {place for place, line in enumerate(LINES) if " = " in line}
    assert {LINES[place] for place in keys - edited} == {'at = "3s"', 'at = "2s"', 'at = "4s"', 'memory = "1 GiB"'} | {
        line for line in LINES if line.startswith('kind = "') and "slow" not in line
    }


def with_value(key: str, value: str) -> str:
    place = place_of(key)
    return "\n".join([*LINES[:place], f"{LINES[place].partition(' = ')[0]} = {value}", *LINES[place + 1 :]])


def test_every_value_that_cannot_be_is_told_by_its_own_key_and_line(tmp_path: Path) -> None:
    path = tmp_path / "machine.toml"
    for key, value in EDITS:
        assert f"{path}, line {place_of(key) + 1}, {key}: " in refused(path, with_value(key, value)), value


WHOLE = {key: line for key in WRONG if "gpu[" not in key[1:] for line in [LINES[place_of(key)].partition(" = ")[2]]}
"""The value of each key whose own type alone can be wrong."""
NUMBERS = ("memory", "reserved", "unlisted", "delay", "at", "wake")
"""Texts in the file, which may be numbers."""


@given(data=st.data(), before=st.integers(0, 3), after=st.sampled_from(["", " # [[gpu]]", "  "]))
def test_any_value_of_another_type_is_told_by_its_own_key_and_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, before: int, after: str
) -> None:
    key = data.draw(st.sampled_from(sorted(WHOLE)))
    is_text, is_flag = WHOLE[key].startswith('"'), WHOLE[key] == "true"
    others = ["1979-05-27 07:32:00", "07:32:00", "{ a = 1 }", "[[1], [2]]", "[ 'x',\n 'y' ]", "'#'"]
    wrong = st.sampled_from(
        [one for one in others if not (is_text and one == "'#'" and key.endswith(("name", "uuid")))]
    )
    if not is_flag:
        wrong |= st.sampled_from(["true", "false"])
    if is_flag or (is_text and not key.endswith(NUMBERS)):
        wrong |= st.integers().map(str)
    if not (is_text and key.endswith(NUMBERS)) and not key.endswith("power"):
        wrong |= st.floats(allow_nan=True).map(lambda one: repr(one) if "." in repr(one) else f"{one:f}")
    path = tmp_path_factory.getbasetemp() / "edited.toml"
    said = refused(path, "# x\n" * before + with_value(key, data.draw(wrong) + after))
    assert re.search(rf", line {place_of(key) + before + 1}, {re.escape(key)}(\[\d+\])*: ", said), said


@given(place=st.sampled_from([place for place, line in enumerate(LINES) if " = " in line]))
def test_any_key_that_is_misspelt_is_told_by_its_line(tmp_path_factory: pytest.TempPathFactory, place: int) -> None:
    lines = [*LINES[:place], f"x{LINES[place]}", *LINES[place + 1 :]]
    path = tmp_path_factory.getbasetemp() / "edited.toml"
    said = refused(path, "\n".join(lines))
    key = LINES[place].partition(" ")[0]
    assert re.search(rf"line {place + 1}, (\S+\.)?x{key}: .*unknown field|missing required field `{key}`", said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('gpu = [\n  { profile = "t4" },\n  { profile = "h100" },\n]', "line 3, gpu[1].profile: there is no GPU"),
        ('[[gpu]]\nprofile = "t4"\nactivity.power = 70\nactivity.pstate = 99', "line 4, gpu[0].activity.pstate"),
        ("[[gpu]]\nactivity = { power = 1, busy = 5 }", "line 2, gpu[0].activity.busy"),
        ('[[gpu]]\n[[process]]\nmemory = 1\ngpu = [\n  0,\n  # one\n  7,\n]', "line 7, process[0].gpu[1]: there is no"),
        ('[[gpu]]\n"memory" = """\nlots"""\n', "line 2, gpu[0].memory: '"),
        ("[[gpu]]\nname = '''\n[[gpu]]\n'''", "line 2, gpu[0].name: "),
        ("[[process]]\n", "line 1, process[0].memory: Object missing required field"),
        ('[[gpu]]\nuuid = "a"\ncount = 2', "line 2, gpu[0].uuid: 2 GPUs cannot have the same UUID"),
        ('[[gpu]]\ncount = 40\n[[gpu]]\ncount = 25', "line 4, gpu[1].count: a machine has 64 GPUs at most"),
        ('[[fault]]\nkind = "hang"\nstatus = 9', "line 3, fault[0].status: status belongs to faults of"),
        ('[[fault]]\nkind = "slow"', "line 1, fault[0].delay: a fault of the kind 'slow' needs delay"),
        ('[[fault]]\nkind = "garbled"\nvia = "nvml"', "line 3, fault[0].via: Fault.garbled() can only meet nvidia-smi"),
        ('[[event]]\nat = 1', "line 1, event[0]: an event is one of"),
        ('[[gpu]]\n[[event]]\nat = 1\nlose = 0\nremove = 0', "line 5, event[0].remove: an event is one of"),
    ],
)  # fmt: skip
def test_the_place_in_any_form_of_toml(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path / "machine.toml", text)


def test_a_machine_from_a_pipe_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=("[[process]]\nmemory = 1\n",))
    writer.start()
    machine = read_machine_spec(path)
    writer.join()
    with pytest.raises(InvalidValue, match=r"^there is no GPU 0: the machine has 0"):
        new_driver(machine, path)


@pytest.mark.parametrize(
    ("events", "said"),
    [
        (["1s restore"], "event[0].restore: GPU 0 is neither lost nor removed at 1s"),
        (["2s lose", "1s restore"], "event[1].restore: GPU 0 is neither lost nor removed at 1s"),
        (["1s lose", "2s restore", "3s restore"], "event[2].restore: GPU 0 is neither"),
        (["1s remove", "2s lose"], "event[1].lose: GPU 0 is removed already at 2s"),
        (["2s lose", "1s lose"], "event[0].lose: GPU 0 is lost already at 2s"),
        (["2s remove", "2s remove"], "event[1].remove: GPU 0 is removed already at 2s"),
        (["1s kill", "2s kill"], "event[1].kill: process 0 is dead already at 2s: it was killed at 1s"),
        (["1s lose", "2s remove", "3s restore", "4s lose"], None),
    ],
)
def test_what_happens_has_to_be_possible_then(tmp_path: Path, events: list[str], said: str | None) -> None:
    text = "[[gpu]]\n[[process]]\nmemory = 1\n"
    for event in events:
        at, deed = event.split()
        text += f'[[event]]\nat = "{at}"\n{deed} = 0\n'
    path = tmp_path / "machine.toml"
    if said is None:
        path.write_text(text, encoding="utf-8")
        new_driver(read_machine_spec(path), path)
    else:
        place = int(said[6])
        assert f"line {6 + 3 * place}, {said}" in refused(path, text)


def test_platforms_and_partitions_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "machine.toml"
    path.write_text(
        'wake = "1ms"\n[[gpu]]\nprofile = "h200"\nmig = ["3g.71gb", "1g.18gb"]\n[[gpu]]\nprofile = "rtx-4090"\n'
        'platform = "wddm"\n[[gpu]]\nprofile = "t4"\nplatform = "unified-memory"\n'
        '[[process]]\nmemory = "1 GiB"\ninstance = 1\n',
        encoding="utf-8",
    )
    spec = read_machine_spec(path)
    with new_driver(spec, path) as driver:
        furnish(driver, spec, path)
        first, second, third = driver.gpus
        assert [one.facts.name for one in first.instances] == ["3g.71gb", "1g.18gb"]
        assert driver.processes[0].instance is first.instances[1]
        assert (second.view.process_memory, third.view.memory) == (False, False)
        assert [gpu.profile.persistence for gpu in driver.gpus] == [False] * 3
        assert driver.faults("nvml", "nvmlInit_v2", None)
