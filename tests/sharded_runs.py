"""Small sharded runs, each a function of who trains them, told as weights, charges and epochs."""

from collections.abc import Callable
from typing import Any

import torch
from small_problem import make_trainer, small_data, small_model, weights
from torch import nn

from dpsgd_torch import Privacy, Validation
from dpsgd_torch.training.world import World

Told = tuple[list[float], list[Any], list[Any]]


class Tied(nn.Module):
    """A weight used by its layer and by a function, a scalar, a frozen layer, a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.words, self.scale = nn.Embedding(7, 5), nn.Parameter(torch.tensor(1.5))
            self.norm, self.frozen = nn.LayerNorm(5), nn.Linear(5, 5)
        self.frozen.requires_grad_(False)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.frozen(self.words(x).mean(1))) * self.scale
        return self.head(hidden) + nn.functional.linear(hidden, self.words.weight.tanh())


def words(records: int = 120) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randint(7, (records, 4), generator=generator),
        torch.randint(7, (records,), generator=generator),
    )


def told(trained: Any) -> Told:
    rows = [list(row[:5]) for row in trained.ledger.rows()["charge"]]
    epochs = [
        {k: v for k, v in row.items() if v is not None}
        for row in trained.history.to_json()["epochs"]
    ]
    return weights(trained.model).tolist(), rows, epochs


def made(world: World, **changes: Any) -> Any:
    model = small_model()
    model[3].p = 0.0  # dropout draws by rank
    return make_trainer(**{"model": model, "world": world, "shard": True, **changes})


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01)


def by_momentum(world: World) -> Told:
    return told(made(world, test_tensors=small_data(20, seed=5)).fit())


def by_adamw(world: World) -> Told:
    return told(made(world, optimizer=adamw).fit())


def by_adagrad(world: World) -> Told:  # its state is there before the first step
    return told(made(world, optimizer=lambda p: torch.optim.Adagrad(p, lr=0.01)).fit())


def mostly_nobody(world: World) -> Told:
    return told(made(world, batch_size=1, epochs=0.2).fit())


def tied(world: World) -> Told:
    return told(made(world, model=Tied(), data=words(), optimizer=adamw, epochs=1).fit())


def of_units(world: World) -> Told:
    privacy = Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5, unit="person")
    ids = torch.arange(120) % 30
    return told(made(world, privacy=privacy, units=ids, rows_per_unit=3, batch_size=6).fit())


def with_private_validation(world: World) -> Told:
    held_out = Validation(tensors=small_data(30, seed=7), noise_multiplier=5.0, bound=2.0)
    return told(made(world, validation=held_out).fit())


def stored(world: World) -> Told:
    return told(made(world, gradients="opacus").fit())


def fit_again(world: World) -> Told:
    trainer = made(world, epochs=1, optimizer=adamw).fit()
    trainer.fit(epochs=1)
    return told(trainer)


def clipped_by_layer(world: World) -> Told:
    privacy = Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5, clipping="per-layer")
    return told(made(world, privacy=privacy, epochs=1).fit())


RUNS: dict[str, Callable[[World], Told]] = {
    run.__name__: run
    for run in (
        by_momentum,
        by_adamw,
        by_adagrad,
        clipped_by_layer,
        mostly_nobody,
        tied,
        of_units,
        with_private_validation,
        stored,
        fit_again,
    )
}
