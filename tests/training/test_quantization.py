"""Quantisation-aware training: straight through, one example at a time, as boards round."""

import copy

import numpy as np
import pytest
import torch
from gradient_oracle import error_of_the_clipped_sum, gradients_alone
from torch import nn

from dpsgd_torch import ModelError, Privacy, Trainer
from dpsgd_torch.export import export_model
from dpsgd_torch.export.compiler import compile_model
from dpsgd_torch.export.declared import Declared
from dpsgd_torch.export.from_onnx import from_onnx, to_channels_last
from dpsgd_torch.export.module_graph import module_graph
from dpsgd_torch.export.ranges import ranges
from dpsgd_torch.export.reference import run
from dpsgd_torch.quantization import fake_quantized_weights, plain_of, quantization_aware

RANGE = (-1.0, 1.0)


class Block(nn.Module):
    """A residual block with a depthwise layer, dropout and a layer that is called twice."""

    def __init__(self):
        super().__init__()
        self.first, self.twice = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.depthwise, self.drop = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Dropout(0.5)
        self.last = nn.Linear(4 * 16, 3)

    def forward(self, x):
        x = self.first(x).relu()
        x = x + self.twice(self.twice(self.depthwise(x).relu()).relu())
        return self.last(self.drop(x).flatten(1))


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3))


def line():
    return nn.Sequential(
        nn.Conv1d(1, 4, 5), nn.ReLU(), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(4 * 16, 3)
    )


def shape_of(make):
    return (1, 36) if make is line else (1, 6, 6)


def aware(make, dtype=torch.float64):
    torch.manual_seed(1)
    shape = shape_of(make)
    return quantization_aware(make().to(dtype).eval(), shape, RANGE)


def data(rows=9, dtype=torch.float64):
    torch.manual_seed(2)
    return 2 * torch.rand(rows, 1, 6, 6, dtype=dtype) - 1, torch.randint(0, 3, (rows,))


@pytest.mark.parametrize("make", [mlp, line, Block])
def test_clipped_sums_are_autograds_of_each_example_straight_through(make):
    inputs, targets = data()
    rows = inputs.view(-1, *shape_of(make)), targets
    assert error_of_the_clipped_sum(aware(make), rows) < 1e-12


def test_an_engine_that_waits_for_layers_to_be_called_is_refused():
    with pytest.raises(ModelError, match="do not add up to autograd's"):
        trainer_of(mlp(), gradients="opacus").fit()


def trainer_of(model, **more):
    return Trainer(
        quantization_aware(model, (1, 6, 6), RANGE),
        nn.CrossEntropyLoss(),
        data(60, torch.float32),
        privacy=Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=1.0),
        batch_size=10,
        epochs=1,
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
        seed=1,
        **more,
    )


def test_the_gradient_is_that_of_the_rounded_weights_on_rounded_inputs():
    """Written out by hand: of a linear layer, the outer product with what it read."""
    layer = nn.Linear(4, 3).double()
    model = quantization_aware(nn.Sequential(layer), (4,), RANGE)
    x, y = torch.rand(1, 4, dtype=torch.float64), torch.tensor([1])
    read = torch.round(x * 127.5) / 127.5
    rounded = fake_quantized_weights(layer.weight).detach()
    delta = (read @ rounded.T + layer.bias).softmax(1) - nn.functional.one_hot(y, 3)
    wanted = torch.cat([(delta.T @ read).flatten(), delta.flatten()])
    (found,) = gradients_alone(model, (x, y))
    assert torch.allclose(found, wanted, rtol=0, atol=1e-9)


def test_what_lies_outside_its_range_is_cut_off_and_sends_no_gradient():
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    twin = quantization_aware(model, (1,), (0.0, 1.0), torch.tensor([[0.0], [0.2]]))
    (inside,) = torch.autograd.grad(twin(torch.tensor([[0.3]])).sum(), [model[0].weight])
    (outside,) = torch.autograd.grad(twin(torch.tensor([[1.0]])).sum(), [model[0].weight])
    assert inside.item() == pytest.approx(0.3, abs=0.01)
    assert outside.item() == 0


def test_a_forward_pass_writes_nothing_and_no_example_moves_anothers_answer():
    model = aware(Block)
    before = copy.deepcopy(model.state_dict()), sorted(vars(model)), model.ranges()
    inputs, _ = data()
    together, alone = model(inputs), torch.cat([model(row[None]) for row in inputs])
    assert torch.allclose(together, alone, rtol=0, atol=1e-12)
    model(1e6 * inputs)
    after = model.state_dict(), sorted(vars(model)), model.ranges()
    assert before[1] == after[1]
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert before[2] == after[2]


def test_dropout_is_left_out_of_the_ranges_and_draws_nothing_for_them():
    model = aware(Block)
    quiet = model.ranges()
    model.train()
    state = torch.get_rng_state()
    assert model.ranges() == quiet
    assert torch.equal(torch.get_rng_state(), state)


def test_its_ranges_are_those_that_its_export_reads_from_the_same_inputs():
    twin = aware(mlp, torch.float32)
    declared = Declared((1, 6, 6), RANGE)
    _, graph, _ = module_graph(twin, declared, {}, twin.made_up_inputs)
    found = ranges(from_onnx(graph), RANGE, to_channels_last(twin.made_up_inputs.numpy()))
    ((low, high),) = twin.ranges().values()
    relu = found[-2]
    # the export looks at the float model, training at the one that is rounded
    assert (float(low), float(high)) == pytest.approx(relu, rel=0.02, abs=1e-6)


@pytest.mark.parametrize("make", [mlp, line])
def test_the_board_answers_what_was_trained(make):
    twin = aware(make, torch.float32)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter[..., -1] *= 8  # so that steps of the others are coarse
    _, graph, _ = module_graph(twin, Declared(shape_of(make), RANGE), {}, twin.made_up_inputs)
    seen = twin.made_up_inputs.numpy()
    program = compile_model(graph, input_range=RANGE, public_inputs=seen)
    inputs = data(200, torch.float32)[0].view(-1, *shape_of(make))
    ints = run(program, program.quantize(to_channels_last(inputs.numpy()))).astype(np.float64)
    board = program.output.scale * (ints.reshape(200, -1) - program.output.zero_point)
    with torch.no_grad():
        trained, floats = twin(inputs).numpy(), plain_of(twin)(inputs).numpy()
    assert np.abs(board - trained).mean() < program.output.scale
    assert np.abs(board - trained).mean() < 0.7 * np.abs(board - floats).mean()


def test_an_export_of_it_is_one_of_the_model_with_its_ranges(tmp_path):
    twin = aware(mlp, torch.float32)
    shared = {"input_shape": (1, 6, 6), "input_range": RANGE}
    export_model(twin, out=tmp_path / "a", **shared)
    export_model(twin.plain, out=tmp_path / "b", public_inputs=twin.made_up_inputs, **shared)
    assert (tmp_path / "a/model.c").read_bytes() == (tmp_path / "b/model.c").read_bytes()


def test_it_trains_privately_and_its_weights_bear_the_models_names():
    model = mlp()
    trainer = trainer_of(model)
    before = copy.deepcopy(model.state_dict())
    trainer.fit()
    found = trainer.model.state_dict()
    assert list(found) == list(before)
    assert not torch.equal(model[1].weight, before["1.weight"])


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Linear(4, 2), "put a lone layer into nn.Sequential"),
        (nn.Sequential(nn.ReLU(), nn.PReLU()), "nothing would be rounded"),
    ],
)
def test_a_model_that_rounds_nothing_is_refused(model, words):
    with pytest.raises(ModelError, match=words):
        quantization_aware(model, (4,), RANGE)


class Branching(nn.Linear):
    def forward(self, x):
        return x if x.sum() > 0 else super().forward(x)


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        return nn.functional.dropout(self.layer(x), 0.5, self.training)


@pytest.mark.parametrize(
    ("model", "words"),
    [(Branching(4, 4), "cannot trace it"), (Dropping(), r"use nn\.Dropout")],
)
def test_a_model_whose_trace_would_be_another_function_is_refused(model, words):
    with pytest.raises(ModelError, match=words):
        quantization_aware(model, (4,), RANGE)


def test_made_up_inputs_of_another_shape_are_refused():
    with pytest.raises(ModelError, match="made_up_inputs"):
        quantization_aware(mlp(), (1, 6, 6), RANGE, torch.zeros(3, 5))
