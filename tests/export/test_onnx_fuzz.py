"""Random graphs in the words that exporters use: what is read computes what onnxruntime computes.

The graphs of ``test_graph_fuzz.py``, as many of them, lines as (channels, length) too. Of 3,000, 99
are refused by name, most for the order in which something is read; the others agree.
"""

import re
from dataclasses import replace

import numpy as np
import onnxruntime
from graph_as_onnx import as_onnx
from random_graphs import random_graph

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.from_onnx import from_onnx, in_memory, to_channels_last
from dpsgd_torch.export.graph import Graph, evaluate

COUNT = 4
REFUSED = re.compile(
    "in an order that no transposition of five axes makes"
    "|read in another order; normalize before|whose values lie apart"
    "|its output is not made by a layer|whose groups are no channels"
    "|on \\d+ features that neither come from nor go to one linear layer"
)
"""What reads values that were moved before it, or nothing but moves, is refused by its name."""


def sides_of(model):
    return len(model.graph.input[0].type.tensor_type.shape.dim)


def off(seed: int, read: Graph | None = None) -> float:
    """How far the graph that is read lies from onnxruntime, over its largest value; or NaN.

    onnxruntime's GroupNormalization is NaN where all values of a group are alike and large.
    """
    graph = random_graph(seed)
    model = as_onnx(graph, seed)
    rng = np.random.default_rng(seed)
    inputs = rng.uniform(-1, 1, (COUNT, *graph.shapes[0])).astype(np.float32)
    given = inputs if sides_of(model) != 3 else inputs[:, 0]
    given = np.ascontiguousarray(np.moveaxis(given, -1, 1))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    answers = np.concatenate([session.run(None, {"input": row[None]})[0] for row in given])
    read = read or from_onnx(model)
    tensors = evaluate(read, in_memory(given, read))
    wanted = to_channels_last(answers)
    found = tensors[-1].reshape(wanted.shape)  # (1, 1, channels) may stand for (channels,)
    largest = max(1.0, *(float(np.abs(tensor).max()) for tensor in tensors))
    return float(np.abs(found - wanted).max()) / largest


def off_unless_refused(seed: int) -> float | None:
    try:
        from_onnx(as_onnx(random_graph(seed), seed))
    except ExportError as error:
        if not REFUSED.search(str(error)):
            raise
        return None
    return off(seed)


def test_what_is_read_computes_what_onnxruntime_computes(graph_seeds):
    found = {seed: off_unless_refused(seed) for seed in graph_seeds}
    refused = [seed for seed, distance in found.items() if distance is None]
    assert len(refused) < 0.1 * len(found)
    found = {seed: distance for seed, distance in found.items() if distance is not None}
    assert {seed: distance for seed, distance in found.items() if distance > 1e-4} == {}
    assert np.isfinite(list(found.values())).mean() > 0.9


def test_lines_and_pictures_and_vectors_are_written():
    ranks = [sides_of(as_onnx(random_graph(seed), seed)) for seed in range(100)]
    assert min(ranks.count(rank) for rank in (2, 3, 4)) > 5


def test_a_weight_changed_by_a_hundredth_would_be_seen():
    far = 0
    for seed in range(12):
        if off_unless_refused(seed) is None:
            continue
        graph = from_onnx(as_onnx(random_graph(seed), seed))
        layers = [
            replace(layer, weights=1.01 * layer.weights) if hasattr(layer, "weights") else layer
            for layer in graph.layers
        ]
        far += off(seed, replace(graph, layers=tuple(layers))) > 1e-4
    assert far > 4
