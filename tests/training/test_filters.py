"""Filters of the noisy gradient: their recursions, what they are shown, and how they resume."""

import contextlib

import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from small_problem import make_trainer, small_data, small_model, weights
from torch import nn

from accountant import InvalidValue
from dpsgd_torch import ModelError, Privacy
from dpsgd_torch.gradients.vectors import Stored
from dpsgd_torch.noise.base import StepPlan
from dpsgd_torch.optim import AdamBC, Disk, Doppler
from dpsgd_torch.training.private_optimizer import PrivateOptimizer

KINDS = {"doppler": "doppler:0.8", "disk": "disk:0.6"}
GRADIENTS = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 3))).float()


def filtered(kind, gradients: torch.Tensor, move: float = 0.0) -> torch.Tensor:
    """What the optimizer is handed for these gradients, one a step."""
    p = nn.Parameter(torch.zeros(gradients.shape[1]))
    kind.follow([p])
    found = []
    for gradient in gradients:
        p.grad = gradient.clone()
        kind.apply()
        found.append(p.grad.clone())
        p.data -= move * p.grad
    return torch.stack(found)


def test_doppler_is_its_transfer_function_over_that_of_a_constant():
    b, a = [0.1, 0.1], [1.0, -0.8]
    expected = lfilter(b, a, GRADIENTS.double().numpy(), axis=0)
    start = lfilter(b, a, np.ones(len(GRADIENTS)))
    assert np.allclose(filtered(Doppler(0.8), GRADIENTS), expected / start[:, None], atol=1e-6)


@pytest.mark.parametrize("kind", [Doppler(0.9), Disk(0.3)])
def test_what_does_not_change_passes_as_it_is_from_the_first_step_on(kind):
    constant = torch.ones(30, 3) * torch.tensor([1.0, -2.0, 0.5])
    assert torch.allclose(filtered(kind, constant), constant, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "ratio"),
    # of white noise: Σ h² of (1 − p)/2 (1 + z⁻¹)/(1 − p z⁻¹) is (1 − p)/2, of κ/(1 − (1 − κ) z⁻¹)
    # κ/(2 − κ)
    [(Doppler(0.8), 0.1), (Disk(0.4), 0.25)],
)
def test_white_noise_is_left_with_the_variance_that_the_filter_says(kind, ratio):
    noise = torch.randn(60, 40_000, generator=torch.Generator().manual_seed(1))
    left = float(filtered(kind, noise)[-1].double().var())
    assert left == pytest.approx(ratio, rel=0.03)
    for planted in (2 / 3, 3 / 2):
        assert left != pytest.approx(ratio * planted**2, rel=0.1)


def test_disk_looks_ahead_along_the_last_step_and_comes_back_to_the_bit():
    disk, p = Disk(0.4), nn.Parameter(torch.tensor([0.1, 0.7]))
    disk.follow([p])
    with disk.looking_ahead():
        assert p.tolist() == pytest.approx([0.1, 0.7])
    p.grad = torch.tensor([1.0, -1.0])
    disk.apply()
    before = p.detach().clone()
    p.data -= 0.3 * p.grad
    here = p.detach().clone()
    with contextlib.suppress(KeyError), disk.looking_ahead():
        assert torch.allclose(p, here + 1.5 * (here - before))  # (1 − κ)/κ = 1.5
        raise KeyError
    assert torch.equal(p, here)


def test_disk_clips_one_vector_an_example_at_the_point_ahead():
    """A step of a run by hand: the gradient of the mean loss at the point ahead, then the mean."""
    gain, rate = 0.5, 0.1
    model, hand = small_model(), small_model()
    for each in (model, hand):
        each[3].p = 0.0
    data = small_data(1)
    make_trainer(
        model=model,
        data=data,
        privacy=Privacy(noise_multiplier=1e-6, delta=1e-3, clip_norm=20.0),
        optimizer=lambda p: torch.optim.SGD(p, lr=rate),
        batch_size=1,
        epochs=3,
        filter=f"disk:{gain}",
    ).fit()
    x, before, estimate = weights(hand), weights(hand), None
    for _ in range(3):
        ahead = x + (1 - gain) / gain * (x - before)
        nn.utils.vector_to_parameters(ahead, hand.parameters())
        hand.zero_grad()
        nn.functional.cross_entropy(hand(data[0]), data[1]).backward()
        gradient = torch.cat([p.grad.flatten() for p in hand.parameters()])
        estimate = gradient if estimate is None else (1 - gain) * estimate + gain * gradient
        x, before = x - rate * estimate, x
    assert torch.allclose(weights(model), x, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_filters_cost_nothing_and_change_no_noise(kind):
    """The accumulated sum, clip and noise are what they were: the hook stands after them."""
    trainer = make_trainer(filter=kind, epochs=1)
    assert trainer.plan.events() == make_trainer(epochs=1).plan.events()
    with trainer._session.stepping() as take:
        assert take.optimizer.noise is trainer.plan.noise


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_filtered_run_resumes_bit_for_bit(kind, tmp_path):
    whole = make_trainer(filter=kind, epochs=2).fit()
    part = make_trainer(filter=kind, epochs=2, run_dir=tmp_path / "run")
    for at in part.run():
        if at.step == 12:
            break
    part.close()
    resumed = make_trainer(filter=kind, epochs=2, run_dir=tmp_path / "run").resume().fit()
    assert torch.equal(weights(whole.model), weights(resumed.model))


def test_without_privacy_there_is_no_noise_to_filter():
    plain = make_trainer(privacy=None, epochs=1).fit()
    assert torch.equal(
        weights(plain.model),
        weights(make_trainer(privacy=None, epochs=1, filter="disk").fit().model),
    )


@pytest.mark.parametrize("text", ["doppler:1", "disk:0", "kalman", "none:1"])
def test_what_is_no_filter_is_refused(text):
    with pytest.raises(InvalidValue, match="filter = "):
        make_trainer(filter=text)


def test_a_filter_before_what_corrects_for_the_noise_is_refused():
    with pytest.raises(ModelError, match="AdamBC"):
        make_trainer(filter="doppler", optimizer=lambda p: AdamBC(p, lr=0.01))


def test_a_filter_before_several_optimizers_is_refused():
    with pytest.raises(ModelError, match="one optimizer"):
        make_trainer(
            filter="doppler",
            optimizer=lambda p: [torch.optim.SGD([each], lr=0.1) for each in p],
        )


def moved_by_a_record(points: int) -> float:
    """How far a record that joins moves the sum; ``points``: 1, or 2 clipped one by one.

    Each record's loss is steep both ways, so its gradients here and ahead point apart.
    """
    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(50):
        records = 100 * torch.from_numpy(rng.normal(size=(3, 5))).float()
        sums = []
        for joined in (records, records[1:]):
            p = nn.Parameter(torch.ones(5) * 0.1)
            disk = Disk(0.5)
            disk.follow([p])
            p.grad = torch.ones(5)
            disk.apply()
            p.data -= 0.3 * p.grad  # from 0.1 to −0.2, and ahead to −0.5
            optimizer = PrivateOptimizer(torch.optim.SGD([p], lr=1.0), microbatches=1)
            optimizer.begin(StepPlan(1.0, 1.0), np.random.default_rng(0))
            with disk.looking_ahead():
                p.grad_sample = joined * (p.detach() + 0.35).sign()
                optimizer.accumulate(Stored([p]))
            if points == 2:
                p.grad_sample = -joined * (p.detach() + 0.35).sign()
                optimizer.accumulate(Stored([p]))
            sums.append(optimizer.sums[0].clone())
        worst = max(worst, float((sums[0] - sums[1]).norm()))
    return worst


def test_one_record_moves_disks_sum_by_one_clip_norm():
    assert 0.99 < moved_by_a_record(1) <= 1 + 1e-5


def test_gradients_at_two_points_clipped_one_by_one_are_caught():
    assert moved_by_a_record(2) > 1.9
