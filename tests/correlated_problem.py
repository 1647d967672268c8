"""A small run with correlated noise, begun alike each time."""

import torch
from torch import nn

from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.noise.correlated import Correlated
from dpsgd_torch.samplers.cyclic import cyclic

CLIP, STEPS, RECORDS, BATCH = 0.5, 24, 48, 8


def times_target(outputs, targets):
    """A loss whose gradient is target × input, whatever the weights are."""
    return outputs[:, 0] * targets


def trained(noise, sampler, inputs, targets, values=6, **changes):
    """A run of a linear model, begun alike each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(values, 1, bias=False)
    settings = {
        "privacy": noise and Privacy(noise_multiplier=2.0, delta=1e-3, clip_norm=CLIP, noise=noise,
                                     dataset_size=RECORDS),
        "batch_size": BATCH, "epochs": STEPS * BATCH / RECORDS, "sampler": sampler,
        "optimizer": lambda p: torch.optim.SGD(p, lr=1.0), "seed": 5, **changes,
    }  # fmt: skip
    return Trainer(model, times_target, (inputs, targets), **settings)


def rows_of_corr():
    """Its records."""
    data = torch.Generator().manual_seed(1)
    return torch.randn(RECORDS, 6, generator=data), torch.randn(RECORDS, generator=data)


def corr(folder=None, sampler=None, noise_multiplier=3.0, epsilon=None, noise=None, **changes):
    """A run of 24 steps; passes have 6 of them."""
    privacy = Privacy(
        noise_multiplier=noise_multiplier, epsilon=epsilon, delta=1e-3, clip_norm=CLIP,
        noise=noise or Correlated("bandmf", 4),
    )  # fmt: skip
    settings = {"privacy": privacy, "run_dir": folder, "checkpoint_every": 3, **changes}
    return trained(None, sampler or cyclic(4), *rows_of_corr(), **settings)
