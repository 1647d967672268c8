"""Training longer than was planned: one ledger, one budget, one statement, and no noise twice."""

import pytest
import torch
from own_loops import make_private, trained
from small_problem import make_trainer, small_data, weights

from accountant import exact
from dpsgd_torch import Privacy, RunError, Validation

LIMITED = Privacy(epsilon=4.0, noise_multiplier=1.0, delta=1e-3, clip_norm=0.5)


def test_more_epochs_are_charged_to_the_same_ledger_and_stated_together():
    trainer = make_trainer().fit()
    before = trainer.privacy_spent()
    with pytest.warns(UserWarning, match="decided in view of results now; ε adds up"):
        trainer.fit(epochs=2)
    spent = trainer.privacy_spent()
    assert trainer.done == len(trainer.ledger) == spent.planned_steps == 50
    together = exact()
    together.compose_all(make_trainer(epochs=5).plan.events())
    assert spent.epsilon == pytest.approx(together.epsilon(1e-3).upper)
    assert spent.epsilon > before.epsilon
    assert spent.extended
    assert not before.extended
    assert "extended" not in before.to_json()
    assert [record.epoch for record in trainer.history.epochs] == [1, 2, 3, 4, 5]
    trainer.fit(epochs=1)  # said once
    assert trainer.done == 60


def test_no_step_has_the_noise_of_another():
    trainer = make_trainer(privacy=LIMITED).fit()
    honest, drawn = type(trainer.streams).numpy, []

    def numpy(streams, name, **at):
        if name == "noise":
            drawn.append((at["attempt"], at["step"]))
        return honest(streams, name, **at)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(trainer.streams), "numpy", numpy)
        trainer.fit(epochs=2)
    assert drawn == [(0, step) for step in range(30, 50)]


def test_the_budget_is_the_limit_and_what_is_stated():
    trainer = make_trainer(privacy=LIMITED).fit()
    assert trainer.privacy_spent().epsilon < 3
    trainer.fit(epochs=1)
    assert trainer.ledger.epsilon() < 3.5
    assert trainer.privacy_spent().epsilon == 4.0  # fixed before anything was seen
    trainer.fit(epochs=200)
    assert 40 < trainer.done < 2000
    assert "would reach" in trainer.stopped
    assert trainer.ledger.epsilon() <= 4.0
    with pytest.raises(RunError, match=r"epochs = 1: step \d+ would reach"):
        trainer.fit(epochs=1)


def test_a_calibrated_plan_leaves_no_room_and_says_so_in_one_line():
    trainer = make_trainer(privacy=Privacy(epsilon=2.0, delta=1e-3, clip_norm=0.5)).fit()
    with pytest.raises(RunError, match="calibrated so that 30 steps cost ε = 2, which leaves none"):
        trainer.fit(epochs=1)
    assert len(trainer.ledger) == 30


def test_a_second_fit_that_does_nothing_says_so():
    trainer = make_trainer().fit()
    with pytest.warns(UserWarning, match="nothing was trained: all 30 steps are done; fit"):
        trainer.fit()
    stopped = make_trainer(
        privacy=Privacy(epsilon=2.0, noise_multiplier=1.0, delta=1e-3, clip_norm=0.5)
    ).fit()
    with pytest.warns(UserWarning, match=r"nothing was trained: step \d+ would reach ε"):
        stopped.fit()


def test_a_script_that_resumes_and_fits_may_be_run_once_more(tmp_path):
    make_trainer(run_dir=tmp_path / "run").fit().close()
    again = make_trainer(run_dir=tmp_path / "run").resume().fit()
    assert again.done == 30
    with pytest.warns(UserWarning, match="nothing was trained"):
        again.fit()
    again.close()
    trained(make_private(run_dir=tmp_path / "run").resume()).close()


def test_an_extended_run_goes_on_in_place(tmp_path):
    whole = make_trainer(privacy=LIMITED).fit().fit(epochs=2)
    part = make_trainer(privacy=LIMITED, run_dir=tmp_path / "run").fit()
    part._session.extend(2)
    for at in part.run():
        if at.step == 38:
            break
    part.close()
    with pytest.raises(RunError, match="its sampling changed"):
        make_trainer(privacy=LIMITED, run_dir=tmp_path / "run").resume()
    again = make_trainer(privacy=LIMITED, run_dir=tmp_path / "run", epochs=5).resume().fit()
    assert torch.equal(weights(again.model), weights(whole.model))
    assert again.privacy_spent() == whole.privacy_spent()


def test_what_was_planned_as_a_whole_is_not_extended():
    with pytest.raises(RunError, match="30 of 30 planned steps are left; take them first"):
        make_trainer(privacy=LIMITED).fit(epochs=1)
    validated = make_trainer(
        privacy=LIMITED, validation=Validation(tensors=small_data(40, seed=9), public=True)
    ).fit()
    with pytest.raises(RunError, match="validation costs and decides was planned"):
        validated.fit(epochs=1)
    half = make_trainer(privacy=LIMITED, epochs=2.5).fit()
    with pytest.raises(RunError, match="its last epoch is not a whole one"):
        half.fit(epochs=1)
    with pytest.raises(ValueError, match="epochs = 0: must be a number > 0"):
        half.fit(epochs=0)


def test_without_privacy_there_is_nothing_to_add_up():
    plain = make_trainer(privacy=None).fit().fit(epochs=1)
    assert plain.done == 40


def test_a_loop_of_ones_own_is_extended_alike():
    private = trained(make_private(privacy=LIMITED))
    trained(private.extend(epochs=2))
    trainer = make_trainer(privacy=LIMITED).fit().fit(epochs=2)
    assert torch.equal(weights(private.model), weights(trainer.model))
    assert private.privacy_spent() == trainer.privacy_spent()
