"""Can a step be seen through its noise? The mean clipped gradient of wake-words beside it.

At random weights, at those that made-up shapes taught (all layers trained, or the last alone): the
norm of the mean over made-up figures of another seed than the preset's, in clips, with twice its
standard error, and the norm of the noise that ε = 8 puts on a step's mean, σ√d / B.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from gestures import told_machine
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from accountant import Event, calibrate_noise, dpsgd_events
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.tasks.registry import kind_of

_BLOCKS = 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--figures", type=int, default=1000)
    options = parser.parse_args()
    told_machine(None)
    config = PRESETS["wake-words"]().config
    rows, batch = config.task.made_up_rows, config.batch_size
    steps = round(config.epochs * rows / batch)

    def events(noise: float) -> list[tuple[Event, int]]:
        return dpsgd_events(
            dataset_size=rows, batch_size=batch, noise_multiplier=noise, steps=steps
        )

    noise = calibrate_noise(8.0, 1e-5, events)
    print(f"σ = {noise:.3f}, batches of {batch} of {rows}, {steps} steps\n")
    print(f"{'':34}{'trained':>9}{'clip':>6}{'mean gradient':>22}{'noise of a step':>17}")
    for name, changes in (
        ("random weights", {"pretraining": 0, "frozen": False}),
        ("taught by shapes, all trained", {"frozen": False}),
        ("taught by shapes, last layer alone", {}),
    ):
        changed = config.changed(**changes)
        task = kind_of(config.dataset).made_up(changed.task, options.figures, 10)
        model = task.make_model(torch.Generator().manual_seed(1))
        for clip in (1.0, 4.0):
            size, error = mean_gradient(model, *task.train, clip)
            count = sum(p.numel() for p in model.parameters() if p.requires_grad)
            told = f"{size:.3f} ± {error:.3f}"
            print(f"{name:34}{count:9,}{clip:6g}{told:>22}{noise * count**0.5 / batch:17.2f}")


def mean_gradient(
    model: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor, clip: float
) -> tuple[float, float]:
    """Norm of the mean clipped gradient, in clips, and twice its standard error.

    From products of means over disjoint blocks, so that no example meets itself.
    """
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def loss(weights: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(functional_call(model, weights, (x[None],)), y[None])

    means = []
    for block in torch.arange(len(inputs)).chunk(_BLOCKS):
        total = torch.zeros(())
        for part in block.split(25):
            found = vmap(grad(loss), (None, 0, 0))(trained, inputs[part], targets[part])
            rows = torch.cat([each.flatten(1) for each in found.values()], dim=1)
            rows *= (clip / rows.norm(dim=1, keepdim=True)).clamp(max=1) / clip
            total = total + rows.sum(dim=0)
        means.append(total / len(block))
    products = (torch.stack(means) @ torch.stack(means).T).numpy()
    apart = ~np.eye(len(means), dtype=bool)
    squared = products[apart].mean()
    without = [np.delete(np.delete(products, k, 0), k, 1) for k in range(len(means))]
    folded = np.array([each[apart[1:, 1:]].mean() for each in without])
    error = ((len(means) - 1) * ((folded - folded.mean()) ** 2).mean()) ** 0.5
    size = max(squared, 0.0) ** 0.5
    return size, max(squared + 2 * error, 0.0) ** 0.5 - size


if __name__ == "__main__":
    main()
