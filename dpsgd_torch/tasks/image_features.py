"""Image tasks on fixed features: a linear head from zero in place of a CNN."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dpsgd_torch.errors import ExportError
from dpsgd_torch.features.model_files.named import ModelFile
from dpsgd_torch.tasks.base import ImageKnobs

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dpsgd_torch.features.recipe import Recipe
    from dpsgd_torch.tasks.task import Pair, Task

_TRAIN_SEED, _TEST_SEED = 20261129, 20261130  # of made-up rows that are trained and tested on
_FROM_ZERO = "from zero"
_BEGUN = "that learnt made-up images of these classes first"
_NO_CLASSES = "signs"  # what stands in for made-up images that know the classes


def best_follow(epsilon: float) -> Mapping[str, Any]:
    """The settings of the presets on 60,000 images that follow ε: the learning rate.

    56 ε^¼, by what stand-ins made of made-up images say (docs/accuracy.md).

    >>> best_follow(1.0)
    {'learning_rate': 56.0}
    """
    return {"learning_rate": 56 * min(max(epsilon, 0.1), 10) ** 0.25}


def loose_follow(epsilon: float) -> Mapping[str, Any]:
    """The same where classes overlap, and the rows can teach a larger head: 43 √ε.

    Of three parts of norm 4 each; of two, 64 √ε is the same step in what the head says.

    >>> loose_follow(4.0)
    {'learning_rate': 86.0}
    """
    return {"learning_rate": 43 * min(max(epsilon, 0.1), 10) ** 0.5}


def recipe_of(knobs: ImageKnobs) -> Recipe:
    """The features that the knobs ask for."""
    from dpsgd_torch.features.cache import cache_folder
    from dpsgd_torch.features.made_up.kinds import MADE_UP
    from dpsgd_torch.features.recipe import Recipe

    def allowed(name: str) -> str:
        known = name in MADE_UP and MADE_UP[name].knows_classes
        return _NO_CLASSES if known and not knobs.prior else name

    return Recipe(
        made_up=allowed(knobs.whitened_by),
        pretrained_on=allowed(knobs.pretrained_on),
        directions=knobs.directions,
        kernels=knobs.kernels or None,
        ridge=knobs.ridge,
        scales=knobs.scales,
        scattering=knobs.transform != "none",
        model=None if knobs.features_from == "none" else ModelFile.named(knobs.features_from),
        folder=cache_folder() if knobs.keep_features else None,
    )


def with_features(task: Task, knobs: ImageKnobs) -> Task:
    """The task on features of its images, or as it is where the knobs ask for none.

    Nothing is learnt from its rows: a row's features rest on it and made-up images.
    """
    if not knobs.fixed:
        return task
    recipe = recipe_of(knobs)

    def pair(of: Pair) -> Pair:
        return recipe(of[0]), of[1]

    train = pair(task.train)
    weights = _begun(recipe, task) if knobs.begun else None
    return dataclasses.replace(
        task,
        train=train,
        test=None if task.test is None else pair(task.test),
        make_model=lambda _: linear_head(train[0].shape[1], len(task.labels), weights),
        input_range=(-recipe.norm, recipe.norm),
        prior=prior_of(
            recipe.prior,
            "an image",
            knows_classes=recipe.knows_classes,
            head=_FROM_ZERO if weights is None else _BEGUN,
            model=recipe.model,
        ),
        augment=None,  # of images, not of their features
    )


def _begun(recipe: Recipe, task: Task) -> torch.Tensor | None:
    """The head that made-up images of the task's classes teach; none where there are none."""
    from dpsgd_torch.features.begun import begun_head
    from dpsgd_torch.features.made_up.kinds import made_up

    kind = made_up(recipe.learnt_from) if recipe.knows_classes else None
    if kind is None or not kind.knows_classes or kind.classes != len(task.labels):
        return None
    return begun_head(recipe, task.train[0].shape[-1])


def made_up_digits_task(
    side: int,
    rows: int,
    test_rows: int,
    make_model: Callable[[torch.Generator], nn.Module],
    knobs: ImageKnobs,
) -> Task:
    """A task like that of real digits on made-up ones, which no features are whitened by."""
    from torch.nn import CrossEntropyLoss

    from dpsgd_torch.features.made_up.digits import made_up_digits
    from dpsgd_torch.tasks.task import Task, accuracy

    task = Task(
        train=made_up_digits(rows, side, _TRAIN_SEED),
        test=made_up_digits(test_rows, side, _TEST_SEED),
        make_model=make_model,
        loss=CrossEntropyLoss(),
        metrics={"accuracy": accuracy},
        labels=tuple("0123456789"),
        synthetic=True,
    )
    return with_features(task, knobs)


def linear_head(inputs: int, classes: int, begun: torch.Tensor | None = None) -> nn.Module:
    """Softmax regression, from zero or from (classes, inputs + 1) weights and biases."""
    import torch
    from torch import nn

    head = nn.Linear(inputs, classes)
    weights = torch.zeros(classes, inputs + 1) if begun is None else begun
    with torch.no_grad():
        head.weight.copy_(weights[:, :-1])
        head.bias.copy_(weights[:, -1])
    return head


def prior_of(
    features: str,
    of: str,
    *,
    knows_classes: bool,
    head: str = _FROM_ZERO,
    model: ModelFile | None = None,
) -> str:
    """The statement's sentences on features that rest on no private row, but of what ``model`` saw.

    Whether a model of the user's knows the classes, or these very rows, only the user can say.
    """
    if knows_classes:
        knows = "WITH class knowledge: its author showed it what the classes look like"
    elif model:
        knows = f"OF UNKNOWN class knowledge: what {model.name} learnt is not known here"
    else:
        knows = "WITHOUT class knowledge: nothing in it was made after the classes"
    told = f"{knows}. The model is a linear head {head}; what it is given of {of} is {features}. "
    if model is None:
        return f"{told}No private row went into that, and ε does not cover how it was chosen."
    return (
        f"{told}{model.name} is the file of SHA-256 {model.sha256}. ε does not cover what it was "
        "trained on: if rows of this data were in that, what it tells of them comes on top of ε. "
        "No private row went into the rest, and ε does not cover how any of it was chosen."
    )


def refuse_export(knobs: ImageKnobs) -> None:
    """Refuse to export a head without what makes its inputs."""
    if knobs.fixed:
        name = "transform" if knobs.transform != "none" else "features_from"
        raise ExportError(
            f"{name} = {getattr(knobs, name)}: its model is a head on features that no board "
            "computes; load model.safetensors into dpsgd_torch.tasks.image_features.linear_head"
        )
