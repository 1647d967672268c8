"""Emulated boards answer what the numpy reference answers, within the figures promised."""

import dataclasses

import numpy as np
import pytest
from hand_built_programs import corner_programs, gesture_program, mnist_program
from random_programs import random_inputs, random_program

from dpsgd_torch.errors import BoardTooSmall, ExportError
from dpsgd_torch.export import check, run_unicorn, toolchain, unicorn_core
from dpsgd_torch.export.boards import BOARDS, Region, board
from dpsgd_torch.export.elf import read_elf
from dpsgd_torch.export.emulate import available_boards, missing_tools, run_on
from dpsgd_torch.export.footprint import estimate, footprint
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.run_qemu import run_qemu
from dpsgd_torch.export.to_c import to_c

EVERY_BOARD = [
    pytest.param(
        each,
        id=each.name,
        marks=pytest.mark.skipif(
            each not in available_boards(),
            reason=f"{each.name} needs {' and '.join(toolchain.needs(each))}",
        ),
    )
    for each in BOARDS
]
PIP_BOARD = board("unicorn-m4")
needs_pip_board = pytest.mark.skipif(
    PIP_BOARD not in available_boards(), reason="needs ziglang and unicorn"
)


@pytest.mark.parametrize("where", EVERY_BOARD)
@pytest.mark.parametrize("program", [gesture_program(), mnist_program()], ids=["gesture", "mnist"])
def test_both_models_equal_the_reference_on_400_inputs(where, program):
    inputs = random_inputs(program, 400)
    assert (run_on(where, to_c(program), inputs).outputs == run(program, inputs)).all()


@pytest.mark.parametrize("where", EVERY_BOARD)
def test_other_kernels_equal_the_reference(where):
    programs = [random_program(seed) for seed in range(500, 506)]
    names = ("dense_2050", "long_windows", "dense_2", "depthwise_29")
    programs += [corner_programs()[name] for name in names]
    for program in programs:
        inputs = random_inputs(program, 6)
        expected = run(program, inputs).reshape(6, -1)
        assert (run_on(where, to_c(program), inputs).outputs == expected).all()


@pytest.mark.parametrize(
    ("program", "flash", "ram", "instructions"),
    [(gesture_program(), 41_000, 1_100, 60_000), (mnist_program(), 30_000, 5_000, 900_000)],
    ids=["gesture", "mnist"],
)
def test_the_promised_figures_hold_on_a_cortex_m4(program, flash, ram, instructions):
    where = board("netduinoplus2")
    if where not in available_boards():
        pytest.skip("needs gcc-arm-none-eabi and qemu-system-arm")
    ran = run_on(where, to_c(program), random_inputs(program, 20))
    assert ran.flash_bytes <= flash
    assert ran.ram_bytes <= ram
    assert ran.instructions_per_inference <= instructions


@needs_pip_board
def test_the_footprint_is_measured_and_its_estimate_is_near():
    for program in (gesture_program(), mnist_program()):
        measured, guessed = footprint(program), estimate(program)
        assert measured.measured_on
        assert guessed.measured_on is None
        assert "estimate" in str(guessed)
        assert guessed.flash_bytes == pytest.approx(measured.flash_bytes, abs=2500)
        assert guessed.ram_bytes == pytest.approx(measured.ram_bytes, abs=300)


@needs_pip_board
def test_ram_counts_buffers_and_stack():
    program = mnist_program()
    ran = run_on(PIP_BOARD, to_c(program), random_inputs(program, 2))
    assert ran.ram_bytes > program.input.size + program.output.size + 3136 + ran.stack_bytes
    assert 50 < ran.stack_bytes < 500


@needs_pip_board
def test_instructions_are_counted_by_both_emulators_alike():
    other = board("netduinoplus2")
    if other not in available_boards():
        pytest.skip("needs gcc-arm-none-eabi and qemu-system-arm")
    program = mnist_program()
    here, there = (
        run_on(each, to_c(program), random_inputs(program, 4)).instructions_per_inference
        for each in (PIP_BOARD, other)
    )
    assert here == pytest.approx(there, rel=0.1)  # two compilers


CORES = {
    "M3": [],
    "M4": ["sxtb16 r0, r0", "vadd.f32 s0, s0, s1"],
    "M7": ["sxtb16 r0, r0", "vadd.f32 s0, s0, s1", "vadd.f64 d0, d0, d0", "vmaxnm.f32 s0, s0, s0"],
    "M33": ["sxtb16 r0, r0", "vadd.f32 s0, s0, s1", "vmaxnm.f32 s0, s0, s0", "lda r1, [r0]"],
}


@needs_pip_board
@pytest.mark.parametrize("model", CORES)
def test_unicorn_runs_the_instructions_of_the_core_it_is_asked_for_and_no_others(model):
    """An M3 has no float instruction, an M4 none of ARMv8-M."""
    assert [name for name in unicorn_core.PROBES if unicorn_core.executes(model, name)] == (
        CORES[model]
    )


@needs_pip_board
@pytest.mark.parametrize("model", ["M3", "M4", "M7"])
def test_a_core_that_is_not_the_one_asked_for_answers_nothing(monkeypatch, model):
    """As with unicorn's flag for M-class cores, under which each of them is a Cortex-M33."""
    unicorn = pytest.importorskip("unicorn")
    monkeypatch.setattr(unicorn, "UC_MODE_THUMB", unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
    unicorn_core._refuse_another.cache_clear()
    program = gesture_program()
    with pytest.raises(ExportError, match=f"asked for a Cortex-{model} .*emulates another core"):
        run_on(board(f"unicorn-{model.lower()}"), to_c(program), random_inputs(program, 1))


def test_a_missing_tool_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(toolchain.shutil, "which", lambda tool: None)
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda tool: None)
    assert available_boards() == []
    lines = missing_tools()
    assert any("stm32vldiscovery" in line and "apt install gcc-arm" in line for line in lines)
    assert any("unicorn-m4" in line and "pip install" in line for line in lines)
    with pytest.raises(ExportError, match="apt install"):
        run_on(board("microbit"), to_c(gesture_program()), np.zeros((1, 714), np.int8))
    assert footprint(gesture_program()).measured_on is None


@needs_pip_board
def test_a_model_that_never_answers_is_stopped(monkeypatch):
    monkeypatch.setattr(run_unicorn, "_SECONDS", 1)
    texts = to_c(gesture_program())
    texts["model.c"] = texts["model.c"].replace(
        "    int8_t *const arena", '    for (;;) { __asm__ volatile(""); }\n    int8_t *const arena'
    )
    with pytest.raises(ExportError, match="no answer within 1 s"):
        run_on(PIP_BOARD, texts, np.zeros((1, 714), np.int8))


@needs_pip_board
def test_a_model_too_large_for_its_board_is_told_in_one_line():
    texts = to_c(gesture_program())
    texts["model.c"] += "\nint8_t too_large[200000];\nint8_t *firmware_keep = too_large;\n"
    texts["model.c"] = texts["model.c"].replace(
        "    int8_t *const arena",
        "    extern int8_t *firmware_keep;\n    firmware_keep[0] = 1;\n    int8_t *const arena",
    )
    inputs = np.zeros((1, 714), np.int8)
    ends = r"KiB of RAM do not hold the model; take a larger board$"
    with pytest.raises(BoardTooSmall, match=f"^unicorn-m4: its .* {ends}"):
        run_on(PIP_BOARD, texts, inputs)
    small = dataclasses.replace(PIP_BOARD, flash=Region(PIP_BOARD.flash.origin, 2048))
    with pytest.raises(BoardTooSmall, match=r"^unicorn-m4: its 2 KiB of FLASH do not hold"):
        run_on(small, to_c(gesture_program()), inputs)


@needs_pip_board
def test_a_check_goes_on_past_a_board_that_is_too_small(monkeypatch):
    small = dataclasses.replace(PIP_BOARD, name="tiny", flash=Region(0, 2048))
    monkeypatch.setattr(check, "available_boards", lambda: [small, PIP_BOARD])
    program, inputs = gesture_program(), np.zeros((2, 714), np.float32)
    told = [str(each) for each in check.compare(program, inputs, np.zeros((2, 2)))]
    assert [line.split()[0] for line in told if "small" in line or "tiny" in line] == ["not"]
    assert any(line.startswith("unicorn-m4 (Cortex-M4)") and "0 of 4" in line for line in told)
    assert any("tiny: its 2 KiB of FLASH do not hold the model" in line for line in told)


def test_an_image_takes_objects_of_other_languages_beside_the_model(tmp_path):
    """As TensorFlow Lite Micro's are in ``benchmarks/tflm.py``."""
    where = board("netduinoplus2")
    if where not in available_boards():
        pytest.skip("needs gcc-arm-none-eabi and qemu-system-arm")
    header = (
        "#include <stdint.h>\n#define MODEL_INPUT_SIZE 2\n#define MODEL_OUTPUT_SIZE 2\n"
        "void model_invoke(const int8_t *x, int8_t *y);\n"
    )
    elsewhere = "void model_invoke(const signed char *x, signed char *y) { y[0] = x[1]; y[1] = 7; }"
    (tmp_path / "other.c").write_text(elsewhere)
    command = [where.compiler, *where.flags, "-O2", "-c", "other.c", "-o", "other.o"]
    toolchain.run(command, tmp_path, 60, "other")
    sources = {"model.h": header, "model.c": '#include "model.h"\n'}
    with pytest.raises(ExportError, match="undefined reference to `model_invoke'"):
        toolchain.build(where, sources, tmp_path)
    image = toolchain.build(where, sources, tmp_path, extra=["other.o"])
    outputs, _, _ = run_qemu(where, image, np.array([[1, 2], [3, 4]], np.int8), tmp_path)
    assert outputs.tolist() == [[2, 7], [4, 7]]


def test_an_unknown_board_is_refused_with_the_names_of_the_known():
    with pytest.raises(ValueError, match=r"unknown.*microbit"):
        board("uno")


def test_what_is_no_elf_file_is_refused():
    with pytest.raises(ValueError, match="not a 32-bit"):
        read_elf(b"\x7fELF\x02\x01" + bytes(60))
