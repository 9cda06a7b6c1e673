"""docs/clients.md."""

from __future__ import annotations

from collections.abc import Mapping

from bench.clients.catalogue import IMPOSSIBLE, Client
from bench.clients.matrix import Outcome, Row

_HEAD = """# Real clients

Made by `make clients`: each client unmodified, from its own package, in an environment of its own, against one scripted
machine (an H200 and an RTX 4090 that a real process holds memory on, and an idle L40S), in five situations:

- **healthy**: what it shows of memory, processes, names and UUIDs is compared with the script, to its last digit;
- **killed**: the first process was killed, and half of its memory has come back;
- **lost**: the second card has fallen off the bus; a client may fail then, as it does on a real machine;
- **slow**: every answer comes 5 ms late;
- **no driver**: the library and nvidia-smi are there, and no driver is loaded.

`ok`: all that it shows is so. Otherwise the cell has what it said. "reads reserved as used": NVML's first memory
structure counts what the driver keeps for itself.
"""


def page(rows: list[Row], failures: Mapping[Client, str]) -> str:
    """The whole page: the table, and what could not be run."""
    working = sum(row.works for row in rows)
    lines = [
        _HEAD,
        f"{working} of {len(rows)} clients that were run are right in every situation.\n",
        "| client | version | from | asks | healthy | killed | lost | slow | no driver | remarks |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_row(row) for row in rows]
    missing = [(client.name, f"not installed: {why}") for client, why in failures.items()] + list(IMPOSSIBLE.items())
    lines += ["", "Not run, and why:", "", *(f"- {name}: {why}" for name, why in missing)]
    uncovered = sorted({name for row in rows for name in row.not_covered})
    if uncovered:
        lines += ["", "Asked by some client, and not covered by the fake (it answers NOT_SUPPORTED):", ""]
        lines += [f"- {_code(name)}" for name in uncovered]
    return "\n".join(lines) + "\n"


def _row(row: Row) -> str:
    client = row.client
    asks = "NVML" if client.reader == "nvml" else "nvidia-smi"
    remarks = [client.remark] if client.remark else []
    if client.memory and client.reserved:
        remarks.append("reads reserved as used")
    if not client.memory:
        remarks.append("shows no memory")
    cells = [_cell(row.outcomes[situation]) for situation in ("healthy", "killed", "lost", "slow")]
    cells.append(_cell(row.outcomes["no driver"], without=True))
    return f"| {client.name} | {row.version} | {client.source} | {asks} | {' | '.join(cells)} | {'; '.join(remarks)} |"


def _cell(outcome: Outcome, *, without: bool = False) -> str:
    if not outcome.is_right:
        return f"**wrong**: {_code(outcome.said)}"
    if outcome.cards is None or outcome.said:
        return _code(outcome.said.removeprefix("RuntimeError: ")) if outcome.cards is None else outcome.said
    if without:
        return "shows no card"
    errors = [str(card["error"]) for card in outcome.cards if "error" in card]
    return f"ok; {_code(errors[0])}" if errors else "ok"


def _code(text: str) -> str:
    short = text if len(text) <= 100 else text[:99] + "…"
    return "`" + short.replace("|", "/").replace("`", "'") + "`"
