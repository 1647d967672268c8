"""Ranges hold what they must, and nothing in them comes from records that were not shown."""

import numpy as np
import pytest
from random_networks import random_network

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.from_onnx import from_onnx, to_channels_last
from dpsgd_torch.export.graph import Activation, Graph, Linear, evaluate
from dpsgd_torch.export.ranges import intervals, ranges


@pytest.mark.parametrize("seed", range(60))
def test_no_input_in_range_leaves_the_intervals(seed):
    network = random_network(seed)
    graph = from_onnx(network.model)
    tensors = evaluate(graph, to_channels_last(network.inputs))
    for (low, high), tensor in zip(intervals(graph, network.input_range), tensors, strict=True):
        room = 1e-5 * max(1, np.abs(tensor).max())
        assert (tensor >= low - room).all()
        assert (tensor <= high + room).all()


def test_an_interval_is_attained_by_the_worst_input():
    weights = np.array([[1.0, -2.0, 3.0]], np.float32)
    graph = Graph((Linear(weights, np.array([0.5], np.float32)),), ((3,), (1,)))
    assert ranges(graph, (-1.0, 2.0))[1] == (-1 - 4 - 3 + 0.5, 2 + 2 + 6 + 0.5)


@pytest.mark.parametrize("seed", range(30))
def test_public_inputs_only_tighten_and_zero_is_always_held(seed):
    network = random_network(seed)
    graph = from_onnx(network.model)
    wide = ranges(graph, network.input_range)
    tight = ranges(graph, network.input_range, to_channels_last(network.inputs))
    for (low, high), (tighter_low, tighter_high) in zip(wide, tight, strict=True):
        assert low <= tighter_low <= 0 <= tighter_high <= high


ONE = Graph((Linear(np.ones((1, 2), np.float32), np.zeros(1, np.float32)),), ((2,), (1,)))


@pytest.mark.parametrize("input_range", [(1.0, 0.0), (0.0, 0.0), (0.0, np.inf), (np.nan, 1.0)])
def test_a_declared_range_that_is_none_is_refused(input_range):
    with pytest.raises(ExportError, match=r"must be \(low, high\)"):
        ranges(ONE, input_range)


@pytest.mark.parametrize("seen", [np.zeros((3, 5)), np.full((3, 2), np.nan)])
def test_public_inputs_of_another_shape_or_not_finite_are_refused(seen):
    with pytest.raises(ExportError, match="public_inputs"):
        ranges(ONE, (0.0, 1.0), seen)


def test_what_public_inputs_reach_is_in_range_with_room_to_spare():
    graph = Graph(
        (Linear(np.ones((1, 50), np.float32), np.zeros(1, np.float32)), Activation("relu")),
        ((50,), (1,), (1,)),
    )
    seen = np.full((4, 50), 0.1, np.float32)
    assert ranges(graph, (0.0, 1.0), seen)[2] == pytest.approx((0, 6.25))
