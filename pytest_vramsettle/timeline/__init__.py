"""What happened on a fake machine, as data that can be drawn: in the terminal, or as a picture on a page."""

from pytest_vramsettle.timeline.collect import collect
from pytest_vramsettle.timeline.model import Card, Death, Event, Hold, Probe, Timeline, Wait
from pytest_vramsettle.timeline.text import draw
from pytest_vramsettle.timeline.waits import WaitLog

__all__ = ["Card", "Death", "Event", "Hold", "Probe", "Timeline", "Wait", "WaitLog", "collect", "draw"]
