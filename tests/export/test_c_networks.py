"""Random networks, through ONNX and the quantizer, in C: not a byte differs from numpy."""

import pytest
from random_networks import random_network

from dpsgd_torch.export.compiler import compile_model, to_channels_last
from dpsgd_torch.export.host import run_many_on_host
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.to_c import to_c
from dpsgd_torch.export.toolchain import has

BATCH = 50


def test_not_a_byte_differs(networks):
    compiler = "gcc" if has("gcc") else "zig"
    if compiler == "zig" and not has("ziglang"):
        pytest.skip("neither gcc nor ziglang is installed")
    for first in range(0, networks, BATCH):
        seeds = range(first, min(networks, first + BATCH))
        sanitize = (first // BATCH) % 4 == 0
        assert _differing(seeds, compiler, sanitize) == []


def _differing(seeds, compiler, sanitize):
    """Seeds of the networks that differ, compiled in one translation unit."""
    models, expected = [], []
    for seed in seeds:
        network = random_network(seed)
        program = compile_model(
            network.model, input_range=network.input_range, public_inputs=network.inputs
        )
        inputs = program.quantize(to_channels_last(network.inputs))
        models.append((to_c(program, f"net{seed}"), inputs))
        expected.append(run(program, inputs).reshape(len(inputs), -1))
    outputs = run_many_on_host(models, compiler, sanitize)
    return [
        seed
        for seed, found, wanted in zip(seeds, outputs, expected, strict=True)
        if (found != wanted).any()
    ]
