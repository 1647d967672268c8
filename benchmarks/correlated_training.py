"""Accuracy of correlated against independent noise at the same ε, passes and batches.

A linear head on made-up digits (16×16, none drawn from a data set). Without sampling both noises
take the same batches in the same order and are stated for records replaced; with it, independent
noise gets Poisson samples and correlated noise cyclic ones, both for records added or removed. The
learning rate of each noise is the best of --rates in a run on other data and another seed, by other
digits than accuracy is then told of.

    python benchmarks/correlated_training.py

Columns: sampling, passes, ε, then test accuracy (median and range over seeds) by noise, and what
correlated noise gave, in points, seed by seed (median and range). Some 10 minutes on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache
from statistics import median
from typing import Any

import torch
from torch import nn

from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.features.made_up.digits import made_up_digits
from dpsgd_torch.noise.correlated import Correlated
from dpsgd_torch.noise.independent import INDEPENDENT
from dpsgd_torch.samplers.cyclic import cyclic
from dpsgd_torch.samplers.passes import Passes
from dpsgd_torch.samplers.poisson import PoissonSampler

SIDE, TEST = 16, 2000
REPORTED, CHOOSING = 7, 8  # seeds of the digits that runs, and that learning rates, are scored on
Pair = tuple[torch.Tensor, torch.Tensor]


@cache
def digits(count: int, seed: int) -> Pair:
    """Made-up digits in rows of norm 1, about the mean of others."""
    images, classes = made_up_digits(count, SIDE, seed)
    rows = images.flatten(1).float() - _mean()
    return rows / rows.norm(dim=1, keepdim=True), classes


@cache
def _mean() -> torch.Tensor:
    return made_up_digits(500, SIDE, 999)[0].flatten(1).float().mean(0)


def accuracy(args: Any, noise: Any, sampler: Callable[..., Any], rate: float, seed: int,
             passes: int, epsilon: float, scored: int = REPORTED) -> float:  # fmt: skip
    """Of one private run on data of that seed's own, on the digits of seed ``scored``."""
    model = nn.Linear(SIDE * SIDE, 10)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    Trainer(
        model,
        nn.CrossEntropyLoss(),
        digits(args.records, args.first + seed),
        privacy=Privacy(epsilon=epsilon, delta=1e-5, clip_norm=1.0, noise=noise),
        batch_size=args.batch_size,
        epochs=passes,
        optimizer=lambda p: torch.optim.SGD(p, lr=rate),
        sampler=sampler,
        seed=seed,
    ).fit()
    inputs, targets = digits(TEST, scored)
    return 100 * float((model(inputs).argmax(1) == targets).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=6000)
    parser.add_argument("--batch-size", type=int, default=60)
    parser.add_argument("--bands", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rates", type=float, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1, 3, 8])
    parser.add_argument("--passes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--sampling", nargs="+", default=["passes", "sampled"])
    parser.add_argument("--first", type=int, default=100, help="seed of the first data set")
    args = parser.parse_args()
    correlated = Correlated("bandmf", args.bands)
    laws: dict[str, list[tuple[str, Any, Callable[..., Any]]]] = {
        "passes": [("independent", INDEPENDENT, Passes), ("correlated", correlated, Passes)],
        "sampled": [
            ("independent", INDEPENDENT, PoissonSampler),
            ("correlated", correlated, cyclic(args.bands)),
        ],
    }
    for sampling in args.sampling:
        for passes in args.passes:
            for epsilon in args.epsilons:
                found = {}
                for name, noise, sampler in laws[sampling]:
                    asked = {"passes": passes, "epsilon": epsilon}
                    rate = max(
                        args.rates,
                        key=lambda r: accuracy(
                            args, noise, sampler, r, 50, **asked, scored=CHOOSING
                        ),
                    )
                    runs = [
                        accuracy(args, noise, sampler, rate, seed, **asked)
                        for seed in range(args.seeds)
                    ]
                    found[name] = runs, rate
                gains = [
                    a - b
                    for a, b in zip(found["correlated"][0], found["independent"][0], strict=True)
                ]
                told = "  ".join(
                    f"{name} {_range(runs)} (lr {rate:g})" for name, (runs, rate) in found.items()
                )
                print(f"{sampling:8} {passes} ε {epsilon:g}  {told}  gain {_range(gains)}",
                      flush=True)  # fmt: skip


def _range(values: list[float]) -> str:
    return f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
