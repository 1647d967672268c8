"""Activation checkpointing: the same gradients, each region run again twice, or refused."""

import importlib.util
import warnings

import pytest
import torch
from model_zoo import made
from torch import nn
from torch.utils.checkpoint import checkpoint

from dpsgd_torch import ModelError
from dpsgd_torch.gradients.graph import saved
from dpsgd_torch.gradients.graph.engine import GraphGradients
from dpsgd_torch.gradients.losses import per_example

LOSS = per_example(nn.CrossEntropyLoss())
EXAMPLES, T, WIDTH = 4, 5, 6


class Block(nn.Module):
    """Layers with rules, and a scale whose rule calls its node."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.norm = nn.Linear(WIDTH, 8), nn.LayerNorm(8)
        self.back, self.slope = nn.Linear(8, WIDTH), nn.Parameter(torch.randn(8))
        self.runs = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        wide = self.norm(self.wide(x).tanh())
        return self.back(torch.where(wide > 0, wide, wide / (self.slope.square() + 1)))


class Model(nn.Module):
    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks, self.head = nn.ModuleList([Block(), Block()]), nn.Linear(WIDTH, 2)
        self.reentrant = reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            if self.reentrant is None:
                x = x + block(x)
            else:
                x = x + checkpoint(block, x, use_reentrant=self.reentrant)
        return self.head(x.mean(1))


def batch():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(EXAMPLES, T, WIDTH, dtype=torch.float64, generator=generator)
    return x, torch.arange(EXAMPLES) % 2


def vectors_of(engine, params, loss, x, y):
    engine.backward(loss, x, y)
    found = engine.vectors(params)
    return torch.stack([torch.cat(found.vector(i)) for i in range(len(y))])


def test_checkpointed_regions_have_the_gradients_of_regions_that_keep_everything():
    kept, again = Model(None).double(), Model(False).double()
    rows = [
        vectors_of(GraphGradients(model), [*model.parameters()], LOSS, *batch())
        for model in (kept, again)
    ]
    assert float(rows[0].norm()) > 0.1
    torch.testing.assert_close(rows[0], rows[1], rtol=1e-12, atol=1e-12)


def test_a_region_is_run_again_once_for_the_rules_and_once_for_autograd():
    model = Model(False).double()
    for block in model.blocks:
        block.slope = nn.Parameter(block.slope.detach(), requires_grad=False)
    engine, params = GraphGradients(model), [p for p in model.parameters() if p.requires_grad]
    vectors_of(engine, params, LOSS, *batch())
    for block in model.blocks:
        block.runs = 0
    vectors_of(engine, params, LOSS, *batch())
    assert [block.runs for block in model.blocks] == [3, 3]


def test_without_readings_of_its_own_a_region_is_right_and_run_more_often(monkeypatch):
    """An older torch, and the control: what the group of readings is for."""
    model = Model(False).double()
    params = [*model.parameters()]
    expected = vectors_of(GraphGradients(model), params, LOSS, *batch())
    monkeypatch.setattr(saved, "_Group", None)
    engine = GraphGradients(model)
    vectors_of(engine, params, LOSS, *batch())
    for block in model.blocks:
        block.runs = 0
    found = vectors_of(engine, params, LOSS, *batch())
    assert torch.allclose(found, expected, rtol=1e-9)
    assert min(block.runs for block in model.blocks) > 3


def test_reentrant_checkpointing_is_refused_whose_parameters_would_learn_nothing():
    x, y = batch()
    engine = GraphGradients(Model(True).double())
    with pytest.raises(ModelError, match=r"checkpoint = use_reentrant=True: .*=False") as caught:
        engine.backward(LOSS, x.requires_grad_(), y)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
@pytest.mark.parametrize("name", ["hf_bert", "hf_gpt2", "hf_llama", "hf_vit"])
def test_hugging_faces_switch_for_it(name):
    made(name, 3)  # what a library does at its first import is not the same weights
    rows = []
    for switched in (False, True):
        model, x, y, loss = made(name, 3)
        model.train()
        if switched:
            with warnings.catch_warnings():  # by one name before transformers 5, by another since
                warnings.simplefilter("ignore", FutureWarning)
                model.gradient_checkpointing_enable()
        params = [*model.parameters()]
        rows.append(vectors_of(GraphGradients(model), params, per_example(loss), x, y))
    assert float(rows[0].norm()) > 0.1
    torch.testing.assert_close(rows[0], rows[1], rtol=1e-4, atol=1e-6)
