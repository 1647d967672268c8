"""Accuracy at equal ε of the presets that aim for it, over seeds: a table for docs/accuracy.md.

Each figure comes from `python -m dpsgd_torch.train --preset NAME --epsilon E --seed S`, one run
after another, as anyone would run it: test accuracy after the last epoch, and seconds of the whole
process. Features are made by the first run and read from the cache by the others. `--made-up`
prints in place of it what made-up images alone say, no data set is opened: a head is privately
trained on images of classes that the features know nothing of (digits, by features that rest on
signs; things of other plans, loosely built), and tried on others of them, by ε and learning rate;
then without noise, and without a clip either, which tells what limits it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from accountant import Event, calibrate_noise, dpsgd_event, dpsgd_steps
from accountant.statement import round_up
from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.features.made_up.digits import made_up_digits
from dpsgd_torch.features.made_up.things import made_up_things
from dpsgd_torch.tasks.image_features import linear_head, recipe_of
from dpsgd_torch.tasks.task import Pair, accuracy

ROOT = Path(__file__).resolve().parents[1]
BEST = ("mnist-best", "fashion-best", "digits-best")
_SIDES = {"mnist-best": 28, "fashion-best": 28, "digits-best": 8}
_TRAINED, _TRIED = 12_000, 3000  # made-up images at most
_MULTIPLES = (0.25, 0.5, 1, 2)  # of the preset's learning rate
_NO_NOISE, _NO_CLIP = 1e-6, 1e6
_UNCLIPPED = 0.125  # of the learning rate: rows of norm 4 have gradients up to 5.8


def main() -> None:
    options = parse()
    if options.made_up:
        for preset in options.presets:
            made_up(preset, options)
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for preset in options.presets:
            for more in ([], ["--no-prior"]) if options.no_prior else ([],):
                rows.append(row(preset, more, options, Path(scratch)))
    print(json.dumps(rows, indent=2) if options.json else table(rows, options))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--presets", nargs="+", choices=BEST, default=list(BEST), metavar="NAME",
        help=f"a row each, of {', '.join(BEST)} (all)")  # fmt: skip
    add("--epsilons", type=float, nargs="+", default=[1.0, 2.0, 3.0, 8.0], metavar="E")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], metavar="S", help="a run each")
    add("--no-prior", action="store_true", help="a second row each, without class knowledge")
    add("--made-up", action="store_true", help="try learning rates on made-up images instead")
    add("--json", action="store_true", help="every run, as JSON, instead of the table")
    return parser.parse_args()


def row(preset: str, more: list[str], options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """All runs of one preset: by ε, a list over seeds."""
    runs: dict[float, list[dict[str, float]]] = {}
    for epsilon in options.epsilons:
        for seed in options.seeds:
            out = scratch / f"{preset}{''.join(more)}-{epsilon:g}-{seed}"
            runs.setdefault(epsilon, []).append(train(preset, epsilon, seed, out, more))
    return {"preset": " ".join([preset, *more]), "runs": runs}


def train(preset: str, epsilon: float, seed: int, out: Path, more: list[str]) -> dict[str, float]:
    """One run, in a process of its own."""
    command = [sys.executable, "-m", "dpsgd_torch.train", "--preset", preset, *more, "--json"]
    started = time.monotonic()
    done = subprocess.run(
        [*command, "--epsilon", str(epsilon), "--seed", str(seed), "--out", str(out)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    seconds = time.monotonic() - started
    if done.returncode:
        sys.exit(done.returncode)  # the run has said why on stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    epochs = [event for event in events if event["event"] == "epoch"]
    spent = events[-1]["privacy"]["epsilon"]
    return {
        "accuracy": epochs[-1]["test_accuracy"],
        "epsilon": spent,
        "seconds": seconds,
        "training_seconds": epochs[-1]["seconds"],
    }


def table(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """Markdown: a row a preset, and what the numbers rest on."""
    titles = ["preset", *(f"ε = {epsilon:g}" for epsilon in options.epsilons), "s, whole run"]
    lines = ["| " + " | ".join(titles) + " |", "|---" + "|---:" * (len(titles) - 1) + "|"]
    for each in rows:
        cells = [f"`{each['preset']}`"]
        for runs in each["runs"].values():
            found = [100 * run["accuracy"] for run in runs]
            cells.append(f"{median(found):.2f} ({min(found):.2f}–{max(found):.2f})")
        every = [run["seconds"] for runs in each["runs"].values() for run in runs]
        cells.append(f"{median(every):.0f} (first {every[0]:.0f})")
        lines.append("| " + " | ".join(cells) + " |")
    most = round_up(max(r["epsilon"] - e for x in rows for e, s in x["runs"].items() for r in s))
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy"))
    seeds = ", ".join(map(str, options.seeds))
    lines += ["", f"Test accuracy in %, median (least–most) over seeds {seeds}; add or remove one, "
              f"Poisson, δ = 1e-5, exact ε, at most {most} above what was asked; "
              f"{platform.platform()}, {os.cpu_count()} cores; {versions}."]  # fmt: skip
    return "\n".join(lines)


def made_up(preset: str, options: argparse.Namespace) -> None:
    """Accuracy on made-up images by ε and multiple of the preset's learning rate at that ε.

    Where fewer are trained on than the preset has records, batch and noise are scaled alike, so
    that the noise in the mean gradient and the passes are the preset's.
    """
    chosen = PRESETS[preset]()
    n = chosen.config.dataset_size or 0
    share = min(_TRAINED, n) / n
    images, classes = _unknown(preset, round(share * n) + _TRIED)
    features = recipe_of(chosen.config.changed(prior=False).task)(images)  # type: ignore[arg-type]
    train, test = ((features[at], classes[at]) for at in (slice(_TRIED, None), slice(_TRIED)))
    print(f"{preset}: accuracy in % on made-up images; learning rates × {_MULTIPLES}")
    for epsilon in options.epsilons:
        config = chosen.changed({"epsilon": epsilon}).config
        steps = dpsgd_steps(dataset_size=n, batch_size=config.batch_size, epochs=config.epochs)
        noise = _noise(n, config.batch_size, steps, epsilon, config.delta)
        found = [
            _mean(train, test, config, share, options, noise=noise, times=times)
            for times in _MULTIPLES
        ]
        limits = [
            _mean(train, test, config, share, options, noise=_NO_NOISE),
            _mean(
                train,
                test,
                config,
                share,
                options,
                noise=_NO_NOISE / _NO_CLIP,
                clip=_NO_CLIP,
                times=_UNCLIPPED,
            ),
        ]
        print(
            f"ε = {epsilon:g}, {config.learning_rate:.0f}: {' '.join(found)}; without noise, and "
            f"without clip: {' '.join(limits)}",
            flush=True,
        )


def _unknown(preset: str, count: int) -> Pair:
    """Images of classes that no CNN of a run without class knowledge has seen."""
    if preset == "fashion-best":
        return made_up_things(count, _SIDES[preset], 11, classes=10, plans=7, loose=2.5)
    return made_up_digits(count, _SIDES[preset], 11)


def _noise(n: int, batch_size: int, steps: int, epsilon: float, delta: float) -> float:
    def events(noise: float) -> list[tuple[Event, int]]:
        each = dpsgd_event(dataset_size=n, batch_size=batch_size, noise_multiplier=noise)
        return [(each, steps)]

    return calibrate_noise(epsilon, delta, events)


def _mean(train: Pair, test: Pair, config: RunConfig, share: float, options: argparse.Namespace,
          *, noise: float, times: float = 1, clip: float | None = None) -> str:  # fmt: skip
    """Over the seeds."""
    config = config.changed(
        learning_rate=times * config.learning_rate, clip_norm=clip or config.clip_norm
    )
    found = [_reached(train, test, config, share, noise, seed) for seed in options.seeds]
    return f"{100 * mean(found):.2f}"


def _reached(
    train: Pair, test: Pair, config: RunConfig, share: float, noise: float, seed: int
) -> float:
    batch = round(config.batch_size * share)
    trainer = Trainer(
        linear_head(train[0].shape[1], 10),
        torch.nn.CrossEntropyLoss(),
        train,
        privacy=Privacy(
            noise_multiplier=noise * share, delta=config.delta, clip_norm=config.clip_norm
        ),
        batch_size=batch,
        epochs=config.epochs,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=config.learning_rate),
        rate_schedule=config.rates(
            dpsgd_steps(dataset_size=len(train[1]), batch_size=batch, epochs=config.epochs)
        ),
        seed=seed,
    )
    trainer.fit()
    with torch.no_grad():
        return float(accuracy(trainer.model(test[0]), test[1]).mean())


if __name__ == "__main__":
    main()
