"""Through nodes made of parameters alone (position tables, one weight at many steps)."""

import pytest
import torch
from torch import nn

from dpsgd_torch.gradients.graph import engine, pull_back
from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.gradients.parts import Outer, Part, Tokens, Written, summed

T, WIDTH, ENTRIES, EXAMPLES = 4, 3, 40, 5
IDS = torch.tensor([[1, -7, 33, 1]])  # one twice, one from the end

CHOSEN = {  # of a table (entries, width) or (1, entries, width): how positions come from it
    "embedding": (False, lambda w: nn.functional.embedding(IDS % ENTRIES, w)),
    "padded": (False, lambda w: nn.functional.embedding(IDS % ENTRIES, w, padding_idx=33)),
    "slice": (False, lambda w: w[3 : 3 + T]),
    "every other": (True, lambda w: w[:, 1 : 1 + 2 * T : 2]),
    "the last": (True, lambda w: w[:, -T:]),
    "select": (False, lambda w: w[-1]),
    "first": (True, lambda w: w[:, 0]),
    "index": (False, lambda w: w[IDS]),
    "index behind": (True, lambda w: w[:, IDS[0]]),
    "index_select": (True, lambda w: w.index_select(1, IDS[0] % ENTRIES)),
    "most of it": (False, lambda w: w[torch.arange(ENTRIES) % 31][None, 2 : 2 + T]),
    "turned": (False, lambda w: w[:T].permute(1, 0).unsqueeze(0).permute(0, 2, 1)),
    "a choice of a choice": (True, lambda w: w[:, 2:30][:, 5 : 5 + T]),
}


class Positioned(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        leading, self.positions = CHOSEN[form]
        torch.manual_seed(0)
        shape = (1, ENTRIES, WIDTH) if leading else (ENTRIES, WIDTH)
        self.table, self.head = nn.Parameter(torch.randn(shape)), nn.Linear(T * WIDTH, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((x + self.positions(self.table)).tanh().flatten(1))


def of_each(model, x, y, loss):
    """Gradients by autograd, one example at a time, in float64."""
    rows = []
    for i in range(len(x)):
        total = loss(model(x[i : i + 1]), y[i : i + 1]).sum()
        rows.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(total, [*model.parameters()])])
        )
    return torch.stack(rows)


def worst(model, *shape):
    """The largest difference of an example's gradient from autograd's, and the engine."""
    model, loss = model.double(), per_example(nn.CrossEntropyLoss())
    x = torch.randn(EXAMPLES, *shape, dtype=torch.float64)
    y = torch.arange(EXAMPLES) % 2
    graph = engine.GraphGradients(model)
    graph.backward(loss, x, y)
    parts = dict(graph._parts)
    vectors = graph.vectors([*model.parameters()])
    found = torch.stack([torch.cat(vectors.vector(i)) for i in range(EXAMPLES)])
    torch.testing.assert_close(vectors.norms, found.norm(dim=1))
    return float((found - of_each(model, x, y, loss)).abs().max()), parts


@pytest.mark.parametrize("form", CHOSEN)
def test_rows_of_a_table_chosen_for_all_examples_alike(form, monkeypatch):
    monkeypatch.setattr(pull_back, "_through", None)
    off, _ = worst(Positioned(form), T, WIDTH)
    assert off < 1e-12


@pytest.mark.parametrize("form", ["embedding", "slice", "the last", "index", "select"])
def test_a_position_table_is_not_written_out_for_each_example(form):
    _, parts = worst(Positioned(form), T, WIDTH)
    assert isinstance(parts["table"], Tokens)
    assert parts["table"].delta.shape[1] <= T


def test_a_table_of_no_more_than_what_is_chosen_is_written_out():
    _, parts = worst(Positioned("turned"), T, WIDTH)
    assert isinstance(parts["table"], Tokens)
    model = Positioned("embedding")
    model.table = nn.Parameter(model.table[:T].detach())
    model.positions = lambda w: nn.functional.embedding(IDS % T, w)
    off, parts = worst(model, T, WIDTH)
    assert isinstance(parts["table"], Written)
    assert off < 1e-12


class Steps(nn.Module):
    """One weight at each of many steps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.head = nn.Linear(width, width), nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = torch.zeros_like(x[:, 0])
        for step in x.unbind(1):
            state = self.cell(state + step).tanh()
        return self.head(state)


@pytest.mark.parametrize("width", [3, 60])
def test_a_weight_at_many_steps_is_put_together_once(width, monkeypatch):
    calls = []
    honest = torch.cat
    with monkeypatch.context() as patched:
        patched.setattr(torch, "cat", lambda *a, **k: calls.append(1) or honest(*a, **k))
        graph = engine.GraphGradients(Steps(width))
        x, y = torch.randn(EXAMPLES, 9, width), torch.arange(EXAMPLES) % 2
        graph.backward(per_example(nn.CrossEntropyLoss()), x, y)
    assert len(calls) == 2
    assert isinstance(graph._parts["cell.weight"], Written if width == 3 else Outer)
    assert worst(Steps(width), 9, width)[0] < 1e-12


def drawn(kind: int, seed: int) -> Part:
    torch.manual_seed(seed)
    a, b = torch.randn(2, 3, 50), torch.randn(2, 3, 40)
    makers = (
        lambda: Outer(a, b),
        lambda: Outer(b, a).transposed(),
        lambda: Tokens(torch.randint(-1, 50, (2, 3)), b, 50),
        lambda: Written(a.mT @ b),
        lambda: Written((a.mT @ b).double()),
    )
    return makers[kind]()


@pytest.mark.parametrize("kinds", [(0, 0, 0), (2, 2, 0), (3, 4, 3), (0, 1, 2, 3, 4, 0, 2), (2,)])
def test_many_parts_are_their_sum_and_none_is_changed(kinds):
    parts = [drawn(kind, seed) for seed, kind in enumerate(kinds)]
    expected = sum(part.written().double() for part in parts)
    total = summed(parts)
    torch.testing.assert_close(total.written().double(), expected, rtol=1e-5, atol=1e-5)
    again = sum(part.written().double() for part in parts)
    assert torch.equal(again, expected)
