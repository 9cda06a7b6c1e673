"""Line by line: an output of a real nvidia-smi, and what the fake prints for the machine made of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from fake_gpu.capture import tables
from fake_gpu.capture.files import NO_STATE, Shot
from fake_gpu.capture.findings import Findings, counted
from fake_gpu.capture.logs import read_log
from fake_gpu.capture.machine import Machine
from fake_gpu.capture.seen import Seen, SeenCard, SeenProcess
from fake_gpu.driver import Driver
from fake_gpu.errors import InvalidValue
from fake_gpu.smi.answer import answer
from fake_gpu.smi.monitors import ENGINES


@dataclass(frozen=True, slots=True)
class Comparison:
    """One command. `different`: pairs of the real line and ours; None where one has no such line."""

    shot: Shot
    lines: int
    same: int
    different: tuple[tuple[str | None, str | None], ...]

    @property
    def share(self) -> float:
        """Of identical lines, from 0 to 1."""
        return self.same / self.lines if self.lines else 1.0


def compared(machine: Machine) -> Iterator[Comparison]:
    """Each command of a machine's output. What is of the moment is set from the command's own output before.

    Raises InvalidValue where an output is not what its command prints.
    """
    for shot in machine.shots:
        try:
            printed = "".join(_printed(machine, shot))
        except ValueError as error:  # InvalidValue is one of these
            raise InvalidValue(f"{shot.command}: {error}") from error
        yield _compare(shot, printed)


def _printed(machine: Machine, shot: Shot) -> Iterator[str]:
    if shot.option in ("dmon", "pmon"):
        yield from _monitored(machine, shot)
        return
    seen = _seen(machine, shot)
    yield answer(_driver(machine, seen), *shot.arguments).text


def _driver(machine: Machine, seen: Seen) -> Driver:
    driver = machine.empty_driver()
    machine.add_seen(driver, seen)
    if seen.when is not None:
        moment = seen.when
        driver.wall_time = lambda: moment  # type: ignore[method-assign]  # the time of the output
    return driver


def _seen(machine: Machine, shot: Shot) -> Seen:
    """The state in which the command was run, with what its own output says over it."""
    state = _state(machine, shot)
    if shot.option == "-q":
        return _over(read_log(shot, Findings(shot.command)).seen, state)
    if shot.option == "--query-gpu":
        seen = tables.read_query_gpu(shot, Findings(shot.command))
        return _over(replace(seen, cards=tuple(replace(card, processes=()) for card in seen.cards)), state)
    if shot.option == "--query-compute-apps":
        return _with_apps(state, tables.read_query_apps(shot, len(state.cards)))
    if not shot.arguments:
        return _of_table(shot.text, state)
    return replace(state, when=tables.read_stamp(shot.text))


def _state(machine: Machine, shot: Shot) -> Seen:
    """The state in which the command was run, or else the first."""
    return machine.states.get(shot.state) or next(iter(machine.states.values()))


def _over(seen: Seen, state: Seen) -> Seen:
    if len(seen.cards) != len(state.cards):
        raise InvalidValue(f"one output tells of {counted(len(seen.cards), 'GPU')}, another of {len(state.cards)}")
    cards = tuple(card.over(other) for card, other in zip(seen.cards, state.cards, strict=True))
    return Seen(cards, seen.when)


def _with_apps(state: Seen, seen: Seen) -> Seen:
    by_uuid = {card.fields.get("uuid"): card.processes for card in seen.cards}
    everything = by_uuid.get(None, ())
    cards = tuple(replace(card, processes=by_uuid.get(card.fields.get("uuid"), everything)) for card in state.cards)
    return Seen(cards, seen.when)


def _of_table(text: str, state: Seen) -> Seen:
    seen = _over(tables.read_table(text), state)
    instances = tables.instances_in_table(text)
    cards = []
    for card in seen.cards:
        parts = [
            replace(part, used=used[0], free=part.total - used[0], bar1_used=used[1])
            for part in card.instances
            if (used := instances.get((part.gpu_instance, part.compute_instance), (part.used, part.bar1_used)))
        ]
        fields = {name: text for name, text in card.fields.items() if name != "memory.free"}
        cards.append(replace(card, instances=tuple(parts), fields=fields))
    return replace(seen, cards=tuple(cards))


def _monitored(machine: Machine, shot: Shot) -> Iterator[str]:
    _, rounds = tables.read_monitor(shot.text)
    state = _state(machine, shot)
    for place, rows in enumerate(rounds):
        cards = tuple(_card_of_rows(index, card, rows) for index, card in enumerate(state.cards))
        yield answer(_driver(machine, Seen(cards)), *shot.arguments, header=place == 0).text


_DMON_FIELDS = {
    "pwr": ("power.draw", "{}.50 W"),
    "gtemp": ("temperature.gpu", "{}"),
    "mtemp": ("temperature.memory", "{}"),
    "sm": ("utilization.gpu", "{} %"),
    "mem": ("utilization.memory", "{} %"),
    "enc": ("utilization.encoder", "{} %"),
    "dec": ("utilization.decoder", "{} %"),
    "jpg": ("utilization.jpeg", "{} %"),
    "ofa": ("utilization.ofa", "{} %"),
    "mclk": ("clocks.current.memory", "{} MHz"),
    "pclk": ("clocks.current.graphics", "{} MHz"),
}


def _card_of_rows(index: int, card: SeenCard, rows: list[dict[str, str]]) -> SeenCard:
    own = [row for row in rows if row.get("gpu") == str(index)]
    if own and "pid" in own[0]:
        known = {process.pid: process for process in card.processes}
        listed = [_process_of_row(row, known) for row in own if row["pid"].isdigit()]
        return replace(card, processes=tuple(listed))
    fields = dict(card.fields)
    for row in own:
        for heading, (name, form) in _DMON_FIELDS.items():
            if heading in row:
                fields[name] = "[N/A]" if row[heading] == "-" else form.format(row[heading])
    return replace(card, fields=fields)


def _process_of_row(row: dict[str, str], known: dict[int, SeenProcess]) -> SeenProcess:
    percent = {engine: int(row[engine]) for engine in ENGINES if row.get(engine, "-").isdigit()}
    like = known.get(int(row["pid"])) or SeenProcess(int(row["pid"]), row["command"], mib=0)
    return replace(like, percent=percent)


def _compare(shot: Shot, printed: str) -> Comparison:
    real, ours = shot.text.rstrip("\n").split("\n"), printed.rstrip("\n").split("\n")
    if "-x" in shot.arguments:  # those who published some of them indented them anew
        real, ours = [line.strip() for line in real], [line.strip() for line in ours]
    same = 0
    different: list[tuple[str | None, str | None]] = []
    for kind, first, last, start, end in difflib.SequenceMatcher(None, real, ours, autojunk=False).get_opcodes():
        if kind == "equal":
            same += last - first
            continue
        for place in range(max(last - first, end - start)):
            theirs = real[first + place] if first + place < last else None
            mine = ours[start + place] if start + place < end else None
            different.append((theirs, mine))
    return Comparison(shot, max(len(real), len(ours)), same, tuple(different))


def is_help(shot: Shot) -> bool:
    """Whether it is a text for readers, which the fake has in its own words."""
    return shot.state == NO_STATE and any(argument.startswith(("-h", "--help")) for argument in shot.arguments)
