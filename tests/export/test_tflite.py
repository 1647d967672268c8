"""A .tflite file computes in TensorFlow Lite Micro what the program computes in numpy."""

import json

import numpy as np
import pytest
from random_networks import random_network

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export import tflite_file
from dpsgd_torch.export.compiler import compile_model, to_channels_last
from dpsgd_torch.export.from_onnx import from_onnx
from dpsgd_torch.export.graph import Graph, Pooling, evaluate
from dpsgd_torch.export.program import Window
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.tflite_file import schema
from dpsgd_torch.export.tflm import interpret
from dpsgd_torch.export.to_tflite import to_float_tflite, to_int8_tflite

PROVENANCE = {"epsilon": "at most 3.0000", "run": "r1"}


def compiled(seed):
    network = random_network(seed)
    return network, compile_model(network.model, input_range=network.input_range)


@pytest.mark.parametrize("seed", range(40))
def test_the_float_file_agrees_with_the_graph(seed):
    network = random_network(seed)
    graph = from_onnx(network.model)
    inputs = to_channels_last(network.inputs)
    expected = evaluate(graph, inputs)[-1]
    found = interpret(to_float_tflite(graph, PROVENANCE), inputs)
    assert np.abs(found - expected).max() <= 2e-5 * max(1, np.abs(expected).max())


def test_the_same_program_makes_the_same_bytes():
    _, program = compiled(3)
    assert to_int8_tflite(program) == to_int8_tflite(program)


def test_the_file_says_where_it_comes_from():
    graph = from_onnx(random_network(0).model)
    content = to_float_tflite(graph, PROVENANCE)
    model = schema().ModelT.InitFromPackedBuf(content, 0)
    (note,) = model.metadata
    assert json.loads(bytes(model.buffers[note.buffer].data)) == PROVENANCE
    assert b"epsilon: at most 3.0000" in model.description
    assert content[4:8] == b"TFL3"


def test_one_weight_changed_is_noticed():
    network, program = compiled(1)
    inputs = program.quantize(to_channels_last(network.inputs))
    norm = run(program, inputs)
    assert (interpret(to_int8_tflite(program), inputs) == norm).all()
    kernel = next(s.operation for s in reversed(program.steps) if hasattr(s.operation, "weights"))
    kernel.weights.reshape(-1)[0] ^= 0x55
    assert (interpret(to_int8_tflite(program), inputs) != norm).any()


def test_a_missing_wheel_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(
        __import__("sys").modules,
        "tflite_micro.tensorflow.lite.micro.python",
        None,
    )
    with pytest.raises(ExportError, match=r"pip install 'dpsgd_torch\[export\]'"):
        tflite_file.schema()


def test_a_padding_without_a_word_in_tflite_is_refused():
    window = Window((3, 3), (1, 1), ((2, 0), (0, 0)))
    graph = Graph((Pooling("average", window),), ((5, 5, 1), (5, 3, 1)))
    with pytest.raises(ExportError, match="AveragePool"):
        to_float_tflite(graph, {})
