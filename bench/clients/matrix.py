"""Runs a client's reader in each situation, and says what came of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.clients import install
from bench.clients.catalogue import Client
from bench.clients.reading import MARK
from bench.clients.script import SITUATIONS, Machine, Situation, differences, without_driver

PATIENCE = 120
"""Seconds; a client that needs longer has hung."""

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outcome:
    """What a client did. `cards`: what it read, None where it failed; `said`: how it failed, or what is wrong."""

    cards: list[dict[str, Any]] | None
    said: str = ""
    is_right: bool = True


@dataclass
class Row:
    """One client in all situations."""

    client: Client
    version: str
    outcomes: dict[Situation, Outcome] = field(default_factory=dict)
    not_covered: list[str] = field(default_factory=list)

    @property
    def works(self) -> bool:
        """Right where it has to be right: with a lost GPU or none it may fail, as it would on a real machine."""
        return all(outcome.is_right for outcome in self.outcomes.values())


def run(client: Client) -> Row:
    """All situations of one client. Its environment has to be there."""
    row = Row(client, install.version(client))
    for situation in SITUATIONS:
        row.outcomes[situation] = _without(client) if situation == "no driver" else _with(client, situation, row)
    return row


def torch_fixture() -> bool:
    """Whether the fixture torch_cuda serves a real torch. Its environment has to be there."""
    python = install.ROOT / "torch" / "bin" / "python"
    command = [str(python), "-m", "bench.clients.torch_fixture"]
    done = subprocess.run(
        command, cwd=_ROOT, env={**os.environ, "PYTHONPATH": str(_ROOT)}, timeout=PATIENCE, check=False
    )
    print(f"fixture torch_cuda: {'right' if done.returncode == 0 else 'WRONG'}", flush=True)
    return done.returncode == 0


def _with(client: Client, situation: Situation, row: Row) -> Outcome:
    machine = Machine(client)
    with machine.driver as driver:
        machine.enter(situation)
        pids = ",".join(str(process.pid) for process in machine.processes)
        outcome = _read(client, {**driver.environment, "SCRIPTED_PIDS": pids})
        row.not_covered = sorted({*row.not_covered, *(call.name for call in driver.calls if not call.covered)})
        asked = bool(driver.calls)
        truths = machine.truth()
    if outcome.cards is None:
        return outcome if situation == "lost" else Outcome(None, outcome.said, is_right=False)
    if not asked:
        return Outcome(outcome.cards, "it asked the driver nothing", is_right=False)
    one_for_all = client.needs_pid or any(key.endswith("_together") for card in outcome.cards for key in card)
    if situation == "lost" and not one_for_all and len(outcome.cards) < len(truths) - 1:
        return Outcome(outcome.cards, f"shows {len(outcome.cards) or 'none'} of {len(truths)}")
    wrong = differences(client, outcome.cards, truths)
    if wrong and situation == "lost" and one_for_all:
        reads_nothing = not any(value for card in outcome.cards for value in card.values())
        return Outcome(outcome.cards, "reads 0 for all cards" if reads_nothing else "; ".join(wrong))
    if wrong and situation == "lost" and len(outcome.cards) != len(truths):
        return Outcome(outcome.cards, f"shows {len(outcome.cards)} of {len(truths)}")
    return Outcome(outcome.cards, "; ".join(wrong), is_right=not wrong)


def _without(client: Client) -> Outcome:
    with without_driver() as environment:
        outcome = _read(client, {**environment, "SCRIPTED_PIDS": "1"})
    shown = [
        card for card in outcome.cards or [] if "error" not in card and any(card.get(key) for key in ("total", "used"))
    ]
    return Outcome(outcome.cards, "shows cards without a driver", is_right=False) if shown else outcome


def _read(client: Client, driver: Mapping[str, str]) -> Outcome:
    """Runs the reader in a folder of its own, in an environment without anything of ours but the driver."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "FAKE_GPU_SOCKET", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
    environment = {name: value for name, value in os.environ.items() if name not in ours} | dict(driver)
    for name, value in install.environment_of(client).items():
        environment[name] = f"{environment[name]}:{value}" if name in ("PATH", "LD_LIBRARY_PATH") else value
    with tempfile.TemporaryDirectory(prefix="client-") as folder:
        command = [str(install.interpreter(client)), "-m", f"bench.clients.readers_{client.reader}", client.name]
        environment |= {"PYTHONPATH": str(_ROOT), "HOME": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        # A session of its own, so that whatever a client leaves behind can be ended.
        with subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as child:
            try:
                printed, complained = child.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                return Outcome(None, f"hung: no end after {PATIENCE} s", is_right=False)
            finally:
                _end_session(child.pid)
    return _outcome(child.returncode, printed, complained)


def _end_session(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def _outcome(code: int, printed: str, complained: str) -> Outcome:
    lines = [line for line in printed.splitlines() if line.startswith(MARK)]
    if code < 0:
        return Outcome(None, f"died of {signal.Signals(-code).name}", is_right=False)
    if code != 0 or not lines:
        told = [line for line in complained.splitlines() if line and not line.startswith((" ", "Traceback"))]
        return Outcome(None, told[-1] if told else f"exit status {code}")
    return Outcome(json.loads(lines[-1].removeprefix(MARK)))
