"""What does secure mode cost: in time, beside an ordinary step, and in ε, beside an ordinary plan?

MNIST's CNN (26 k parameters) in batches of 1024, and a perceptron of 4.2 million parameters, on
synthetic images, in one process. Each round times one step of each kind, in an order that rotates,
and ratios are taken within a round. Claims: at most 1.15 and 2.0.

With --price, ε of the same plan with either noise. With --rounding, why secure mode fills passes up
to one size: by how much of its norm a record's gradient, in float32, changes where it is passed
through the model with other records and at another place, in other numbers and in the same.
"""

from __future__ import annotations

import argparse
import itertools
import json
from typing import Any

import numpy as np
import torch
from step import Step, conditions, sgd, synthetic, time_steps
from torch import nn

from accountant import PoissonSampled, exact
from dpsgd_torch.data.in_memory import InMemory
from dpsgd_torch.gradients.graph.engine import GraphGradients
from dpsgd_torch.gradients.losses import Loss, per_example
from dpsgd_torch.gradients.vectors import PerExample
from dpsgd_torch.mechanisms.discrete import PASS
from dpsgd_torch.noise.base import StepPlan
from dpsgd_torch.noise.grid import GRID, sensitivity_in_cells
from dpsgd_torch.noise.independent import INDEPENDENT
from dpsgd_torch.samplers.poisson import PoissonSampler, poisson_sample
from dpsgd_torch.tasks.mnist.task import mnist_cnn
from dpsgd_torch.training.filled import FilledPasses, rows_of_pass
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
from dpsgd_torch.training.steps import Draw, PrivateStep
from dpsgd_torch.training.streams import Streams

CLAIMS = {"cnn": 1.15, "perceptron": 2.0}
RECORDS = 60_000


def perceptron() -> nn.Module:
    """4.2 million parameters."""
    torch.manual_seed(0)
    hidden = (nn.Linear(784, 1600), nn.ReLU(), nn.Linear(1600, 1830), nn.ReLU())
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(1830, 10))


MODELS = {"cnn": lambda: mnist_cnn(torch.Generator().manual_seed(0)), "perceptron": perceptron}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--batch", type=int, default=1024)
    add("--rounds", type=int, default=20, help="timed rounds, after a few to warm up (20)")
    add("--threads", type=int, default=1, help="of torch; one is steadiest (1)")
    add("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    add("--price", action="store_true", help="ε of a plan with either noise, and no times")
    add("--rounding", action="store_true", help="what is assumed, measured, and no times")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = conditions(options)
    if options.price:
        result["price"] = [price(batch) for batch in (50, 250, 1024)]
    elif options.rounding:
        result["rounding"] = {name: rounding(MODELS[name]()) for name in options.models}
    else:
        result["steps"] = {name: timed(name, options) for name in options.models}
    print(json.dumps(result, indent=2))


def timed(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Medians, and the ratio with its spread, of the whole step: sample, gradients, noise."""
    steps = {kind: step(MODELS[name](), kind == "secure", options.batch) for kind in KINDS}
    found = time_steps(steps, [KINDS], options.rounds)
    return {**found, "claim": CLAIMS[name]}


KINDS = ("secure", "ordinary")


def step(model: nn.Module, secure: bool, batch: int) -> Step:
    """One step as the Trainer takes it; ``batch`` records, so that both kinds do the same work."""
    data = InMemory(*synthetic(batch))
    everyone, number = np.arange(batch), itertools.count()
    engine, size = GraphGradients(model), rows_of_pass(batch, 128)
    take = PrivateStep(
        FilledPasses(engine, size) if secure else engine,
        per_example(nn.CrossEntropyLoss()),
        PrivateOptimizer(
            sgd(model), microbatches=batch, noise=GRID if secure else INDEPENDENT, state={}
        ),
        physical_batch_size=size if secure else 128,
    )
    streams = Streams(secure=secure)

    def stepped() -> None:
        at = next(number)
        poisson_sample(streams.numpy("sampling", step=at), RECORDS, batch / RECORDS)
        take(data, StepPlan(1.0, 1.3), Draw(everyone, everyone, streams.numpy("noise", step=at)))

    return stepped


def price(batch: int, noise_multiplier: float = 1.3, epochs: int = 15) -> dict[str, float]:
    """ε at δ = 1e-5 with either noise, and sensitivity beyond the record's own."""
    sampler = PoissonSampler(
        dataset_size=RECORDS, batch_size=batch, steps=epochs * RECORDS // batch
    )
    events = (GRID.charges(0, noise_multiplier, sampler), sampler.event(noise_multiplier))
    assert all(isinstance(event, PoissonSampled) for event in events)
    secure, ordinary = (
        exact().compose(event, sampler.steps).epsilon(1e-5).upper for event in events
    )
    more = sensitivity_in_cells(sampler) / 2**30 - 1
    return {
        "batch": batch, "secure": secure, "ordinary": ordinary, "ratio": secure / ordinary,
        "more sensitivity": more,
    }  # fmt: skip


def rounding(model: nn.Module, seen: int = 16) -> dict[str, float]:
    """The largest change of a record's gradient over 2^-19 of its norm, which is charged."""
    inputs, targets = synthetic(300)
    params, loss = list(model.parameters()), per_example(nn.CrossEntropyLoss())
    bare = GraphGradients(model)
    return {
        name: _moved(engine, params, loss, inputs, targets, seen)
        for name, engine in (("any size", bare), ("one size", FilledPasses(bare, 300)))
    }


def _moved(
    engine: PerExample, params: Any, loss: Loss, inputs: Any, targets: Any, seen: int
) -> float:
    largest = 0.0
    for size in (1, 2, 7, seen, 64, 127, 128, 250, 299):
        told = []
        for rows in (np.arange(size), np.r_[size:300, 0:size]):
            engine.backward(loss, inputs[rows], targets[rows])
            vectors, at = engine.vectors(params), len(rows) - size
            told.append([torch.cat(vectors.vector(at + i)) for i in range(min(size, seen))])
        changes = [float((a - b).norm() / a.norm()) for a, b in zip(*told, strict=True)]
        largest = max(largest, *changes)
    return largest / PASS


if __name__ == "__main__":
    main()
