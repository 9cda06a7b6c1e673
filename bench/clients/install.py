"""Environments of the clients under build/clients/: one virtual environment for each, and one tree of Debian packages.

Nothing is installed into the machine, and no root is needed. What is there already is kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.clients.catalogue import CLIENTS, Client

ROOT = Path(__file__).parents[2] / "build" / "clients"
DEBIAN = ROOT / "debian"
_NODEPS = frozenset({"vllm"})
"""Only a file of it is used, and it pulls some gigabytes."""

_DEBIAN_PACKAGES = (
    "nvtop",
    "hwloc-nox",
    "libhwloc15",
    "libhwloc-contrib-plugins",
    "libpci3",
)


class InstallError(Exception):
    """A client's environment could not be made; the text says why."""


def install(clients: Iterable[Client]) -> dict[str, str]:
    """Makes what is missing, two environments at a time. Returns what could not be made, and why, by environment."""
    places = {client.environment: client for client in clients}
    failures = {}
    with ThreadPoolExecutor(2) as pool:
        made = {name: pool.submit(_install, client) for name, client in places.items()}
        for name, future in made.items():
            try:
                future.result()
            except InstallError as error:
                failures[name] = str(error)
    return failures


def interpreter(client: Client) -> Path:
    """The Python that runs its reader: its own, or for what is no Python package this one."""
    return Path(sys.executable) if client.source == "Debian" else ROOT / client.environment / "bin" / "python"


def version(client: Client) -> str:
    """Of the first package of its environment."""
    name = client.packages[0].partition("[")[0]
    if client.source == "Debian":
        return (DEBIAN / "versions" / name).read_text(encoding="utf-8").strip()
    script = f"from importlib.metadata import version; print(version({name!r}))"
    done = subprocess.run([interpreter(client), "-c", script], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "?"


def _install(client: Client) -> None:
    place = ROOT / client.environment
    done = place / "installed"
    wanted = "\n".join(sorted(client.packages if client.source == "PyPI" else _DEBIAN_PACKAGES))
    if done.exists() and done.read_text(encoding="utf-8") == wanted:
        return
    print(f"installing {client.environment}", flush=True)
    place.mkdir(parents=True, exist_ok=True)
    if client.source == "Debian":
        _install_debian()
    else:
        _run([sys.executable, "-m", "venv", "--without-pip", "--clear", str(place)])
        only = ["--no-deps"] if client.environment in _NODEPS else []
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(interpreter(client))]
        _run([*pip, "install", "--quiet", *only, *client.packages])
    done.write_text(wanted, encoding="utf-8")


def _install_debian() -> None:
    """Downloads packages with the machine's apt, from its own sources and their contrib, and unpacks them."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise InstallError("apt-get and dpkg-deb are not there: not a Debian machine")
    for name in ("lists/partial", "archives/partial", "versions", "root"):
        (DEBIAN / name).mkdir(parents=True, exist_ok=True)
    sources = DEBIAN / "debian.sources"
    sources.write_text(_sources(), encoding="utf-8")
    options = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": DEBIAN / "lists",
        "Dir::Cache::archives": DEBIAN / "archives",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "APT::Sandbox::User": "",
    }
    apt = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    _run(["apt-get", *apt, "update", "--quiet"])
    downloads = DEBIAN / "downloads"
    shutil.rmtree(downloads, ignore_errors=True)
    downloads.mkdir()
    _run(["apt-get", *apt, "--quiet", "download", *_DEBIAN_PACKAGES], cwd=downloads)
    for package in sorted(downloads.glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(package), str(DEBIAN / "root")])
        name, number = _run(["dpkg-deb", "--show", str(package)]).split()
        (DEBIAN / "versions" / name).write_text(number, encoding="utf-8")


def _sources() -> str:
    """The machine's Debian sources, with contrib."""
    parts = Path("/etc/apt/sources.list.d")
    found = [path.read_text(encoding="utf-8") for path in sorted(parts.glob("debian*.sources"))]
    if not found:
        raise InstallError(f"{parts} has no debian.sources to take the addresses from")
    lines = "\n\n".join(found).splitlines()
    return "\n".join("Components: main contrib" if line.startswith("Components:") else line for line in lines) + "\n"


def _run(command: list[str], cwd: Path | None = None) -> str:
    quiet = {**os.environ, "PIP_NO_INPUT": "1", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=quiet)
    if done.returncode != 0:
        told = done.stderr.strip().splitlines() or ["no reason given"]
        raise InstallError(f"{' '.join(command[:4])} …: exit status {done.returncode}: {told[-1]}")
    return done.stdout


def environment_of(client: Client) -> dict[str, str]:
    """What a reader of this client needs in its environment, beside the driver's."""
    if client.source != "Debian":
        return {}
    root = DEBIAN / "root" / "usr"
    libraries = next((root / "lib").glob("*/hwloc")).parent
    return {
        "PATH": f"{root / 'bin'}:{root / 'sbin'}",
        "LD_LIBRARY_PATH": str(libraries),
        "HWLOC_PLUGINS_PATH": str(libraries / "hwloc"),
    }


def selected(names: list[str]) -> list[Client]:
    """The clients of these names; all where there are none. Raises SystemExit for a name that is none."""
    known = {client.name: client for client in CLIENTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"there is no client {unknown[0]!r}; there are {', '.join(known)}")
    return [known[name] for name in names] or list(CLIENTS)
