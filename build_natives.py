"""The build hook: compiles the library, the executables and the puppet with the machine's C compiler.

Run by itself (`python build_natives.py`) it compiles in place, which is what an editable installation uses.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
NATIVE = ROOT / "fake_gpu" / "native"
SANITIZE = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
FLAGS = ["-std=gnu11", "-O2", "-g0", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-fstack-protector-strong"]

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by itself, without the build backend
    BuildHookInterface = object


def _compiler() -> list[str]:
    asked = os.environ.get("CC")
    for command in [asked] if asked else ["cc", "gcc", "clang"]:
        words = shlex.split(command)
        if words and shutil.which(words[0]):
            return words
    given = f"CC={asked!r} is set, but there is no such program" if asked else "none of cc, gcc and clang is on PATH"
    raise SystemExit(
        f"pytest-vramsettle needs a C compiler to build its fake NVIDIA library, and {given}. Install one "
        f"(Debian, Ubuntu: apt-get install gcc libc6-dev; Fedora: dnf install gcc) or set CC to one."
    )


def _compile(compiler: list[str], arguments: list[str]) -> None:
    done = subprocess.run([compiler[0], *FLAGS, *compiler[1:], *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(
            f"pytest-vramsettle: {shlex.join([*compiler, *arguments])} failed with exit status {done.returncode}. "
            f"A missing header means that the C library's development files are not installed "
            f"(Debian, Ubuntu: libc6-dev).\n{done.stderr}"
        )


def _compile_program(compiler: list[str], arguments: list[str]) -> None:
    """Without shared libraries where the machine has the static C library: half of a short run is loading them."""
    with contextlib.suppress(SystemExit):
        _compile(compiler, ["-static", *arguments])
        return
    _compile(compiler, arguments)


def _generators() -> types.ModuleType:
    """The module that writes the C headers. It needs the standard library alone, its package's front does not."""
    bare = types.ModuleType("fake_gpu")
    bare.__path__ = [str(ROOT / "fake_gpu")]
    sys.modules["fake_gpu"] = bare
    try:
        generate = importlib.import_module("fake_gpu.native.generate")
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "fake_gpu"]:
            del sys.modules[name]
    return generate


def _write_headers(generate: types.ModuleType, place: Path) -> None:
    (place / "nvml_kinds.h").write_text(generate.kinds())
    (place / "nvml_table.h").write_text(generate.table())
    (place / "nvml_entry_points.h").write_text(generate.entry_points())


def build(target: Path, extra: Sequence[str] = ()) -> None:
    """Compiles everything into `target`. Raises SystemExit with a reason a person can act on."""
    if sys.platform != "linux":
        print("pytest-vramsettle: not Linux, so the fake driver's native clients are left out", file=sys.stderr)
        return
    compiler = [*_compiler(), *extra]
    generate = _generators()
    target.mkdir(exist_ok=True)
    # Beside the target, so that each file can be moved into place whole: a run that uses the old ones goes on.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as scratch_name:
        scratch = Path(scratch_name)
        _write_headers(generate, scratch)
        includes = [f"-I{scratch}", f"-I{NATIVE}"]
        library, plain = scratch / "libnvidia-ml.so.1", scratch / "libnvidia-ml.so"
        shared = ["-shared", "-fPIC", "-pthread"]
        _compile(
            compiler,
            [
                *(*shared, *includes, "-Wl,-soname,libnvidia-ml.so.1"),
                "-Wl,-z,nodelete",  # a thread that used it may end after a dlclose: its destructor has to be there
                *(str(NATIVE / "nvml.c"), "-o", str(library), "-ldl"),
            ],
        )
        _compile(
            compiler,
            [
                *shared,
                *("-Wl,-soname,libnvidia-ml.so", "-Wl,--no-as-needed", str(NATIVE / "unversioned.c"), str(library)),
                *("-o", str(plain)),
            ],
        )
        _compile_program(compiler, [*includes, str(NATIVE / "smi.c"), "-o", str(scratch / "nvidia-smi")])
        _compile_program(compiler, [str(NATIVE / "puppet.c"), "-o", str(scratch / "puppet")])
        _compile_program(compiler, [*includes, str(NATIVE / "llama.c"), "-o", str(scratch / "llama-server")])
        for made in (library, plain, *(scratch / name for name in ("nvidia-smi", "puppet", "llama-server"))):
            made.replace(target / made.name)


def build_static_stub(library: Path) -> None:
    """Compiles the library with recorded answers that the fake is measured against."""
    generate = _generators()
    with tempfile.TemporaryDirectory() as scratch:
        _write_headers(generate, Path(scratch))
        arguments = ["-shared", "-fPIC", "-pthread", f"-I{scratch}", f"-I{NATIVE}", "-Wl,-soname,libnvidia-ml.so.1"]
        _compile(_compiler(), [*arguments, str(ROOT / "bench" / "static_stub.c"), "-o", str(library), "-ldl"])


class NativesHook(BuildHookInterface):  # type: ignore[misc]  # the backend's class where there is a backend, else object
    """hatchling calls this for wheels and editable installations."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        build(NATIVE / "bin")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--sanitize"]:  # for `make sanitize`: into another directory, with every bad access told
        build(Path(sys.argv[2]), SANITIZE)
    elif sys.argv[1:2] == ["--static-stub"]:  # for `make bench`
        build_static_stub(Path(sys.argv[2]))
    else:
        build(NATIVE / "bin")
