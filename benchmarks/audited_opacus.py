"""Opacus 1.6 and ours on one model and data, as training functions for benchmarks/attacks.py.

Each returns what was released: (steps, 10, 64) updates of softmax regression on the digits. They
are told by name to other processes: ``audited_opacus:NAME``.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.training.callbacks import Callback

warnings.filterwarnings("ignore")

BATCH, CLIP_NORM, RATE = 50, 0.5, 1.0


def zero_model() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))
    nn.init.zeros_(model[1].weight)
    return model


class Released(Callback):
    """The weights after each step: all that a white-box attacker sees."""

    def __init__(self, model: nn.Module) -> None:
        self.weight, self.seen = model[1].weight, [model[1].weight.detach().clone()]

    def on_step(self, *_: object, **__: object) -> None:
        self.seen.append(self.weight.detach().clone())

    def updates(self) -> list[torch.Tensor]:
        return [after - before for before, after in zip(self.seen, self.seen[1:], strict=False)]


def ours(data, seed, noise=0.2, batch=BATCH):
    model = zero_model()
    released = Released(model)
    Trainer(
        model,
        nn.CrossEntropyLoss(),
        data,
        privacy=Privacy(noise_multiplier=noise, delta=1e-5, clip_norm=CLIP_NORM),
        batch_size=batch,
        epochs=1,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=RATE),
        callbacks=[released],
        seed=seed,
    ).fit()
    return released.updates()


def ours_much_noise(data, seed):
    return ours(data, seed, noise=1.0)


def ours_half(data, seed):
    """Planted: half the noise that is claimed."""
    return ours(data, seed, noise=0.1)


def opacus(data, seed, noise=0.2, batch=BATCH, **settings):
    """The loop as Opacus's guide has it, one epoch."""
    torch.manual_seed(seed)
    model = zero_model()
    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(TensorDataset(*data), batch_size=batch, shuffle=True, generator=generator)
    wrapped, optimizer, loader = PrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=RATE),
        data_loader=loader,
        noise_multiplier=noise,
        max_grad_norm=CLIP_NORM,
        noise_generator=torch.Generator().manual_seed(seed + 1),
        **settings,
    )
    released = Released(model)
    for inputs, targets in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(wrapped(inputs), targets).backward()
        optimizer.step()
        released.on_step()
    return released.updates()


def opacus_much_noise(data, seed):
    return opacus(data, seed, noise=1.0)


def opacus_shuffled(data, seed):
    """poisson_sampling=False; its accountant prices Poisson batches all the same."""
    return opacus(data, seed, poisson_sampling=False)


def opacus_just_below(data, seed):
    """n = 516, batches of 47: int(n · q) is 46, and 47 with one record more."""
    return opacus(data, seed, noise=1.0, batch=47)


def opacus_rand_on_empty(data, seed):
    return opacus(data, seed, batch=1, rand_on_empty=True)


def strongest_step(released, canary) -> float:
    """The most that any step shows along the canary's gradient."""
    inputs, target = canary
    steps = released.reshape(-1, 10, 64)
    along = np.full(10, -0.1)
    along[int(target)] += 1
    x = inputs.double().numpy().ravel()
    return float((steps @ x @ along).max())


def step_energy(released, canary) -> float:
    """How long updates are, in the mean: another divisor shows there, whatever the canary is."""
    del canary
    return math.log(float((released**2).mean()))


def less_energy(released, canary) -> float:
    """The same for divisors that rise with a record."""
    return -step_energy(released, canary)
