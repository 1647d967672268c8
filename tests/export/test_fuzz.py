"""Random small networks of every operator: numpy and TensorFlow Lite Micro, byte for byte."""

import numpy as np
import pytest
from random_networks import random_network

from dpsgd_torch.export.compiler import compile_model, to_channels_last
from dpsgd_torch.export.from_onnx import from_onnx
from dpsgd_torch.export.graph import evaluate
from dpsgd_torch.export.reference import run, trace
from dpsgd_torch.export.tflm import interpret
from dpsgd_torch.export.to_tflite import to_int8_tflite


def differing(seed):
    network = random_network(seed)
    public = network.inputs[:8] if seed % 2 else None
    program = compile_model(network.model, input_range=network.input_range, public_inputs=public)
    inputs = program.quantize(to_channels_last(network.inputs))
    norm = run(program, inputs)
    return int((interpret(to_int8_tflite(program), inputs) != norm).sum()), norm.size


def test_not_a_byte_differs(networks):
    found = {seed: differing(seed)[0] for seed in range(networks)}
    assert not {seed: count for seed, count in found.items() if count}


def test_networks_are_of_every_operator():
    kinds = {
        type(step.operation).__name__ + getattr(step.operation, "function", "")
        for seed in range(120)
        for step in compile_model(
            random_network(seed).model, input_range=random_network(seed).input_range
        ).steps
    }
    assert kinds >= {
        "Dense", "Conv2D", "MaxPool2D", "AveragePool2D", "Rescale", "Tabletanh", "Tablelogistic",
        "Softmax", "Pad",
    }  # fmt: skip


@pytest.mark.parametrize("seed", [1152])
def test_signals_too_weak_for_a_softmax_to_tell_apart_do_not_stop_the_interpreter(seed):
    """TensorFlow Lite Micro aborts the process where a softmax's scale is below 2^-26."""
    assert differing(seed)[0] == 0


def test_integers_follow_the_reals():
    """Quantized, a network of ordinary size is within a few hundredths of its range."""
    off = []
    for seed in range(40):
        network = random_network(seed)
        program = compile_model(
            network.model, input_range=network.input_range, public_inputs=network.inputs
        )
        inputs = to_channels_last(network.inputs)
        real = evaluate(from_onnx(network.model), inputs)[-1]
        last = program.output
        found = last.scale * (trace(program, program.quantize(inputs))[-1] - last.zero_point * 1.0)
        off.append(np.abs(found - real).max() / max(np.ptp(real), 1e-3))
    assert np.median(off) < 0.05
