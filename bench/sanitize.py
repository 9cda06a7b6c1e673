"""The native clients under AddressSanitizer and UndefinedBehaviorSanitizer: `make sanitize`.

A copy of the package with natives that were built so, and the tests that use them. What a sanitizer finds ends the
process that it is found in, and with it a test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
COPY = ROOT / "build" / "sanitize"
TESTS = (
    "test_hardness.py",
    "test_server.py",
    "test_nvml.py",
    "test_nvml_activity.py",
    "test_nvml_corners.py",
    "test_nvml_mig.py",
    "test_nvml_processes.py",
    "test_nvml_reach.py",
    "test_smi_query.py",
    "test_smi_faults.py",
    "test_processes.py",
    "test_corners.py",
)


def main() -> int:
    """Builds, and runs the tests with the runtime of the sanitizers loaded first, as a Python without them needs it."""
    shutil.rmtree(COPY, ignore_errors=True)
    for package in ("fake_gpu", "pytest_vramsettle"):
        shutil.copytree(ROOT / package, COPY / package, ignore=shutil.ignore_patterns("bin", "__pycache__"))
    natives = COPY / "fake_gpu" / "native" / "bin"
    subprocess.run([sys.executable, "build_natives.py", "--sanitize", str(natives)], cwd=ROOT, check=True)
    compiler = os.environ.get("CC", "cc").split()
    runtimes = [
        subprocess.run(
            [*compiler, f"-print-file-name={name}"], stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(COPY),
        "PYTHONSAFEPATH": "1",  # else the package of the working directory comes first
        "LD_PRELOAD": " ".join(runtimes),
        # The interpreter's own leaks are not looked for; what is found ends the process at once.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:verify_asan_link_order=0",
        "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1",
    }
    used = subprocess.check_output([sys.executable, "-c", "import fake_gpu; print(fake_gpu.__file__)"], env=environment)
    if not used.startswith(os.fsencode(COPY)):
        raise SystemExit(f"the tests would use {used.decode().strip()}, and not the copy in {COPY}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/{name}" for name in TESTS)]
    return subprocess.run([*command, *sys.argv[1:]], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
