"""Accuracy at equal ε of the presets for small data, over seeds: a table for docs/accuracy.md.

A row each for scikit-learn's digits (`digits-best`), made-up gestures (`gesture-best`), recorded
ones where their folder is given, and made-up drug responses (`moa-best`, and `moa`; log loss).
Each figure comes from `python -m dpsgd_torch.train --preset NAME --epsilon E --seed S`, as anyone
would run it: the test part after the last epoch. What is made up is made by the first run and read
from the cache by the others. The first two runs of a row are processes, whose seconds are told; the
others are calls of the same command's main in this process. ε is exact: add or remove one, Poisson,
δ = 1e-5, of gestures 1e-3. `--made-up` opens no data set: it trains and tries `digits-best` on as
many made-up digits of another pen.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from command import conditions, runs, seconds, spread
from stand_ins import noise_for, other_pen, reached, settings

from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.features.begun import begun_head
from dpsgd_torch.tasks.image_features import recipe_of

_RECORDS, _TRIED = 1437, 4000


@dataclass(frozen=True)
class Row:
    """A preset, the flags beside ε and seed, and which figure of its last epoch is told."""

    flags: tuple[str, ...]
    figure: str = "test_accuracy"

    def told(self, values: list[float]) -> str:
        if self.figure == "test_loss":
            return spread(values, ".5f")
        return spread([100 * value for value in values], ".1f")


ROWS = {
    "digits": Row(("--preset", "digits-best")),
    "digits, no prior": Row(("--preset", "digits-best", "--no-prior")),
    "gestures": Row(("--preset", "gesture-best")),
    "responses": Row(("--preset", "moa-best"), "test_loss"),
    "responses, moa": Row(("--preset", "moa"), "test_loss"),
}


def main() -> None:
    options = parse()
    if options.made_up:
        made_up(options)
        return
    rows = {name: ROWS[name] for name in options.rows}
    if options.data_dir:
        recorded = ("--preset", "gesture-best", "--data-dir", str(options.data_dir))
        rows["gestures, recorded"] = Row(recorded)
    titles = ["", *(f"ε = {epsilon:g}" for epsilon in options.epsilons), "s, whole run"]
    print("| " + " | ".join(titles) + " |\n|---" + "|---:" * (len(titles) - 1) + "|", flush=True)
    for name, row in rows.items():
        found = runs(row.flags, options.epsilons, options.seeds)
        cells = [
            row.told([run.last[row.figure] for run in found if run.asked == epsilon])
            for epsilon in options.epsilons
        ]
        print("| " + " | ".join([name, *cells, seconds(found)]) + " |", flush=True)
    print(f"\n{conditions(options.seeds)}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rows", nargs="*", choices=ROWS, default=list(ROWS), metavar="NAME",
        help=f"of {'; '.join(ROWS)} (all)")  # fmt: skip
    add("--made-up", action="store_true", help="digits-best on made-up digits of another pen")
    add("--settings", nargs="*", action="append", metavar="NAME=VALUE",
        help="with --made-up, other than the preset's: directions=30; again for more")  # fmt: skip
    add("--data-dir", type=Path, help="a folder of recorded gestures: a row more")
    add("--epsilons", type=float, nargs="+", default=[1.0, 2.0, 3.0, 8.0], metavar="E")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], metavar="S", help="a run each")
    return parser.parse_args()


def made_up(options: argparse.Namespace) -> None:
    """Accuracy in % of `digits-best` on digits of another pen, by setting, ε and learning rate."""
    rates = {1.0: (1, 2, 4, 8), 2.0: (1, 2, 4, 8), 3.0: (2, 4, 8, 16), 8.0: (4, 8, 16, 32)}
    images, digits = other_pen(_RECORDS + _TRIED)
    for pairs in options.settings or [[]]:
        config = PRESETS["digits-best"]().changed(settings(pairs)).config
        recipe = recipe_of(config.task)  # type: ignore[arg-type]
        features = recipe(images)
        begun = begun_head(recipe, images.shape[-1])
        right = (features @ begun[:, :-1].T + begun[:, -1]).argmax(dim=1) == digits
        print(f"{' '.join(pairs)}: begun {100 * right.float().mean():.2f}", flush=True)
        train, test = ((features[at], digits[at]) for at in (slice(_TRIED, None), slice(_TRIED)))
        for epsilon in options.epsilons:
            noise = noise_for(config, _RECORDS, epsilon)
            cells = []
            for rate in rates.get(epsilon, (1, 4, 16)):
                asked = config.changed(learning_rate=float(rate))
                found = [
                    100 * reached(train, test, asked, noise=noise, seed=seed, begun=begun)
                    for seed in options.seeds
                ]
                cells.append(f"{rate}: {mean(found):.2f}")
            print(f"  ε = {epsilon:g}; by learning rate {', '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
