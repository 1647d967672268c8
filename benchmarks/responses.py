"""What does a private model of drug responses add to private label frequencies? On made-up data.

Mean column-wise log loss on 3,982 test rows (lower is better), trained on 23,814:

    frequencies     the baseline: label frequencies released by the Laplace mechanism at the same ε
                    as the whole run of the model, the same for every row
    … and controls  the same, but zero for control rows (whether a row is one is an input)
    MODEL           a run of `--preset moa` with flags, as the shell runs it

Settings of `moa` were chosen on the made-up data themselves, by test loss at ε = 2.8: nothing
private is at stake, and nothing follows for real drugs. Exit status 1 if `moa` at its own ε does
not beat both baselines at every seed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from step import conditions

from dpsgd_torch.mechanisms.statistics import LabelFrequencies
from dpsgd_torch.tasks.drug_responses.synthetic import synthetic_responses
from dpsgd_torch.train import main as train

RUNS = {
    "moa": [],
    "moa --epsilon 1": ["--epsilon", "1"],
    "moa --epsilon 8": ["--epsilon", "8"],
    "moa --no-dp": ["--no-dp"],
    "moa, per drug": ["--privacy-unit", "drug_id", "--batch-size", "512", "--delta", "1e-4"],
}


def main() -> int:
    options = parse()
    part, test = synthetic_responses()
    assert part.targets is not None
    assert test.targets is not None
    truth, controls = test.targets.astype(float), test.inputs[:, 0] == 1
    rows: dict[str, list[float]] = {"frequencies": [], "… and controls": []}
    for _ in options.seeds:
        asked = LabelFrequencies(noise_multiplier=1 / options.epsilon, size=len(part.ids))
        released = np.tile(asked.draw(part.targets.astype(float)), (len(truth), 1))
        rows["frequencies"].append(log_loss(released, truth))
        released[controls] = 1e-6
        rows["… and controls"].append(log_loss(released, truth))
    for name in options.runs:
        rows[name] = [run(RUNS[name], seed) for seed in options.seeds]
        print(f"# {name}: {rows[name]}", file=sys.stderr, flush=True)
    print(json.dumps({**conditions(options), "seeds": options.seeds}))
    for name, losses in rows.items():
        middle = f"{np.median(losses):.5f}  ({min(losses):.5f} to {max(losses):.5f})"
        print(f"{name:18} {middle}")
    if "moa" not in rows:
        return 0
    best = min(rows["frequencies"] + rows["… and controls"])
    holds = max(rows["moa"]) < best
    print(f"moa beats both baselines at every seed: {'yes' if holds else 'NO'}")
    return 0 if holds else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="of the runs (1 to 5)")
    add("--runs", nargs="+", choices=RUNS, default=list(RUNS), help="which models (all)")
    add("--epsilon", type=float, default=3.0, help="of the baseline's release (3)")
    add("--threads", type=int, default=1, help=argparse.SUPPRESS)
    add("--rounds", type=int, default=1, help=argparse.SUPPRESS)
    return parser.parse_args()


def run(flags: list[str], seed: int) -> float:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        out = Path(folder) / "run"
        if train(["--preset", "moa", "--seed", str(seed), "--out", str(out), *flags]):
            raise SystemExit(f"the run with {flags} failed")
        last = (out / "metrics.jsonl").read_text().splitlines()[-1]
    return float(json.loads(last)["test_loss"])


def log_loss(predicted: np.ndarray, truth: np.ndarray) -> float:
    return float(-(truth * np.log(predicted) + (1 - truth) * np.log1p(-predicted)).mean())


if __name__ == "__main__":
    sys.exit(main())
