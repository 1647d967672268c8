"""A small problem that every training test can afford."""

import torch
from torch import nn

from dpsgd_torch import Privacy, Trainer


def small_model(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 3)
        )


def small_data(records: int = 120, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(records, 1, 6, 6, generator=generator)
    targets = torch.randint(3, (records,), generator=generator)
    return inputs, targets


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.2, momentum=0.5)


def make_trainer(**changes) -> Trainer:
    """A trainer on the small problem; keywords replace its defaults."""
    model = changes.pop("model", None) or small_model()
    data = changes.pop("data", None)
    data = small_data() if data is None else data
    settings = {
        "privacy": Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5),
        "batch_size": 12,
        "epochs": 3,
        "optimizer": sgd,
        "physical_batch_size": 5,
        "checkpoint_every": 7,
        "seed": 11,
        **changes,
    }
    return Trainer(model, settings.pop("loss", nn.CrossEntropyLoss()), data, **settings)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])
