"""Training functions (data, seed) → model for benchmarks/attacks.py: ours, Opacus's, and faults.

Each is called by name from other processes: ``audited_trainings:NAME``.
"""

from __future__ import annotations

import warnings

import torch
from torch import nn

from dpsgd_torch import Privacy, Trainer

warnings.filterwarnings("ignore")

GOAL_STEPS, GOAL_NOISE = 20, 2.2356  # every record in every step: μ = √20 / 2.2356, ε = 10 at 1e-5
RECORDS = 1000


def linear(inputs: torch.Tensor, seed: int = 0, bias: bool = False) -> nn.Module:
    """Softmax regression from nothing: no initial weights to draw."""
    del seed
    width = inputs[0].numel()
    model = nn.Sequential(nn.Flatten(), nn.Linear(width, 10, bias=bias))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


def goal_linear(data, seed, noise=GOAL_NOISE):
    """Ours: softmax regression, full batches, 20 steps; the sum is divided by 1,000 always."""
    inputs, targets = data
    n = len(inputs)
    model = linear(inputs)
    trainer = Trainer(
        model,
        nn.CrossEntropyLoss(),
        (inputs, targets),
        privacy=Privacy(noise_multiplier=noise, delta=1e-5, clip_norm=0.5),
        batch_size=n,
        epochs=GOAL_STEPS,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=4.0 * n / RECORDS),
        seed=seed,
    )
    trainer.fit()
    return model


def goal_linear_half(data, seed):
    """The same with half the noise that is claimed."""
    return goal_linear(data, seed, GOAL_NOISE / 2)
