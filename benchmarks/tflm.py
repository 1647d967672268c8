"""What does a .tflite file cost on a Cortex-M4F with TensorFlow Lite Micro and CMSIS-NN?

    python benchmarks/tflm.py FILE.tflite … --tflm DIR --cmsis-nn DIR --cmsis DIR \\
        --gemmlowp DIR --flatbuffers DIR --ruy DIR

The folders are checkouts of tensorflow/tflite-micro and of what it names in
lite/micro/tools/make: ARM-software's CMSIS-NN and CMSIS_6, google's gemmlowp, flatbuffers 25.9.23
(with TFLM's flatbuffers.patch, if its image is to be as small as it can) and ruy; the compiler is
arm-none-eabi-g++ (apt install gcc-arm-none-eabi libstdc++-arm-none-eabi-newlib). Nothing of theirs
is in this package.

The image is the one that ``firmware.py`` measures, with the interpreter in the model's place: the
same start-up, exchange of inputs and outputs, linker script, optimisation level and emulator. Log
messages are compiled out, only the file's operators are registered, unused sections are dropped,
and the arena is what the interpreter says it used, to 16 bytes.

    flash         the whole image
    RAM           static memory, arena and the stack's high-water mark (loading included)
    in place      the same without the harness's input and output buffers: as in a firmware that
                  writes its samples into the arena itself
    instructions  of one inference, loading not counted
    differ        bytes that the ``tflite-micro`` wheel (reference kernels) answers otherwise
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tflm_image import ARENA_MOST, ARENA_STEP, ARENA_STRIDE, Checkouts, emulated, library_of, link

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.elf import Image
from dpsgd_torch.export.run_qemu import run_qemu
from dpsgd_torch.export.tflite_file import schema
from dpsgd_torch.export.tflm import interpret

SEED = 0


@dataclass(frozen=True)
class Cost:
    """What a file took, in bytes and instructions of one inference."""

    file: str
    operators: tuple[str, ...]
    flash: int
    ram: int
    ram_in_place: int
    arena: int
    stack: int
    instructions: float
    outputs: int
    differ: int


def measure(file: Path, checkouts: Checkouts, inputs: int = 400) -> Cost:
    """Build, run and measure; a file's input and output must be one int8 tensor each.

    Raises:
        ExportError: a source does not compile, or the file does not run.
    """
    content = file.read_bytes()
    operators, shape, input_size, output_size = _read(content)
    library = library_of(operators, checkouts)
    rows = np.random.default_rng(SEED).integers(-128, 128, (inputs, input_size), np.int8)
    with tempfile.TemporaryDirectory(prefix="dpsgd_torch_") as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(content)

        def image_of(arena: int, output: int, search: tuple[int, int] | None) -> Image:
            """``search``: from which size, in steps of how many bytes; in place of the model."""
            start, step = search or (0, ARENA_STEP)
            places = {"INPUT": input_size, "OUTPUT": output, "ARENA": arena}
            places |= {"STEP": step, "FROM": start, "SEARCH": int(search is not None)}
            return link(operators, places, library, checkouts, folder)

        def searched(start: int, step: int) -> int:
            image = image_of(ARENA_MOST, 4, (start, step))
            return int(run_qemu(target, image, rows[:1], folder)[0].copy().view("<u4")[0, 0])

        target = emulated()
        near = searched(0, ARENA_STRIDE)
        arena = searched(max(0, near - ARENA_STRIDE), ARENA_STEP)
        image = image_of(arena, output_size, None)
        _, first, _ = run_qemu(target, image, rows[:1], folder)  # loads the file too
        outputs, mean, stack = run_qemu(target, image, rows, folder)
    told = interpret(content, rows.reshape(inputs, *shape[1:])).reshape(inputs, -1)
    ram = image.static_ram_bytes + stack
    return Cost(
        file=file.name,
        operators=operators,
        flash=image.flash_bytes,
        ram=ram,
        ram_in_place=ram - sum(-(-size // 4) * 4 for size in (input_size, output_size)),
        arena=arena,
        stack=stack,
        instructions=(mean * inputs - first) / (inputs - 1),
        outputs=outputs.size,
        differ=int((told != outputs).sum()),
    )


def _read(content: bytes) -> tuple[tuple[str, ...], list[int], int, int]:
    """(operators' names, input's shape, input's size, output's size)."""
    kinds = schema()
    model: Any = kinds.ModelT.InitFromObj(kinds.Model.GetRootAs(content, 0))
    names = {code: name for name, code in vars(kinds.BuiltinOperator).items()}
    codes = [max(each.builtinCode, each.deprecatedBuiltinCode) for each in model.operatorCodes]
    graph = model.subgraphs[0]
    used = {names[codes[each.opcodeIndex]] for each in graph.operators}
    ends = [graph.tensors[each] for each in (*graph.inputs, *graph.outputs)]
    if len(ends) != 2 or any(each.type != kinds.TensorType.INT8 for each in ends):
        raise ExportError("tflite: one int8 input and one int8 output are measured here")
    sizes = [int(np.prod(each.shape)) for each in ends]
    return tuple(sorted(used)), list(ends[0].shape), sizes[0], sizes[1]


def main() -> None:
    arguments = _arguments()
    folders = {name: getattr(arguments, name).resolve() for name in FOLDERS}
    folders["objects"].mkdir(parents=True, exist_ok=True)
    for name in ("tflm", "cmsis_nn"):
        told = subprocess.run(
            ["git", "-C", folders[name], "log", "-1", "--format=%h of %cs"],
            capture_output=True,
            text=True,
        )
        print(f"{name} {told.stdout.strip() or 'of an unknown version'}", end=", ")
    levels = {"level": arguments.level, "core_level": arguments.core_level or arguments.level}
    checkouts = Checkouts(**folders, **levels, int8_only=arguments.int8_only)
    print(f"kernels {checkouts.level}, interpreter {checkouts.core_level}, seed {SEED}")
    titles = ("flash KB", "RAM KB", "in place", "arena", "stack")
    print(f"{'file':28}" + "".join(f"{title:>10}" for title in titles) + f"{'instructions':>14}")
    costs = []
    for file in arguments.files:
        cost = measure(file, checkouts, arguments.inputs)
        bytes_of = (cost.flash, cost.ram, cost.ram_in_place, cost.arena, cost.stack)
        row = "".join(f"{each / 1000:10.2f}" for each in bytes_of)
        note = f"   {cost.differ} of {cost.outputs} bytes differ"
        print(f"{cost.file[:28]:28}{row}{cost.instructions:14,.0f}{note}", flush=True)
        costs.append(asdict(cost))
    if arguments.json:
        arguments.json.write_text(json.dumps(costs, indent=1))


FOLDERS = ("tflm", "cmsis_nn", "cmsis", "gemmlowp", "flatbuffers", "ruy", "objects")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.tflite")
    for name in FOLDERS[:-1]:
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, required=True)
    kept = Path(tempfile.gettempdir()) / "tflm-objects"
    parser.add_argument(
        "--objects", type=Path, default=kept, help="compiled; empty it where a checkout changed"
    )
    parser.add_argument("--level", default="-O2", help="of kernels, CMSIS-NN and harness")
    parser.add_argument("--core-level", help="of the interpreter, if another (TFLM's own: -Os)")
    parser.add_argument("--int8-only", action="store_true", help="register the int8 variants")
    parser.add_argument("--inputs", type=int, default=400, help="random inputs")
    parser.add_argument("--json", type=Path, help="where to write the figures too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
