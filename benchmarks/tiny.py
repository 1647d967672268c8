"""How well do MLPerf Tiny's four networks learn privately, on made-up records or real ones?

Each preset at several seeds and ε; the score is accuracy, or the area under the ROC curve of
unusual recordings. Settings of machines were chosen by few runs on the same made-up records, all
others on records of another seed. The figures say that the path works and how ε and norm compare,
and nothing of real records.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median

from gestures import outcome, told_machine

from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.tasks.tiny import NORMS

PRESETS_OF_TINY = ("keyword-spotting", "anomaly-detection", "image-classification", "wake-words")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--presets", nargs="+", default=PRESETS_OF_TINY, choices=PRESETS_OF_TINY)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epsilons", type=float, nargs="+", default=[3.0, 8.0])
    parser.add_argument("--norm", choices=NORMS, help="default: the preset's")
    parser.add_argument("--no-dp", action="store_true", help="without privacy as well")
    parser.add_argument("--data-dir", type=Path, help="of one preset's real records")
    options = parser.parse_args()
    told_machine(options.data_dir)
    print(f"{'':40}{'score: median':>14}{'range':>18}{'ε':>10}{'CPU seconds':>13}")
    for preset in options.presets:
        task = PRESETS[preset]().config.task
        norm = options.norm or task.norm  # type: ignore[attr-defined]
        for epsilon in [*options.epsilons, *([None] if options.no_dp else [])]:
            changes = {"epsilon": epsilon, "dp": epsilon is not None, "norm": norm}
            runs = [outcome(preset, changes, seed, options.data_dir) for seed in options.seeds]
            last = [found.history.epochs[-1].test for found, _ in runs]
            scores = [test.get("accuracy", test.get("AUC", 0.0)) for test in last]
            spent = runs[0][0].spent
            print(
                f"{f'{preset}, norm {norm}':40}{median(scores):14.3f}"
                f"{f'{min(scores):.3f} to {max(scores):.3f}':>18}"
                f"{f'{spent.epsilon:.4f}' if spent else '-':>10}"
                f"{median(seconds for _, seconds in runs):13.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
