"""Profiles: whatever no card is like is refused by its own key and line in a file, and by its key in Python."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_gpu import Driver, InvalidValue
from fake_gpu.profile import Clock, MigDevice, Pci, Profile, Temperature, load_profile, profile_names, read_profile

FILE = """name = "NVIDIA H200"
architecture = "hopper"
brand = "nvidia"
compute_capability = [9, 0]
cuda_cores = 16896
idle_pstate = 0
fans = 1
fan_idle_percent = 30
ecc = true
mig = true
persistence = true
display = false
has_serial = true
nvlinks = 18
nvlinks_active = true
vbios = "96.00.A5.00.03"
part_number = "695-2G520-0280-001"
dtd = "nvsmi_device_v12.dtd"
log = "Product Name | product_name | {name}"

[memory]
total_mib = 143771
reserved_mib = 613.5
bar1_mib = 262144
bus_width = 6144
told = true

[pci]
device_id = 0x233510DE
subsystem_id = 0x18BE10DE
sub_class = 2
max_generation = 5
max_width = 16
host_generation = 5
idle_generation = 1

[power]
idle = 77.71
default_limit = 700
min_limit = 200
max_limit = 700

[clocks]
graphics = { idle = 345, max = 1980 }
sm = { idle = 345, max = 1980 }
memory = { idle = 3201, max = 3201 }
video = { idle = 765, max = 1545 }
supported_memory = [3201, 1593]
supported_graphics = [[1980, 345], [345]]

[temperature]
idle = 28
memory_idle = 32
slowdown = 89
shutdown = 95
memory_max = 95
gpu_max = 87
tells_margin = true

[smi]
addressing_mode = "None"
"inforom.img" = "G520.0280.02.02"

[smi_more]
"new.field [W]" = "1 W"

[[mig_devices]]
name = "3g.71gb"
gpu_instance = 2
compute_instance = 0
memory_mib = 71424
idle_mib = 26.5
bar1_mib = 1
multiprocessors = 60
copy_engines = 3
encoders = 0
decoders = 3
ofa = 0
jpeg = 3

[[mig_devices]]
name = "4g.71gb"
gpu_instance = 1
memory_mib = 71424
"""
LINES = FILE.split("\n")

COUNT = ("-1", "4294967296", "1.5", '"x"', "true")
FLAG = ("1", '"yes"', "[]")
MIB = ("0", "-1", "1.5", '"x"', "1099511627776", "true")
WATTS = ("-1", "nan", "inf", '"x"', "1e9", "true")
CELSIUS = ("-1", "400", "1.5", '"x"', "true")
CLOCK = (
    ("{ idle = 1981, max = 1980 }", ".idle"),
    ("{ idle = -1, max = 1980 }", ".idle"),
    ("{ idle = 345 }", ".max"),
    ("{ idle = 0, max = 0 }", ".max"),
    ("{ idle = 345, max = 1e3 }", ".max"),
    ("{ idle = 345, max = 1980, min = 1 }", ".min"),
    ("5", ""),
)

WRONG: dict[str, tuple[str | tuple[str, str], ...]] = {
    "name": ('"a,b"', "'a\"b'", '"a\\nb"', '"a\\u001Bb"', f'"{"x" * 96}"', '""', "5"),
    "architecture": ('"newton"', '"Hopper"', "5"),
    "brand": ('"amd"', "5"),
    "compute_capability": ("[9]", "[8, 9]", "[9, 10]", "9.0", '"9.0"', ("[700, 5]", ""), ("[-9, 0]", "[0]")),
    "cuda_cores": ("0", "-1", "1.5", '"x"', "100000000"),
    "idle_pstate": ("-1", "16", '"P0"', "true"),
    "fans": ("-1", "33", "1.5", "true"),
    "fan_idle_percent": ("-1", "101", '"x"'),
    "ecc": FLAG,
    "mig": ("1", '"yes"'),
    "persistence": FLAG,
    "display": FLAG,
    "has_serial": FLAG,
    "nvlinks": ("-1", "1000", '"many"'),
    "nvlinks_active": FLAG,
    "vbios": ('"96\\n00"', '"96\\u0000"', '"96,00"', f'"{"x" * 32}"', '""', "96"),
    "part_number": ('"a\\tb"', '"a,b"', f'"{"x" * 80}"', "5"),
    "dtd": ('"<x>"', '"a b"', '""', "5"),
    "log": ('"a | b | {nothing}"', '"  a | b"', "5"),
    "memory.total_mib": MIB,
    "memory.reserved_mib": ("143771", "-1", "nan", "inf", '"x"', "true"),
    "memory.bar1_mib": MIB,
    "memory.bus_width": ("0", "-1", "100", "32768", '"x"'),
    "memory.told": FLAG,
    "pci.device_id": ("0x10DE2335", "0x1233510DE", "-1", '"x"', "1.5"),
    "pci.subsystem_id": COUNT,
    "pci.sub_class": ("256", "-1", '"x"'),
    "pci.max_generation": ("0", "8", "-1", '"x"', "true"),
    "pci.max_width": ("0", "3", "17", "64", '"x"', "16.0"),
    "pci.host_generation": ("0", "8", '"x"'),
    "pci.idle_generation": ("0", "6", '"x"'),
    "power.idle": ("701", *WATTS),
    "power.default_limit": ("199", "701", *WATTS),
    "power.min_limit": WATTS,
    "power.max_limit": WATTS,
    "clocks.graphics": CLOCK,
    "clocks.sm": CLOCK,
    "clocks.memory": CLOCK,
    "clocks.video": CLOCK,
    "clocks.supported_memory": (
        ("[1593, 3201]", "[1]"),
        ("[3201, 3201]", "[1]"),
        ("[3201, -1]", "[1]"),
        ('["x", 1]', "[0]"),
        ("[3201, 0]", "[1]"),
        "3201",
    ),
    "clocks.supported_graphics": (
        "[[1980, 345]]",
        "[[1980], [345], [1]]",
        ("[[345, 1980], [345]]", "[0][1]"),
        ("[[1980], [0]]", "[1][0]"),
        ("[1980, 345]", "[0]"),
    ),
    "temperature.idle": ("96", *CELSIUS),
    "temperature.memory_idle": CELSIUS,
    "temperature.slowdown": ("96", *CELSIUS),
    "temperature.shutdown": CELSIUS,
    "temperature.memory_max": CELSIUS,
    "temperature.gpu_max": CELSIUS,
    "temperature.tells_margin": FLAG,
    "smi.addressing_mode": ("5", "true", '"a\\nb"'),
    'smi."inforom.img"': ("5", '"a\\u0007"', "[]"),
    'smi_more."new.field [W]"': ("5", '"a\\nb"'),
    "mig_devices[0].name": ('"3 slices"', '"5g.71gb"', '"8g.141gb"', '""', "5"),
    "mig_devices[0].gpu_instance": ("-1", "64", '"x"'),
    "mig_devices[0].compute_instance": ("-1", "8", '"x"'),
    "mig_devices[0].memory_mib": ("5", "80000", *MIB),
    "mig_devices[0].idle_mib": ("71425", "-1", "nan", '"x"'),
    "mig_devices[0].bar1_mib": COUNT,
    "mig_devices[0].multiprocessors": COUNT,
    "mig_devices[0].copy_engines": COUNT,
    "mig_devices[0].encoders": COUNT,
    "mig_devices[0].decoders": COUNT,
    "mig_devices[0].ofa": COUNT,
    "mig_devices[0].jpeg": COUNT,
    "mig_devices[1].name": ('"7g.71gb"',),
    "mig_devices[1].memory_mib": ("72400",),
}
"""By the path of each key of the file above: values that it cannot have, some with the part of it that is told."""

EDITS = [(key, *(one if isinstance(one, tuple) else (one, ""))) for key, values in WRONG.items() for one in values]


def place_of(key: str) -> int:
    """The index of the line on which a key stands, found by reading the file as a person does."""
    table, _, last = key.rpartition('."') if key.endswith('"') else key.rpartition(".")
    name, number = re.fullmatch(r"(\w*)(?:\[(\d+)\])?", table).groups()  # type: ignore[union-attr]  # it matches
    heads = [place for place, line in enumerate(LINES) if line.strip("[]") == name and line.startswith("[")]
    start = heads[int(number or 0)] if name else 0
    return next(
        at for at in range(start, len(LINES)) if LINES[at].strip('"').startswith(last.strip('"')) and "=" in LINES[at]
    )


def edited(place: int, line: str) -> str:
    return "\n".join([*LINES[:place], line, *LINES[place + 1 :]])


def refused(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidValue) as told:
        read_profile(path)
    return str(told.value)


def test_every_key_is_edited(tmp_path: Path) -> None:
    """And the file itself is right."""
    path = tmp_path / "card.toml"
    path.write_text(FILE, encoding="utf-8")
    assert Driver().add_gpu(path).name == "NVIDIA H200"
    keys = {place for place, line in enumerate(LINES) if " = " in line}
    assert [LINES[place] for place in keys - {place_of(key) for key in WRONG}] == ["gpu_instance = 1"]


def test_every_value_that_cannot_be_is_told_by_its_own_key_and_line(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    for key, value, part in EDITS:
        place = place_of(key)
        said = refused(path, edited(place, f"{LINES[place].partition(' = ')[0]} = {value}"))
        assert f"the GPU profile {path}, line {place + 1}, {key}{part}: " in said, value


PLAIN = [key for key in WRONG if not key.startswith(("clocks.", "compute", "log"))]


@given(
    key=st.sampled_from(PLAIN),
    value=st.sampled_from(
        ["1979-05-27 07:32:00", "07:32:00", "{ a = 1 }", "[[1], [2]]", "[ 'x',\n 'y' ]", "inf", "-1"]
    ),
    before=st.integers(0, 3),
    after=st.sampled_from(["", " # [memory]", "  "]),
)
def test_any_value_of_another_type_is_told_by_its_own_key_and_line(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: str, before: int, after: str
) -> None:
    place = place_of(key)
    path = tmp_path_factory.getbasetemp() / "card.toml"
    text = "# x\n" * before + edited(place, f"{LINES[place].partition(' = ')[0]} = {value}{after}")
    assert f"{path}, line {place + before + 1}, {key}: " in refused(path, text)


@given(place=st.sampled_from([place for place, line in enumerate(LINES) if " = " in line and line[0] != '"']))
def test_any_key_that_is_misspelt_is_told(tmp_path_factory: pytest.TempPathFactory, place: int) -> None:
    key = LINES[place].partition(" ")[0]
    said = refused(tmp_path_factory.getbasetemp() / "card.toml", edited(place, f"x{LINES[place]}"))
    assert re.search(rf"line {place + 1}, (\S+\.)?x{key}: |missing required field `{key}`|'x{key}', which is no", said)


def test_what_does_not_go_together(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    for old, new, said in [
        ("mig = true", "mig = false", "mig_devices: there are some, and mig is not true"),
        ("fans = 1", "fans = 0", "line 8, fan_idle_percent: the card has no fans"),
        (
            "host_generation = 5\nidle_generation = 1",
            "host_generation = 1\nidle_generation = 2",
            "line 35, pci.idle_generation: 2 is above 1, the highest that card and host have in common",
        ),
        ('"hopper"\n', '"ada"\n', "line 4, compute_capability: 9.0 is none of ada: those are 8.9"),
        ("gpu_instance = 1\n", "gpu_instance = 2\n", "mig_devices[1].compute_instance: another device has the same"),
    ]:
        assert old in FILE
        assert said in refused(path, FILE.replace(old, new))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"nowhere\.toml cannot be read: No such file"):
        read_profile(tmp_path / "nowhere.toml")
    (tmp_path / "x.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(InvalidValue, match=r"x\.toml is not valid: it is not UTF-8 \(byte 8\)"):
        read_profile(tmp_path / "x.toml")


# -- in Python


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda card: replaced(card, name=5), "^name: Expected `str`, got `int`"),
        (lambda card: replaced(card, name="a,b"), "^name: 'a,b': none of"),
        (lambda card: replaced(card, power=None), "^power: Expected `object`"),
        (lambda card: replaced(card, compute_capability=(700, 5)), "^compute_capability: 700.5 is none of hopper"),
        (lambda card: replaced(card, mig_devices=("3g.71gb",)), r"^mig_devices\[0\]: Expected `object`"),
        (lambda card: replaced(card.pci, max_width=17), "^max_width: Invalid enum value 17"),
        (lambda card: replaced(card.power, idle=float("nan")), "^idle: "),
        (lambda card: replaced(card.clocks, supported_memory=(1, 2)), r"^supported_memory\[1\]: 2 comes after 1"),
        (lambda card: Clock(idle=5, max=4), r"^idle: 5 is above max \(4\)"),
        (lambda card: Temperature(idle=400), "^idle: Expected `int` <= 150"),
        (lambda card: Pci(device_id=0x123456789, subsystem_id=0, max_generation=1), "^device_id: "),
        (
            lambda card: MigDevice(name="6g.71gb", gpu_instance=1, memory_mib=70_000),
            "^name: '6g.71gb' is no MIG device",
        ),
    ],
)
def test_in_python_the_same_is_refused_by_its_key(make: object, said: str) -> None:
    with pytest.raises(InvalidValue, match=said):
        make(load_profile("h200"))  # type: ignore[operator]


def replaced(table: msgspec.Struct, **values: object) -> msgspec.Struct:
    return msgspec.structs.replace(table, **values)


def test_values_made_in_python_are_what_a_file_would_give() -> None:
    card = replaced(load_profile("h200"), compute_capability=[9, 0], smi={})
    assert isinstance(card, Profile)
    assert card.compute_capability == (9, 0)
    assert all(load_profile(name) == replaced(load_profile(name)) for name in profile_names())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": 'a"b'}, "^name: "),
        ({"memory": "1 GiB", "reserved": "2 GiB"}, "^reserved: reserved memory of 2 GiB leaves nothing of 1 GiB"),
        ({"memory": True}, "^memory: True is not a size"),
        ({"reserved": "some"}, "^reserved: 'some' is not a size"),
        ({"uuid": "a b"}, "^uuid: 'a b': none of"),
        ({"profile": "h20"}, "^profile: there is no GPU profile 'h20'"),
    ],
)
def test_add_gpu_names_the_argument(values: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidValue, match=said):
        Driver().add_gpu(**values)


def test_a_card_too_small_for_the_profiles_partition(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    path.write_text(FILE, encoding="utf-8")
    with pytest.raises(
        InvalidValue, match=r"^memory: the profile's mig_devices do not fit: the devices have 142848 MiB"
    ):
        Driver().add_gpu(path, memory="100 GiB")
