"""Augmentation multiplicity: K views of a record are averaged, then clipped, as one vector."""

import numpy as np
import pytest
import torch
from many_processes import run
from small_problem import make_trainer, small_data, small_model, weights
from torch import nn

from accountant import InvalidValue
from dpsgd_torch import DataError, ModelError, Privacy
from dpsgd_torch.audit.replayed import largest_change
from dpsgd_torch.data.views import Draws
from dpsgd_torch.gradients.vectors import Stored
from dpsgd_torch.noise.base import StepPlan
from dpsgd_torch.samplers.base import Batch
from dpsgd_torch.tasks.augment import moved_otherwise, shifted
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
from dpsgd_torch.training.views import Views

K, CLIP = 4, 1.0
KEY = bytes(range(32))


class OneByOne(Views):
    """The planted fault: each view has a slot of its own, and is clipped by itself."""

    def spread(self, drawn: Batch) -> Batch:
        spread = super().spread(drawn)
        return Batch(spread.rows, np.arange(spread.rows.size))


def worst_move(views: Views, trials: int = 200) -> float:
    """How far a record that joins moves the sum, over adversarial gradients of its views."""
    rng, worst = np.random.default_rng(0), 0.0
    for trial in range(trials):
        gradients = torch.from_numpy(rng.normal(size=(3, K, 5))).float() * 10.0 ** int(
            rng.integers(-2, 4)
        )
        if trial % 2:  # all views of a record pull one way
            gradients = gradients[:, :1].expand(3, K, 5)
        sums = []
        for members in ([0, 1, 2], [1, 2]):
            drawn = views.spread(Batch(np.array(members), np.arange(len(members))))
            parameter = nn.Parameter(torch.zeros(5))
            optimizer = PrivateOptimizer(torch.optim.SGD([parameter], lr=1.0), microbatches=1)
            optimizer.begin(StepPlan(CLIP, 1.0), np.random.default_rng(0))
            parameter.grad_sample = gradients[members].reshape(-1, 5)
            shared = () if drawn.weights is None else map(torch.from_numpy, drawn_of(drawn))
            optimizer.accumulate(Stored([parameter], *shared))
            sums.append(optimizer.sums[0].clone())
        worst = max(worst, float((sums[0] - sums[1]).norm()))
    return worst


def drawn_of(drawn: Batch):
    return drawn.slots, drawn.weights


def test_a_record_with_all_its_views_moves_the_sum_by_one_clip_norm():
    assert CLIP * 0.99 < worst_move(Views(K, shifted(1))) <= CLIP * (1 + 1e-5)


def test_views_that_are_clipped_one_by_one_are_caught():
    assert worst_move(OneByOne(K, shifted(1))) > 2 * CLIP


def test_one_slot_holds_the_mean_of_the_views_gradients():
    """Against a gradient taken of the mean loss over views by hand, without clip or noise."""
    inputs, targets = small_data(1)
    model = small_model()
    model[3].p = 0.0
    before, generator = weights(model).clone(), Views(K, shifted(1))
    trainer = make_trainer(
        model=model,
        data=(inputs, targets),
        privacy=Privacy(noise_multiplier=1e-6, delta=1e-3, clip_norm=20.0),
        optimizer=lambda p: torch.optim.SGD(p, lr=1.0),
        batch_size=1,
        epochs=1,
        views=K,
        augment=shifted(1),
    )
    key = trainer.state.streams.key("augmentation", attempt=0, step=0)
    views, wanted = generator.made((inputs, targets), np.array([0]), lambda: key)
    nn.functional.cross_entropy(model(views), wanted).backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    trainer.fit()
    assert torch.allclose(before - weights(model), expected, atol=2e-4)
    assert not torch.equal(views[0], views[1])


def test_a_records_views_hang_on_nobody_else():
    rows, view = np.array([5, 5, 9, 9]), np.array([0, 1, 0, 1])
    whole, alone = Draws(KEY, rows, view), Draws(KEY, rows[2:], view[2:])
    for shape in ((3,), (), (2, 2)):
        assert torch.equal(whole(*shape)[2:], alone(*shape))


def test_draws_are_uniform_and_apart():
    many = Draws(KEY, np.repeat(np.arange(5000), 2), np.tile([0, 1], 5000))(2).flatten().double()
    assert abs(float(many.mean()) - 0.5) < 0.01
    assert abs(float(many.var()) - 1 / 12) < 0.003
    assert abs(float(torch.corrcoef(many.view(-1, 2).T)[0, 1])) < 0.04
    assert len(many.unique()) > 0.99 * len(many)


def test_an_interrupted_run_draws_the_same_views(tmp_path):
    settings = {"views": 3, "augment": shifted(1), "epochs": 1}
    whole = make_trainer(**settings).fit()
    part = make_trainer(run_dir=tmp_path / "run", **settings)
    for at in part.run():
        if at.step == 8:
            break
    part.close()
    resumed = make_trainer(run_dir=tmp_path / "run", **settings).resume().fit()
    assert torch.equal(weights(whole.model), weights(resumed.model))


def test_views_cost_nothing():
    with_views, without = make_trainer(views=3, augment=shifted(1)), make_trainer()
    assert with_views.plan.events() == without.plan.events()


def added_in_place(inputs, draws):
    inputs += draws(1, 1, 1)
    return inputs


@pytest.mark.parametrize("count", [1, 2])
def test_an_augmentation_that_writes_into_its_rows_leaves_the_data_as_they_are(count):
    data = small_data()
    before = data[0].clone()
    in_place = make_trainer(data=data, views=count, augment=added_in_place, epochs=1).fit()
    assert torch.equal(data[0], before)
    apart = make_trainer(views=count, augment=lambda rows, draws: rows + draws(1, 1, 1), epochs=1)
    assert len(in_place.ledger) == len(apart.fit().ledger)


@pytest.mark.parametrize(
    "privacy", [Privacy(noise_multiplier=1e-7, delta=1e-3, clip_norm=0.5), None]
)
def test_views_that_are_all_the_row_itself_train_as_it_does(privacy):
    """The mean of K equal gradients is each of them, whatever is clipped and however cut up."""
    left = []
    for views in ({}, {"views": 4, "augment": lambda inputs, draws: inputs}):
        model = small_model()
        model[3].p = 0.0
        make_trainer(model=model, privacy=privacy, epochs=1, **views).fit()
        left.append(weights(model))
    assert torch.allclose(*left, atol=1e-6)


def test_views_of_one_record_are_no_pass_of_one_row():
    assert make_trainer(physical_batch_size=1).state.each_alone
    assert not make_trainer(physical_batch_size=1, views=2, augment=shifted(1)).state.each_alone


def test_an_audit_leaves_a_record_out_with_all_its_views(monkeypatch):
    trainer = make_trainer(views=K, augment=shifted(1), epochs=1).fit()
    assert largest_change(trainer, 3).p_value == 1.0
    rows = trainer.data[0]
    seen = []
    honest = Views.made
    monkeypatch.setattr(Views, "made", lambda *a: seen.append(honest(*a)) or seen[-1])
    largest_change(trainer, 1)
    views = torch.cat([inputs for inputs, _ in seen])
    assert len(views) % K == 0
    assert not any(bool((rows == view).flatten(1).all(1).any()) for view in views[:K])


RANKED = """
import torch
from small_problem import make_trainer, small_model, weights
from dpsgd_torch.tasks.augment import shifted
model = small_model()
model[3].p = 0.0
trainer = make_trainer(model=model, views=3, augment=shifted(1), world=world, epochs=1).fit()
print(weights(trainer.model).double().tolist())
"""


@pytest.mark.long
def test_ranks_draw_the_views_that_one_process_draws():
    one, two = (torch.tensor(eval(run(RANKED, size)[0])) for size in (1, 2))
    assert torch.allclose(one, two, atol=1e-5)


def unlike(inputs, draws):
    return inputs + torch.rand_like(inputs)


def smaller(inputs, draws):
    return inputs[..., 1:]


def mixing(inputs, draws):
    return inputs - inputs.mean(dim=0)


@pytest.mark.parametrize(
    ("augment", "error"), [(unlike, ModelError), (smaller, DataError), (mixing, ModelError)]
)
def test_what_is_no_view_of_its_row_is_refused_before_a_charge(augment, error, tmp_path):
    with pytest.raises(error, match="augment"):
        make_trainer(views=2, augment=augment, run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "ledger.sqlite").exists()


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"views": 0, "augment": shifted(1)}, "whole number"),
        ({"views": 2}, "augment="),
        (
            {
                "privacy": Privacy(
                    noise_multiplier=1.0, delta=1e-3, clip_norm=0.5, microbatch_size=2
                )
            },
            "microbatches",
        ),
        ({"compile": True}, "compile"),
    ],
)
def test_views_beside_what_has_none_are_refused_by_name(settings, word):
    with pytest.raises(InvalidValue, match=word):
        make_trainer(
            **{"views": 2, "augment": None if word == "augment=" else shifted(1), **settings}
        )


def test_views_of_a_unit_are_refused_and_the_way_out_is_told():
    privacy = Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5, unit="person")
    with pytest.raises(InvalidValue, match="give views as rows of the unit"):
        make_trainer(
            privacy=privacy,
            units=torch.arange(120) % 30,
            rows_per_unit=2,
            batch_size=6,
            views=2,
            augment=shifted(1),
        )


def test_images_are_shifted_within_their_frame():
    image = torch.arange(1.0, 10.0).view(1, 1, 3, 3).repeat(200, 1, 1, 1)
    moved = shifted(1)(image, Draws(KEY, np.arange(200), np.zeros(200, np.int64)))
    found = {tuple(each.flatten().tolist()) for each in moved}
    framed = nn.functional.pad(image[:1], (1, 1, 1, 1))
    windows = {
        tuple(framed[0, 0, y : y + 3, x : x + 3].flatten().tolist())
        for y in range(3)
        for x in range(3)
    }
    assert found == windows


def test_recordings_keep_their_strength_when_they_are_tilted():
    motion = torch.rand(50, 119 * 6) * 0.2 - 0.1
    moved = moved_otherwise(119, 0.0)(motion, Draws(KEY, np.arange(50), np.zeros(50, np.int64)))
    ratio = moved.norm(dim=1) / motion.norm(dim=1)
    assert moved.shape == motion.shape
    assert 0.8 < float(ratio.min()) < float(ratio.max()) < 1.2
    assert float((moved - motion).abs().max()) > 0.01
