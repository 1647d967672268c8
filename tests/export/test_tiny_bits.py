"""MLPerf Tiny's four networks: the same bytes in numpy, TensorFlow Lite Micro, C and on boards."""

import sys
from pathlib import Path

import numpy as np
import pytest

from dpsgd_torch.export.boards import BOARDS
from dpsgd_torch.export.emulate import available_boards, run_on
from dpsgd_torch.export.host import run_on_host
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.tflm import interpret
from dpsgd_torch.export.to_c import to_c
from dpsgd_torch.export.to_tflite import to_int8_tflite
from dpsgd_torch.export.toolchain import has

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if not (BENCHMARKS / "tiny_bits.py").exists():  # an installed package has no benchmarks
    pytest.skip("benchmarks/tiny_bits.py is not here", allow_module_level=True)
sys.path.append(str(BENCHMARKS))

from tiny_bits import program_of  # noqa: E402
from tiny_networks import SHAPES  # noqa: E402


@pytest.mark.parametrize(
    ("name", "norm"), [*((name, "none") for name in SHAPES), ("cifar", "standardized")]
)
def test_each_network_is_the_same_in_tflm_and_in_c(name, norm):
    program, inputs = program_of(name, 6, norm)
    norm = run(program, inputs).reshape(6, -1)
    assert len(np.unique(norm)) > 1  # answers that never change would show nothing
    assert (interpret(to_int8_tflite(program), inputs).reshape(norm.shape) == norm).all()
    if has("gcc"):
        assert (run_on_host(to_c(program), inputs, "gcc").reshape(norm.shape) == norm).all()


@pytest.mark.long
@pytest.mark.parametrize("where", [board for board in BOARDS if board.ram.length > 100_000],
                         ids=str)  # fmt: skip
@pytest.mark.parametrize("name", SHAPES)
def test_each_network_is_the_same_on_every_board_that_holds_it(name, where):
    if where not in available_boards():
        pytest.skip(f"{where.name} needs tools that are not here")
    program, inputs = program_of(name, 3)
    answers = run_on(where, to_c(program), inputs).outputs
    assert (answers == run(program, inputs).reshape(3, -1)).all()
