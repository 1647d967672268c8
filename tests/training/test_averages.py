"""Averaged weights: what they are, where they stand in for the last ones, and how they resume."""

import contextlib
import json

import pytest
import torch
from safetensors.torch import load_file
from small_problem import make_trainer, small_data, weights
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from accountant import InvalidValue
from dpsgd_torch import EarlyStopping, RunError, Validation
from dpsgd_torch.optim import Exponential, Tail
from dpsgd_torch.schedules import Linear
from dpsgd_torch.training.evaluation import evaluate

KINDS = {"ema": "ema:0.9", "tail": "tail:0.4"}


def followed(kind: str) -> tuple[torch.Tensor, list[torch.Tensor], AveragedModel]:
    """What a run leaves, the weights after each of its steps, and torch's own average of them."""
    trainer, seen = make_trainer(average=kind, epochs=2), []
    halved = get_ema_multi_avg_fn(0.5) if kind == "ema:0.5" else None
    peer = AveragedModel(trainer.model, multi_avg_fn=halved)
    for at in trainer.run():
        assert not trainer.state.average.is_in_place
        seen.append(weights(trainer.model).double().clone())
        if halved or at.step > 10:
            peer.update_parameters(trainer.model)
    assert trainer.plan.events() == make_trainer(epochs=2).plan.events()
    return weights(trainer.model), seen, peer


def test_an_exponential_average_is_the_weighted_sum_corrected_for_its_start():
    found, seen, _ = followed("ema:0.9")
    shares = torch.tensor([0.1 * 0.9 ** (len(seen) - 1 - i) for i in range(len(seen))]).double()
    shares = shares / shares.sum()
    expected = sum(share * each for share, each in zip(shares, seen, strict=True))
    assert torch.allclose(found.double(), expected, atol=1e-6)
    assert not torch.allclose(found.double(), seen[-1], atol=1e-4)


@pytest.mark.parametrize("kind", ["tail:0.5", "ema:0.5"])
def test_it_is_torchs_averaged_model(kind):
    """The exponential one once its start, which torch does not correct for, is forgotten."""
    found, _, peer = followed(kind)
    assert torch.allclose(found, weights(peer.module), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("stop", [3, 14])
def test_it_resumes_bit_for_bit_from_any_checkpoint(kind, stop, tmp_path):
    whole = make_trainer(average=kind, epochs=2).fit()
    part = make_trainer(average=kind, epochs=2, run_dir=tmp_path / "run")
    for at in part.run():
        if at.step == stop:
            break
    part.close()
    resumed = make_trainer(average=kind, epochs=2, run_dir=tmp_path / "run").resume().fit()
    assert torch.equal(weights(whole.model), weights(resumed.model))


def test_what_is_scored_saved_and_left_is_the_average(tmp_path):
    test = small_data(30, seed=5)
    trainer = make_trainer(average="ema:0.9", test_tensors=test, run_dir=tmp_path / "run").fit()
    folder = trainer.save(tmp_path / "run")
    told = evaluate(trainer.model, trainer.scores, trainer.test)
    assert trainer.history.epochs[-1].test == pytest.approx(told)
    saved = load_file(folder / "model.safetensors")
    assert torch.equal(saved["0.weight"], trainer.model[0].weight)
    assert "exponential average" in json.loads((folder / "privacy.json").read_text())["weights"]
    newest = sorted(trainer.folder.checkpoints.glob("step-*"))[-1] / "tensors.safetensors"
    kept = load_file(newest)
    assert not torch.equal(kept["model.0.weight"], saved["0.weight"])
    assert kept["kept.average.sums.0.weight"].dtype == torch.float64


def test_training_goes_on_from_the_last_iterate_not_from_the_average():
    trainer = make_trainer(average="ema:0.9")
    for _ in trainer.run():
        last = weights(trainer.model).clone()
    left = weights(trainer.model).clone()
    with pytest.warns(UserWarning, match="nothing was trained"):
        trainer.fit()
    assert torch.equal(weights(trainer.model), left)
    with pytest.warns(UserWarning, match="epochs"):
        trainer.fit(1)
    first = trainer.state.average
    assert not torch.equal(left, last)
    assert trainer.done == 40
    assert first.n_averaged == 40


def test_validation_and_the_best_epoch_are_the_averages():
    held_out = Validation(tensors=small_data(30, seed=7), public=True)
    settings = {"validation": held_out, "early_stopping": EarlyStopping(keep_best=True)}
    trainer = make_trainer(average="ema:0.9", **settings).fit()
    scores = [epoch.validation for epoch in trainer.history.epochs]
    found = trainer.steering.held_out.mean(trainer.steering.held_out.scores(trainer.model))
    assert found == pytest.approx(min(scores))


@pytest.mark.parametrize("resumes", [False, True])
def test_a_best_epoch_before_the_tail_is_told_as_the_last_iterate_that_it_is(resumes, tmp_path):
    settings = {
        "average": "tail:0.2",
        "validation": Validation(tensors=small_data(30, seed=9), public=True),
        "early_stopping": EarlyStopping(keep_best=True),
        "rate_schedule": Linear(0.01, 50.0, steps=40),  # noise leads ever further away
        "run_dir": tmp_path / "run",
        "epochs": 4,
    }
    trainer = make_trainer(**settings)
    if resumes:
        for at in trainer.run():
            if at.step == 38:
                break
        trainer.close()
        trainer = make_trainer(**settings).resume()
    trainer.fit()
    scores = trainer.state.history.scores
    assert scores.index(min(scores)) < 3
    assert trainer.state.average.is_in_place
    assert trainer.state.average.told() == "the last iterate"


def test_a_tail_that_has_not_begun_leaves_the_last_iterate():
    trainer = make_trainer(average="tail:0.1")
    steps = trainer.run()
    for at in steps:
        if at.step == 5:
            break
    assert not trainer.state.average.has_begun
    assert trainer.state.average.told() == "the last iterate"


def test_in_place_gives_every_bit_back():
    model = torch.nn.Linear(3, 2)
    average = Exponential(0.5).follow(model)
    average.update(model, 0, 2)
    with torch.no_grad():
        model.weight.mul_(3)
    before = weights(model).clone()
    with contextlib.suppress(KeyError), average.in_place(model):
        assert not torch.equal(weights(model), before)
        raise KeyError
    assert torch.equal(weights(model), before)


@pytest.mark.parametrize("text", ["ema:1", "ema:0", "tail:2", "mean", "ema:much", "none:0.5"])
def test_what_is_no_average_is_refused(text):
    with pytest.raises(InvalidValue, match="average = "):
        make_trainer(average=text)


def test_a_resumed_run_keeps_the_average_it_began_with(tmp_path):
    make_trainer(average="ema:0.9", run_dir=tmp_path / "run").fit().close()
    for other in (None, "ema:0.5", Tail()):
        with pytest.raises(RunError, match="average"):
            make_trainer(average=other, run_dir=tmp_path / "run").resume()
