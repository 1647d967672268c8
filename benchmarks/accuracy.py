"""Accuracy at equal ε of the presets that aim for it, over seeds: a table for docs/accuracy.md.

Each figure comes from `python -m dpsgd_torch.train --preset NAME --epsilon E --seed S`, one run
after another, as anyone would run it: test accuracy after the last epoch. Features are made by the
first run and read from the cache by the others. The first two runs of a row are processes, whose
seconds are told; the others are calls of the same command's main in this process. `--made-up`
prints in place of it what made-up images alone say, no data set is opened: a head is privately
trained on images of classes that the features know nothing of (digits, by features that rest on
signs; things of other plans, loosely built, or `--bent` objects), and tried on others of them, by ε
and learning rate; then without noise, and without a clip either, which tells what limits it.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from statistics import mean
from typing import Any

from command import conditions, runs, seconds, spread
from stand_ins import bent_objects, noise_for, reached, settings

from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.features.made_up.digits import made_up_digits
from dpsgd_torch.features.made_up.things import made_up_things
from dpsgd_torch.tasks.image_features import recipe_of
from dpsgd_torch.tasks.task import Pair

BEST = ("mnist-best", "fashion-best", "digits-best")
KNOWING = ("mnist-best", "digits-best")  # fashion-best is without class knowledge anyway
_SIDES = {"mnist-best": 28, "fashion-best": 28, "digits-best": 8}
_TRIED = 3000  # made-up images
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
    for preset in options.presets:
        for more in ([], ["--no-prior"]) if options.no_prior and preset in KNOWING else ([],):
            rows.append(row(preset, more, options))
            print(table(rows[-1:], options), file=sys.stderr, flush=True)
    if options.json:
        each = [{"preset": row["preset"], "runs": list(map(asdict, row["runs"]))} for row in rows]
        print(json.dumps(each, indent=2))
    else:
        print(table(rows, options))


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
    add("--bent", action="store_true",
        help="with --made-up, bent objects for the stand-ins of fashion-best")  # fmt: skip
    add("--records", type=int, default=12_000, metavar="N",
        help="with --made-up, images to train on at most (12000)")  # fmt: skip
    add(
        "--settings",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="other than the preset's, with --made-up: directions=800 ridge=0.03",
    )
    add("--json", action="store_true", help="every run, as JSON, instead of the table")
    return parser.parse_args()


def row(preset: str, more: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """All runs of one preset."""
    found = runs(["--preset", preset, *more], options.epsilons, options.seeds)
    return {"preset": " ".join([preset, *more]), "runs": found}


def table(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """Markdown: a row a preset, and what the numbers rest on."""
    titles = ["preset", *(f"ε = {epsilon:g}" for epsilon in options.epsilons), "s, whole run"]
    lines = ["| " + " | ".join(titles) + " |", "|---" + "|---:" * (len(titles) - 1) + "|"]
    for each in rows:
        cells = [f"`{each['preset']}`"]
        for epsilon in options.epsilons:
            same = [run for run in each["runs"] if run.asked == epsilon]
            cells.append(spread([100 * run.last["test_accuracy"] for run in same], ".2f"))
        lines.append("| " + " | ".join([*cells, seconds(each["runs"])]) + " |")
    lines += ["", f"Test accuracy in %; add or remove one, Poisson, δ = 1e-5, exact ε, never above "
              f"what was asked. {conditions(options.seeds)}"]  # fmt: skip
    return "\n".join(lines)


def made_up(preset: str, options: argparse.Namespace) -> None:
    """Accuracy on made-up images by ε and multiple of the preset's learning rate at that ε.

    Where fewer are trained on than the preset has records, batch and noise are scaled alike, so
    that the noise in the mean gradient and the passes are the preset's.
    """
    chosen = PRESETS[preset]().changed(settings(options.settings))
    n = chosen.config.dataset_size or 0
    share = min(options.records, n) / n
    images, classes = _unknown(preset, round(share * n) + _TRIED, options)
    features = recipe_of(chosen.config.changed(prior=False).task)(images)  # type: ignore[arg-type]
    train, test = ((features[at], classes[at]) for at in (slice(_TRIED, None), slice(_TRIED)))
    print(f"{preset}: accuracy in % on made-up images; learning rates × {_MULTIPLES}")
    for epsilon in options.epsilons:
        config = chosen.changed({"epsilon": epsilon, **settings(options.settings)}).config
        noise = noise_for(config, n, epsilon)
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


def _unknown(preset: str, count: int, options: argparse.Namespace) -> Pair:
    """Images of classes that no CNN of a run without class knowledge has seen."""
    if preset == "fashion-best" and options.bent:
        return bent_objects(count, _SIDES[preset])
    if preset == "fashion-best":
        return made_up_things(count, _SIDES[preset], 11, classes=10, plans=7, loose=2.5)
    return made_up_digits(count, _SIDES[preset], 11)


def _mean(train: Pair, test: Pair, config: RunConfig, share: float, options: argparse.Namespace,
          *, noise: float, times: float = 1, clip: float | None = None) -> str:  # fmt: skip
    """Over the seeds."""
    config = config.changed(
        learning_rate=times * config.learning_rate, clip_norm=clip or config.clip_norm
    )
    found = [
        reached(train, test, config, noise=noise, seed=seed, share=share) for seed in options.seeds
    ]
    return f"{100 * mean(found):.2f}"


if __name__ == "__main__":
    main()
