"""A linear head that learnt made-up images of the task's classes: right before any private row.

Private steps correct it where real rows differ, so that few of them, and little of ε, are needed.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from dpsgd_torch.features.cache import digest, kept
from dpsgd_torch.features.made_up.kinds import labelled
from dpsgd_torch.features.recipe import Recipe

_MADE = 6000
_SEED = 20261201
_DECAY = 1e-3
_SMOOTHING = 0.1  # of labels: what is sure of made-up images need not be of others
_ITERATIONS = 60


def begun_head(recipe: Recipe, side: int) -> torch.Tensor:
    """(classes, directions + 1) weights and, last, biases of a softmax regression on features.

    Of the made-up images that the recipe's network learnt, or that whiten it.

    Raises:
        ConfigError: those have no classes.
    """
    name = recipe.learnt_from
    made = labelled(name)

    def make() -> torch.Tensor:
        images, classes = made.make(_MADE, side, _SEED)
        assert classes is not None  # ``labelled`` saw to it
        return regression(recipe.fresh(images), classes, made.classes)

    if recipe.folder is None:
        return make()
    return kept(digest("head", side, recipe.settings), make, what="head", folder=recipe.folder)


def regression(features: torch.Tensor, labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Softmax regression of (n, k) features with smoothed labels and a little weight decay.

    >>> weights = regression(torch.eye(3).repeat(5, 1), torch.arange(3).repeat(5), 3)
    >>> weights.shape, weights[:, :3].argmax(dim=1)
    (torch.Size([3, 4]), tensor([0, 1, 2]))
    """
    inputs = torch.cat([features, torch.ones(len(features), 1)], dim=1)
    weights = torch.zeros(classes, inputs.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=_ITERATIONS)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(inputs @ weights.T, labels, label_smoothing=_SMOOTHING)
        loss = loss + _DECAY * weights.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return weights.detach()
