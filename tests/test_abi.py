"""The library's table of functions and structures against NVIDIA's header, nvidia-ml-py, and what real clients use."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import inspect
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pynvml
import pytest

from fake_gpu.nvml.abi import Argument, Function, Kind, functions, struct_sizes

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "fake_gpu" / "native" / "bin" / "libnvidia-ml.so.1"
CLIENTS = ROOT.parent / "shared" / "design" / "nvml-clients.json"

_PROTOTYPE = re.compile(r"nvmlReturn_t\s+DECLDIR\s+(\w+)\s*\(([^)]*)\)\s*;")
_NESTED_FIELDS = {
    "nvmlProcessesUtilizationInfo_t": ("procUtilArray", "processSamplesCount"),
    "nvmlProcessDetailList_t": ("procArray", "numProcArrayEntries"),
}


# Arrays that are counted in bytes, although they hold something bigger.
_COUNTED_IN_BYTES = {
    "nvmlDeviceGetSupportedPerformanceStates",
    "nvmlDeviceGetVgpuMetadata",
    "nvmlVgpuInstanceGetMetadata",
}
# nvidia-ml-py has an earlier version of the first two, and the longest possible form of the others.
_OTHER_IN_NVIDIA_ML_PY = {
    "nvmlGpuFabricInfoV_t": 36,
    "nvmlGridLicensableFeatures_t": 416,
    "nvmlVgpuMetadata_t": 468,
    "nvmlVgpuPgpuMetadata_t": 380,
}


class Parameter(NamedTuple):
    """One parameter of a prototype. `size`: bytes of the value, or of what the pointer points to."""

    pointer: bool
    type: str
    size: int


@functools.cache
def header_path() -> Path:
    try:
        files = importlib.metadata.files("nvidia-nvml-dev") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("nvidia-nvml-dev, which carries nvml.h, is not installed")
    return Path(str(next(file.locate() for file in files if file.name == "nvml.h")))


@functools.cache
def header() -> str:
    """nvml.h without comments."""
    text = header_path().read_text("utf-8", "replace")
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return re.sub(r"//[^\n]*", "", text)


def evaluate(expressions: list[str], folder: Path) -> list[int]:
    """The values of C expressions, with nvml.h included."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler to ask for sizes in nvml.h")
    rows = "\n".join(f'    printf("%zu\\n", (size_t)({one}));' for one in expressions)
    source = folder / "sizes.c"
    source.write_text(f"#include <stddef.h>\n#include <stdio.h>\n#include <nvml.h>\nint main(void)\n{{\n{rows}\n}}\n")
    command = [compiler, "-DNVML_NO_UNVERSIONED_FUNC_DEFS", "-I", str(header_path().parent), "-o", "sizes", "sizes.c"]
    subprocess.run(command, cwd=folder, check=True)
    output = subprocess.run(["./sizes"], cwd=folder, check=True, capture_output=True, text=True).stdout
    return [int(line) for line in output.split()]


def split_parameter(text: str) -> tuple[str, bool]:
    """The type of a parameter, or of what it points to, and whether it is a pointer."""
    array = "[" in text
    words = re.sub(r"\[[^]]*\]", "", text).replace("*", " * ").split()
    stars = words.count("*") + array
    assert stars <= 1, text
    words = [word for word in words if word not in ("*", "const")]
    if len(words) > 1 and words[-1] not in ("int", "long", "char"):
        words.pop()  # the parameter's name
    return " ".join(words), stars == 1


@pytest.fixture(scope="module")
def prototypes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Parameter]]:
    """Every function of nvml.h, and its parameters."""
    found = {}
    for name, parameters in _PROTOTYPE.findall(header()):
        texts = [part.strip() for part in parameters.split(",")]
        found[name] = [split_parameter(text) for text in texts if text not in ("", "void")]
    types = sorted({kind for parameters in found.values() for kind, _ in parameters})
    sizes = dict(zip(types, evaluate([f"sizeof({kind})" for kind in types], tmp_path_factory.mktemp("c")), strict=True))
    return {
        name: [Parameter(pointer, kind, sizes[kind]) for kind, pointer in parameters]
        for name, parameters in found.items()
    }


def names() -> set[str]:
    return {function.name for function in functions()}


def test_everything_that_nvidia_ml_py_looks_up_is_exported() -> None:
    wanted = set(re.findall(r"_nvmlGetFunctionPointer\(\"(\w+)\"\)", inspect.getsource(pynvml)))
    library = ctypes.CDLL(str(LIBRARY))
    assert len(wanted) > 400
    assert not [name for name in sorted(wanted) if not hasattr(library, name)]


def test_everything_in_the_header_is_exported(prototypes: dict[str, list[Parameter]]) -> None:
    library = ctypes.CDLL(str(LIBRARY))
    assert len(prototypes) > 430
    assert not [name for name in [*prototypes, "nvmlErrorString"] if not hasattr(library, name)]


def test_everything_in_the_table_is_exported() -> None:
    library = ctypes.CDLL(str(LIBRARY))
    assert not [name for name in sorted(names()) if not hasattr(library, name)]


def test_everything_that_real_clients_use_is_exported() -> None:
    if not CLIENTS.exists():
        pytest.skip(f"{CLIENTS} is not here: the list of functions that real clients use")
    library = ctypes.CDLL(str(LIBRARY))
    used = json.loads(CLIENTS.read_text())["union"]
    assert len(used) == 99
    assert not [name for name in used if not hasattr(library, name)]


def disagreement(name: str, argument: Argument, parameter: Parameter) -> str | None:
    """What is wrong with a line's argument, if anything."""
    if argument.kind is Kind.VALUE:
        fits = not parameter.pointer and parameter.size == argument.size
    elif argument.kind is Kind.STRING or argument.type.startswith("bytes"):
        fits = parameter.pointer and (parameter.type == "char" or name in _COUNTED_IN_BYTES)
    else:
        fits = parameter.pointer and parameter.size == argument.size
    return None if fits else f"{argument} for {parameter}"


def check_references(function: Function) -> list[str]:
    """What is wrong with the arguments by which arrays say where their count is."""
    wrong = []
    for argument in function.arguments:
        if argument.kind in (Kind.ARRAY_BY_VALUE, Kind.INOUT_ARRAY, Kind.ARRAY_BY_POINTER):
            count = function.arguments[argument.reference]
            wanted = Kind.COUNT if argument.kind is Kind.ARRAY_BY_POINTER else Kind.VALUE
            if count.kind is not wanted or count.type not in ("u32", "i32"):
                wrong.append(f"{function.name}: {argument} counts by {count}")
    return wrong


def test_prototypes_agree_with_the_header(prototypes: dict[str, list[Parameter]]) -> None:
    wrong = []
    for function in functions():
        arguments = [argument for argument in function.arguments if argument.kind is not Kind.NESTED]
        parameters = prototypes.get(function.name)
        if parameters is None:
            continue  # only nvidia-ml-py knows it
        if len(arguments) != len(parameters):
            wrong.append(f"{function.name}: {len(arguments)} arguments, {len(parameters)} in nvml.h")
            continue
        for argument, parameter in zip(arguments, parameters, strict=True):
            if problem := disagreement(function.name, argument, parameter):
                wrong.append(f"{function.name}: {problem}")
        wrong += check_references(function)
    assert not wrong, "\n".join(wrong)


def test_functions_that_the_header_does_not_have_are_nvidia_ml_pys(prototypes: dict[str, list[Parameter]]) -> None:
    looked_up = set(re.findall(r"_nvmlGetFunctionPointer\(\"(\w+)\"\)", inspect.getsource(pynvml)))
    assert names() - set(prototypes) <= looked_up


def test_handles_are_what_the_header_calls_devices(prototypes: dict[str, list[Parameter]]) -> None:
    for function in functions():
        for argument, parameter in zip(function.arguments, prototypes.get(function.name, []), strict=False):
            assert (argument.type == "device") == (parameter == Parameter(False, "nvmlDevice_t", 8)), function.name


def test_sizes_of_structures_agree_with_the_header(tmp_path: Path) -> None:
    structures = {name: size for name, size in struct_sizes().items() if name.startswith("nvml")}
    measured = dict(zip(structures, evaluate([f"sizeof({name})" for name in structures], tmp_path), strict=True))
    assert measured == structures


def test_sizes_of_structures_agree_with_nvidia_ml_py() -> None:
    compared, wrong = 0, []
    for name, size in struct_sizes().items():
        structure = getattr(pynvml, f"c_{name}", None) or getattr(pynvml, name, None)
        if inspect.isclass(structure) and issubclass(structure, ctypes.Structure):
            compared += 1
            if ctypes.sizeof(structure) != _OTHER_IN_NVIDIA_ML_PY.get(name, size):
                wrong.append(f"{name}: {size}, {ctypes.sizeof(structure)} in nvidia-ml-py")
    assert compared > 50
    assert not wrong, "\n".join(wrong)


def test_versioned_structures_have_a_version_word_that_holds_their_size() -> None:
    versioned = {
        argument.type for function in functions() for argument in function.arguments if argument.kind is Kind.VERSIONED
    }
    stated = set(re.findall(r"NVML_STRUCT_VERSION\((\w+), *\d+\)", header()))
    bare = {re.sub(r"(V|_v\d+)?_t$", "", name).removeprefix("nvml") for name in versioned}
    assert bare <= stated


def test_offsets_of_nested_arrays_agree_with_the_header(tmp_path: Path) -> None:
    nested = [
        (function.arguments[argument.reference].type, argument)
        for function in functions()
        for argument in function.arguments
        if argument.kind is Kind.NESTED
    ]
    assert {name for name, _ in nested} == set(_NESTED_FIELDS)
    expressions = [f"offsetof({name}, {field})" for name, _ in nested for field in _NESTED_FIELDS[name]]
    stated = [offset for _, one in nested for offset in (one.pointer_offset, one.count_offset)]
    assert evaluate(expressions, tmp_path) == stated
