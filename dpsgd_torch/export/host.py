"""Run models' C source on this machine, one compilation for many, sanitized if wished."""

from __future__ import annotations

import re
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.program import Int8
from dpsgd_torch.export.toolchain import (
    WARNINGS,
    firmware,
    prefix_of,
    put,
    require,
    run,
    zig_command,
)

Compiler = Literal["gcc", "clang", "zig"]
COMPILERS: tuple[Compiler, ...] = ("gcc", "clang", "zig")

_COMPILE_SECONDS, _RUN_SECONDS = 600, 300


def run_on_host(
    sources: dict[str, str],
    inputs: Int8,
    compiler: Compiler = "gcc",
    sanitize: bool = False,
    cplusplus: bool = False,
) -> Int8:
    """Outputs, (count, output size), of one model compiled with the strictest warnings as errors.

    Args:
        sources: what ``to_c`` returned.
        inputs: int8, (count, input size) or (count, …shape).
        compiler: ``zig`` is the clang of the ziglang wheel.
        sanitize: under gcc's address and undefined-behaviour sanitizers; the clangs, which often
            come without their run-time library, stop at undefined behaviour only.
        cplusplus: compile the model as C++17.

    Raises:
        ExportError: the compiler is missing or refuses, or the program fails or hangs.
    """
    return run_many_on_host([(sources, inputs)], compiler, sanitize, cplusplus)[0]


def run_many_on_host(
    models: Sequence[tuple[dict[str, str], Int8]],
    compiler: Compiler = "gcc",
    sanitize: bool = False,
    cplusplus: bool = False,
) -> list[Int8]:
    """The same for many models, made with different prefixes, in one translation unit."""
    prefixes = [prefix_of(sources) for sources, _ in models]
    if len(set(prefixes)) < len(prefixes):
        raise ExportError("models of one translation unit must have different prefixes")
    flat = [np.ascontiguousarray(x, np.int8).reshape(len(x), -1) for _, x in models]
    with tempfile.TemporaryDirectory(prefix="dpsgd_torch_") as name:
        folder = Path(name)
        for sources, _ in models:
            put(folder, sources)
        put(folder, {"main.c": _main(prefixes), "models.c": _unit(prefixes)})
        _compile(folder, compiler, sanitize, cplusplus)
        stdin = b"".join(struct.pack("<I", len(x)) + x.tobytes() for x in flat)
        out = run([str(folder / "program")], folder, _RUN_SECONDS, f"host C ({compiler})", stdin)
    return _split(models, prefixes, np.frombuffer(out, np.int8))


def _compile(folder: Path, compiler: Compiler, sanitize: bool, cplusplus: bool) -> None:
    require("ziglang" if compiler == "zig" else compiler)
    command = zig_command() if compiler == "zig" else [compiler]
    level = ["-O0"] if sanitize else ["-O2"]  # a third of the time, and nothing is folded away
    if sanitize and compiler == "gcc":
        level += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    elif sanitize:
        level += ["-fsanitize=undefined", "-fsanitize-trap=undefined"]
    elif compiler == "zig":
        level += ["-fno-sanitize=all"]
    warnings = list(WARNINGS)
    if cplusplus:
        warnings[0] = "-std=c++17"
        warnings += ["-x", "c++"]
    what = f"host C ({compiler})"
    model = [*command, *level, *warnings, "-c", "models.c", "-o", "models.o"]
    run(model, folder, _COMPILE_SECONDS, what)
    link = [*command, *level, "-I.", "main.c", "models.o", "-o", "program"]
    run(link, folder, _COMPILE_SECONDS, what)


def _unit(prefixes: Sequence[str]) -> str:
    return "\n".join(f'#include "{prefix}.c"' for prefix in prefixes) + "\n"


def _main(prefixes: Sequence[str]) -> str:
    includes = "\n".join(f'#include "{prefix}.h"' for prefix in prefixes)
    table = ",\n    ".join(
        f"{{{prefix}_invoke, {prefix.upper()}_INPUT_SIZE, {prefix.upper()}_OUTPUT_SIZE}}"
        for prefix in prefixes
    )
    return firmware("host.c").replace("@INCLUDES@", includes).replace("@MODELS@", table)


def _split(
    models: Sequence[tuple[dict[str, str], Int8]], prefixes: Sequence[str], out: Int8
) -> list[Int8]:
    parts, place = [], 0
    for (sources, inputs), prefix in zip(models, prefixes, strict=True):
        size = int(_number(sources[f"{prefix}.h"], "OUTPUT_SIZE"))
        parts.append(out[place : place + size * len(inputs)].reshape(len(inputs), size))
        place += size * len(inputs)
    if place != len(out):
        raise ExportError(f"host C: {len(out)} bytes of output instead of {place}")
    return parts


def _number(header: str, macro: str) -> str:
    found = re.search(rf"^#define \w+_{macro} (\d+)", header, re.MULTILINE)
    if not found:
        raise ExportError(f"the header defines no {macro}")
    return found[1]
