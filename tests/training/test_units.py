"""Whoever the promise is made to is sampled, averaged and clipped as one."""

import numpy as np
import pytest
import torch
from scipy import stats
from small_problem import make_trainer, small_data, weights
from torch import nn

from dpsgd_torch import DataError, Privacy, Validation
from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.gradients.vectors import Stored
from dpsgd_torch.privacy.plan import Sampling, StepPlan
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
from dpsgd_torch.training.sampling import UnitRows

IDS = np.repeat(np.arange(40) * 7, 3)  # 40 drugs of three rows each
LOSS = per_example(nn.CrossEntropyLoss())


def unit_trainer(**changes):
    privacy = Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5, unit="drug")
    settings = {"privacy": privacy, "units": IDS, "rows_per_unit": 2, "batch_size": 8, **changes}
    return make_trainer(**settings)


def test_units_are_counted_and_sampled_not_rows():
    trainer = unit_trainer()
    assert trainer.sampling.dataset_size == 40
    assert trainer.sampling.rate == 0.2
    spent = trainer.fit().privacy_spent()
    assert (spent.unit, spent.dataset_size, spent.rows_per_unit) == ("drug", 40, 2)


def test_every_unit_gives_at_most_k_of_its_own_rows_with_the_weights_of_a_mean():
    ids = np.array([5, 5, 5, 5, 2, 9, 9, 2, 5])
    rows = UnitRows.of(ids)
    rng = np.random.default_rng(0)
    for _ in range(50):
        chosen = np.flatnonzero(rng.random(3) < 0.7)
        drawn, slots, given = rows.sample(rng, chosen, 2)
        assert (np.diff(slots) >= 0).all()
        assert len(set(drawn.tolist())) == len(drawn)
        for slot, unit in enumerate(chosen):
            own = drawn[slots == slot]
            assert set(ids[own]) == {[2, 5, 9][unit]}
            assert len(own) == min(2, np.count_nonzero(ids == [2, 5, 9][unit]))
            assert given[slots == slot].sum() == pytest.approx(1.0)


def test_each_row_of_a_unit_is_as_likely_as_the_others():
    rows, rng = UnitRows.of(np.zeros(5, np.int64)), np.random.default_rng(0)
    counts = np.zeros(5)
    for _ in range(4000):
        counts[rows.sample(rng, np.array([0]), 2)[0]] += 1
    assert stats.chisquare(counts).pvalue > 1e-6


@pytest.mark.parametrize("gradients", ["opacus", "graph"])
@pytest.mark.parametrize("physical", [3, 100])
def test_a_step_clips_the_mean_over_a_units_rows(gradients, physical):
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    noiseless = Privacy(noise_multiplier=1e-6, delta=1e-3, clip_norm=0.5, unit="drug")
    trainer = unit_trainer(
        model=model,
        batch_size=20,
        privacy=noiseless,
        rows_per_unit=3,
        physical_batch_size=physical,
        gradients=gradients,
        optimizer=lambda p: torch.optim.SGD(p, lr=1.0),
    )
    before = weights(model).clone()
    data = small_data()
    drawn = trainer.streams.numpy("sampling").random(40) < 0.5  # the law, in one line
    total = torch.zeros_like(before)
    for unit in np.flatnonzero(drawn):
        rows = np.flatnonzero(unit * 7 == IDS)
        model.zero_grad()
        LOSS(model(data[0][rows]), data[1][rows]).mean().backward()
        mean = torch.cat([p.grad.flatten() for p in model.parameters()])
        total += mean * min(1.0, 0.5 / float(mean.norm()))
    next(trainer.run())
    assert drawn.sum() > 2
    assert torch.allclose(before - weights(model), total / 20, atol=1e-5)


def moved_by_a_unit(row_by_row: bool) -> float:
    """How far the clipped sum moves when a unit of three aligned rows joins, in clips."""
    gradient = torch.full((3, 4), 100.0)
    sizes = [1.0, 1.0, 1.0] if row_by_row else [1 / 3] * 3
    slots = [0, 1, 2] if row_by_row else [0, 0, 0]
    parameter = nn.Parameter(torch.zeros(4))
    parameter.grad_sample = gradient
    optimizer = PrivateOptimizer(torch.optim.SGD([parameter], lr=1.0), microbatches=1)
    optimizer.begin(StepPlan(1.0, 1.0), np.random.default_rng(0))
    optimizer.accumulate(Stored([parameter], torch.tensor(slots), torch.tensor(sizes)))
    return float(optimizer.sums[0].norm())


def test_a_unit_moves_the_sum_by_no_more_than_is_charged_and_the_planted_bug_by_three_times():
    sampling = Sampling(dataset_size=40, batch_size=8, steps=1, unit="drug", rows_per_unit=3)
    charged = 1.0 / sampling.event(1.0).event.noise_multiplier
    assert moved_by_a_unit(row_by_row=False) <= charged
    assert moved_by_a_unit(row_by_row=True) > 2.9 * charged


def test_a_run_interrupted_anywhere_ends_with_the_same_weights(tmp_path):
    whole = unit_trainer(run_dir=tmp_path / "whole").fit()
    part = unit_trainer(run_dir=tmp_path / "part")
    for at in part.run():
        if at.step == 9:
            break
    part.close()
    again = unit_trainer(run_dir=tmp_path / "part").resume().fit()
    assert torch.equal(weights(whole.model), weights(again.model))
    assert again.privacy_spent().epsilon == whole.privacy_spent().epsilon


def test_the_twin_without_privacy_averages_the_same_rows():
    twin = unit_trainer(privacy=None).fit()
    assert twin.sampling.dataset_size == 40


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": IDS[:5]}, "one whole number for each of the 120"),
        ({"units": IDS / 2}, "one whole number"),
        ({"rows_per_unit": None}, "rows_per_unit = None: goes with units"),
        ({"rows_per_unit": 0}, "rows_per_unit = 0: must be at least 1"),
        ({"units": None}, "goes with units"),
        ({"units": None, "rows_per_unit": None}, "unit = drug: must name"),
        ({"privacy": Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5)}, "unit = record"),
        ({"validation": Validation(tensors=small_data(40, seed=9))}, "validation.units = None"),
    ],
)
def test_ids_that_do_not_fit_are_refused(changes, message):
    with pytest.raises((DataError, ValueError), match=message):
        unit_trainer(**changes)
