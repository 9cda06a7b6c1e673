"""A whole machine from an output: its driver, its cards, what runs on them and how busy they are."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

import msgspec

from fake_gpu.capture import memory, tables
from fake_gpu.capture.consistency import check_agreement, check_card
from fake_gpu.capture.facts import SHARED_MIB, optional, profile_of, quoted
from fake_gpu.capture.files import Shot, read_file, shots_of
from fake_gpu.capture.findings import Findings, counted
from fake_gpu.capture.live import MODELLED, is_live
from fake_gpu.capture.logs import Log, read_log
from fake_gpu.capture.seen import Seen, SeenCard, is_absent, number, tells_nothing, watts
from fake_gpu.driver import Driver
from fake_gpu.errors import InvalidValue
from fake_gpu.gpu import Gpu
from fake_gpu.profile import ClockName, Profile
from fake_gpu.smi.arguments import Request
from fake_gpu.smi.columns import plain
from fake_gpu.smi.layout import columns
from fake_gpu.smi.run import Reading, Run, cuts_mib
from fake_gpu.units import MIB

_OF_ONE_CARD = ("pdi", "board_id", "gsp_version")
"""Fields that are made up unless a card is known."""
_NO_BUS_ID = "00000000:01:00.0"


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU of a machine: its kind, and what it alone is."""

    profile: Profile
    uuid: str
    serial: str | None
    bus_id: str
    minor_number: int
    said: dict[str, str] = field(default_factory=dict)
    instance_uuids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Machine:
    """What an output tells of a machine. `states`: what went on, by the output's name for it ("idle", "load").

    `notes`: what a reader should know of how it was read, each as "FILE:LINE: what". `label_column`: where the colon
    stands in its text of -q; None where there is none.
    """

    driver_version: str
    cuda_version: tuple[int, int]
    cards: tuple[Card, ...]
    states: dict[str, Seen]
    shots: tuple[Shot, ...]
    notes: tuple[str, ...] = ()
    label_column: int | None = None

    def empty_driver(self) -> Driver:
        """A driver, not started, with the machine's versions and without cards."""
        driver = Driver(driver_version=self.driver_version, cuda_version=self.cuda_version)
        driver.label_column = self.label_column
        return driver

    def driver(self, state: str | None = None) -> Driver:
        """A driver, not started, with the machine's versions, cards, processes and activity. Raises InvalidValue."""
        driver = self.empty_driver()
        self.add_to(driver, state)
        return driver

    def add_to(self, driver: Driver, state: str | None = None) -> list[Gpu]:
        """Adds its cards, with what ran on them, to a driver. None: the first state. Raises InvalidValue."""
        if state is None:
            state = next(iter(self.states))
        if state not in self.states:
            raise InvalidValue(f"there is no state {state!r} in the output; there are {', '.join(self.states)}")
        return self.add_seen(driver, self.states[state])

    def add_seen(self, driver: Driver, seen: Seen) -> list[Gpu]:
        """Adds its cards as one output shows them."""
        gpus = []
        for index, card in enumerate(self.cards):
            gpu = add_card(driver, card)
            gpus.append(gpu)
            if index < len(seen.cards):
                set_state(driver, gpu, seen.cards[index])
        return gpus


def read_machine(path: str | Path) -> Machine:
    """The machine of `nvidia-smi -q -x`, of `nvidia-smi -q`, or of a capture file; "-": of standard input.

    UTF-8, or UTF-16 as PowerShell writes it. Raises InvalidValue with all that is wrong, each with its line: values
    that are no numbers, figures that contradict each other, an output that is cut.
    """
    what = "standard input" if str(path) == "-" else str(path)
    return machine_of(shots_of(read_file(Path(path)), what), what)


def machine_of(shots: tuple[Shot, ...], what: str) -> Machine:
    """The machine of which these are the outputs. `what`: whence they are.

    Raises InvalidValue with all that is wrong, each with its line.
    """
    findings = Findings(what)
    logs: dict[str, Log] = {}
    for shot in shots:
        if shot.option == "-q" and shot.state not in logs and not shot.is_partial:
            logs[shot.state] = _log(shot, findings)
    if not logs:
        raise InvalidValue(f"{what} has no output of `nvidia-smi -q` or `nvidia-smi -q -x`, which says most")
    first = next(iter(logs.values()))
    for log in logs.values():
        for card in log.seen.cards:
            check_card(card, findings)
        for card, other in zip(first.seen.cards, log.seen.cards, strict=False):
            check_agreement(card, other, findings)
    states = {state: _merged(log, state, shots, findings) for state, log in logs.items()}
    findings.end()
    try:
        cards = tuple(_card(index, first, states, shots) for index in range(len(first.seen.cards)))
    except InvalidValue as error:
        raise InvalidValue(f"{what}: {error}") from error
    _note_unified(first, findings)
    column = next((log.column for log in logs.values() if log.column is not None), None)
    return Machine(first.driver_version, first.cuda_version, cards, states, shots, tuple(findings.notes), column)


def _log(shot: Shot, findings: Findings) -> Log:
    try:
        return read_log(shot, findings)
    except InvalidValue as error:
        raise InvalidValue(f"{findings.what}, {shot.command}: {error}") from error


def _note_unified(log: Log, findings: Findings) -> None:
    for card in log.seen.cards:
        if is_absent(card.fields["memory.total"]):
            findings.note(
                card.places["memory.total"].line,
                f"Total is N/A: {card.fields['name']} is taken for a card that uses the host's memory, as a GB10 does; "
                f"{SHARED_MIB} MiB stand for it in the profile, and clients are told none",
            )


def _merged(log: Log, state: str, shots: tuple[Shot, ...], findings: Findings) -> Seen:
    """What -q says, and the fields that only --query-gpu has."""
    query = next((shot for shot in shots if shot.state == state and shot.option == "--query-gpu"), None)
    if query is None:
        return log.seen
    rows = tables.read_query_gpu(query, findings).cards
    for row in rows:
        check_card(row, findings)
    if len(rows) != len(log.seen.cards):
        findings.note(
            query.line,
            f"--query-gpu has {counted(len(rows), 'GPU')}, and -q {len(log.seen.cards)}: what it says is left out",
        )
        return log.seen
    cards = []
    for row, card in zip(rows, log.seen.cards, strict=True):
        check_agreement(card, row, findings)
        static = {
            name: text
            for name, text in row.fields.items()
            if not is_live(name) and name not in MODELLED and name != "timestamp"
        }
        # Where both tell, -q counts for what moves and for the memory, and --query-gpu's spelling for the rest.
        cards.append(replace(card, fields={**row.fields, **card.fields, **static}, more=row.more))
    return replace(log.seen, cards=tuple(cards))


# -- cards


def _card(index: int, log: Log, states: dict[str, Seen], shots: tuple[Shot, ...]) -> Card:
    seen = log.seen.cards[index]
    all_seen = [state.cards[index] for state in states.values() if index < len(state.cards)]
    merged = all_seen[0].over(seen)
    fields = merged.fields
    links, active = _nvlinks(index, shots)
    names, uuids = _listed(index, shots)
    profile = profile_of(
        merged, reserved=_reserved(log.driver_version, all_seen), nvlinks=links, active=active, dtd=log.dtd
    )
    if len(names) == len(profile.mig_devices):
        devices = (
            msgspec.structs.replace(device, name=name) for device, name in zip(profile.mig_devices, names, strict=True)
        )
        profile = msgspec.structs.replace(profile, mig_devices=tuple(devices))
    card = Card(
        profile,
        "" if tells_nothing(fields.get("uuid", "N/A")) else fields["uuid"],
        None if is_absent(fields.get("serial", "")) else fields["serial"],
        _NO_BUS_ID if tells_nothing(fields.get("pci.bus_id", "N/A")) else fields["pci.bus_id"],
        number(fields.get("minor_number", str(index))),
        {name: fields[name] for name in _OF_ONE_CARD if name in fields} | _affinity(index, shots),
        uuids,
    )
    return replace(card, profile=_checked_against(card, log, merged))


def _checked_against(card: Card, log: Log, merged: SeenCard) -> Profile:
    """The profile, with what the facts alone would not bring about quoted from the output."""
    driver = Driver(driver_version=log.driver_version, cuda_version=log.cuda_version)
    gpu = add_card(driver, card)
    set_state(driver, gpu, replace(merged, processes=()), quote=False)
    return quoted(card.profile, reading_of(driver, gpu), merged.fields)


def reading_of(driver: Driver, gpu: Gpu) -> Reading:
    """What a run of nvidia-smi would read of a card now."""
    return Reading(Run(driver, Request(), driver.enumerated, driver.enumerated, driver.sync(), {}), gpu)


def _reserved(driver_version: str, all_seen: list[SeenCard]) -> float:
    shown = [
        memory.Shown(used, free)
        for card in all_seen
        if (used := optional(card.fields, "memory.used")) is not None
        and (free := optional(card.fields, "memory.free")) is not None
    ]
    fields = all_seen[0].fields
    total, printed = optional(fields, "memory.total") or 0, optional(fields, "memory.reserved") or 0
    return memory.reserved_mib(total, printed, shown, cuts=cuts_mib(driver_version))


def _static(shots: tuple[Shot, ...], *arguments: str) -> str:
    return next((shot.text for shot in shots if shot.arguments == arguments), "")


def _of_gpu(index: int, text: str) -> str:
    """What stands under the heading of one GPU."""
    parts = re.split(r"^GPU (\d+): .*\n", text, flags=re.MULTILINE)
    return next((part for number_, part in zip(parts[1::2], parts[2::2], strict=True) if int(number_) == index), "")


def _nvlinks(index: int, shots: tuple[Shot, ...]) -> tuple[int, bool]:
    text = _of_gpu(index, _static(shots, "nvlink", "-s"))
    links = len(re.findall(r"^\s*Link \d+:", text, re.MULTILINE))
    if "inActive" in text:
        return 1, False
    bonded = [int(count) for count in re.findall(r"\bNV(\d+)\b", "\t".join(_topology(index, shots)))]
    return max([links, *bonded]), True


def _listed(index: int, shots: tuple[Shot, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    found = re.findall(r"MIG (\S+) +Device +\d+: \(UUID: (\S+)\)", _of_gpu(index, _static(shots, "-L")))
    return tuple(name for name, _ in found), tuple(uuid for _, uuid in found)


def _affinity(index: int, shots: tuple[Shot, ...]) -> dict[str, str]:
    row = _topology(index, shots)
    return {"cpu_affinity": row[-4]} if len(row) > 3 else {}


def _topology(index: int, shots: tuple[Shot, ...]) -> list[str]:
    """The row of one GPU in the matrix."""
    rows = (line.split("\t") for line in _static(shots, "topo", "-m").split("\n"))
    return next((row for row in rows if row[0] == f"GPU{index}"), [])


def add_card(driver: Driver, card: Card) -> Gpu:
    """The card, at rest. Cards whose UUID was masked so that two have the same get one that is made up."""
    taken = any(gpu.uuid == card.uuid for gpu in driver.gpus)
    gpu = driver.add_gpu(card.profile, uuid=None if taken or not card.uuid else card.uuid)
    gpu.serial = card.serial
    gpu.minor_number = card.minor_number
    domain, bus, device = card.bus_id.rpartition(".")[0].split(":")
    gpu.pci_domain, gpu.pci_bus, gpu.pci_device = int(domain, 16), int(bus, 16), int(device, 16)
    gpu.activity.said.update(card.said)
    for instance, uuid in zip(gpu.instances, card.instance_uuids, strict=False):
        instance.uuid = uuid
    return gpu


# -- what goes on


def set_state(driver: Driver, gpu: Gpu, seen: SeenCard, *, quote: bool = True) -> None:
    """Processes, memory and activity as an output shows them. `quote`: with what the model does not follow, too."""
    _add_processes(driver, gpu, seen)
    _fill_memory(driver, gpu, seen.fields)
    _fill_instances(gpu, seen, driver.sync())
    _set_activity(gpu, seen.fields)
    if not quote:
        return
    reading = reading_of(driver, gpu)
    for name, text in seen.fields.items():
        column = columns().get(name)
        if column is None:
            gpu.activity.said[name] = text  # a field of a driver that is newer than this fake
        elif is_live(name) and name not in MODELLED:
            shown = column.cell(reading, True)
            if plain(shown) != plain(text):
                gpu.activity.said[name] = text


def _add_processes(driver: Driver, gpu: Gpu, seen: SeenCard) -> None:
    for instance in gpu.instances:
        instance.idle_bytes = 0  # the profile's has the processes in it; `_fill_instances` sets what is left of it
    for one in seen.processes:
        size = min((one.mib or 0) * MIB, gpu.memory.free)
        process = next((other for other in driver.processes if other.pid == one.pid), None)
        if process is None:
            process = driver.process(gpu, size, pid=one.pid, name=one.name or "-", compute_type=one.kind)
        elif gpu not in process.used:
            process.hold(size, gpu)
        process.percent.update(one.percent)
        for instance in gpu.instances:
            if one.place == (instance.facts.gpu_instance, instance.facts.compute_instance):
                process.run_in(instance)


def _fill_memory(driver: Driver, gpu: Gpu, fields: dict[str, str]) -> None:
    used, free = optional(fields, "memory.used"), optional(fields, "memory.free")
    if used is None:
        return
    now = gpu.memory
    cuts = cuts_mib(driver.driver_version)
    meant = None
    if free is not None:
        shown = memory.Shown(used, free)
        meant = memory.used_mib(now.total // MIB, now.reserved / MIB, shown, cuts=cuts)
    if meant is None:
        meant = used + 0.375 if cuts else max(0.0, used - 0.375)
    gpu.hold_unlisted(min(max(0, memory.to_bytes(meant) - now.used), now.free))


def _fill_instances(gpu: Gpu, seen: SeenCard, now_ns: int) -> None:
    cuts = cuts_mib(gpu.driver.driver_version)
    for instance, shown in zip(gpu.instances, seen.instances, strict=False):
        meant = memory.used_mib(shown.total, 0, memory.Shown(shown.used, shown.free), cuts=cuts)
        instance.idle_bytes = 0
        listed = instance.used_at(now_ns)
        instance.idle_bytes = max(0, memory.to_bytes(shown.used if meant is None else meant) - listed)
        instance.bar1_used = shown.bar1_used * MIB


def _set_activity(gpu: Gpu, fields: dict[str, str]) -> None:
    activity = gpu.activity
    for attribute, name in (
        ("gpu_percent", "utilization.gpu"),
        ("memory_percent", "utilization.memory"),
        ("encoder_percent", "utilization.encoder"),
        ("decoder_percent", "utilization.decoder"),
        ("temperature", "temperature.gpu"),
        ("fan_percent", "fan.speed"),
        ("pcie_tx_kib_s", "pcie.tx"),
        ("pcie_rx_kib_s", "pcie.rx"),
    ):
        value = optional(fields, name)
        if value is not None:
            setattr(activity, attribute, value)
    for name in ("power.draw", "power.draw.average"):
        if drawn := watts(fields, name):
            activity.power = drawn
            break
    if fields.get("pstate", "").startswith("P"):
        activity.pstate = number(fields["pstate"].removeprefix("P"))
    for name in get_args(ClockName):
        clock = optional(fields, f"clocks.current.{name}")
        if clock is not None:
            activity.clocks_mhz[name] = clock
