"""An example's vector is its own: not of other rows, of how many there are, or of their order."""

import copy

import pytest
import torch
from gradient_oracle import error_of_the_clipped_sum
from refused import Made, refused
from small_problem import make_trainer, sgd, small_data, small_model
from torch import nn
from torch.nn import functional

from dpsgd_torch import Privacy
from dpsgd_torch.gradients.methods import Method


def views(self, x):
    return self.layer(x.repeat(8, 1)).view(8, len(x), 3).mean(0)


def interleaved(self, x):
    return self.layer(x.repeat_interleave(4, 0)).view(len(x), 4, 3).mean(1)


def pieces(self, x):
    return self.layer(functional.pad(x.view(2 * len(x), 18), (0, 18))).view(len(x), 2, 3).sum(1)


def once_for_all(self, x):
    return x[:, :3] + self.layer(x.new_ones(1, 36))


ALL_OF_ONE = [views, interleaved, pieces]


@pytest.mark.parametrize("forward", [*ALL_OF_ONE, once_for_all])
def test_rows_that_are_not_examples_are_refused_by_the_layers_path_where_hooks_see_rows(forward):
    told = r"layer layer = Linear: .*rows are not the examples"
    refused(told, forward, gradients="opacus")


@pytest.mark.parametrize("forward", [interleaved, pieces, views])
def test_views_of_an_example_that_are_rows_of_a_batch_are_told_apart(forward):
    """Eight copies after each other, four beside each other, two halves: one example's all."""
    model = Made(forward)
    assert error_of_the_clipped_sum(model, small_data(9)) < 2e-6
    assert make_trainer(model=model).fit().done == 30


def test_a_layer_that_sees_what_all_examples_share_is_told_apart():
    assert error_of_the_clipped_sum(Made(once_for_all), small_data(9)) < 2e-6


def rolled(self, x):
    return self.layer(x.roll(1, 0))


def reversed_inside(self, x):
    return self.layer(x.flip(0)).flip(0)


def shuffled(self, x):
    return self.layer(x[torch.randperm(len(x))])


def shuffled_and_back(self, x):
    order = torch.randperm(len(x))
    return self.layer(x[order])[order.argsort()]


@pytest.mark.parametrize("gradients", ["opacus", "graph"])
@pytest.mark.parametrize("forward", [rolled, reversed_inside, shuffled, shuffled_and_back])
def test_rows_in_another_order_are_refused(forward, gradients):
    told = "changes with another example|is not the one it has alone|examples in their order"
    refused(told, forward, gradients=gradients)


def times_length(self, x):
    return self.layer(x) * len(x)


def over_length(self, x):
    return self.layer(x) / (1 + 0.1 * x.shape[0])


def by_place(self, x):
    return self.layer(x) * torch.arange(1.0, len(x) + 1)[:, None]


def only_the_first(self, x):
    return self.layer(x) * (torch.arange(len(x)) == 0)[:, None]


def odd_batches(self, x):
    return self.layer(x) * (1 + len(x) % 2)


@pytest.mark.parametrize("gradients", ["opacus", "graph"])
@pytest.mark.parametrize(
    "forward", [times_length, over_length, by_place, only_the_first, odd_batches]
)
def test_what_depends_on_the_batchs_length_or_order_is_refused(forward, gradients):
    refused("is not the one it has alone", forward, gradients=gradients)


def test_a_loss_that_knows_the_batchs_length_is_refused():
    def mean_over_all(outputs, targets):
        return functional.cross_entropy(outputs, targets, reduction="none") / len(targets)

    refused("is not the one it has alone", model=small_model(), loss=mean_over_all)


def sorted_by_lot(self, x):
    return self.layer(x[torch.rand(len(x)).argsort(stable=True)])


def larger(trick):
    def forward(self, x):
        return trick(self, x) if len(x) > 5 else self.layer(x)

    return forward


@pytest.mark.parametrize(
    "forward",
    [
        rolled,
        shuffled,
        sorted_by_lot,
        times_length,
        by_place,
        lambda self, x: self.layer(x) - self.layer(x).mean(0),
        lambda self, x: self.layer(x - 0.3 * x.mean(0)),
    ],
)
@pytest.mark.parametrize("gradients", ["opacus", "graph"])
def test_what_shows_in_larger_batches_only_is_refused_too(forward, gradients):
    match = "alone|another example|rows are not|more than once"
    refused(match, larger(forward), gradients=gradients, physical_batch_size=64)


def test_dropout_is_no_mixing():
    noisy = nn.Sequential(
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 8), nn.AlphaDropout(0.2), nn.Linear(8, 3)
    )
    assert make_trainer(model=noisy).gradients == "graph"

    def noise_added(self, x):
        return self.layer(x + 0.1 * torch.randn_like(x) * torch.rand(len(x), 1))

    assert make_trainer(model=Made(noise_added)).fit().done == 30


def steep(outputs, targets):
    """So steep that every example is clipped."""
    return 1000 * functional.cross_entropy(outputs, targets, reduction="none")


class Seen(BaseException):
    """The sum was seen; the step need not go on."""


def moved_by_one_record(monkeypatch, **changes) -> float:
    """How far the sum before the noise moves when a record joins: with q = 1, in clip norms.

    With ``units``, the last unit joins with all its rows, which are the last.
    """
    from dpsgd_torch.training import private_optimizer

    found = []

    def release(self):
        found.append(torch.cat([total.flatten().clone() for total in self.sums]))
        raise Seen

    monkeypatch.setattr(private_optimizer.PrivateOptimizer, "add_noise", release)
    data = changes.pop("data", None) or small_data(40)
    units, size = changes.pop("units", None), changes.pop("microbatch_size", 1)
    count = len(data[0]) if units is None else len(set(units))
    privacy = Privacy(
        noise_multiplier=1.0,
        delta=1e-3,
        clip_norm=1.0,
        dataset_size=count,
        microbatch_size=size,
        unit="record" if units is None else "person",
    )
    plain = {"privacy": privacy, "optimizer": sgd, "loss": steep, "batch_size": count}
    last = 1 if units is None else units.count(units[-1])
    for records in (len(data[0]), len(data[0]) - last):
        part = data[0][:records], data[1][:records]
        model = copy.deepcopy(changes["model"])
        if units is not None:
            plain |= {"units": units[:records], "rows_per_unit": 3}
        trainer = make_trainer(data=part, **{**plain, **changes, "model": model})
        with pytest.raises(Seen):
            trainer.fit()
    return float((found[0] - found[1]).norm())


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.ReLU(inplace=True), nn.Linear(20, 3)),
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 3)),
    ],
)
@pytest.mark.parametrize("physical", [1, 7, 64])
def test_one_record_moves_the_sum_by_at_most_one_clip(monkeypatch, model, physical):
    moved = moved_by_one_record(monkeypatch, model=model, physical_batch_size=physical)
    assert 0.99 < moved <= 1.0


def alike(records):
    """Records of one class that all pull the same way."""
    inputs, targets = small_data(records)
    return inputs, torch.zeros_like(targets)


@pytest.mark.parametrize("physical", [1, 7, 64])
@pytest.mark.parametrize("size", [2, 5])
def test_a_record_in_a_microbatch_moves_the_sum_by_at_most_two_clips(monkeypatch, size, physical):
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    moved = moved_by_one_record(
        monkeypatch, model=model, microbatch_size=size, physical_batch_size=physical
    )
    assert 0 < moved <= 2.0


@pytest.mark.filterwarnings("ignore:local, not covered by ε.* targets hold one value")
@pytest.mark.parametrize("physical", [1, 7, 64])
@pytest.mark.parametrize("gradients", ["opacus", "graph"])
def test_a_person_with_five_rows_moves_the_sum_by_at_most_one_clip(
    monkeypatch, gradients, physical
):
    units = [i // 5 for i in range(40)]
    moved = moved_by_one_record(
        monkeypatch,
        model=nn.Sequential(nn.Flatten(), nn.Linear(36, 3)),
        data=alike(40),
        units=units,
        physical_batch_size=physical,
        gradients=gradients,
    )
    assert 0.99 < moved <= 1.0


def test_the_same_measure_catches_views_where_nothing_refuses_them(monkeypatch):
    from dpsgd_torch.gradients import grad_sample
    from dpsgd_torch.gradients.capture import Capture
    from dpsgd_torch.training import trainer

    monkeypatch.setattr(trainer, "try_all", lambda *_: Method("opacus"))
    monkeypatch.setattr(Capture, "_refuse_rows", lambda *_: None)
    monkeypatch.setattr(grad_sample, "checked", lambda given, *_: given)
    moved = moved_by_one_record(monkeypatch, model=Made(views), physical_batch_size=64)
    assert moved > 7.9
    monkeypatch.setattr(trainer, "try_all", lambda *_: Method("graph"))
    moved = moved_by_one_record(monkeypatch, model=Made(views), physical_batch_size=64)
    assert 0.99 < moved <= 1.0


@pytest.mark.filterwarnings("ignore:local, not covered by ε.* 1 of 120 rows of inputs")
def test_rows_that_are_not_numbers_leave_the_other_rows_checked():
    inputs, targets = small_data()
    inputs[2] = float("nan")
    swapped = larger(
        lambda self, x: self.layer(x[torch.arange(len(x)) ^ 1] if len(x) % 2 == 0 else x)
    )
    refused("alone|another example", swapped, data=(inputs, targets), physical_batch_size=64)
    assert make_trainer(data=(inputs, targets), physical_batch_size=64).fit().done == 30


def test_a_part_of_a_batch_is_tried_as_well_as_a_whole_one():
    def but_not_whole(self, x):
        return self.layer(x) * (2 if 5 < len(x) < 20 else 1)

    refused("in a batch of 8", but_not_whole, physical_batch_size=64)


def averaged(self, x):
    return self.layer(x) + 1e-3 * self.layer(x).detach().mean(0).tanh()


def listed(self, x):
    self.kept.append(x.detach().mean(0))
    return self.layer(x - 1e-3 * self.kept[-2])


@pytest.mark.parametrize("gradients", ["opacus", "graph"])
@pytest.mark.parametrize("forward", [averaged, listed])
def test_so_little_of_other_examples_is_refused_too(forward, gradients):
    """A thousandth is no rounding: in passes of one shape a row rounds alike, on a CPU."""
    more = {"kept": [torch.zeros(36)]}
    refused("one example's gradient changes", forward, more=more, gradients=gradients)
