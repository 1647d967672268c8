"""What one record can move is what the plan charges for: measured, and planted bugs caught."""

import numpy as np
import pytest
import torch
from torch import nn

from dpsgd_torch.gradients.vectors import Stored
from dpsgd_torch.privacy.plan import Sampling, StepPlan
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
from dpsgd_torch.training.sampling import assign_slots

CLIP = 1.0
FALLING = [3.0, -2.0, 1.0, -0.5, 0.2, -0.1]  # neighbours' sums change sign when all move up one


def charged_sensitivity(microbatch_size: int) -> float:
    """Clips that one record may move the sum by, for the plan's charge to be right."""
    sampling = Sampling(dataset_size=1000, batch_size=20, microbatch_size=microbatch_size, steps=1)
    return 1.0 / sampling.event(1.0).event.noise_multiplier


def clipped_sum(gradients: torch.Tensor, slots: np.ndarray | None, size: int) -> torch.Tensor:
    """What PrivateOptimizer sums for these per-example gradients."""
    parameter = nn.Parameter(torch.zeros(gradients.shape[1]))
    optimizer = PrivateOptimizer(torch.optim.SGD([parameter], lr=1.0), microbatches=1)
    optimizer.begin(StepPlan(CLIP, 1.0), np.random.default_rng(0))
    parameter.grad_sample = gradients
    if slots is None:
        optimizer.accumulate(Stored([parameter]))
    else:
        weights = torch.full((len(slots),), 1 / size)
        optimizer.accumulate(Stored([parameter], torch.from_numpy(slots), weights))
    return optimizer.sums[0]


def worst_move(size: int, slots_of, trials: int = 300) -> float:
    """The largest move of the sum when a record joins, over adversarial gradients."""
    rng, worst = np.random.default_rng(0), 0.0
    for trial in range(trials):
        direction = torch.from_numpy(rng.normal(size=3)).float()
        others = torch.tensor(FALLING)[:, None] * direction * 100
        joining = -1e4 * direction if trial % 2 else 1e4 * direction
        batch = torch.cat([joining[None], others])
        slots = slots_of(rng, len(batch))
        without = None if slots is None else slots_of.without_first(slots)
        move = clipped_sum(batch, slots, size) - clipped_sum(others, without, size)
        worst = max(worst, float(move.norm()))
    return worst


class Independent:
    """The slots of a run: a record's slot stays when another leaves."""

    def __call__(self, rng, count):
        return assign_slots(rng, np.arange(count), 4)

    def without_first(self, slots):
        return slots[1:]


class InOrder:
    """The planted bug: slots filled in order, so a record that leaves shifts all that follow."""

    def __call__(self, rng, count):
        return np.arange(count) // 2

    def without_first(self, slots):
        return np.arange(len(slots) - 1) // 2


class Alone:
    def __call__(self, rng, count):
        return None


def test_one_example_a_clip_moves_the_sum_by_at_most_what_is_charged():
    assert worst_move(1, Alone()) <= charged_sensitivity(1) * CLIP * (1 + 1e-5)


@pytest.mark.parametrize("size", [2, 5])
def test_a_microbatch_moves_it_by_up_to_twice_the_clip_and_is_charged_so(size):
    worst = worst_move(size, Independent())
    assert charged_sensitivity(size) == 2.0
    assert 1.5 * CLIP < worst <= 2 * CLIP * (1 + 1e-5)  # a charge of one clip would be caught


def test_slots_filled_in_order_are_caught():
    assert worst_move(2, InOrder()) > charged_sensitivity(2) * CLIP * (1 + 1e-5)
