"""A data kind of one's own: rows of a file, taken as they are drawn; no other file knows of it."""

import numpy as np
import pytest
import torch
from small_problem import make_trainer, small_data, small_model, weights

from dpsgd_torch import DataError, Privacy, RunError, Validation
from dpsgd_torch.data.base import Data, Schema, Tensor
from dpsgd_torch.data.in_memory import InMemory
from dpsgd_torch.training.evaluation import in_batches

PRIVACY = Privacy(noise_multiplier=1.0, delta=1e-4, clip_norm=0.5)
IMAGES = Schema(Tensor((1, 6, 6), torch.float32), Tensor((), torch.int64))


class Mapped(Data):
    """Rows of a file, mapped into memory."""

    schema = IMAGES

    def __init__(self, path):
        self.file, self.taken = np.memmap(path, np.float32, "r").reshape(-1, 37), []

    def __len__(self):
        return len(self.file)

    def take(self, indices):
        self.taken.append(indices)
        rows = torch.from_numpy(self.file[indices])
        return rows[:, :36].reshape(-1, 1, 6, 6), rows[:, 36].long()


def mapped(path, data) -> Mapped:
    inputs, targets = data
    torch.cat([inputs.flatten(1), targets[:, None]], 1).numpy().tofile(path)
    return Mapped(path)


@pytest.fixture
def many(tmp_path):
    """More rows than are read at once."""
    return mapped(tmp_path / "many", small_data(1200))


def everything(tmp_path, kind, **changes):
    """A trainer whose rows, of training, test and validation, are all of ``kind``."""
    sets = [
        kind(tmp_path / f"{records}", small_data(records, seed=records))
        for records in (120, 50, 40)
    ]
    return make_trainer(
        data=sets[0],
        test_tensors=sets[1],
        validation=Validation(tensors=sets[2], noise_multiplier=5.0, bound=2.0),
        **changes,
    )


def in_memory(_, data):
    return data


@pytest.mark.parametrize("dp", [True, False])
def test_it_trains_as_the_same_data_in_memory(tmp_path, dp):
    without = {} if dp else {"privacy": None}
    own = everything(tmp_path, mapped, **without).fit()
    usual = everything(tmp_path, in_memory, **without).fit()
    assert torch.equal(weights(own.model), weights(usual.model))
    assert own.history.to_json() == usual.history.to_json()


def test_a_step_takes_what_was_drawn_and_memory_holds_a_part(many):
    trainer = make_trainer(
        data=many, epochs=1, batch_size=100, physical_batch_size=40, privacy=PRIVACY
    )
    trainer.open()
    many.taken.clear()
    trainer.fit()
    assert max(map(len, many.taken)) <= 40
    drawn = [
        trainer.sampling.draw(
            lambda name, step=step: trainer.streams.numpy(name, attempt=trainer.attempt, step=step),
            step,
            1200,
            None,
        ).rows
        for step in range(trainer.sampling.steps)
    ]
    assert np.array_equal(np.concatenate(many.taken), np.concatenate(drawn))


def test_a_run_is_resumed_and_another_set_is_refused(tmp_path):
    whole = everything(tmp_path, mapped, run_dir=tmp_path / "whole").fit()
    part = everything(tmp_path, mapped, run_dir=tmp_path / "part")
    for at in part.run():
        if at.step == 17:
            break
    part.close()
    again = everything(tmp_path, mapped, run_dir=tmp_path / "part").resume().fit()
    assert torch.equal(weights(again.model), weights(whole.model))
    again.close()
    other = make_trainer(data=mapped(tmp_path / "o", small_data(seed=4)), run_dir=tmp_path / "part")
    with pytest.raises(RunError, match="its data changed"):
        other.resume()


def test_units_and_folds_are_cut_from_it(tmp_path):
    held = mapped(tmp_path / "rows", small_data())
    some = held.rows(np.arange(120) % 3 > 0)
    assert len(some) == 80
    inputs, targets = small_data()
    kept = InMemory(inputs, targets).rows(np.arange(120) % 3 > 0)
    for taken, expected in zip(
        some.take(np.array([5, 0])), kept.take(np.array([5, 0])), strict=True
    ):
        assert torch.equal(taken, expected)
    assert torch.equal(
        weights(make_trainer(data=some).fit().model), weights(make_trainer(data=kept).fit().model)
    )


@pytest.mark.parametrize("training", [True, False])
def test_an_evaluation_gives_the_models_mode_back_and_leaves_no_gradient(many, training):
    model, modes = small_model().train(training), []
    totals = in_batches(
        model, many.batches(500), lambda outputs, _: modes.append(model.training) or outputs
    )
    assert [len(outputs) for outputs in totals] == [500, 500, 200]
    assert (model.training, modes) == (training, [False] * 3)
    assert not any(outputs.requires_grad for outputs in totals)


def told(**overrides) -> Data:
    """The small problem's rows, but for what is overridden; by default the truth."""
    true = InMemory(*small_data())
    kind = {
        "__len__": lambda self: 120,
        "take": lambda self, indices: true.take(indices),
        "schema": IMAGES,
        **overrides,
    }
    return type("Told", (Data,), kind)()


def taking(change):
    """Rows as ``change`` (indices, inputs, targets) makes them."""
    true = InMemory(*small_data())
    return told(take=lambda self, indices: change(indices, *true.take(indices)))


class Never:
    """Row 7 is never the same."""

    calls = 0

    def __call__(self, indices, inputs, targets):
        self.calls += 1
        inputs[torch.from_numpy(indices == 7)] += self.calls
        return inputs, targets


LIES = {
    "longer than it is": (told(__len__=lambda self: 121), r"121 rows|rows \(0 to 120\) cannot be"),
    "empty": (told(__len__=lambda self: 0), r"len = 0: must be > 0"),
    "no length": (told(__len__=lambda self: None), r"length or schema cannot be had"),
    "no schema": (told(schema=None), "schema = NoneType: must be a"),
    "a row too few": (taking(lambda i, x, y: (x[1:], y[1:])), r"of shape \(119, 1, 6, 6\): must"),
    "a target too many": (taking(lambda i, x, y: (x, y.repeat(2))), "targets of 120 rows"),
    "another dtype": (
        taking(lambda i, x, y: (x.double(), y)),
        r"float64 .* must be torch\.float32",
    ),
    "another shape": (taking(lambda i, x, y: (x.flatten(1), y)), r"shape \(120, 36\): must be"),
    "inputs alone": (taking(lambda i, x, y: x), r"take returned Tensor: must be \(inputs, targets"),
    "arrays": (taking(lambda i, x, y: (x.numpy(), y)), "inputs = ndarray: must be a tensor"),
    "rows that change": (taking(Never()), "row 7 differs when it is taken again"),
    "fails": (taking(lambda i, x, y: x.item()), "cannot be had"),
}


@pytest.mark.parametrize(
    ("which", "lie"),
    [
        *[("train_tensors", lie) for lie in LIES],
        ("test_tensors", "a row too few"),
        ("validation", "rows that change"),
    ],
)
def test_what_lies_is_refused_in_one_line_before_a_charge(tmp_path, lie, which):
    data, rule = LIES[lie]
    given = {
        "train_tensors": {"data": data},
        "test_tensors": {"test_tensors": data},
        "validation": {"validation": Validation(tensors=data)},
    }[which]
    with pytest.raises(DataError, match=f"{which}.*({rule})") as refused:
        make_trainer(run_dir=tmp_path / "run", **given)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_set_that_keeps_its_word_is_taken():
    assert make_trainer(data=told()).fit().done == 30


@pytest.mark.parametrize(
    ("piece", "charges", "told_so"),
    [(0, 9, "nothing was charged for it"), (1, 10, "the step's charge stands")],
)
def test_a_later_lie_ends_the_step_with_what_it_was_charged_told_and_the_run_resumes(
    tmp_path, piece, charges, told_so
):
    lies, honest = [], []

    def growing(indices, inputs, targets):
        honest.extend(lies)
        return (inputs[1:], targets[1:]) if len(honest) > piece else (inputs, targets)

    trainer = make_trainer(data=taking(growing), run_dir=tmp_path / "run")
    steps = trainer.run()
    for _ in range(9):
        next(steps)
    before = weights(trainer.model)
    lies.append(True)
    with pytest.raises(DataError, match=f"step 9: train_tensors = Told: inputs of .*{told_so}"):
        next(steps)
    assert torch.equal(weights(trainer.model), before)
    assert len(trainer.ledger) == charges
    trainer.close()
    again = make_trainer(data=told(), run_dir=tmp_path / "run", model=small_model()).resume().fit()
    assert torch.equal(weights(again.model), weights(make_trainer().fit().model))


@pytest.mark.parametrize("place", [0, 1100, 1199])
def test_a_target_out_of_range_is_met_before_a_charge_wherever_it_is(tmp_path, place):
    inputs, targets = small_data(1200)
    targets[place] = 3
    with pytest.raises(DataError, match=f"train_tensors: row {place} has a class out of range"):
        make_trainer(data=mapped(tmp_path / "rows", (inputs, targets)), privacy=PRIVACY)
