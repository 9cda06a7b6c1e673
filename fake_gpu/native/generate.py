"""Writes the C table and entry points of the library from functions.txt. Runs at build time, with nothing installed."""

from __future__ import annotations

from fake_gpu.nvml.abi import Argument, Function, Kind, checksum, functions
from fake_gpu.nvml.codes import TEXTS

_C_VALUE = {4: "uint32_t", 8: "uint64_t"}


def _c_type(argument: Argument) -> str:
    return _C_VALUE[argument.size] if argument.kind is Kind.VALUE else "void *"


def _entry_point(function: Function) -> str:
    real = [argument for argument in function.arguments if argument.kind is not Kind.NESTED]
    parameters = ", ".join(f"{_c_type(argument)} a{place}" for place, argument in enumerate(real)) or "void"
    words = ", ".join(
        f"a{place}" if argument.kind is Kind.VALUE else f"(uintptr_t)a{place}" for place, argument in enumerate(real)
    )
    return (
        f"EXPORT uint32_t {function.name}({parameters})\n"
        f"{{\n    uint64_t words[6] = {{{words or '0'}}};\n    return forward({function.index}, words);\n}}\n"
    )


def _row(function: Function) -> str:
    arguments = ", ".join(
        f"{{{int(a.kind)}, {a.reference}, {a.pointer_offset}, {a.count_offset}, {a.size}}}" for a in function.arguments
    )
    return f'    {{"{function.name}", {len(function.arguments)}, {{{arguments or "{0, 0, 0, 0, 0}"}}}}},'


def kinds() -> str:
    """The text of nvml_kinds.h: the enumeration, and the sizes that the table needs."""
    names = ", ".join(f"{kind.name} = {int(kind)}" for kind in Kind)
    most = max(len(function.arguments) for function in functions())
    words = max(sum(a.kind is not Kind.NESTED for a in function.arguments) for function in functions())
    return f"enum kind {{ {names} }};\n#define MAX_ARGUMENTS {most}\n#define MAX_WORDS {words}\n"


def table() -> str:
    """The text of nvml_table.h: the functions and their arguments, and the error texts."""
    texts = "\n".join(f'    {{{code}, "{text}"}},' for code, text in TEXTS.items())
    rows = "\n".join(_row(function) for function in functions())
    return (
        f"/* Generated from fake_gpu/nvml/functions.txt. */\n#define TABLE_CHECKSUM {checksum()}u\n"
        f"static const struct function FUNCTIONS[] = {{\n{rows}\n}};\n"
        f"static const struct text TEXTS[] = {{\n{texts}\n}};\n"
    )


def entry_points() -> str:
    """The text of nvml_entry_points.h: one exported C function for each line of the table."""
    return "/* Generated from fake_gpu/nvml/functions.txt. */\n" + "\n".join(map(_entry_point, functions()))
