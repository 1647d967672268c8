"""The emitted C says what the numpy reference says, bit for bit, and nothing it should not."""

import dataclasses
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hand_built_programs import corner_programs, gesture_program, mnist_program
from random_graphs import random_graph_program
from random_programs import random_inputs, random_program

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.host import run_many_on_host, run_on_host
from dpsgd_torch.export.program import Dense, Program
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.to_c import to_c
from dpsgd_torch.export.toolchain import WARNINGS, has, zig_command

COMPILERS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            not has("ziglang" if name == "zig" else name), reason=f"{name} is not installed"
        ),
    )
    for name in ("gcc", "clang", "zig")
]


def differences(
    programs: list[Program], compiler: str, sanitize: bool = False, cplusplus: bool = False
) -> int:
    """Bytes that differ from the reference, all programs in one translation unit."""
    models = [
        (to_c(program, f"net{i}"), random_inputs(program, 8)) for i, program in enumerate(programs)
    ]
    outputs = run_many_on_host(models, compiler, sanitize, cplusplus)
    return sum(
        int((run(program, inputs).reshape(found.shape) != found).sum())
        for program, (_, inputs), found in zip(programs, models, outputs, strict=True)
    )


@pytest.mark.parametrize("sanitize", [False, True], ids=["plain", "sanitized"])
@pytest.mark.parametrize("compiler", COMPILERS)
def test_corners_equal_the_reference(compiler, sanitize):
    programs = [*corner_programs().values(), gesture_program(), mnist_program()]
    assert differences(programs, compiler, sanitize) == 0


@pytest.mark.parametrize(
    ("compiler", "first", "sanitize"),
    [("gcc", 0, False), ("zig", 1000, False), ("gcc", 2000, True)],
)
def test_random_programs_equal_the_reference(compiler, first, sanitize):
    if not has("ziglang" if compiler == "zig" else compiler):
        pytest.skip(f"{compiler} is not installed")
    assert differences([random_program(first + i) for i in range(60)], compiler, sanitize) == 0


def test_a_maximum_is_not_written_over_cells_that_it_reads_again():
    """A pool's output a few bytes before its input: its first cell would change under it."""
    assert differences([random_program(10_883)], "gcc" if has("gcc") else "zig") == 0


@pytest.mark.long
@pytest.mark.parametrize("batch", range(10))
def test_many_random_programs_equal_the_reference(batch):
    compiler = "gcc" if has("gcc") else "zig"
    programs = [random_program(10_000 + 100 * batch + i) for i in range(100)]
    assert differences(programs, compiler, sanitize=batch % 2 == 0) == 0


@pytest.mark.parametrize("compiler", COMPILERS)
def test_every_kernel_compiles_as_cplusplus(compiler):
    programs = [random_program(seed) for seed in range(30)]
    programs += [random_graph_program(seed) for seed in range(12)]
    assert differences(programs, compiler, cplusplus=True) == 0


@pytest.mark.parametrize("core", ["cortex_m0", "cortex_m4", "cortex_m33+dsp", "cortex_m85"])
def test_every_path_compiles_without_a_warning(core):
    if not has("ziglang"):
        pytest.skip("ziglang is not installed")
    programs = [*(random_program(seed) for seed in range(20)), gesture_program(), mnist_program()]
    programs += [random_graph_program(seed) for seed in range(12)]
    with tempfile.TemporaryDirectory() as name:
        unit = ""
        for i, program in enumerate(programs):
            for file, text in to_c(program, f"net{i}").items():
                (Path(name) / file).write_text(text)
            unit += f'#include "net{i}.c"\n'
        (Path(name) / "unit.c").write_text(unit)
        target = ["-target", "thumb-freestanding-eabi", f"-mcpu={core}", "-O2"]
        command = [*zig_command(), *target, *WARNINGS, "-c", "unit.c", "-o", "unit.o"]
        done = subprocess.run(command, cwd=name, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0


def test_one_changed_weight_is_noticed():
    program = gesture_program()
    inputs = random_inputs(program, 40)
    dense = program.steps[0].operation
    assert isinstance(dense, Dense)
    weights = dense.weights.copy()
    weights[3, 100] ^= 64
    changed = dataclasses.replace(
        program.steps[0], operation=dataclasses.replace(dense, weights=weights)
    )
    other = dataclasses.replace(program, steps=(changed, *program.steps[1:]))
    compiler = "gcc" if has("gcc") else "zig"
    assert (run_on_host(to_c(other), inputs, compiler) != run(program, inputs)).any()


def test_artefacts_are_repeatable_and_hold_no_path():
    for program in (gesture_program(), mnist_program()):
        texts = to_c(program)
        assert texts == to_c(program)
        everything = "".join(texts.values())
        for path in (str(Path.cwd()), str(Path.home()), tempfile.gettempdir(), "site-packages"):
            assert path not in everything


def test_only_used_kernels_are_emitted_and_nothing_is_included():
    gestures, mnist = to_c(gesture_program())["model.c"], to_c(mnist_program())["model.c"]
    assert "model_softmax(" in gestures
    assert "model_conv" not in gestures
    assert "model_softmax" not in mnist
    assert set(re.findall("#include (.*)", mnist)) == {'"model.h"', "<arm_mve.h>"}
    assert "malloc" not in mnist


def test_text_from_outside_cannot_leave_its_comment_or_string():
    labels = ('"; int x; //', "back\\slash ??/", "né\n", "model_a")
    provenance = {"run": "*/ int y; /*", "who": "line\\", "where": "??/ \n#error", "epsilon": "ε"}
    program = dataclasses.replace(
        corner_programs()["dense_4"], provenance=provenance, labels=labels
    )
    texts = to_c(program, "net")
    texts["net.c"] += "\nextern const char *const net_labels[];"
    texts["net.c"] += "\nconst char *const net_labels[NET_LABEL_COUNT] = NET_LABELS;\n"
    inputs = random_inputs(program, 5)
    compiler = "gcc" if has("gcc") else "zig"
    assert (run_on_host(texts, inputs, compiler) == run(program, inputs)).all()
    assert '"model_a"' in texts["net.h"]
    assert "int y" in texts["net.h"]


@pytest.mark.parametrize("prefix", ["", "Model", "9net", "my-net", "a b"])
def test_a_prefix_that_is_no_identifier_is_refused(prefix):
    with pytest.raises(ValueError, match="prefix="):
        to_c(gesture_program(), prefix)


def test_models_of_one_unit_need_different_names():
    model = (to_c(gesture_program()), random_inputs(gesture_program(), 2))
    with pytest.raises(ExportError, match="different prefixes"):
        run_many_on_host([model, model])


@pytest.mark.parametrize("compiler", COMPILERS)
def test_what_does_not_compile_is_told_in_one_line(compiler):
    texts = to_c(gesture_program())
    texts["model.c"] += "\nint unused_and_wrong = x;\n"
    with pytest.raises(ExportError, match=r"host C \(\w+\): exit status \d+: .*error") as caught:
        run_on_host(texts, np.zeros((1, 714), np.int8), compiler)
    assert "\n" not in str(caught.value)
