"""What attacks on released models show, and whether their lower bounds hold.

goal       MNIST, 1,000 records, ε = 10, 64 models: lower bounds by each method, softmax
           regression (3 minutes on two cores) and --cnn (from public weights; 15 minutes)
opacus     Opacus 1.6 and ours, same model and data: which faults the same audit finds (10 min)
coverage   300 simulated audits of a Gaussian and of a Poisson-sampled Gaussian: how often each
           lower bound lies above the truth (2 minutes); of the sampled ones also those bounds that
           do not hold there, and that audits therefore leave out
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
)

import audited_opacus
import audited_trainings
import numpy as np
import torch

from accountant import Gaussian, PldAccountant, PoissonSampled, TradeOff
from dpsgd_torch.audit.attacks.attack import audit_training
from dpsgd_torch.audit.attacks.verdict import of_many, of_one_record
from dpsgd_torch.audit.guessed import likelihood_ratio
from dpsgd_torch.tasks.digits.task import digits_task
from dpsgd_torch.tasks.mnist.task import mnist_task

DELTA = 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("goal", "opacus", "coverage"))
    parser.add_argument("--audits", type=int, default=300, help="simulated ones (300)")
    parser.add_argument("--models", type=int, default=64, help="in each audit (64)")
    parser.add_argument("--seeds", type=int, default=3, help="audits of the goal (3)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first of these (0)")
    parser.add_argument("--only", type=int, nargs="+", help="rows of Opacus and ours, from 0 on")
    parser.add_argument("--cnn", action="store_true", help="the goal's CNN, not the linear model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    {"goal": goal, "opacus": opacus, "coverage": coverage}[options.what](options)


def goal(options: argparse.Namespace) -> None:
    inputs, targets = mnist_task("mnist", None, 0.0).train
    data = inputs[: audited_trainings.RECORDS], targets[: audited_trainings.RECORDS]
    steps, noise = audited_trainings.GOAL_STEPS, audited_trainings.GOAL_NOISE
    kinds = [("goal_linear", "one-run", "pixels", 160), ("goal_linear", "one-record", "pixels", 1),
             ("goal_linear_half", "one-run", "pixels", 160)]  # fmt: skip
    if options.cnn:
        steps, noise = audited_trainings.CNN_STEPS, audited_trainings.CNN_NOISE
        kinds = [("goal_cnn", "one-record", "blank", 1), ("goal_cnn", "one-run", "pixels", 16)]
    curve = TradeOff([(Gaussian(noise_multiplier=noise), steps)])
    audited_trainings.public_cnn()  # once, not in each process
    for name, attack, canary, count in kinds:
        for seed in range(options.first, options.first + options.seeds):
            report = audit_training(
                f"audited_trainings:{name}",
                data,
                epsilon=10.0,
                delta=DELTA,
                attack=attack,
                canary=canary,
                canaries=count,
                models=options.models,
                curve=curve,
                processes=2,
                seed=seed,
            )
            print(f"{report}\n{report.seconds:.0f} s\n", flush=True)


CASES = (  # training, what is planted or documented, records, score declared for it, models
    ("opacus", "q from len(loader)", 30, "noise_energy", 240),
    ("opacus", "n in int(n q)", 29, "less_noise", 240),
    ("opacus_shuffled", "shuffled, priced as Poisson", 28, "strongest_step", 240),
    ("opacus_rand_on_empty", "rand_on_empty", 30, "strongest_step", 240),
    ("opacus_realised", "divided by the realised batch", 28, "strongest_in_noise", 240),
    ("opacus", "none", 28, "strongest_step", 240),
    ("ours", "none", 28, "strongest_step", 240),
    ("ours_half", "half the noise", 28, "strongest_step", 240),
)


def opacus(options: argparse.Namespace) -> None:
    inputs, targets = digits_task(0.0).train
    print(f"{'':22}{'fault':31}{'ε claimed':>10}{'models':>8}  true at false positives, verdict")
    for number, (name, fault, n, score, models) in enumerate(CASES):
        if options.only and number not in options.only:
            continue
        steps, rate = (30, 1 / 30) if "empty" in name else (10, 3 / n if "ours" in name else 1 / 10)
        noise = audited_opacus.NOISE
        event = PoissonSampled(sampling_rate=rate, event=Gaussian(noise_multiplier=noise))
        epsilon = PldAccountant().compose(event, steps).epsilon(DELTA).upper
        report = audit_training(
            f"audited_opacus:{name}",
            (inputs[:n], targets[:n]),
            epsilon=epsilon,
            delta=DELTA,
            models=models,
            score=f"audited_opacus:{score}",
            curve=TradeOff([(event, steps)]),
            processes=1,
            seed=1,
        )
        point = max(report.verdict.points, key=lambda p: p.true_positives - p.false_positives)
        told = f"{point.true_positives:.2f} at {point.false_positives:.2f}"
        verdict = "FOUND" if report.faults else "not found"
        print(f"{name:22}{fault:31}{epsilon:10.2f}{models:8}  {told}  {verdict}", flush=True)


def coverage(options: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    mechanisms = {
        "Gaussian, σ = 1": (1.0, 1.0, 1),
        "Poisson, q = 0.1, σ = 0.5": (0.1, 0.5, 1),
        "Poisson, q = 0.5, σ = 1, 8 steps": (0.5, 1.0, 8),
    }
    for name, (rate, noise, steps) in mechanisms.items():
        event = PoissonSampled(sampling_rate=rate, event=Gaussian(noise_multiplier=noise))
        truth = PldAccountant().compose(event, steps).epsilon(DELTA)
        curve = TradeOff([(event, steps)])
        above: dict[str, list[float]] = {}
        accused = 0
        for _ in range(options.audits):
            for many in (False, True):
                shape = (options.models, 30 if many else 1)
                coins = (rng.random(shape) < 0.5) if many else halves(options.models)
                joined = coins[..., None] & (rng.random((*shape, steps)) < rate)
                shown = joined + noise * rng.normal(size=joined.shape)
                scores = {"own": likelihood_ratio(shown, noise, rate).sum(-1)}
                verdict = (
                    of_many(scores, coins, curve, truth.upper, DELTA, 0.95)
                    if many
                    else of_one_record(scores, coins, curve, DELTA, 0.95)
                )
                accused += verdict.contradicted
                for bound in verdict.bounds:
                    key = f"{bound.method} ({bound.assumes})"
                    above.setdefault(key, []).append(bound.epsilon)
        print(f"{name}: ε = {truth.upper:.3f}; accused {accused} of {2 * options.audits}")
        for method, found in above.items():
            over = float((np.array(found) > truth.upper).mean())
            print(f"  above the truth {over:6.1%}, median {np.median(found):6.3f}: {method}")
        sys.stdout.flush()


def halves(models: int) -> np.ndarray:
    return (np.arange(models) % 2 == 0)[:, None]


if __name__ == "__main__":
    main()
