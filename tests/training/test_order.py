"""Rows that are not where their examples are: told from what little is kept of a weighed pass."""

import pytest
import torch

from dpsgd_torch.errors import ModelError
from dpsgd_torch.gradients.graph.order import refuse_moved, tallies, weights
from dpsgd_torch.gradients.graph.rows import Rows
from dpsgd_torch.gradients.graph.walk import Meeting

SHAPES = {  # of an output gradient for five examples, by where they are
    "batch first": (Rows(5), (5, 40, 32)),
    "batch second": (Rows(5, dim=1), (40, 5, 32)),
    "flattened into the batch": (Rows(5), (200, 32)),
    "fastest of a dimension": (Rows(5, outer=40), (200, 32)),
}


def meeting(rows, shape):
    class Node:
        _input_metadata = (torch.zeros(shape),)

    return Meeting(Node, (("weight",), "AddmmBackward0", (0,)), 0, (0,), True, rows, [0])


def factors(rows, shape):
    """Each element's example's weight, in the tensor's shape."""
    every = torch.arange(5).repeat_interleave(shape[rows.dim] // (rows.outer * 5))
    owner = every.repeat(rows.outer).view(-1, *(1,) * (len(shape) - rows.dim - 1)).expand(shape)
    return weights(torch.zeros(5, dtype=torch.float64))[owner]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("where", SHAPES)
def test_rows_in_their_places_are_let_pass(where, dtype):
    rows, shape = SHAPES[where]
    delta = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    weighted = (delta * factors(rows, shape)).to(dtype)
    assert refuse_moved(meeting(rows, shape), delta, tallies(rows, weighted)) is None


@pytest.mark.parametrize("size", [1.0, 1e-3])
@pytest.mark.parametrize("where", SHAPES)
def test_one_element_with_anothers_weight_is_refused(where, size):
    rows, shape = SHAPES[where]
    delta = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    place = (17 % shape[0], *(3,) * (len(shape) - 1))
    delta[place] = size
    weighted = delta * factors(rows, shape).float()
    weighted[place] *= 2
    with pytest.raises(ModelError, match="rows are not the examples in their order"):
        refuse_moved(meeting(rows, shape), delta, tallies(rows, weighted))


def test_an_example_that_is_not_finite_hides_no_other():
    rows, shape = SHAPES["batch first"]
    delta = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    delta[2] = float("nan")
    weighted = delta * factors(rows, shape).float()
    weighted[4, 3, 3] *= 2
    with pytest.raises(ModelError, match="rows are not the examples"):
        refuse_moved(meeting(rows, shape), delta, tallies(rows, weighted))


def test_what_is_kept_is_a_sixty_fourth():
    rows, shape = SHAPES["batch first"]
    assert tallies(rows, torch.zeros(shape)).numel() * 64 == torch.zeros(shape).numel()
