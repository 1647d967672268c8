"""Made-up and public cases for `advice.py`: features of images and classes, none of it private."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from dpsgd_torch.features.made_up.kinds import made_up
from dpsgd_torch.features.recipe import Recipe
from dpsgd_torch.tasks.digits.task import digits_task
from dpsgd_torch.tasks.gestures.synthetic import synthetic_recordings

SIZES = (500, 2000, 8000, 20_000)
TEST = 3000  # rows that accuracy is measured on, where they are made up
_MOST = SIZES[-1]
_NORM = 4.0  # of each row of features, the recipe's


@dataclass(frozen=True)
class Case:
    """Rows to train on (the first n of them are taken) and to test on."""

    name: str
    classes: int
    train: tuple[torch.Tensor, torch.Tensor]
    test: tuple[torch.Tensor, torch.Tensor]
    sizes: tuple[int, ...]

    @property
    def features(self) -> int:
        return self.train[0].shape[1]


def fitted() -> Iterator[Case]:
    """The cases that the law of heads is fitted to; each is left out once."""
    features, digits = _images("digits", 28, 2, 400, 8000)
    yield _case("digits 28×28, 400 features", features, digits, 8000)
    yield _case("digits 28×28, 100 features", _first(features, 100), digits, 8000)
    yield _case("digits 8×8, 60 features", *_images("digits", 8, 1, 60, 8000), 8000)
    yield _case("leaves, teacher of 10 classes", *_taught("leaves", 150, 10, seed=4))
    yield _case("5 Gaussians in 40 dimensions", *_gaussians(40, 5, seed=5))


def held_out() -> Iterator[Case]:
    """Public images, and gestures: no law has seen them."""
    yield _public_digits()
    yield gesture_rows(2000)


def image_rows(n: int) -> Case:
    """Digits 8×8 as they are, 64 values a row."""
    images, digits = made_up("digits").make(n + TEST, 8, 7)
    return _case("digits 8×8", images.flatten(1), digits, n)


def taught_rows(n: int) -> Case:
    """Leaves by their features, as for heads."""
    return _case("leaves", *_taught("leaves", 150, 10, seed=4, n=n), n)


def _case(name: str, features: torch.Tensor, classes: torch.Tensor, n: int = _MOST) -> Case:
    """The first n rows to train on, and TEST others."""
    test = slice(n, n + TEST)
    return Case(name, int(classes.max()) + 1, (features[:n], classes[:n]),
                (features[test], classes[test]), tuple(s for s in SIZES if s <= n))  # fmt: skip


def _images(kind: str, side: int, scales: int, directions: int, n: int) -> tuple[torch.Tensor, ...]:
    recipe = Recipe(made_up=kind, directions=directions, scales=scales, made=3000)
    images, classes = made_up(kind).make(n + TEST, side, 11)
    return recipe(images), torch.empty(0) if classes is None else classes


def _first(features: torch.Tensor, count: int) -> torch.Tensor:
    """The first directions alone, at the same norm."""
    kept = features[:, :count]
    return kept * (_NORM / kept.norm(dim=1, keepdim=True).clamp_min(1e-12))


def _taught(
    kind: str, directions: int, classes: int, seed: int, n: int = _MOST
) -> tuple[torch.Tensor, ...]:
    """Images of no class, told apart by a random linear teacher that errs a little."""
    features, _ = _images(kind, 16, 2, directions, n)
    drawn = torch.Generator().manual_seed(seed)
    decay = torch.arange(1, directions + 1) ** -0.5  # leading directions say more, as in life
    scores = features @ (torch.randn(directions, classes, generator=drawn) * decay[:, None])
    scores = (scores - scores.mean(0)) / scores.std(0)
    return features, (scores + 0.3 * torch.randn(scores.shape, generator=drawn)).argmax(1)


def _gaussians(features: int, classes: int, seed: int) -> tuple[torch.Tensor, ...]:
    drawn = torch.Generator().manual_seed(seed)
    means = torch.randn(classes, features, generator=drawn) * 3 / features**0.5
    labels = torch.randint(classes, (_MOST + TEST,), generator=drawn)
    rows = means[labels] + torch.randn(len(labels), features, generator=drawn)
    return rows * (_NORM / rows.norm(dim=1, keepdim=True)), labels


def _public_digits() -> Case:
    """scikit-learn's digits, public images of handwriting: 1,437 to train on, 360 to test on."""
    task = digits_task(0.0)
    assert task.test is not None
    recipe = Recipe(made_up="digits", directions=64, scales=1, made=3000)
    train, test = ((recipe(pair[0]), pair[1]) for pair in (task.train, task.test))
    return Case("scikit-learn's digits", 10, train, test, (500, len(train[1])))


def gesture_rows(n: int) -> Case:
    """Made-up recordings of two gestures, six values at 20 moments, (rows, 120) of norm 4."""
    half = (n + TEST + 1) // 2
    made = synthetic_recordings((half, half), seed=6)
    order = np.random.default_rng(6).permutation(2 * half)
    motion = torch.from_numpy(made.motion[order][:, ::6]).float()
    motion[..., 3:] *= 0.01  # degrees a second, beside multiples of gravity
    rows = motion.flatten(1)
    rows = rows * (_NORM / rows.norm(dim=1, keepdim=True))
    return _case("gestures", rows, torch.from_numpy(made.gesture[order]), n)
