"""What a loss says of one example, against its formula and autograd for that one, in float64."""

import functools
import math

import pytest
import torch
from small_problem import make_trainer, small_data, weights
from torch import nn
from torch.nn import functional as f

from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.gradients.methods import per_example_gradients

WEIGHT = torch.tensor([0.5, 5.0, 0.1, 2.0], dtype=torch.float64)
POSITIVE = torch.tensor([3.0, 1.0, 0.25], dtype=torch.float64)
N, CLASSES, PIXELS, IGNORED = 7, 4, 5, 2


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, *shape, generator=generator, dtype=torch.float64)


def labels(*shape: int) -> torch.Tensor:
    found = torch.randint(CLASSES, (N, *shape), generator=torch.Generator().manual_seed(1))
    found[3] = found[4] = IGNORED  # of pixels, all of them, and all but one
    if shape:
        found[4, 1] = 0
    return found


def zeros_and_ones(*shape: int) -> torch.Tensor:
    return (drawn(*shape, seed=2) > 0).double()


def cross_entropy(o, y, *, weight=None, ignored=-100, smoothing=0.0):
    """Of one example, (classes, pixels) and (pixels,): every pixel written out."""
    weight = torch.ones(CLASSES, dtype=torch.float64) if weight is None else weight
    o, y = o.reshape(CLASSES, -1), y.reshape(-1)
    terms = []
    for pixel, label in zip(o.T, y.tolist(), strict=True):
        if label != ignored:
            logs = pixel - pixel.exp().sum().log()
            smooth = (weight * logs).sum() / CLASSES
            terms.append(-(1 - smoothing) * weight[label] * logs[label] - smoothing * smooth)
    return sum(terms) / len(terms) if terms else 0 * o.sum()


def logistic(o, y, positive=1.0):
    right, wrong = -(1 / (1 + (-o).exp())).log(), -(1 / (1 + o.exp())).log()
    return (positive * y * right + (1 - y) * wrong).sum() / o.numel()


def divergence(o, y):
    return (y * (y.log() - o)).sum()


SHARES = drawn(CLASSES, seed=3).softmax(1)
CASES = {
    "classes": (nn.CrossEntropyLoss(), (drawn(CLASSES), labels()), cross_entropy),
    "class weights": (
        nn.CrossEntropyLoss(weight=WEIGHT),
        (drawn(CLASSES), labels()),
        functools.partial(cross_entropy, weight=WEIGHT),
    ),
    "class weights in a sum": (
        nn.CrossEntropyLoss(weight=WEIGHT, reduction="sum"),
        (drawn(CLASSES), labels()),
        functools.partial(cross_entropy, weight=WEIGHT),
    ),
    "class weights of a function": (
        functools.partial(f.cross_entropy, weight=WEIGHT),
        (drawn(CLASSES), labels()),
        functools.partial(cross_entropy, weight=WEIGHT),
    ),
    "class weights of log-likelihoods": (
        nn.NLLLoss(weight=WEIGHT),
        (drawn(CLASSES).log_softmax(1), labels()),
        lambda o, y: -WEIGHT[y] * o[y],
    ),
    "smoothed labels": (
        nn.CrossEntropyLoss(label_smoothing=0.3),
        (drawn(CLASSES), labels()),
        functools.partial(cross_entropy, smoothing=0.3),
    ),
    "smoothed labels with class weights": (
        nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.3),
        (drawn(CLASSES), labels()),
        functools.partial(cross_entropy, weight=WEIGHT, smoothing=0.3),
    ),
    "labels left out": (
        nn.CrossEntropyLoss(ignore_index=IGNORED),
        (drawn(CLASSES), labels()),
        functools.partial(cross_entropy, ignored=IGNORED),
    ),
    "pixels": (nn.CrossEntropyLoss(), (drawn(CLASSES, PIXELS), labels(PIXELS)), cross_entropy),
    "pixels left out": (
        nn.CrossEntropyLoss(ignore_index=IGNORED),
        (drawn(CLASSES, PIXELS), labels(PIXELS)),
        functools.partial(cross_entropy, ignored=IGNORED),
    ),
    "pixels left out by a function": (
        functools.partial(f.cross_entropy, ignore_index=IGNORED, weight=WEIGHT),
        (drawn(CLASSES, PIXELS), labels(PIXELS)),
        functools.partial(cross_entropy, ignored=IGNORED, weight=WEIGHT),
    ),
    "shares of classes": (
        nn.CrossEntropyLoss(weight=WEIGHT),
        (drawn(CLASSES), SHARES),
        lambda o, y: -(WEIGHT * y * (o - o.exp().sum().log())).sum(),
    ),
    "several labels": (nn.BCEWithLogitsLoss(), (drawn(3), zeros_and_ones(3)), logistic),
    "several labels, positives weighted": (
        nn.BCEWithLogitsLoss(pos_weight=POSITIVE),
        (drawn(3), zeros_and_ones(3)),
        functools.partial(logistic, positive=POSITIVE),
    ),
    "several labels, each weighted": (
        nn.BCEWithLogitsLoss(weight=POSITIVE),
        (drawn(3), zeros_and_ones(3)),
        lambda o, y: sum(POSITIVE[k] * logistic(o[k], y[k]) for k in range(3)) / 3,
    ),
    "one number": (nn.MSELoss(), (drawn(), drawn(seed=4)), lambda o, y: (o - y) ** 2),
    "one number in a row": (
        nn.MSELoss(),
        (drawn(1), drawn(1, seed=4)),
        lambda o, y: (o[0] - y[0]) ** 2,
    ),
    "several numbers": (
        nn.MSELoss(),
        (drawn(2, 3), drawn(2, 3, seed=4)),
        lambda o, y: ((o - y) ** 2).sum() / 6,
    ),
    "several numbers in a sum": (
        nn.MSELoss(reduction="sum"),
        (drawn(2, 3), drawn(2, 3, seed=4)),
        lambda o, y: ((o - y) ** 2).sum(),
    ),
    "several numbers in a function's sum": (
        functools.partial(f.l1_loss, reduction="sum"),
        (drawn(2, 3), drawn(2, 3, seed=4)),
        lambda o, y: (o - y).abs().sum(),
    ),
    "several numbers unreduced": (
        nn.L1Loss(reduction="none"),
        (drawn(3), drawn(3, seed=4)),
        lambda o, y: (o - y).abs().sum() / 3,
    ),
    "a divergence over the batch": (
        nn.KLDivLoss(reduction="batchmean"),
        (drawn(CLASSES).log_softmax(1), SHARES),
        divergence,
    ),
    "a function without reduction": (
        lambda outputs, targets: (outputs - targets).square(),
        (drawn(3), drawn(3, seed=4)),
        lambda o, y: ((o - y) ** 2).sum() / 3,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_example_s_loss_and_gradient_are_its_formula_s(name):
    loss, (outputs, targets), alone = CASES[name]
    outputs = outputs.clone().requires_grad_()
    values = per_example(loss)(outputs, targets)
    assert values.shape == (N,)
    (found,) = torch.autograd.grad(values.sum(), outputs)
    for row in range(N):
        single = outputs[row].detach().clone().requires_grad_()
        expected = alone(single, targets[row])
        assert values[row].item() == pytest.approx(expected.item(), rel=1e-12, abs=1e-14)
        (gradient,) = torch.autograd.grad(expected, single)
        assert torch.allclose(found[row], gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_an_example_s_loss_does_not_depend_on_its_company(name):
    loss, (outputs, targets), _ = CASES[name]
    together = per_example(loss)(outputs, targets)
    order = torch.tensor([5, 3, 0])
    assert torch.allclose(per_example(loss)(outputs[order], targets[order]), together[order])
    for row in range(N):
        alone = per_example(loss)(outputs[row : row + 1], targets[row : row + 1])
        assert torch.allclose(alone, together[row : row + 1])


def test_a_class_weighted_mean_is_torch_s_but_for_one_number():
    outputs = drawn(CLASSES).requires_grad_()
    loss = nn.CrossEntropyLoss(weight=WEIGHT)
    (ours,) = torch.autograd.grad(per_example(loss)(outputs, labels()).sum(), outputs)
    (torchs,) = torch.autograd.grad(loss(outputs, labels()), outputs)
    assert torch.allclose(ours, torchs * WEIGHT[labels()].sum())


def test_a_reduction_that_a_function_wants_to_be_told_is_told():
    def loss(outputs, targets, reduction):
        return f.cross_entropy(outputs, targets, reduction=reduction)

    expected = per_example(nn.CrossEntropyLoss())(drawn(CLASSES), labels())
    assert torch.equal(per_example(loss)(drawn(CLASSES), labels()), expected)


def test_the_loss_that_was_given_stays_as_it_was():
    loss = nn.CrossEntropyLoss()
    per_example(loss)(drawn(CLASSES), labels())
    assert loss.reduction == "mean"


@pytest.mark.parametrize("kind", ["opacus", "graph"])
def test_class_weights_reach_every_example_s_vector(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, CLASSES)).double()
    inputs = drawn(6)
    with per_example_gradients(model, kind) as wrapped:
        wrapped.backward(per_example(nn.CrossEntropyLoss(weight=WEIGHT)), inputs, labels())
        vectors = wrapped.vectors(list(model.parameters()))
    for row in range(N):
        alone = cross_entropy(model(inputs[row]), labels()[row], weight=WEIGHT)
        expected = torch.autograd.grad(alone, list(model.parameters()))
        for found, wanted in zip(vectors.vector(row), expected, strict=True):
            assert torch.allclose(found, wanted.flatten(), rtol=1e-9, atol=1e-12)


def test_a_step_without_privacy_takes_the_weighted_sum_over_the_batch_size():
    weight = torch.tensor([1.0, 5.0, 0.1])
    inputs, targets = small_data(30)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    before = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double()
    before.load_state_dict(model.state_dict())
    logs = before(inputs.double()).log_softmax(1)
    total = sum(-float(weight[y]) * logs[row, y] for row, y in enumerate(targets.tolist()))
    gradients = torch.autograd.grad(total / 30, list(before.parameters()))
    expected = torch.cat([p.flatten() for p in before.parameters()]) - 0.2 * torch.cat(
        [gradient.flatten() for gradient in gradients]
    )
    make_trainer(
        model=model,
        data=(inputs, targets),
        loss=nn.CrossEntropyLoss(weight=weight),
        privacy=None,
        batch_size=30,
        epochs=1,
    ).fit()
    assert torch.allclose(weights(model).double(), expected, atol=1e-6)


def test_the_trial_draws_nothing_from_global_randomness():
    def random(outputs, targets):
        return f.cross_entropy(f.dropout(outputs), targets, reduction="none")

    torch.manual_seed(0)
    expected = random(drawn(CLASSES), labels())
    torch.manual_seed(0)
    assert torch.equal(per_example(random)(drawn(CLASSES), labels()), expected)


def test_a_score_in_whole_numbers_is_averaged_within_its_example():
    def wrong(outputs, targets):
        return (outputs > 0) != (targets > 0)

    scores = per_example(wrong)(drawn(4), drawn(4, seed=4))
    expected = ((drawn(4) > 0) != (drawn(4, seed=4) > 0)).double().mean(1)
    assert torch.allclose(scores.double(), expected)


def test_an_example_whose_loss_is_not_finite_leaves_the_others_alone():
    outputs = drawn(CLASSES)
    outputs[2] = math.nan
    finite = per_example(nn.CrossEntropyLoss())(outputs, labels()).isfinite()
    assert finite.tolist() == [row != 2 for row in range(N)]
