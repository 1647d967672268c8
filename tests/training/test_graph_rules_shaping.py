"""Look-ups, writes, copies and products of parameters with examples; nodes without a rule."""

import pytest
import torch
import torch.nn.functional as F
from graph_nodes import EXACT, EXAMPLES, INDICES, compared, data, parameter

from dpsgd_torch.gradients.graph.rows import Rows
from dpsgd_torch.gradients.graph.rules.base import NoRule
from dpsgd_torch.gradients.graph.rules.one_at_a_time import one_at_a_time

B = EXAMPLES


def written(x, w):
    h = x * 1
    h[x.detach() > 0.5] = w
    return h


def written_rows(x, w):
    h = x * 1
    h[torch.arange(B), INDICES[:, 1] % 4] = w
    return h


def assigned(x, w):
    h = x * 1
    h[:, 0] = w
    return h


def added(x, w):
    h = x * 1
    h[:, 1:] += w
    return h


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x * w.sin(), x.sum()

    @staticmethod
    def backward(ctx, first, second):
        x, w = ctx.saved_tensors
        return first * w.sin() + second, (first * x * w.cos()).sum((0, 1))


POSITIONS = INDICES % 4
SHAPED = [
    ("ExpandBackward0", (1, 1, 5), lambda x, w: torch.cat([w.expand(B, -1, -1), x], 1)),
    ("ExpandBackward0", (5,), lambda x, w: x + w.expand(B, 4, 5)),
    ("ExpandBackward0", (5,), assigned),
    ("ExpandBackward0", (5, 2), lambda x, w: x @ w.expand(B, 5, 2)),
    ("RepeatBackward0", (1, 2, 5), lambda x, w: x * w.repeat(B, 2, 1)),
    ("RepeatBackward0", (5,), lambda x, w: x * w.repeat(B * 4).view(B, 4, 5)),
    ("CatBackward0", (B, 1, 5), lambda x, w: torch.cat([x, w, x], 1)),
    ("StackBackward0", (B, 4, 5), lambda x, w: torch.stack([x, w], 2)),
    ("IndexPutBackward0", (), written),
    ("IndexPutBackward0", (5,), written_rows),
    ("IndexPutBackward0", (1,), written),
    ("IndexBackward0", (7, 5), lambda x, w: w[INDICES] * x),
    ("IndexBackward0", (7,), lambda x, w: w[INDICES - 7][..., None] * x),
    ("IndexBackward0", (5, 7), lambda x, w: w[:, INDICES].permute(1, 2, 0) * x),
    ("IndexBackward0", (4, 7, 5), lambda x, w: w[torch.arange(4), INDICES] * x),
    (
        "IndexSelectBackward0",
        (7, 5),
        lambda x, w: x * w.index_select(0, INDICES.flatten()).view(B, 4, 5),
    ),
    (
        "IndexSelectBackward0",
        (5, 7),
        lambda x, w: x * w.index_select(-1, INDICES.flatten()).T.reshape(B, 4, 5),
    ),
    ("TakeBackward0", (7,), lambda x, w: x * w.take(INDICES)[..., None]),
    ("GatherBackward0", (7, 4), lambda x, w: x * w.gather(0, INDICES)[..., None]),
    ("MaskedFillBackward1", (), lambda x, w: x.masked_fill(x.detach() > 0, w)),
    ("BmmBackward0", (5, 2), lambda x, w: torch.einsum("bij,jk->bik", x, w)),
    ("BmmBackward0", (4, 5, 2), lambda x, w: torch.einsum("bhd,hde->bhe", x, w)),
    ("BmmBackward0", (2, 5), lambda x, w: torch.einsum("kj,bij->bik", w, x)),
    ("BmmBackward0", (4, 2, 5), lambda x, w: (w @ x.permute(1, 2, 0)).permute(2, 0, 1)),
    (
        "BaddbmmBackward0",
        (4, 5, 2),
        lambda x, w: torch.baddbmm(
            x.movedim(0, 1)[..., :2], x.movedim(0, 1), w, beta=0.5, alpha=2.0
        ).movedim(0, 1),
    ),
    ("BaddbmmBackward0", (4, 1), lambda x, w: torch.baddbmm(w, x, x.mT, beta=0.5)),
    ("MvBackward0", (5,), lambda x, w: (x.flatten(0, 1) @ w).view(B, 4)),
    ("TrilinearBackward0", (3, 5, 5), lambda x, w: F.bilinear(x, x.flip(1), w)),
]
NO_RULE = [
    ("torch::autograd::CopySlices", (5,), added),
    ("CdistBackward0", (1, 2, 5), lambda x, w: torch.cdist(x, w.expand(B, 2, 5).detach() + w * 1)),
    ("MaskedScatterBackward0", (B, 4, 5), lambda x, w: x.masked_scatter(x.detach() > 0, w)),
    ("DoubledBackward", (5,), lambda x, w: Doubled.apply(x, w)[0]),
    (
        "GridSampler2DBackward0",
        (B, 2, 4, 5),
        lambda x, w: F.grid_sample(w, x[..., :2][:, None].tanh(), align_corners=True),
    ),
    ("SpecialXlog1PyBackward0", (5,), lambda x, w: torch.special.xlog1py(x, w.abs())),
    ("IndexAddBackward0", (B, 1, 5), lambda x, w: x.index_add(1, torch.tensor([2]), w)),
]


@pytest.mark.parametrize(
    ("name", "shape", "operation"), SHAPED, ids=lambda v: str(getattr(v, "__name__", v))
)
def test_values_looked_up_written_in_or_multiplied(name, shape, operation):
    x, w = data(B, 4, 5), parameter(*shape)
    assert compared(lambda: operation(x, w), [w], name) < EXACT


@pytest.mark.parametrize(
    ("name", "shape", "operation"), NO_RULE, ids=lambda v: str(getattr(v, "__name__", v))
)
def test_a_node_without_a_rule_is_called_an_example_at_a_time(name, shape, operation):
    x, w = data(B, 4, 5), parameter(*shape)
    assert compared(lambda: operation(x, w), [w], name, own_rule=False) < EXACT


@pytest.mark.parametrize(
    ("name", "shape", "operation"), SHAPED, ids=lambda v: str(getattr(v, "__name__", v))
)
def test_one_example_at_a_time_agrees_where_there_is_a_rule(name, shape, operation):
    x, w = data(B, 4, 5), parameter(*shape)
    assert compared(lambda: operation(x, w), [w], name, rule=one_at_a_time) < EXACT


def test_a_graph_that_is_gone_has_no_rule():
    x, w = data(B, 5), parameter(5)
    y = x * w
    y.sum().backward()
    with pytest.raises(NoRule, match="cannot be called an example at a time"):
        one_at_a_time(y.grad_fn, torch.ones_like(y), [1], Rows(B))
