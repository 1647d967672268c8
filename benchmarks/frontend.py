"""What does a front end for sound cost on a microcontroller: flash, RAM, instructions a frame?

The MFCC of keyword spotting and the log-mel energies of machines' sounds, on every emulated board
that is there, at -O2. All figures are of the front end alone, tables and stack included: an image
with it less one without. RAM holds the frame of int16 samples too. Instructions are counted by the
emulator: they are no cycles.

    ours    this package's C, which equals numpy bit for bit
    q15     CMSIS-DSP's arm_mfcc_q15 with the same frame, window, bands and DCT, on the Cortex-M4F,
            where its sources are: --cmsis-dsp, and --cmsis-core for the headers of CMSIS_6
    q31     its arm_mfcc_q31 likewise
    f32     its arm_mfcc_f32, on the board's floating-point unit

Then what a stream adds to its frames and inferences, on the Cortex-M4F: instructions between two
answers, and how many of them go into taking samples (for sound the harness's copy of them too) and
letting windows slide.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import numpy as np
import scipy.signal
import torch
from torch import nn

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.boards import Board, board
from dpsgd_torch.export.c_text import array
from dpsgd_torch.export.compiler import compile_model
from dpsgd_torch.export.emulate import BoardRun, available_boards, missing_tools, run_on
from dpsgd_torch.export.frontend import Stream
from dpsgd_torch.export.frontend.as_model import (
    CALL,
    from_bytes,
    frontend_as_model,
    sample_bytes,
    stream_as_model,
)
from dpsgd_torch.export.to_c import to_c
from dpsgd_torch.export.to_onnx import to_onnx
from dpsgd_torch.features.sound import KEYWORDS, MACHINES, Frontend
from dpsgd_torch.features.sound.integers import of_frames
from dpsgd_torch.features.sound.tables import tables

SEED = 0
FRAMES = 12
PEERS_BOARD = "netduinoplus2"
FAMILIES = (
    "BasicMath",
    "ComplexMath",
    "FastMath",
    "Matrix",
    "Statistics",
    "Support",
    "Transform",
)

PEER = """
#include "model.h"
{includes}
{tables}
static {kind} source[{fft}], result[{features}];
static {scratch} scratch[2 * {fft} + 2];
static arm_mfcc_instance_{name} mfcc;

void model_invoke(const int8_t *input, int8_t *output)
{{
    static int16_t samples[{frame}];
    static int ready;
    int i;
    if (!ready) {{
        ready = arm_mfcc_init_{fft}_{name}(&mfcc, {bands}, {features}, dct, positions, lengths,
                                           filters, window) == 0;
    }}
    for (i = 0; i < {frame}; ++i) {{
        samples[i] = (int16_t)(input[2 * i + 1] * 256 + (uint8_t)input[2 * i]);
    }}
    for (i = 0; i < {fft}; ++i) {{
        source[i] = i < {frame} ? {convert} : 0;
    }}
{call}    for (i = 0; i < MODEL_OUTPUT_SIZE; ++i) {{
        output[i] = ((int8_t *)result)[i];
    }}
}}
"""
PEER_CALL = "    arm_mfcc_{name}(&mfcc, source, result, scratch);\n"
WITHOUT = """
#include "model.h"
void model_invoke(const int8_t *input, int8_t *output)
{
    int i;
    static int16_t samples[MODEL_INPUT_SIZE / 2];
    for (i = 0; i < MODEL_INPUT_SIZE / 2; ++i) {
        samples[i] = (int16_t)(input[2 * i + 1] * 256 + (uint8_t)input[2 * i]);
    }
    for (i = 0; i < MODEL_OUTPUT_SIZE; ++i) {
        output[i] = (int8_t)samples[i];
    }
}
"""


def main() -> None:
    arguments = _arguments()
    tell_machine()
    rng = np.random.default_rng(SEED)
    costs = {}
    for name, frontend in (("MFCC, keywords", KEYWORDS), ("log-mel, machines", MACHINES)):
        print(f"\n{name:28} {'who':5} {'flash KB':>9} {'RAM KB':>7} {'instructions':>13}  a frame")
        frames = np.clip(rng.normal(0, 3000, (FRAMES, frontend.frame)), -32768, 32767)
        frames = np.rint(frames).astype(np.int16)
        for each in available_boards():
            try:
                costs[name, each.name] = measure_ours(each, frontend, frames)
            except ExportError as error:
                print(f"{each!s:28} {'ours':5} {str(error)[-60:]}")
    measure_streams(costs)
    if arguments.cmsis_dsp and arguments.cmsis_core:
        print(
            f"\n{'MFCC, keywords':28} {'who':5} {'flash KB':>9} {'RAM KB':>7} {'instructions':>13}"
        )
        frames = np.clip(rng.normal(0, 3000, (FRAMES, KEYWORDS.frame)), -32768, 32767)
        for name in ("q15", "q31", "f32"):
            measure_peer(name, arguments, np.rint(frames).astype(np.int16))
    for line in missing_tools():
        print(line)


def measure_ours(where: Board, frontend: Frontend, frames: np.ndarray) -> float:
    """Instructions a frame."""
    sources = frontend_as_model(frontend)
    inputs = sample_bytes(frames)
    ran = run_on(where, sources, inputs)
    differ = int((from_bytes(ran.outputs, frontend) != of_frames(frames, frontend)).sum())
    bare = run_on(where, {**sources, "model.c": WITHOUT}, inputs)
    assert CALL in sources["model.c"]
    _print(where, "ours", ran, bare, frontend, f"{differ} of {ran.outputs.size} differ")
    return ran.instructions_per_inference - bare.instructions_per_inference


def measure_streams(costs: dict[tuple[str, str], float]) -> None:
    """Each with a network of one dense layer: what is its own is subtracted anyway."""
    where = board(PEERS_BOARD)
    if where not in available_boards():
        return
    print(f"\n{'a stream on ' + where.core:40} {'instructions':>13}  between two answers")
    rng = np.random.default_rng(SEED)
    for name, size, stream in (
        ("gestures, every 12 samples of motion", 714, Stream(channels=6, every=12)),
        ("keywords, every 3200 samples of sound", 490, Stream(every=3200, frontend=KEYWORDS)),
    ):
        torch.manual_seed(SEED)
        graph = to_onnx(nn.Linear(size, 12).eval(), (size,), {})
        program = compile_model(graph, input_range=KEYWORDS.input_range)
        blocks = 40
        low, kind = (-20_000, np.int16) if stream.frontend else (-128, np.int8)
        values = rng.integers(low, -low, (blocks, stream.every * stream.channels)).astype(kind)
        inputs = sample_bytes(values) if stream.frontend else values
        whole = run_on(where, stream_as_model(program, stream), inputs)
        alone = run_on(where, to_c(program), np.zeros((4, size), np.int8))
        taken = blocks * stream.every
        answers = 1 + (taken - stream.samples(size)) // stream.every
        total = whole.instructions_per_inference * blocks
        frames = 0.0
        if stream.frontend:
            frames = costs["MFCC, keywords", where.name] * stream.frontend.frames(taken)
        own = total - frames - answers * alone.instructions_per_inference
        each = frames / blocks + alone.instructions_per_inference + own / blocks
        print(f"{name:40} {each:13,.0f}  {own / blocks:,.0f} of them the stream's own")


def measure_peer(name: str, arguments: argparse.Namespace, frames: np.ndarray) -> None:
    """CMSIS-DSP in one translation unit: the linker drops what is not called."""
    where = board(PEERS_BOARD)
    if where not in available_boards():
        return
    folders = [arguments.cmsis_dsp / "Include", arguments.cmsis_dsp / "PrivateInclude"]
    folders.append(arguments.cmsis_core)
    told = ["-D__FPU_PRESENT=1", "-w", *(f"-I{folder.resolve()}" for folder in folders)]
    where = dataclasses.replace(where, flags=(*where.flags, *told))
    header = (
        "#include <stdint.h>\n"
        f"#define MODEL_INPUT_SIZE {2 * KEYWORDS.frame}\n"
        f"#define MODEL_OUTPUT_SIZE {(2 if name == 'q15' else 4) * KEYWORDS.features}\n"
        "void model_invoke(const int8_t *input, int8_t *output);\n"
    )
    inputs = sample_bytes(frames)
    source = _peer_source(name, arguments.cmsis_dsp.resolve())
    ran = run_on(where, {"model.c": source, "model.h": header}, inputs)
    bare = run_on(where, {"model.c": WITHOUT, "model.h": header}, inputs)
    _print(where, name, ran, bare, KEYWORDS, "")


def _peer_source(name: str, root: Path) -> str:
    constants, fft = tables(KEYWORDS), KEYWORDS.fft
    window = np.zeros(fft)
    window[: KEYWORDS.frame] = scipy.signal.get_window(KEYWORDS.window, KEYWORDS.frame)
    positions, lengths, filters = _filters(KEYWORDS)
    rows = np.arange(KEYWORDS.features)[:, None]
    columns = np.arange(KEYWORDS.bands) + 0.5
    dct = np.cos(np.pi * rows * columns / KEYWORDS.bands) * np.sqrt(2 / KEYWORDS.bands)
    assert constants.edges[-1] <= fft // 2 + 1
    kind = "float32_t" if name == "f32" else f"{name}_t"
    converted = {"q31": "samples[i] * 65536", "q15": "samples[i]", "f32": "samples[i] / 32768.0f"}
    reals = {"window": window, "filters": filters, "dct": dct}
    texts = [_array(kind, key, values) for key, values in reals.items()]
    texts += [array("uint32_t", "positions", positions), array("uint32_t", "lengths", lengths)]
    files = [root / "Source" / f"{f}Functions" / f"{f}Functions.c" for f in FAMILIES]
    files.append(root / "Source" / "CommonTables" / "CommonTables.c")
    return PEER.format(
        includes='#include "arm_math.h"\n' + "\n".join(f'#include "{file}"' for file in files),
        tables="\n".join(texts),
        kind=kind,
        name=name,
        fft=fft,
        frame=KEYWORDS.frame,
        features=KEYWORDS.features,
        bands=KEYWORDS.bands,
        convert=converted[name],
        scratch="q31_t" if name == "q15" else kind,
        call=PEER_CALL.format(name=name),
    )


def _filters(frontend: Frontend) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First bin, length and weights of each triangle, from ours."""
    constants = tables(frontend)
    edges, rise = constants.edges, constants.rise / 2**15
    first = edges[0]
    weights = []
    for band in range(frontend.bands):
        up = rise[edges[band] - first : edges[band + 1] - first]
        down = 1 - rise[edges[band + 1] - first : edges[band + 2] - first]
        weights.append(np.concatenate([up, down]))
    lengths = np.array([len(each) for each in weights])
    return edges[: frontend.bands], lengths, np.concatenate(weights)


def _array(kind: str, name: str, values: np.ndarray) -> str:
    if kind != "float32_t":
        one = 2 ** int(kind[1:3])
        fixed = np.clip(np.rint(values * one), -one, one - 1).astype(np.int64)
        return array(kind, name, fixed)
    words = ", ".join(f"{value:.9e}f" for value in values.reshape(-1))
    return f"static const {kind} {name}[] = {{{words}}};"


def _print(
    where: Board, who: str, ran: BoardRun, bare: BoardRun, frontend: Frontend, note: str
) -> None:
    flash = (ran.flash_bytes - bare.flash_bytes) / 1000
    ram = (ran.ram_bytes - bare.ram_bytes + 2 * frontend.frame) / 1000
    cost = ran.instructions_per_inference - bare.instructions_per_inference
    print(f"{where!s:28} {who:5} {flash:9.2f} {ram:7.2f} {cost:13,.0f}   {note}".rstrip())


def tell_machine() -> None:
    packages = ("numpy", "ziglang", "unicorn")
    print(f"{platform.machine()}, Python {platform.python_version()}, seed {SEED}")
    print(", ".join(f"{name} {version(name)}" for name in packages))
    for tool in ("arm-none-eabi-gcc", "qemu-system-arm", "riscv64-unknown-elf-gcc"):
        if shutil.which(tool):
            told = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True)
            print(told.stdout.splitlines()[0])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cmsis-dsp", type=Path, help="a copy of ARM-software/CMSIS-DSP")
    parser.add_argument(
        "--cmsis-core", type=Path, help="CMSIS/Core/Include of ARM-software/CMSIS_6"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
