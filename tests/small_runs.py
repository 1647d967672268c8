"""Small runs of every kind, each a function of who trains them, told as weights and history."""

from collections.abc import Callable
from typing import Any

import torch
from small_problem import make_trainer, small_data, small_model, weights
from torch import nn

from dpsgd_torch import EarlyStopping, Privacy, Private, Validation
from dpsgd_torch.training.world import World


def without_dropout() -> nn.Module:
    model = small_model()
    model[3].p = 0.0
    return model


def _told(trained: Any) -> tuple[list[float], dict[str, Any]]:
    rows = trained.history.to_json()
    rows["epochs"] = [{k: v for k, v in row.items() if v is not None} for row in rows["epochs"]]
    return weights(trained.model).tolist(), rows


def _fitted(world: World, **changes: Any) -> tuple[list[float], dict[str, Any]]:
    return _told(make_trainer(model=without_dropout(), world=world, **changes).fit())


def without_privacy(world: World) -> tuple[list[float], dict[str, Any]]:
    return _fitted(world, privacy=None, test_tensors=small_data(20, seed=5))


def mostly_nobody(world: World) -> tuple[list[float], dict[str, Any]]:
    return _fitted(world, batch_size=1, epochs=0.2)


def of_units(world: World) -> tuple[list[float], dict[str, Any]]:
    privacy = Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5, unit="person")
    ids = torch.arange(120) % 30
    return _fitted(world, privacy=privacy, units=ids, rows_per_unit=3, batch_size=6)


def with_private_validation(world: World) -> tuple[list[float], dict[str, Any]]:
    held_out = Validation(tensors=small_data(30, seed=7), noise_multiplier=5.0, bound=2.0)
    return _fitted(world, validation=held_out, early_stopping=EarlyStopping(keep_best=True))


def of_automatic_size(world: World) -> tuple[list[float], dict[str, Any]]:
    return _fitted(world, physical_batch_size="auto", test_tensors=small_data(20, seed=5))


def in_a_loop_of_ones_own(world: World) -> tuple[list[float], dict[str, Any]]:
    model = without_dropout()
    private = Private(
        model,
        torch.optim.SGD(model.parameters(), lr=0.2),
        small_data(),
        privacy=Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5),
        batch_size=3,
        epochs=0.5,
        loss=nn.CrossEntropyLoss(),  # else noise hangs on the sums, whose last digits differ
        seed=4,
        physical_batch_size=4,
        world=world,
    )
    for batch in private:
        outputs = model(batch.inputs)
        private.backward(nn.functional.cross_entropy(outputs, batch.targets, reduction="none"))
        private.step()
    return _told(private)


def _clipped(world: World, clipping: str) -> tuple[list[float], dict[str, Any]]:
    privacy = Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5, clipping=clipping)
    return _fitted(world, privacy=privacy, epochs=1)


def of_layers_clipped_apart(world: World) -> tuple[list[float], dict[str, Any]]:
    return _clipped(world, "per-layer:size")


def of_an_adaptive_clip_norm(world: World) -> tuple[list[float], dict[str, Any]]:
    return _clipped(world, "adaptive:0.7:0.5")


RUNS: dict[str, Callable[[World], tuple[list[float], dict[str, Any]]]] = {
    run.__name__: run
    for run in (
        without_privacy,
        mostly_nobody,
        of_units,
        with_private_validation,
        of_automatic_size,
        of_layers_clipped_apart,
        of_an_adaptive_clip_norm,
        in_a_loop_of_ones_own,
    )
}
