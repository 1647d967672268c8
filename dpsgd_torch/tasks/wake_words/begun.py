"""MobileNet that learnt made-up shapes: what private training of figures can begin from.

From random weights at ε = 8 noise hides the mean gradient, as docs/guides/tiny.md shows. Nothing
here knows what a person looks like, and no private row is read.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from dpsgd_torch.features.cache import cache_folder, digest, kept
from dpsgd_torch.tasks.coloured import Canvas, Floats
from dpsgd_torch.tasks.shapes import SHAPES, shape
from dpsgd_torch.tasks.wake_words.model import SIDE, mobilenet

_PASSES, _BATCH, _RATE = 4, 32, 0.003
_SEED = 20261203
_FINGERPRINT = 4  # pictures by which weights that are kept are known to be of these


def prior(*, frozen: bool) -> str:
    """The statement's sentences on that."""
    after = (
        "there all layers but the last stay as they are, and the last begins from zero"
        if frozen
        else "from there all layers go on, the last from zero"
    )
    return (
        "WITHOUT class knowledge: nothing in it was made after the classes. Before any private row "
        "the network learnt made-up pictures, each of one of ten coloured shapes among clutter; "
        f"{after}. No private row went into that, and ε does not cover how it was chosen."
    )


def begun_(model: nn.Sequential, norm: str, *, frozen: bool, pictures: int) -> None:
    """Put learnt weights into all layers but the last, in place, and zeros into that.

    Args:
        model: ``mobilenet(…, norm)``, of any number of classes.
        frozen: whether the last layer alone shall train.
        pictures: to learn from, each four times: once, the weights are kept in the user's cache.
    """
    learner = mobilenet(torch.Generator().manual_seed(_SEED), len(SHAPES), norm)
    body = learner[:-1]

    def make() -> torch.Tensor:
        _learn(learner, pictures)
        return nn.utils.parameters_to_vector(body.parameters()).detach()

    first = torch.from_numpy(scenes(_FINGERPRINT, _SEED)[0])
    settings = (norm, pictures, _PASSES, _BATCH, _RATE, Path(__file__).read_bytes())
    with torch.no_grad():
        key = digest(first, nn.utils.parameters_to_vector(body.parameters()), settings)
    weights = kept(key, make, what="mobilenet", folder=cache_folder())
    nn.utils.vector_to_parameters(weights, body.parameters())
    model[:-1].load_state_dict(body.state_dict())
    for parameter in model[-1].parameters():
        nn.init.zeros_(parameter)
    if frozen:
        model[:-1].requires_grad_(False)


def scenes(count: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
    """(count, 3, 96, 96) in [0, 1] and which of ten shapes, each of hues of its own, is in front.

    >>> images, label = scenes(10, 0)
    >>> images.shape, np.bincount(label).tolist()
    ((10, 3, 96, 96), [1, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    """
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(count) % len(SHAPES)).astype(np.int64)
    return np.stack([_scene(rng, int(each)) for each in label]), label


def _scene(rng: np.random.Generator, which: int) -> Floats:
    canvas = Canvas(SIDE, rng)
    for _ in range(rng.integers(1, 5)):
        x, y, angle = (float(each) for each in rng.uniform((-1, -1, 0), (1, 1, np.pi)))
        wide, tall = (float(each) for each in rng.uniform(0.08, 0.5, 2))
        behind = canvas.ellipse if rng.random() < 0.5 else canvas.box
        canvas.paint(behind(x, y, wide, tall, angle), canvas.colour())
    size, angle = float(rng.uniform(0.3, 0.7)), float(rng.uniform(0, 2 * np.pi))
    x, y = (float(place) for place in rng.uniform(-0.5, 0.5, 2))
    hue = which / len(SHAPES)
    canvas.paint(shape(canvas, SHAPES[which], x, y, size, angle), canvas.colour((hue, hue + 0.1)))
    return canvas.finished(float(rng.uniform(0.01, 0.05)))


def _learn(model: nn.Module, pictures: int) -> None:
    seconds = 7e-3 * pictures  # of one core
    told = f"the network learns {pictures} made-up pictures of shapes: once, about {seconds:.0f} s"
    print(told, file=sys.stderr, flush=True)
    images, label = map(torch.from_numpy, scenes(pictures, _SEED))
    generator = torch.Generator().manual_seed(_SEED + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=_RATE)
    steps = max(1, _PASSES * (pictures // _BATCH))
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps))
    with torch.enable_grad():
        for _ in range(_PASSES):
            order = torch.randperm(pictures, generator=generator)
            for batch in order[: pictures // _BATCH * _BATCH].split(_BATCH):
                optimizer.zero_grad()
                functional.cross_entropy(model(images[batch]), label[batch]).backward()
                optimizer.step()
                rates.step()
