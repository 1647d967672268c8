"""Correlated noise over attempts and machines: every attempt is one mechanism, paid by itself."""

import itertools
import shutil

import numpy as np
import pytest
import scipy
import torch
from correlated_problem import BATCH, CLIP, STEPS, corr, rows_of_corr, times_target, trained
from small_problem import weights

from dpsgd_torch import Private
from dpsgd_torch.audit import retrace
from dpsgd_torch.noise import correlated
from dpsgd_torch.noise.correlated import Correlated
from dpsgd_torch.noise.independent import INDEPENDENT
from dpsgd_torch.noise.past import Recent
from dpsgd_torch.optim.adam_bc import AdamBC
from dpsgd_torch.privacy import privacy
from dpsgd_torch.samplers.cyclic import cyclic
from dpsgd_torch.samplers.passes import Passes
from dpsgd_torch.training import session
from dpsgd_torch.training.state import RunState
from dpsgd_torch.training.streams import Streams

pytestmark = pytest.mark.filterwarnings("ignore:local, not covered by ε")


def cut_at(folder, kept, **settings):
    """A run that was cut after so many steps."""
    run = corr(folder, **settings)
    for _ in itertools.islice(run.run(), kept):
        pass
    run.close()


def elsewhere(monkeypatch):
    monkeypatch.setattr(session, "environment", lambda device, gradients: "another machine")


def charges(trainer):
    """Attempt → steps that it was charged for, and those of them that cost something."""
    rows = trainer.ledger.rows()
    events = dict(rows["event"])
    found = {}
    for _, _, step, attempt, event, _ in rows["charge"]:
        every, paid = found.setdefault(attempt, ([], []))
        every.append(step)
        if '"no_cost"' not in events[event]:
            paid.append(step)
    return found


@pytest.mark.parametrize(
    ("noise", "sampler"),
    [(Correlated("bandmf", 4), cyclic(4)), (INDEPENDENT, cyclic(4)), (INDEPENDENT, Passes)],
)
def test_a_checkpoint_of_an_attempt_that_was_given_up_is_not_gone_on_from_in_another(
    tmp_path, monkeypatch, noise, sampler
):
    """What was put back from a backup is further than the attempt that is last."""
    settings = {"noise": noise, "sampler": sampler, "checkpoint_every": 1}
    cut_at(tmp_path / "run", 12, **settings)
    kept = tmp_path / "run" / "private" / "checkpoints" / "step-00000012"
    shutil.move(kept, tmp_path / "backup")
    elsewhere(monkeypatch)
    cut = corr(tmp_path / "run", **settings).resume()
    assert (cut.done, cut.state.attempt) == (11, 1)
    next(cut.run())
    cut.close()
    shutil.rmtree(kept)
    shutil.move(tmp_path / "backup", kept)
    again = corr(tmp_path / "run", **settings).resume()
    assert again.done == 12
    assert again.state.attempt == 2
    again.fit()
    period = again.plan.sampling.period
    for every, paid in charges(again).values():
        assert every == list(range(every[0], every[-1] + 1))
        assert paid == every[::period]  # every period that was begun, by its first step
    assert list(charges(again)[2][0]) == list(range(12, STEPS))
    again.privacy_spent()


def another_optimum(steps, bands, participation):
    """What another release of scipy may find."""
    factor = OPTIMISED["bandmf"](steps, bands, participation)
    moved = np.array(factor.coefficients) * (1 + 1e-3 * np.arange(bands))
    return type(factor)(name=factor.name, steps=steps, coefficients=tuple(moved.tolist()))


OPTIMISED = dict(correlated.KINDS)


def forget():
    """Let every plan be made again, as in another process."""
    correlated._optimised.cache_clear()
    privacy._plan.cache_clear()


@pytest.mark.parametrize("sampler", [cyclic(4), Passes])
def test_a_resumed_run_goes_on_with_the_factor_that_it_began_with(tmp_path, monkeypatch, sampler):
    whole = corr(tmp_path / "whole", sampler).fit()
    cut_at(tmp_path / "cut", 10, sampler=sampler)
    monkeypatch.setitem(correlated.KINDS, "bandmf", another_optimum)
    forget()
    again = corr(tmp_path / "cut", sampler)
    assert again.plan.noise.of_plan != whole.plan.noise.of_plan
    again.resume()
    assert again.plan.noise.of_plan == whole.plan.noise.of_plan
    again.fit()
    forget()
    assert torch.equal(weights(again.model), weights(whole.model))
    assert again.privacy_spent().steps_charged_again == 0


@pytest.mark.parametrize(
    ("kind", "sampler"), [("bandmf", cyclic(6)), ("bandmf", Passes), ("bandinvmf", Passes)]
)
def test_its_deviation_is_what_adam_is_to_take_off_at_every_step(kind, sampler):
    values = 4000
    rows = torch.ones(48, values), torch.zeros(48), values
    made = []

    def adam(parameters):
        made.append(AdamBC(parameters, lr=1e-3, betas=(0.9, 0.9), floor=1e-5))
        return made[-1]

    trainer = trained(Correlated(kind, 6), sampler, *rows, optimizer=adam)
    planned, told, off, fresh = trainer.plan.noise.of_plan, [], [], 2.0 * CLIP
    for _ in trainer.run():
        told.append(made[-1].noise_deviation * BATCH / fresh / planned.sensitivity)
        moment = made[-1].second_moment(trainer.model.weight)
        off.append(float(moment.mean()) / made[-1].noise_deviation ** 2)
    assert told == pytest.approx(planned.growth, rel=1e-12)
    assert max(map(abs, off)) < 0.12  # √(2 / 4000) = 0.022 of one step's
    assert planned.growth[-1] ** 2 > 1.25  # what is fresh alone would be off by more


def test_an_attempt_that_begins_anew_begins_anew_with_its_deviation(tmp_path, monkeypatch):
    cut_at(tmp_path / "run", 9)
    elsewhere(monkeypatch)
    again = corr(tmp_path / "run").resume()
    noise, plan = again.plan.noise, again.plan.step(9)
    assert noise.deviation(plan, again.noise_state) == noise.deviation(again.plan.step(0))


@pytest.mark.parametrize("sampler", [cyclic(4), Passes])
def test_its_last_steps_are_taken_again_bit_for_bit(tmp_path, sampler):
    corr(tmp_path / "run", sampler).fit().close()
    same, moved = retrace(lambda folder: corr(folder, sampler), tmp_path / "run")
    assert same.p_value == 1
    assert "steps 21 to 23, equal" in str(same)
    assert moved.p_value == 1


def test_noise_that_was_carried_otherwise_is_seen_when_steps_are_taken_again(tmp_path, monkeypatch):
    """A fault: steps that remember nothing release another noise than the plan's."""
    forgetful = lambda self, rows, taken: rows.new_zeros(rows.shape[1])  # noqa: E731
    with monkeypatch.context() as planted:
        planted.setattr(Recent, "added", forgetful)
        corr(tmp_path / "run").fit().close()
    (same, *_) = retrace(corr, tmp_path / "run")
    assert same.p_value == 0


def drawn(trainer, most):
    """C times what so many steps added to sums of nothing, over what is fresh: (steps, d)."""
    before, each = weights(trainer.model).double(), []
    planned = trainer.plan.noise.of_plan
    for _ in itertools.islice(trainer.run(), most):
        now = weights(trainer.model).double()
        each.append((before - now) * BATCH / (2.0 * CLIP * planned.sensitivity))
        before = now
    return scipy.signal.lfilter(planned.factor.coefficients, [1.0], torch.stack(each), axis=0)


def over_two_attempts(folder, monkeypatch, sampler):
    """The largest entry by which the Gram matrix of all that was drawn differs from one's."""
    rows = torch.ones(48, 1500), torch.zeros(48), 1500
    first = trained(Correlated("bandmf", 4), sampler, *rows, run_dir=folder)
    found = drawn(first, 16)
    first.close()
    elsewhere(monkeypatch)
    second = trained(Correlated("bandmf", 4), sampler, *rows, run_dir=folder).resume()
    assert (second.done, second.state.attempt) == (12, 1)
    found = np.concatenate([found, drawn(second, STEPS)])
    return float(np.abs(found @ found.T / found.shape[1] - np.eye(16 + 12)).max())


@pytest.mark.parametrize("sampler", [cyclic(4), Passes])
def test_what_two_attempts_draw_is_white_over_both(tmp_path, monkeypatch, sampler):
    assert over_two_attempts(tmp_path / "run", monkeypatch, sampler) < 6 * (2 / 1500) ** 0.5


@pytest.mark.parametrize("fault", ["the past of the attempt before", "its keys"])
def test_an_attempt_that_takes_over_anything_of_another_is_seen(tmp_path, monkeypatch, fault):
    if fault == "its keys":
        own = Streams.numpy
        same = lambda self, name, *, attempt=0, step=0: own(self, name, step=step)  # noqa: E731
        monkeypatch.setattr(Streams, "numpy", same)
    else:
        begin = RunState.begin_attempt

        def carried(self, **given):
            past = self.noise_state
            begin(self, **given)
            self.noise_state = past or self.noise_state

        monkeypatch.setattr(RunState, "begin_attempt", carried)
    assert over_two_attempts(tmp_path / "run", monkeypatch, cyclic(4)) > 12 * (2 / 1500) ** 0.5


def own_loop(folder=None):
    """The run of ``corr`` as a loop of the user's own."""
    made = corr()
    return Private(
        made.model, torch.optim.SGD(made.model.parameters(), lr=1.0), rows_of_corr(),
        privacy=made.privacy, sampler=cyclic(4), batch_size=BATCH, epochs=made.state.epochs,
        run_dir=folder, checkpoint_every=3, seed=5,
    )  # fmt: skip


def looped(private, most=STEPS):
    for batch in private:
        private.backward(times_target(private.model(batch.inputs), batch.targets))
        private.step()
        if private.done == most:
            break
    return private


def test_a_loop_of_the_users_own_carries_the_past_over_a_cut_as_well(tmp_path):
    whole = looped(own_loop())
    looped(own_loop(tmp_path / "cut"), 8).close()
    again = looped(own_loop(tmp_path / "cut").resume())
    assert torch.equal(weights(again.model), weights(whole.model))
    assert again.ledger.events() == whole.ledger.events()
