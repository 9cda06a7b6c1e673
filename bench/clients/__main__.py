"""`python -m bench.clients [CLIENT …] [--page FILE]`: exits 1 where a client that was run is wrong."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.clients import install, matrix
from bench.clients.page import page

LEAST = 25
"""Clients that have to be right for a whole run to pass: some of the others may not be installable on a machine."""


def main() -> int:
    """Installs, runs, prints a line for each client, and writes the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.clients", description=__doc__)
    parser.add_argument("clients", nargs="*", help="which; all by default")
    parser.add_argument("--page", type=Path, help="where the page is written")
    parser.add_argument("--install-only", action="store_true")
    chosen = parser.parse_args()
    clients = install.selected(chosen.clients)
    missing = install.install(clients)
    if chosen.install_only:
        for name, why in missing.items():
            print(f"{name}: {why}", file=sys.stderr)
        return 1 if missing else 0
    failures = {client: missing[client.environment] for client in clients if client.environment in missing}
    rows = []
    for client in clients:
        if client in failures:
            print(f"{client.name}: not installed: {failures[client]}", flush=True)
            continue
        row = matrix.run(client)
        rows.append(row)
        print(f"{client.name} {row.version}: {'right' if row.works else 'WRONG'}", flush=True)
        for situation, outcome in row.outcomes.items():
            if outcome.said:
                print(f"    {situation}: {outcome.said[:300]}", flush=True)
    fixture_is_right = (
        "torch" in missing or not any(row.client.place == "torch" for row in rows) or matrix.torch_fixture()
    )
    if chosen.page is not None:
        chosen.page.write_text(page(rows, failures), encoding="utf-8")
    wrong = [row.client.name for row in rows if not row.works]
    right = len(rows) - len(wrong)
    print(f"{right} clients right, {len(wrong)} wrong, {len(failures)} not installed")
    return 1 if wrong or not fixture_is_right or (not chosen.clients and right < LEAST) else 0


if __name__ == "__main__":
    sys.exit(main())
