"""Training functions (data, seed) → model for benchmarks/attacks.py: ours, Opacus's, and faults.

Each is called by name from other processes: ``audited_trainings:NAME``.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn

from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.tasks.mnist.task import mnist_cnn, mnist_task

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


CNN_STEPS, CNN_NOISE = 10, 1.5808  # μ = √10 / 1.5808: ε = 10 at 1e-5 again
_PUBLIC = Path(tempfile.gettempdir()) / "audited-public-cnn.pt"


def public_cnn() -> nn.Module:
    """The CNN trained on 20,000 records that are in no audit: an attacker's initial weights."""
    model = mnist_cnn(torch.Generator().manual_seed(0))
    if not _PUBLIC.is_file():
        inputs, targets = (part[30_000:50_000] for part in mnist_task("mnist", None, 0.0).train)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for epoch in range(3):
            order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(epoch))
            for rows in order.split(100):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs[rows]), targets[rows]).backward()
                optimizer.step()
        torch.save(model.state_dict(), _PUBLIC)
    model.load_state_dict(torch.load(_PUBLIC, weights_only=True))
    return model


def goal_cnn(data, seed, noise=CNN_NOISE, rate=0.5):
    """Ours: the CNN from public weights, full batches, 10 steps."""
    n, model = len(data[0]), public_cnn()
    trainer = Trainer(
        model,
        nn.CrossEntropyLoss(),
        data,
        privacy=Privacy(noise_multiplier=noise, delta=1e-5, clip_norm=1.0),
        batch_size=n,
        epochs=CNN_STEPS,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=rate * n / RECORDS),
        seed=seed,
    )
    trainer.fit()
    return model
