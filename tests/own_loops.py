"""A loop of one's own on the small problem, as close to Trainer's run as can be."""

import torch
from small_problem import sgd, small_data, small_model
from torch import nn
from torch.nn.functional import cross_entropy

from dpsgd_torch import Privacy, Private


def make_private(**changes) -> Private:
    """A run on the small problem; keywords replace its defaults, which are ``make_trainer``'s."""
    model = changes.pop("model", None) or small_model()
    data = changes.pop("data", None)
    settings = {
        "optimizer": sgd,
        "privacy": Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5),
        "batch_size": 12,
        "epochs": 3,
        "physical_batch_size": 5,
        "checkpoint_every": 7,
        "seed": 11,
        "loss": nn.CrossEntropyLoss(),
        **changes,
    }
    data = small_data() if data is None else data
    return Private(model, settings.pop("optimizer"), data, **settings)


def losses_of(model, batch) -> torch.Tensor:
    inputs = batch.inputs
    outputs = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    return cross_entropy(outputs, batch.targets, reduction="none")


def trained(private: Private, steps: int | None = None, losses=losses_of) -> Private:
    """The loop as a user writes it; ``steps`` leaves it after so many."""
    for batch in private:
        private.backward(losses(private.model, batch))
        if private.step() and private.done == steps:
            break
    return private


def looped(private: Private, body) -> None:
    """The loop with another body, called with each batch."""
    for batch in private:
        body(batch)
