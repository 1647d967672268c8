"""A loss that is not one number an example is refused, by what it was given and what to do."""

import functools

import pytest
import torch
from small_problem import make_trainer, small_data
from torch import nn
from torch.nn import functional as f

from dpsgd_torch import ModelError, Validation
from dpsgd_torch.gradients.losses import per_example

N, CLASSES = 7, 4


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, *shape, generator=generator, dtype=torch.float64)


def labels() -> torch.Tensor:
    return torch.arange(N) % CLASSES


class SquaresWithoutReduction(nn.Module):
    def forward(self, outputs, targets):
        return (outputs - targets) ** 2


AGAINST_EVERY_OTHER = [
    nn.MSELoss(),
    nn.L1Loss(reduction="sum"),
    nn.HuberLoss(),
    f.smooth_l1_loss,
    functools.partial(f.mse_loss, reduction="none"),
    SquaresWithoutReduction(),
    lambda outputs, targets: (outputs - targets) ** 2,
]


@pytest.mark.parametrize("loss", AGAINST_EVERY_OTHER)
@pytest.mark.parametrize(
    ("outputs", "targets"), [((1,), ()), ((), (1,)), ((3, 1), ()), ((4,), (1, 4))]
)
@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_what_broadcasts_examples_against_each_other_is_refused_with_both_shapes(
    loss, outputs, targets, n
):
    with pytest.raises(ModelError) as refusal:
        per_example(loss)(torch.zeros(n, *outputs), torch.zeros(n, *targets))
    message = str(refusal.value)
    for shape in (outputs, targets):
        assert str((n, *shape)) in message
    assert "every other's targets" in message
    assert "unsqueeze(1)" in message


def test_a_metric_or_a_score_of_every_example_against_every_other_is_refused_too():
    def error(outputs, targets):
        return (outputs - targets).abs()

    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 1))
    data = (small_data()[0], torch.rand(120))
    settings = {"model": model, "data": data, "loss": lambda o, t: (o[:, 0] - t) ** 2}
    with pytest.raises(ModelError, match="metric error: sets each example's outputs"):
        make_trainer(metrics={"error": error}, test_tensors=data, **settings).fit()
    public = Validation(tensors=data, public=True, score=error)
    with pytest.raises(ModelError, match="score error: sets each example's outputs"):
        make_trainer(validation=public, **settings).fit()


@pytest.mark.parametrize("privacy", [{}, {"privacy": None}])
def test_a_trainer_refuses_it_before_anything_is_charged(privacy, tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 1))
    data = (small_data()[0], torch.rand(120))
    with pytest.raises(ModelError, match=r"outputs \(\d+, 1\) of float32, targets \(\d+,\)") as no:
        make_trainer(model=model, loss=nn.MSELoss(), data=data, **privacy).fit()
    assert "batch" not in str(no.value)


@pytest.mark.parametrize(
    ("loss", "outputs", "targets", "words"),
    [
        (nn.BCEWithLogitsLoss(), (2, 1), torch.zeros(2), ["(1, 1) of float32", "(1,) of float32"]),
        (nn.CrossEntropyLoss(), (2, 3), torch.zeros(2, 1, dtype=torch.int64), ["(1, 3)", "(1, 1)"]),
        (nn.CrossEntropyLoss(), (2, 3), torch.zeros(2, dtype=torch.int32), ["(1,) of int32"]),
        (nn.CrossEntropyLoss(), (2, 3), torch.tensor([1, 3]), ["Target 3 is out of bounds"]),
        (nn.BCELoss(weight=torch.ones(2, 1)), (2, 3), torch.zeros(2, 3), ["(1, 3) of float32"]),
        (nn.CosineEmbeddingLoss(), (2, 3), torch.zeros(2, 3), ["missing 1 required positional"]),
    ],
)
def test_what_fails_inside_the_loss_names_the_loss_its_arguments_and_the_cause(
    loss, outputs, targets, words
):
    with pytest.raises(ModelError) as refusal:
        per_example(loss)(torch.full(outputs, 0.5), targets)
    message = str(refusal.value)
    assert message.startswith(f"loss {type(loss).__name__}: fails on outputs (")
    assert "check their shapes, dtypes and range" in message
    for expected in words:
        assert expected in message


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda o, y: f.cross_entropy(o, y), r"returns shape \(\) for outputs \(1, 4\)"),
        (lambda o, y: o.sum(0), r"returns shape \(4,\)"),
        (lambda o, y: o[:, :0], r"returns shape \(1, 0\)"),
        (lambda o, y: float(o.sum()), "returns float for outputs"),
        (lambda o, y: None, "returns NoneType"),
        (lambda o, y: o.std(0, keepdim=True), r"returns shape \(1, 4\) for outputs \(2, 4\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:std")
def test_what_is_not_one_value_an_example_is_refused(loss, message):
    with pytest.raises(ModelError, match=message + ".*one value per example"):
        per_example(loss)(drawn(CLASSES).float(), labels())


def test_a_class_in_place_of_a_loss_is_refused():
    with pytest.raises(ModelError, match=r"loss = MSELoss: is a class; pass MSELoss\(\)"):
        make_trainer(loss=nn.MSELoss)


def test_a_model_that_gives_another_number_of_rows_is_named_not_the_loss():
    for outputs in (drawn(CLASSES)[:5], drawn(CLASSES).sum(), drawn(CLASSES).repeat(2, 1)):
        with pytest.raises(ModelError, match=r"model: gives outputs .*each of the 7 examples"):
            per_example(nn.CrossEntropyLoss())(outputs, labels())


@pytest.mark.parametrize(
    ("outputs", "kind"),
    [
        ((drawn(CLASSES), drawn(2)), r"tuple of \(7, 4\) of float64, \(7, 2\) of float64"),
        ({"logits": drawn(CLASSES)}, r"dict of logits \(7, 4\) of float64"),
        (object(), "object"),
    ],
)
def test_outputs_that_are_no_tensor_need_a_loss_that_takes_them_apart(outputs, kind):
    with pytest.raises(ModelError, match=rf"outputs {kind} and targets .*takes its outputs apart"):
        per_example(nn.CrossEntropyLoss())(outputs, labels())


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(36, 3), nn.Linear(36, 3)

    def forward(self, x):
        x = x.flatten(1)
        return {"first": self.first(x), "second": self.second(x)}


def test_a_model_of_two_heads_trains_by_a_loss_of_one_s_own():
    def both(outputs, targets):
        heads = (outputs["first"], outputs["second"])
        return sum(f.cross_entropy(head, targets, reduction="none") for head in heads)

    trainer = make_trainer(model=TwoHeads(), loss=both).fit()
    assert trainer.done == trainer.sampling.steps
    with pytest.raises(ModelError, match="takes its outputs apart"):
        make_trainer(model=TwoHeads())


class Centred(nn.Module):
    """Losses over a running mean of those before: a trace of records that no noise covers."""

    def __init__(self, where):
        super().__init__()
        self.where = where
        self.register_buffer("mean", torch.zeros(()))
        self.average, self.seen = 0.0, []

    def forward(self, outputs, targets):
        losses = f.cross_entropy(outputs, targets, reduction="none")
        if self.where == "mean":
            self.mean += losses.mean().detach()
        elif self.where == "average":
            self.average += float(losses.mean())
        else:
            self.seen.append(losses.detach())
        return losses - self.mean - self.average


@pytest.mark.parametrize("where", ["mean", "average", "seen"])
def test_a_loss_that_keeps_something_between_calls_is_refused_by_its_name(where):
    with pytest.raises(ModelError, match=f"loss Centred: changes its {where} when called"):
        make_trainer(loss=Centred(where))
