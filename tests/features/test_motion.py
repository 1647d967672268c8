"""Statistics of motion: each recording's from it alone, and made-up motions that repeat."""

import numpy as np
import torch

from dpsgd_torch.features.made_up.motions import LIMITS, Motion, random_motions
from dpsgd_torch.features.motion import MotionRecipe, statistics
from dpsgd_torch.tasks.gestures import files

SMALL = MotionRecipe(directions=6, made=100)


def test_made_up_motions_are_of_their_seed_alone_and_no_global_one():
    np.random.seed(3)
    once = random_motions(3, 7)
    np.random.seed(4)
    assert np.array_equal(once, random_motions(3, 7))
    assert not np.array_equal(once, random_motions(3, 8))


def test_they_lie_in_the_sensors_range_and_feel_gravity():
    made = random_motions(50, 1)
    assert (np.abs(made) <= LIMITS).all()
    assert np.array_equal(LIMITS, files.LIMITS)
    assert 0.8 < np.median(np.linalg.norm(made[:, :, :3], axis=2)) < 1.5


def test_a_rows_features_rest_on_it_alone():
    made = random_motions(8, 2)
    assert torch.allclose(SMALL(made)[3:4], SMALL(made[3:4]), atol=1e-5)
    assert torch.allclose(SMALL(made).norm(dim=1), torch.tensor(SMALL.norm))


def test_when_a_motion_begins_does_not_matter_and_its_axis_does():
    t = np.arange(119) / 119
    swing = np.zeros((3, 119, 6))
    swing[0, :, 5] = 200 * np.sin(2 * np.pi * 3 * t)
    swing[1, :, 5] = 200 * np.sin(2 * np.pi * 3 * t + 1)
    swing[2, :, 4] = 200 * np.sin(2 * np.pi * 3 * t)
    found = statistics(swing)
    assert np.abs(found[0] - found[1]).max() < 0.05
    assert np.abs(found[0] - found[2]).max() > 1
    frequency = np.exp(found[0, 14])  # of the last axis: log((slope + floor) / (size + floor))
    assert 2.5 < frequency < 3.5


def test_motions_of_one_kind_are_nearer_than_those_of_others():
    rng = np.random.default_rng(5)
    kinds = [Motion.draw(rng) for _ in range(4)]
    known, asked = (
        SMALL(np.stack([k.recorded(rng) for k in kinds for _ in range(12)])) for _ in "ab"
    )
    means = known.view(4, 12, -1).mean(dim=1)
    right = torch.cdist(asked, means).argmin(dim=1) == torch.arange(4).repeat_interleave(12)
    assert right.float().mean() > 0.75
