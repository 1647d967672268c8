"""A firmware image of TensorFlow Lite Micro with CMSIS-NN, from the user's checkouts.

Compiled objects are kept: an image of the same operators links in a second.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.boards import MIB, Board, Region, board
from dpsgd_torch.export.elf import Image
from dpsgd_torch.export.toolchain import build, run

ARENA_STEP, ARENA_STRIDE, ARENA_MOST = 16, 512, MIB
DEFINES = (
    *("-DNDEBUG", "-DTF_LITE_STRIP_ERROR_STRINGS", "-DTF_LITE_STATIC_MEMORY", "-DCMSIS_NN"),
    *("-DTF_LITE_DISABLE_X86_NEON", "-DARM_NN_ENABLE_F16=0", "-DARM_NN_ENABLE_F32=0"),
)
FLAGS = (
    *("-w", "-ffunction-sections", "-fdata-sections", "-funsigned-char", "-fno-unwind-tables"),
    *("-fno-asynchronous-unwind-tables", "-fomit-frame-pointer"),
)
CXX_FLAGS = ("-std=c++17", "-fno-rtti", "-fno-exceptions", "-fno-threadsafe-statics")
CORE = (
    *("lite/core/**/*.cc", "lite/kernels/kernel_util.cc", "lite/kernels/internal/**/*.cc"),
    *("compiler/mlir/lite/**/*.cc", "lite/micro/*.cc", "lite/micro/arena_allocator/*.cc"),
    *("lite/micro/memory_planner/*.cc", "lite/micro/tflite_bridge/*.cc"),
)
NOT_CORE = re.compile(r"_test\.cc$|/(mock|fake|test)_\w+\.cc$|/tools/")

HARNESS = """\
#include <cstring>
#include <new>
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

extern "C" const unsigned char tflm_file[];
extern "C" void model_invoke(const int8_t *input, int8_t *output);

using Resolver = tflite::MicroMutableOpResolver<@COUNT@>;
alignas(16) static uint8_t arena[@ARENA@];
alignas(8) static uint8_t resolver_room[sizeof(Resolver)];
alignas(8) static uint8_t interpreter_room[sizeof(tflite::MicroInterpreter)];
static tflite::MicroInterpreter *interpreter;

static void stop()
{
    register uintptr_t r0 __asm__("r0") = 0x18;
    register uintptr_t r1 __asm__("r1") = 0x20023;
    __asm__ volatile("bkpt 0xAB" : : "r"(r0), "r"(r1) : "memory");
    for (;;) {
    }
}

extern "C" void abort() /* newlib's takes signals and malloc along */
{
    stop();
    for (;;) {
    }
}

static bool start(size_t size)
{
    Resolver *resolver = new (resolver_room) Resolver;
@ADD@
    interpreter = new (interpreter_room)
        tflite::MicroInterpreter(tflite::GetModel(tflm_file), *resolver, arena, size);
    return interpreter->AllocateTensors() == kTfLiteOk;
}

#if @SEARCH@
void model_invoke(const int8_t *, int8_t *output)
{
    uint32_t size = start(sizeof arena) ? interpreter->arena_used_bytes() / @STEP@ * @STEP@ : 0;
    size = size < @FROM@ ? @FROM@ : size;
    while (size < sizeof arena && !(start(size) && interpreter->Invoke() == kTfLiteOk)) {
        size += @STEP@;
    }
    memcpy(output, &size, sizeof size);
}
#else
void model_invoke(const int8_t *input, int8_t *output)
{
    if (!interpreter && !start(sizeof arena)) {
        stop();
    }
    memcpy(interpreter->input(0)->data.int8, input, @INPUT@);
    if (interpreter->Invoke() != kTfLiteOk) {
        stop();
    }
    memcpy(output, interpreter->output(0)->data.int8, @OUTPUT@);
}
#endif
"""
MODEL_H = """\
#include <stdint.h>
#define MODEL_INPUT_SIZE @INPUT@
#define MODEL_OUTPUT_SIZE @OUTPUT@
void model_invoke(const int8_t *input, int8_t *output);
"""
MODEL_C = """\
__asm__(".section .rodata.tflm_file, \\"a\\"\\n.balign 16\\n.global tflm_file\\n"
        "tflm_file: .incbin \\"model.tflite\\"\\n.previous\\n");
"""


@dataclass(frozen=True)
class Checkouts:
    """Where the sources lie, where objects are kept, and how they are compiled."""

    tflm: Path
    cmsis_nn: Path
    cmsis: Path
    gemmlowp: Path
    flatbuffers: Path
    ruy: Path
    objects: Path
    level: str = "-O2"
    core_level: str = "-O2"
    int8_only: bool = False

    @property
    def includes(self) -> tuple[str, ...]:
        nn, core = self.cmsis_nn, self.cmsis / "CMSIS/Core/Include"
        found = (self.tflm, nn, nn / "Include", core, core / "m-profile", self.gemmlowp)
        return tuple(f"-I{path}" for path in (*found, self.flatbuffers / "include", self.ruy))


def emulated() -> Board:
    """QEMU's mps2-an386: a Cortex-M4F with room for every arena."""
    return replace(
        board("netduinoplus2"),
        name="mps2-an386",
        emulator=("qemu-system-arm", "-M", "mps2-an386"),
        flash=Region(0, 4 * MIB),
        ram=Region(0x20000000, 4 * MIB),
        timer_hz=25_000_000,
    )


def library_of(operators: Iterable[str], checkouts: Checkouts) -> Path:
    """The interpreter, the kernels of these operators and CMSIS-NN, as one archive."""
    root = checkouts.tflm / "tensorflow"
    core = [path for pattern in CORE for path in root.glob(pattern)]
    core = [path for path in core if not NOT_CORE.search(path.as_posix())]
    kernels = root / "lite/micro/kernels"
    wanted = {kernels / "kernel_util.cc"}
    for operator in operators:
        found = [*kernels.glob("cmsis_nn/*.cc"), *kernels.glob("*.cc")]
        defined = re.compile(rf"^TFLMRegistration\*? Register_{operator}\(\) {{", re.MULTILINE)
        source = next((each for each in found if defined.search(each.read_text())), None)
        if source is None:
            raise ExportError(f"{operator}: TFLM has no kernel of that name")
        common = kernels / f"{source.stem}_common.cc"
        wanted |= {source, *([common] if common.exists() else [])}
    third = [
        each
        for each in checkouts.cmsis_nn.glob("Source/**/*.c")
        if not re.search(r"_f16|_f32|_flt", each.name)
    ]
    levels = [(each, checkouts.core_level) for each in core]
    levels += [(each, checkouts.level) for each in (*sorted(wanted), *third)]
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(lambda pair: str(_compile(pair[0], pair[1], checkouts)), levels))
    archive = checkouts.objects / f"{hashlib.sha256(repr(objects).encode()).hexdigest()[:16]}.a"
    if not archive.exists():
        run(["arm-none-eabi-ar", "rcs", str(archive), *objects], checkouts.objects, 60, "ar")
    return archive


def _compile(source: Path, level: str, checkouts: Checkouts) -> Path:
    is_c = source.suffix == ".c"
    tool = ["arm-none-eabi-gcc", "-std=c17"] if is_c else ["arm-none-eabi-g++", *CXX_FLAGS]
    command = [*tool, *emulated().flags, level, *FLAGS, *DEFINES, *checkouts.includes]
    key = hashlib.sha256(repr(command).encode() + str(source).encode() + source.read_bytes())
    made = checkouts.objects / f"{source.stem}.{key.hexdigest()[:16]}.o"
    if not made.exists():
        part = made.with_suffix(".part")
        run([*command, "-c", str(source), "-o", str(part)], source.parent, 300, source.name)
        part.rename(made)
    return made


def link(
    operators: tuple[str, ...],
    places: dict[str, int],
    library: Path,
    checkouts: Checkouts,
    folder: Path,
) -> Image:
    kernels = checkouts.tflm / "tensorflow/lite/micro"
    resolver = (kernels / "micro_mutable_op_resolver.h").read_text()
    headers = {each: each.read_text() for each in sorted(kernels.glob("kernels/*.h"))}
    added, included = [], []
    for operator in operators:
        found = re.search(
            rf"Add(\w+)\([^)]*\)?[^)]*\) {{\s+return AddBuiltin\(\s*"
            rf"BuiltinOperator_{operator},",
            resolver,
        )
        if found is None:
            raise ExportError(f"{operator}: TFLM's resolver does not name it")
        lean = f"Register_{operator}_INT8()"
        declared = [each for each, text in headers.items() if f"TFLMRegistration {lean};" in text]
        leanest = checkouts.int8_only and declared
        if leanest:
            included.append(f'#include "{declared[0].relative_to(checkouts.tflm)}"\n')
        added.append(f"    resolver->Add{found[1]}({f'tflite::{lean}' if leanest else ''});")
    text = "".join(included) + HARNESS.replace("@COUNT@", str(len(operators)))
    text = text.replace("@ADD@", "\n".join(added))
    header = MODEL_H
    for place, value in places.items():
        text, header = (each.replace(f"@{place}@", str(value)) for each in (text, header))
    (folder / "harness.cc").write_text(text)
    harness = _compile(folder / "harness.cc", checkouts.core_level, checkouts)
    extra = [str(harness), str(library), "-lstdc++"]
    sources = {"model.c": MODEL_C, "model.h": header}
    try:
        return build(emulated(), sources, folder, checkouts.level, extra)
    finally:
        harness.unlink()
