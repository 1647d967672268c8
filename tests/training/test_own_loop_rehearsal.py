"""What the rehearsal of a loop refuses: examples that mix in its body, losses not of its rows."""

import pytest
import torch
from own_loops import losses_of, make_private, trained
from small_problem import small_model, weights
from torch import nn
from torch.nn.functional import cross_entropy

from dpsgd_torch import ModelError

MIXED = r"one example's gradient changes|an example's gradient is|rows are not the examples"


def nothing_was_charged(private):
    return not private.state.charges.are_open and private.done == 0


def outputs_then(change):
    """Losses of outputs that something was done to in the loop's body."""
    return lambda model, batch: cross_entropy(
        change(model(batch.inputs)), batch.targets, reduction="none"
    )


MIXING = {
    "centred outputs": outputs_then(lambda x: x - x.mean(0)),
    "outputs over their length": outputs_then(lambda x: x / len(x)),
    "outputs in another order": outputs_then(lambda x: x.flip(0)),
    "batch norm by hand": outputs_then(lambda x: (x - x.mean(0)) / (x.std(0, correction=0) + 1)),
    "contrast": lambda model, batch: (model(batch.inputs) @ model(batch.inputs).T).logsumexp(1),
    "a mean over the batch, n times": lambda model, batch: (
        losses_of(model, batch).mean().expand(len(batch.targets))
    ),
    "half of the mean": lambda model, batch: (
        losses_of(model, batch) + losses_of(model, batch).mean()
    ),
}


@pytest.mark.parametrize("losses", MIXING.values(), ids=MIXING)
def test_what_mixes_examples_in_the_loops_body_is_refused_before_a_charge(losses):
    private = make_private(loss=None)
    before = weights(private.model).clone()
    with pytest.raises(ModelError, match=MIXED):
        trained(private, losses=losses)
    assert nothing_was_charged(private)
    assert torch.equal(weights(private.model), before)
    assert all(p.grad is None for p in private.model.parameters())


def test_a_memory_of_earlier_batches_in_the_loops_body_is_refused():
    private, memory = make_private(loss=None), [torch.zeros(3)]

    def losses(model, batch):
        outputs = model(batch.inputs) * (1 + memory[0])
        memory[0] = outputs.detach().mean(0)
        return cross_entropy(outputs, batch.targets, reduction="none")

    with pytest.raises(ModelError, match="one example's gradient changes with another"):
        trained(private, losses=losses)
    assert nothing_was_charged(private)


def test_batch_norm_is_refused_when_the_run_is_made():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36), nn.Linear(36, 3))
    with pytest.raises(ModelError, match="BatchNorm1d: batch statistics mix examples"):
        make_private(model=model)


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = small_model()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += float(x.sum())
        return self.body(x)


def test_a_model_that_writes_what_it_sees_is_refused_and_given_back():
    private = make_private(model=Counts())
    with pytest.raises(ModelError, match="buffer seen: changes in a forward pass"):
        trained(private)
    assert nothing_was_charged(private)
    assert float(private.model.seen) == 0


UNFIT = {
    "a mean": (lambda m, b: losses_of(m, b).mean(), "losses of shape .* return them unreduced"),
    "a column": (lambda m, b: losses_of(m, b)[:, None], "must be one value for each"),
    "a part": (lambda m, b: losses_of(m, b)[1:], "of this batch and no other"),
    "a number": (lambda m, b: 1.0, r"backward\(float\): must be given a tensor"),
    "whole numbers": (lambda m, b: torch.ones(len(b.inputs), dtype=torch.long), "floating point"),
    "nothing of the model": (lambda m, b: torch.ones(len(b.inputs)), "the loss does not reach it"),
}


@pytest.mark.parametrize(("losses", "said"), UNFIT.values(), ids=UNFIT)
def test_losses_that_are_not_one_an_example_are_refused(losses, said):
    private = make_private(loss=None)
    with pytest.raises(ModelError, match=said):
        trained(private, losses=losses)
    assert nothing_was_charged(private)


def test_a_loss_that_was_named_is_the_loops():
    private = make_private(loss=nn.CrossEntropyLoss(label_smoothing=0.1))
    with pytest.raises(ModelError, match="not those of the loss that was named"):
        trained(private)
    assert nothing_was_charged(private)


def test_a_body_that_is_changed_for_the_next_loop_is_rehearsed_anew():
    private = trained(make_private(loss=None), steps=3)
    with pytest.raises(ModelError, match="one example's gradient changes"):
        trained(private, losses=MIXING["centred outputs"])
    assert private.done == 3
    assert len(private.ledger) == 3
