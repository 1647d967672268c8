"""Every schedule of noise and clip is what runs, what is charged, and what is resumed."""

import pytest
import torch
from small_problem import make_trainer, weights

from accountant import count_runs
from dpsgd_torch import Privacy
from dpsgd_torch.schedules import (
    Cosine,
    Exponential,
    Linear,
    Step,
    Table,
    schedule_from_json,
    shape_from_text,
)

SHAPES = [
    Linear(2.0, 1.0, 30),
    Exponential(2.0, 0.5, 30),
    Cosine(2.0, 1.0, 30),
    Step(2.0, 0.7, 7),
    Table((0, 4, 19), (2.0, 1.5, 0.9)),
]


def scheduled(shape, **changes):
    privacy = Privacy(noise_multiplier=shape, clip_norm=shape.scaled(0.25), delta=1e-3)
    return make_trainer(privacy=privacy, **changes)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
def test_a_scheduled_run_replays_from_its_ledger(shape):
    trainer = scheduled(shape).fit()
    assert trainer.ledger.events() == trainer.plan.events()
    planned = [trainer.plan.sampling.event(shape.at(step)) for step in range(30)]
    assert trainer.ledger.events() == count_runs(planned)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
def test_each_step_clips_and_adds_noise_as_its_schedule_says(shape):
    trainer, seen = scheduled(shape), []
    for _ in trainer.run():
        optimizer = trainer.step.optimizer
        seen.append((optimizer.clip_norm, optimizer.noise_multiplier))
    assert seen == [(shape.scaled(0.25).at(step), shape.at(step)) for step in range(30)]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
def test_a_scheduled_run_goes_on_in_place(shape, tmp_path):
    whole = scheduled(shape, run_dir=tmp_path / "whole").fit()
    part = scheduled(shape, run_dir=tmp_path / "part")
    for at in part.run():
        if at.step == 17:
            break
    part.close()
    again = scheduled(shape, run_dir=tmp_path / "part").resume().fit()
    assert torch.equal(weights(again.model), weights(whole.model))
    assert again.ledger.events() == whole.ledger.events()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
def test_calibration_scales_the_shape_to_cost_the_budget(shape):
    privacy = Privacy(epsilon=2.0, noise_shape=shape, clip_norm=0.5, delta=1e-3)
    trainer = make_trainer(privacy=privacy)
    found = trainer.plan.noise_multiplier
    ratio = found.at(0) / shape.at(0)
    assert [found.at(s) for s in range(30)] == pytest.approx(
        [ratio * shape.at(s) for s in range(30)]
    )
    assert 1.999 < trainer.fit().privacy_spent().epsilon <= 2.0


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
def test_a_schedule_survives_json(shape):
    assert schedule_from_json(shape.to_json()) == shape


def test_shapes_start_at_one():
    for text in ("constant", "linear:0.5", "exponential:0.5", "cosine:0.1", "step:0.5:9"):
        assert shape_from_text(text, 30).at(0) == 1.0
