"""What rows hold is met in one pass before a charge: refused, or told on the screen only."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from refused import Made, refused
from small_problem import make_trainer as usual_trainer
from small_problem import small_data, small_model
from torch import nn
from torch.nn import functional as f

from dpsgd_torch import DataError, Privacy, PrivateDataWarning, Validation
from dpsgd_torch.data.base import Data, Schema
from dpsgd_torch.data.in_memory import InMemory
from dpsgd_torch.training.first_pass import first_pass
from dpsgd_torch.training.unfit_rows import untold

PRIVACY = Privacy(noise_multiplier=1.0, delta=1e-4, clip_norm=0.5)  # for 1200 rows too
LOCAL = "local, not covered by ε: "


def make_trainer(**changes):
    return usual_trainer(**{"privacy": PRIVACY, **changes})


class Passing(Data):
    """Rows that are taken as they are asked for; counts how often each was."""

    def __init__(self, inputs, targets):
        self.held, self.taken = InMemory(inputs, targets), []

    def __len__(self):
        return len(self.held)

    def take(self, indices):
        self.taken.append(indices.copy())
        return self.held.take(indices)

    @property
    def schema(self):
        return Schema.of(self.held.in_memory())


KINDS = {"in memory": lambda *pair: pair, "passing": Passing}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def told(**changes) -> list[str]:
    """What a trainer says of its rows."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_trainer(**changes)
    assert all(each.category is PrivateDataWarning for each in caught)
    return [str(each.message) for each in caught]


@kinds
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_set_whose_every_row_is_not_finite_is_refused_with_nothing_charged(
    tmp_path, kind, poison
):
    inputs, targets = small_data(1200)
    inputs[:, 0, 2, 3] = poison  # one pixel of each is enough
    with pytest.raises(DataError, match="every row holds a value that is not finite") as no:
        make_trainer(data=kind(inputs, targets), run_dir=tmp_path / "run")
    assert str(no.value).startswith("train_tensors: ")
    assert str(no.value).endswith("nothing was charged")
    assert not (tmp_path / "run").exists()


def test_the_columns_that_never_are_finite_are_named():
    inputs = small_data()[0].flatten(1)
    inputs[:, [4, 20]] = math.nan
    model = nn.Linear(36, 3)
    message = refused("columns 4, 20 of inputs", model=model, data=(inputs, small_data()[1]),
                      kind=DataError)  # fmt: skip
    assert "fill or mend" in message


def test_a_model_that_fills_what_is_missing_learns_from_rows_that_all_miss_something():
    inputs, targets = small_data()
    inputs[:, 0, 2, 3] = math.nan
    model = Made(lambda self, x: self.layer(x.nan_to_num()))
    with pytest.warns(PrivateDataWarning, match="120 of 120 rows of inputs"):
        trainer = make_trainer(model=model, data=(inputs, targets))
    assert trainer.fit().done == 30


@kinds
def test_some_rows_that_are_not_finite_are_counted_and_train(kind):
    inputs, targets = small_data(1200)
    inputs[[700, 30, 1100], 0, 0, 0] = math.nan
    inputs[31, 0, 5, 5] = math.inf
    said = told(data=kind(inputs, targets))
    assert said == [
        f"{LOCAL}train_tensors: 4 of 1200 rows of inputs hold values that are not finite (the "
        "first: row 30); an example whose gradient is not finite adds nothing"
    ]


def test_targets_that_are_not_finite_count_too():
    inputs, targets = small_data()[0], torch.rand(120, 1)
    targets[7] = math.nan
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 1))
    (said,) = told(model=model, data=(inputs, targets), loss=nn.MSELoss())
    assert "1 of 120 rows of targets hold values that are not finite (the first: row 7)" in said
    targets[:] = math.inf
    with pytest.raises(DataError, match=r"every row .* in targets, and no row has a finite loss"):
        make_trainer(model=model, data=(inputs, targets), loss=nn.MSELoss())


def test_halves_of_a_set_that_are_spoilt_in_other_parts_leave_no_row():
    inputs, targets = small_data()[0], torch.rand(120, 1)
    inputs[:60], targets[60:] = math.nan, math.nan
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 1))
    with pytest.raises(DataError, match="in inputs and targets, and no row"):
        make_trainer(model=model, data=(inputs, targets), loss=nn.MSELoss())


def test_weights_that_are_not_finite_show_in_the_loss():
    model = small_model()
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = math.nan
    (said,) = told(model=model)
    assert "the loss of the first 8 rows whose values are finite is not" in said


def test_columns_of_a_table_that_hold_one_value_are_named_once():
    inputs, targets = small_data()
    table = inputs.flatten(1)
    table[:, 3:10] = 0.5
    (said,) = told(model=nn.Linear(36, 3), data=(table, targets))
    assert said == (
        f"{LOCAL}train_tensors: inputs: columns 3, 4, 5, 6, 7 and 2 more of 36 hold one value in "
        "every row"
    )
    images = table.reshape(-1, 1, 6, 6)
    assert told(data=(images, targets)) == []  # an image has a margin


def test_inputs_or_targets_of_one_value_are_told():
    inputs, targets = small_data()
    (said,) = told(data=(torch.full_like(inputs, 0.25), targets))
    assert said.endswith("inputs hold one value in all 120 rows")
    (said,) = told(data=(inputs, torch.full_like(targets, 2)))
    assert said.endswith("targets hold one value in all 120 rows")


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(36, 3)

    def forward(self, x, mask):
        return self.layer(x * mask)


def test_a_mask_of_ones_beside_the_inputs_is_nothing_to_tell():
    inputs, targets = small_data()
    given = {"x": inputs.flatten(1), "mask": torch.ones(120, 36, dtype=torch.bool)}
    assert told(model=Masked(), data=(given, targets)) == []
    given["x"][5, 5] = math.nan
    (said,) = told(model=Masked(), data=(given, targets))
    assert "1 of 120 rows of inputs.x hold" in said


def test_sound_rows_are_no_word_worth():
    held = Validation(tensors=small_data(30, seed=2), noise_multiplier=5.0)
    assert told(test_tensors=small_data(30, seed=3), validation=held) == []


def test_a_column_of_few_held_out_rows_may_hold_one_value():
    inputs, targets = (part.flatten(1) if part.ndim > 1 else part for part in small_data())
    held = torch.full((9, 36), 0.5), targets[:9]
    public = Validation(tensors=held, public=True)
    model = nn.Linear(36, 3)
    assert told(model=model, data=(inputs, targets), test_tensors=held, validation=public) == []


def test_later_folds_are_refused_but_not_told():
    inputs, targets = small_data()
    inputs[2] = math.nan
    with untold():
        make_trainer(data=(inputs, targets))
        inputs[:] = math.nan
        with pytest.raises(DataError, match="every row"):
            make_trainer(data=(inputs, targets))


def test_public_rows_are_told_without_the_words_for_private_ones():
    inputs, targets = small_data(30)
    inputs[3] = math.nan
    (said,) = told(test_tensors=(inputs, targets))
    assert said.startswith("test_tensors: 1 of 30 rows of inputs")
    public = Validation(tensors=(inputs, targets), public=True)
    assert told(validation=public)[0].startswith("validation: 1 of 30")
    private = Validation(tensors=(inputs, targets), noise_multiplier=5.0)
    assert told(validation=private)[0].startswith(f"{LOCAL}validation: 1 of 30")


@kinds
@pytest.mark.parametrize("which", ["train_tensors", "test_tensors", "validation"])
@pytest.mark.parametrize("label", [-5, 7, 255])
def test_a_label_out_of_range_is_refused_by_its_row_and_its_value_is_not_told(kind, which, label):
    inputs, targets = small_data(1200)
    targets[1100] = label
    rows = kind(inputs, targets)
    given = {
        "train_tensors": {"data": rows},
        "test_tensors": {"test_tensors": rows},
        "validation": {"validation": Validation(tensors=rows, noise_multiplier=5.0)},
    }[which]
    message = refused(
        f"{which}: row 1100 has a class out of range for CrossEntropyLoss: must be ≥ 0 and < 3",
        model=small_model(),
        kind=DataError,
        privacy=PRIVACY,
        **given,
    )
    assert str(label) not in message.replace("-100", "")


def test_a_label_that_is_ignored_is_in_range_and_another_is_not():
    inputs, targets = small_data()
    targets[[4, 90]] = -100
    assert told(data=(inputs, targets)) == []
    assert told(data=(inputs, targets.where(targets != -100, 9)),
                loss=nn.CrossEntropyLoss(ignore_index=9)) == []  # fmt: skip
    targets[17] = -101
    refused("row 17 has a class out of range", model=small_model(), data=(inputs, targets),
            kind=DataError)  # fmt: skip


@pytest.mark.parametrize("loss", [nn.BCEWithLogitsLoss(), f.binary_cross_entropy_with_logits])
@pytest.mark.parametrize("value", [-0.1, 1.5, 2.0])
def test_a_target_beyond_0_and_1_is_refused_where_torch_takes_it_silently(loss, value):
    inputs, targets = small_data()[0], (torch.rand(120, 1) > 0.5).float()
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 1))
    assert told(model=model, data=(inputs, targets), loss=loss) == []
    targets[83] = value
    rule = "row 83 has a target out of range for .*: must lie between 0 and 1"
    refused(rule, model=model, data=(inputs, targets), loss=loss, kind=DataError)


def test_whole_targets_that_float32_would_round_are_told():
    inputs, targets = small_data()[0], torch.arange(120)[:, None]
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 1))
    exact = {"model": model, "loss": nn.MSELoss()}
    assert told(data=(inputs, targets + 2**24 - 119), **exact) == []
    (said,) = told(data=(inputs, targets - 2**24 - 1), **exact)
    assert "targets hold whole numbers beyond 2^24" in said


def test_what_was_found_is_in_no_file_of_the_run(tmp_path):
    inputs, targets = small_data()
    inputs[[2, 71]] = math.nan
    with pytest.warns(PrivateDataWarning):
        trainer = make_trainer(data=(inputs, targets), run_dir=tmp_path / "run")
    trainer.fit()
    trainer.save(tmp_path / "run")
    trainer.close()
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 4
    for path in files:
        content = path.read_bytes()
        assert b"not finite" not in content, path
        assert "not covered by ε: train".encode() not in content, path


def test_it_is_said_at_the_users_line():
    inputs, targets = small_data()
    inputs[2] = math.nan
    with pytest.warns(PrivateDataWarning) as caught:
        make_trainer(data=(inputs, targets))
    assert [Path(each.filename).name for each in caught] == ["small_problem.py"]  # which makes it


def test_weights_and_ledger_are_those_of_a_run_that_was_not_looked_at(monkeypatch):
    from dpsgd_torch.training import rehearse

    looked = make_trainer().fit()
    monkeypatch.setattr(rehearse, "check_rows", lambda *_, **__: None)
    blind = make_trainer().fit()
    for name, value in looked.model.state_dict().items():
        assert torch.equal(value, blind.model.state_dict()[name])
    assert looked.privacy_spent().epsilon == blind.privacy_spent().epsilon


def test_rows_of_a_file_are_passed_once_and_those_that_are_kept_twice():
    rows = Passing(*small_data(2500))
    met = first_pass(rows, 5, "train_tensors")
    times = np.bincount(np.concatenate(rows.taken), minlength=2500)
    assert times.min() == 1
    assert np.array_equal(np.nonzero(times == 2)[0], met.numbers.numpy())
    assert times.max() == 2
    assert met.survey.rows == 2500


def test_the_extremes_of_numbers_are_met_beside_what_is_none():
    inputs = torch.rand(3000, 36)
    inputs[[1500, 2800], 4] = torch.tensor([9.0, -9.0])
    inputs[[10, 2000], 4] = math.nan
    met = first_pass(Passing(inputs, torch.zeros(3000)), 2, "train_tensors")
    assert {10, 1500, 2800} <= set(met.numbers.tolist())


class Own(nn.CrossEntropyLoss):
    """Takes classes from 1."""

    def forward(self, outputs, targets):
        return super().forward(outputs, targets - 1)


def test_a_loss_of_ones_own_may_count_from_one():
    inputs, targets = small_data()
    assert told(data=(inputs, targets + 1), loss=Own()) == []


def test_classes_given_as_shares_are_not_held_to_their_number():
    inputs, targets = small_data()
    shares = f.one_hot(targets, 3).float() * 5.0
    assert told(data=(inputs, shares)) == []
