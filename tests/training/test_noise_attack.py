"""An attacker who knows all but one record, and how floats are made, learns no more than ε allows.

Box-Muller makes float32 Gaussians in pairs whose squared radius is −2 ln(k / 2²⁴) for a whole k.
Subtract the sum that a guess implies from what was released: under the right guess the far pairs
give whole k, under the wrong one anything [as against other samplers: Jin et al. 2022].
"""

import numpy as np
import pytest
import torch
from torch import nn

from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.gradients.parts.clipped import PartVectors
from dpsgd_torch.gradients.vectors import Stored
from dpsgd_torch.mechanisms.gaussian import grid
from dpsgd_torch.noise import independent

FEATURES, CLASSES, RECORDS = 2048, 10, 12
CLIP, NOISE = 1.0, 2.0


def records(seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(RECORDS, FEATURES, generator=generator)
    return inputs, torch.randint(CLASSES, (RECORDS,), generator=generator)


def released(data, gradients="auto", dtype=torch.float32, seed=0):
    """The noisy sum of one step over all of ``data`` by a linear model of 20,480 zero weights."""
    model = nn.Linear(FEATURES, CLASSES, bias=False)
    nn.init.zeros_(model.weight)
    trainer = Trainer(
        model.to(dtype),
        nn.CrossEntropyLoss(),
        (data[0].to(dtype), data[1]),
        privacy=Privacy(noise_multiplier=NOISE, delta=1e-3, clip_norm=CLIP, dataset_size=RECORDS),
        batch_size=RECORDS,
        epochs=1,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0),
        gradients=gradients,
        seed=seed,
    )
    trainer.fit()
    return -trainer.model.weight.detach().double().numpy() * RECORDS


def exact_sum(data, margin):
    """Σ of clipped gradients at zero weights: (1/k − [class]) ⊗ x, in float64."""
    errors = 1 / CLASSES - nn.functional.one_hot(data[1], CLASSES).double()
    gradients = errors[:, :, None] * data[0].double()[:, None, :]
    norms = gradients.flatten(1).norm(dim=1)
    factors = (CLIP * (1 - margin) / (norms + 1e-6)).clamp(max=1)
    return (factors[:, None, None] * gradients).sum(0).numpy()


def distance_from_pairs(noise):
    """Mean distance of far pairs from what Box-Muller in float32 can give: near 0, or 1/4."""
    blocks = (noise / (NOISE * CLIP)).reshape(-1, 2, 8)
    whole = 2.0**24 * np.exp(-(blocks[:, 0] ** 2 + blocks[:, 1] ** 2) / 2)
    far = whole[whole < 2**14]
    return float(np.abs(far - np.rint(far)).mean())


def right_guesses(trials, gradients):
    """How often the guess with the smaller distance is right."""
    margin = {"graph": PartVectors, "opacus": Stored}[gradients].margin
    right = 0
    for seed in range(trials):
        inputs, targets = records(seed)
        held = seed % 2 == 0  # whether record 0 is in
        start = 0 if held else 1
        seen = released((inputs[start:], targets[start:]), gradients, seed=seed)
        with_it = distance_from_pairs(seen - exact_sum((inputs, targets), margin))
        without = distance_from_pairs(seen - exact_sum((inputs[1:], targets[1:]), margin))
        right += (with_it < without) == held
    return right


@pytest.mark.parametrize("gradients", ["graph", "opacus"])
def test_the_attack_on_pairs_does_no_better_than_guessing(gradients):
    assert right_guesses(24, gradients) < 20  # 20 or more by chance: one in 1,300


def test_the_same_attack_is_always_right_about_float32_pairs(monkeypatch):
    def in_pairs(rng, out):
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        made = torch.normal(0.0, 1.0, (len(out),), generator=generator)
        out[:] = made.numpy()

    monkeypatch.setattr(independent, "fill_normal", in_pairs)
    monkeypatch.setattr(independent, "grid", lambda *_: 2.0**-60)
    assert right_guesses(12, "opacus") == 12  # of sums in float64


@pytest.mark.parametrize("gradients", ["graph", "opacus"])
def test_a_float64_release_shows_a_grid_and_not_the_generators_lattice(gradients):
    seen = released(records(0), gradients, torch.float64)
    steps = seen / grid(CLIP, FEATURES * CLASSES)
    assert np.abs(steps - np.rint(steps)).max() < 1e-3
    assert len(np.unique(np.rint(steps) % 2)) == 2  # and no coarser one
