"""What a card is doing: what no card does is refused where it is set."""

from __future__ import annotations

import pytest

from fake_gpu import Activity, Driver, DriverStateError, InvalidValue


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("gpu_percent", 150, r"activity.gpu_percent = 150: Expected `int` <= 100"),
        ("gpu_percent", "x", r"activity.gpu_percent = 'x': Expected `int`, got `str`"),
        ("memory_percent", -1, "Expected `int` >= 0"),
        ("encoder_percent", 1.5, "activity.encoder_percent = 1.5"),
        ("decoder_percent", True, "activity.decoder_percent = True"),
        ("fan_percent", None, "activity.fan_percent = None"),
        ("temperature", 400, "Expected `int` <= 200"),
        ("power", -1, "activity.power = -1: Expected `float` >= 0"),
        ("power", float("nan"), "activity.power = nan"),
        ("power", 901, "901 W is more than the card ever draws: its highest limit is 600 W, .* up to 900 W"),
        ("pstate", 99, "activity.pstate = 99: Expected `int` <= 15"),
        ("pstate", "P0", "activity.pstate = 'P0'"),
        ("busy", 1, "activity.busy = 1"),
        ("pcie_rx_kib_s", -1, "activity.pcie_rx_kib_s = -1"),
        ("pcie_tx_kib_s", 1 << 32, "activity.pcie_tx_kib_s"),
        ("clocks_mhz", {"sm": -1}, r"activity.clocks_mhz\['sm'\] = -1: Expected `int` >= 0"),
        ("clocks_mhz", {"shader": 1}, r"there is no such clock; there are graphics, sm, memory, video"),
        ("clocks_mhz", 5, "activity.clocks_mhz = 5: give a mapping"),
        ("said", {"pcie.replays": 2}, r"activity.said\['pcie.replays'\] = 2: give a field's name and a text"),
        ("said", {"pcie.replays": "2\n3"}, "each of one line"),
    ],
)
def test_what_no_card_does(name: str, value: object, said: str) -> None:
    activity = Driver().add_gpu("rtx-4090").activity
    before = getattr(activity, name)
    with pytest.raises(InvalidValue, match=said):
        setattr(activity, name, value)
    assert getattr(activity, name) == before
    if name != "power":
        with pytest.raises(ValueError, match=said):
            Activity(**{name: value})  # type: ignore[arg-type]  # it is what is tested


def test_what_a_card_does() -> None:
    activity = Driver().add_gpu("rtx-4090").activity
    activity.gpu_percent, activity.power, activity.pstate, activity.busy = 100, 640, 15, True  # a moment above 600 W
    assert activity.power == 640.0
    assert Activity(power=5000).power == 5000.0  # of no card


def test_entries_of_mappings_are_checked_too() -> None:
    activity = Driver().add_gpu("rtx-4090").activity
    activity.clocks_mhz["sm"] = 1815
    activity.said.update({"pcie.replays": "2"})
    with pytest.raises(InvalidValue, match=r"activity.clocks_mhz\['memory'\] = '5 MHz'"):
        activity.clocks_mhz["memory"] = "5 MHz"  # type: ignore[assignment]
    with pytest.raises(InvalidValue, match=r"activity.said\['pcie.replays'\] = 3"):
        activity.said.update({"pcie.replays": 3})  # type: ignore[dict-item]
    assert (dict(activity.clocks_mhz), dict(activity.said)) == ({"sm": 1815}, {"pcie.replays": "2"})
    del activity.clocks_mhz["sm"]
    assert not activity.clocks_mhz


def test_a_removed_card_cannot_fall_off_the_bus() -> None:
    gpu = Driver().add_gpu("t4")
    gpu.remove()
    with pytest.raises(DriverStateError, match=r"cannot fall off it: restore\(\) it first"):
        gpu.lose()


def test_what_this_card_does_not_do() -> None:
    driver = Driver()
    gpu = driver.add_gpu("h200")
    with pytest.raises(InvalidValue, match="fan_percent = 40: the card has no fans"):
        gpu.activity.fan_percent = 40
    with pytest.raises(InvalidValue, match=r"clocks_mhz\['sm'\] = 99999: the card's highest is 1980 MHz"):
        gpu.activity.clocks_mhz["sm"] = 99_999
    with pytest.raises(InvalidValue, match=r"activity\.temperature = -5"):
        gpu.activity.temperature = -5
    percent = driver.process(gpu, "1 GiB").percent
    for name, value, said in (("sm", 150, "`int` <= 100"), ("gpu", 5, "there is no such engine")):
        with pytest.raises(InvalidValue, match=said):
            percent[name] = value
    assert not percent


def test_two_cards_cannot_have_the_index_of_one() -> None:
    driver = Driver()
    gpus = driver.add_gpu("t4"), driver.add_gpu("t4")
    with pytest.raises(InvalidValue, match="give each of the 2 indices once"):
        driver.renumber([0, 0])
    driver.renumber([1, 0])
    assert driver.gpus == gpus[::-1]
