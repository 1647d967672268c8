"""Private steps whose examples' gradients are written down beforehand: a linear loss in each."""

import math

import numpy as np
import torch
from small_problem import make_trainer
from torch import nn

from dpsgd_torch import Privacy
from dpsgd_torch.clipping.adaptive import AdaptiveClipping
from dpsgd_torch.data.in_memory import InMemory
from dpsgd_torch.gradients.grad_sample import OpacusGradients
from dpsgd_torch.gradients.graph.engine import GraphGradients
from dpsgd_torch.noise.base import StepPlan
from dpsgd_torch.training.followed import FollowedClipNorm
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
from dpsgd_torch.training.steps import Draw, PrivateStep

ENGINES = {"graph": GraphGradients, "opacus": OpacusGradients}
HALVES = (3, 5)
WIDTH = sum(HALVES)
ROWS = {
    "huge": [1e18] * WIDTH,
    "tiny": [1e-25] * WIDTH,
    "zero": [0.0] * WIDTH,
    "NaN": [math.nan] * WIDTH,
    "infinite": [math.inf] * WIDTH,
    "infinite in one layer": [math.inf] * 3 + [1.0] * 5,
    "beyond float32 in one layer": [3e38] * 3 + [1.0] * 5,
    "long in one layer": [1e9] * 3 + [1e-3] * 5,
    "ordinary": [0.3, -0.2, 0.1, 0.4, -0.5, 0.1, 0.2, 0.3],
    "long": [3.0, -2.0, 1.0, 4.0, -5.0, 1.0, 2.0, 3.0],
}
OTHERS = [ROWS[name] for name in ("ordinary", "long", "zero", "tiny")]


class Halves(nn.Module):
    """a · x[:3] + b · x[3:]: an example's gradient is its input, in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(HALVES[0], 1, bias=False)
        self.b = nn.Linear(HALVES[1], 1, bias=False)
        for p in self.parameters():
            nn.init.zeros_(p)

    def forward(self, inputs):
        return self.a(inputs[:, : HALVES[0]]) + self.b(inputs[:, HALVES[0] :])


def groups_of(clipping, model):
    return clipping.groups({name: p.numel() for name, p in model.named_parameters()})


def step(
    rows,
    clipping,
    *,
    plan=StepPlan(1.0, 0.0),  # noqa: B008  frozen
    engine="graph",
    slots=None,
    size=1,
    declared=1,
    seed=0,
    cheat=1.0,
):
    """What one private step releases for rows with these gradients: the move, the clip norm after.

    Args:
        cheat: by how much longer than clipped each vector is summed.
    """
    model = Halves()
    followed = None
    if isinstance(clipping, AdaptiveClipping):
        followed = FollowedClipNorm(clipping, plan.clip_norm)
    optimizer = PrivateOptimizer(
        torch.optim.SGD(model.parameters(), lr=1.0),
        microbatches=declared,
        clipping=clipping,
        groups=groups_of(clipping, model),
        followed=followed,
    )
    if cheat != 1.0:
        kept = optimizer._kept
        honest = kept.add
        kept.add = lambda vectors, factors, within: honest(vectors, factors * cheat, within)
    wrapped = ENGINES[engine](model)
    taken = PrivateStep(
        wrapped, lambda outputs, targets: outputs[:, 0], optimizer, physical_batch_size=4
    )
    rows = torch.as_tensor(rows, dtype=torch.float32).reshape(-1, WIDTH)
    everyone = np.arange(len(rows))
    slots = everyone if slots is None else np.asarray(slots)
    weights = None if size == 1 else np.full(len(rows), 1 / size, np.float32)
    draw = Draw(everyone, slots, np.random.default_rng(seed), weights)
    try:
        taken(InMemory(rows, torch.zeros(len(rows))), plan, draw)
    finally:
        wrapped.cleanup()
    moved = -torch.cat([p.detach().flatten() for p in model.parameters()]).double()
    return moved, followed.clip_norm if followed else None


def count_told(clip_norm, clipping, before=1.0):
    """The noisy Σ b / m that moved the clip norm: what ``AdaptiveClipping.next`` was told."""
    return clipping.quantile - 0.5 - np.log(clip_norm / before) / clipping.rate


def trainer(clipping, *, clip_norm=0.5, **changes):
    """One on the small problem."""
    privacy = Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=clip_norm, clipping=clipping)
    return make_trainer(privacy=privacy, **changes)
