"""Small networks of each kind that boards run, trained in seconds on made-up data, by seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.features.made_up.digits import made_up_digits
from dpsgd_torch.quantization import quantization_aware
from dpsgd_torch.tasks.gestures.task import gesture_mlp, made_up_gesture_task
from dpsgd_torch.tasks.mnist.task import mnist_cnn
from dpsgd_torch.tasks.registry import public_inputs
from dpsgd_torch.tasks.strokes import stroke_images
from dpsgd_torch.tasks.task import Pair

SIDE = 16  # pixels, of the depthwise and residual networks
HELD_OUT = 2000


class Residual(nn.Module):
    """Two blocks of two convolutions each, added to what they read."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, stride=2, padding=1)
        self.inner = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(4))
        self.pool, self.last = nn.AvgPool2d(8), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        for one, other in (self.inner[:2], self.inner[2:]):
            x = (x + other(one(x).relu())).relu()
        return self.last(self.pool(x).flatten(1))


def depthwise() -> nn.Module:
    """A depthwise-separable stack, as keyword spotting has it."""
    blocks: list[nn.Module] = [nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU()]
    for before, after in ((16, 32), (32, 32), (32, 32)):
        blocks += [nn.Conv2d(before, before, 3, padding=1, groups=before), nn.ReLU()]
        blocks += [nn.Conv2d(before, after, 1), nn.ReLU()]
    return nn.Sequential(*blocks, nn.AvgPool2d(8), nn.Flatten(), nn.Linear(32, 10))


@dataclass(frozen=True)
class Kind:
    """``data``: seed → rows to train on and held out. ``noise``: None trains without privacy."""

    name: str
    make: Callable[[torch.Generator], nn.Module]
    data: Callable[[int], tuple[Pair, Pair]]
    made_up: Callable[[int], torch.Tensor]
    noise: float | None
    batch_size: int
    epochs: int
    rate: float
    input_range: tuple[float, float] = (0.0, 1.0)


def _digits(rows: int, side: int) -> Callable[[int], tuple[Pair, Pair]]:
    return lambda seed: (
        made_up_digits(rows, side, seed),
        made_up_digits(HELD_OUT, side, 99 + seed),
    )


def _gestures(seed: int) -> tuple[Pair, Pair]:
    task = made_up_gesture_task("cross-entropy", 640, HELD_OUT, seed)
    assert task.test
    return task.train, task.test


KINDS = (
    Kind("mnist CNN, private", mnist_cnn, _digits(3000, 28),
         lambda n: stroke_images(n, size=28), 0.8, 150, 8, 0.25),
    Kind("gesture, private", lambda g: gesture_mlp(g, 2, softmax=False), _gestures,
         public_inputs(RunConfig(dataset="gestures")), 1.0, 64, 30, 0.5, (-1.0, 1.0)),
    Kind("depthwise", lambda _: depthwise(), _digits(3000, SIDE),
         lambda n: stroke_images(n, size=SIDE), None, 50, 8, 3e-3),
    Kind("residual", lambda _: Residual(), _digits(3000, SIDE),
         lambda n: stroke_images(n, size=SIDE), None, 100, 10, 5e-3),
)  # fmt: skip


def trained(kind: Kind, seed: int, *, qat: bool) -> tuple[nn.Module, Pair]:
    """The model in evaluation mode, and what was held out."""
    torch.manual_seed(seed)  # the layers' own initial weights
    model = kind.make(torch.Generator().manual_seed(seed))
    train, held_out = kind.data(seed)
    shape = train[0].shape[1:]
    taught = model
    if qat:
        taught = quantization_aware(model, shape, kind.input_range, kind.made_up(32))
    private = kind.noise is not None
    trainer = Trainer(
        taught,
        nn.CrossEntropyLoss(),
        train,
        privacy=Privacy(noise_multiplier=kind.noise, delta=1e-4, clip_norm=1.0)
        if private
        else None,
        batch_size=kind.batch_size,
        epochs=kind.epochs,
        optimizer=lambda p: (
            torch.optim.SGD(p, lr=kind.rate) if private else torch.optim.Adam(p, lr=kind.rate)
        ),
        seed=seed,
    )
    trainer.fit()
    return model.eval(), held_out
