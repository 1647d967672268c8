"""Opacus 1.6 and ours on one model and data, as training functions for benchmarks/attacks.py.

Each returns what was released: (steps, 10, 64) updates of softmax regression on the digits. They
are told by name to other processes: ``audited_opacus:NAME``.

One setting for all, chosen by calculation before any was run: σ = 0.3, ten steps, a tenth of 28 to
30 records in each. An attacker who sees a canary beside normal noise in each step, and forms the
likelihood ratio, has in 200,000 simulated audits the advantage (most of TPR − FPR)

    Poisson batches, as claimed     0.53     half the noise                     0.65
    shuffled, in one batch surely   0.76     the divisor tells each batch's size  0.54

and at σ = 0.2: 0.64, 0.65, 0.96, 0.64; at 0.5: 0.33, 0.59, 0.41, 0.35. Limits of 240 models lie
about 0.1 apart on either side, so that shuffling should show at 0.3, half the noise barely, and
division by the realised batch not at all: whoever knows every record sees hardly more by it than by
the canary itself. An insider's canaries find it (planted.py): its noise is not what is charged.

28 records make 10 batches of 3, and with one more still: int(n q) is 2, and 2. 29 make int(n q) 2,
and 3 with one more: noise 1.5 times as large, 14 deviations off in what holds noise alone. 30 make
10 batches, and 11 with one more: int(n q) 3, and 2. Both are told apart without error; limits of 64
models still reach no further than 0.76 at 0.24, which the curve allows, and those of 240 do.

An empty batch comes once in 19 steps there, and its record is the canary once in 29: 2 % more
joins, which no thousand models show; with batches of one and 30 records 37 % more, which they may.
"""

from __future__ import annotations

import logging
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
logging.getLogger("opacus").setLevel(logging.ERROR)  # of empty batches, each time

BATCH, CLIP_NORM, RATE, NOISE = 3, 0.5, 0.01, 0.3


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


def ours(data, seed, noise=NOISE):
    model = zero_model()
    released = Released(model)
    Trainer(
        model,
        nn.CrossEntropyLoss(),
        data,
        privacy=Privacy(noise_multiplier=noise, delta=1e-5, clip_norm=CLIP_NORM),
        batch_size=BATCH,
        epochs=(10 - 1e-6) * BATCH / len(data[0]),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=RATE),
        callbacks=[released],
        seed=seed,
    ).fit()
    return released.updates()


def ours_half(data, seed):
    """Planted: half the noise that is claimed."""
    return ours(data, seed, noise=NOISE / 2)


def opacus(data, seed, batch=BATCH, realised=False, **settings):
    """The loop as Opacus's guide has it, one epoch."""
    torch.manual_seed(seed)
    model = zero_model()
    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(TensorDataset(*data), batch_size=batch, shuffle=True, generator=generator)
    wrapped, optimizer, loader = PrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=RATE),
        data_loader=loader,
        noise_multiplier=NOISE,
        max_grad_norm=CLIP_NORM,
        noise_generator=torch.Generator().manual_seed(seed + 1),
        **settings,
    )
    released = Released(model)
    for inputs, targets in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(wrapped(inputs), targets).backward()
        if realised:
            optimizer.expected_batch_size = max(1, len(inputs))
        optimizer.step()
        released.on_step()
    return released.updates()


def opacus_shuffled(data, seed):
    """poisson_sampling=False; its accountant prices Poisson batches all the same."""
    return opacus(data, seed, poisson_sampling=False)


def opacus_realised(data, seed):
    """Planted: the sum is divided by the realised batch's size, as a mean loss suggests."""
    return opacus(data, seed, realised=True)


def opacus_rand_on_empty(data, seed):
    return opacus(data, seed, batch=1, rand_on_empty=True)


def strongest_step(released, canary) -> float:
    """The most that any step shows along the canary's gradient."""
    return float(_along(released, canary).max())


def strongest_in_noise(released, canary) -> float:
    """The same in units of each step's noise, whatever it was divided by."""
    deviation = released.reshape(-1, 10, 64).mean(1).std(1)
    return float((_along(released, canary) / deviation).max())


def noise_energy(released, canary) -> float:
    """How much noise there is where no gradient is: errors of all classes add up to 0."""
    del canary
    return math.log(float((released.reshape(-1, 10, 64).mean(1) ** 2).mean()))


def less_noise(released, canary) -> float:
    """The same for divisors that rise with a record."""
    return -noise_energy(released, canary)


def _along(released, canary):
    inputs, target = canary
    along = np.full(10, -0.1)
    along[int(target)] += 1
    return released.reshape(-1, 10, 64) @ inputs.double().numpy().ravel() @ along
