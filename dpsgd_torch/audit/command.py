"""``--command``: audit somebody's training function, of any library, from the command line."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dpsgd_torch.errors import ConfigError, DataError, told
from dpsgd_torch.shell import Parser, loading

FLAG = "--command"
_ABOUT = """\
Audit a training function, of any library. It is a function train(data, seed), where data is
(inputs, targets), two tensors; it draws noise and batches by the seed, and returns

  a model       anything that answers a tensor of inputs, such as a module: a black-box attack
  or a list     of all vectors that were released: a white-box attack

and is trained dozens of times, with and without canaries. What is found is in audits/NAME:
audit.html, audit.json, and each model's scores, so that an interrupted audit goes on."""
_ATTACKS = """\
attacks:
  one-record    half of the models have one record more: tells D from D ∪ {x} by the final model.
                Assumes nothing, or a Gaussian trade-off: each bound says which.
  one-run       many canaries, each in or out by its own coin, in each of --models models (1 is
                enough): for trainings that are long
  lira          real records, by likelihood ratios against shadow models: what members risk

example:
  dpsgd audit --command my_training:train --data digits --n 500 --epsilon 4 --delta 1e-5

Say --noise-multiplier, --sampling-rate and --steps, and the whole trade-off curve is tested: with
few models that finds what ε and δ alone would not. Exit status: 0 nothing contradicts the claim,
1 something does (of honest trainings one in a thousand at most), 2 refused."""


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = Parser(
        "audit",
        ConfigError,
        more="--command ",
        description=_ABOUT,
        epilog=_ATTACKS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add(FLAG, required=True, metavar="MODULE:FUNCTION", help="train(data, seed), in this folder")
    add("--data", default="digits", metavar="WHAT", help="digits, mnist, or MODULE:FUNCTION that "
        "takes (n, seed) and returns (inputs, targets) (digits)")  # fmt: skip
    add("--n", type=int, default=500, help="records that all models have (500)")
    add("--epsilon", type=float, help="what is claimed; or it follows from the noise")
    add("--delta", type=float, default=1e-5, help="its δ (1e-5)")
    add("--noise-multiplier", type=float, help="of each step: claims the whole trade-off curve")
    add("--sampling-rate", type=float, default=1.0, help="of Poisson batches (1: all records)")
    add("--steps", type=int, default=1, help="how many (1)")
    add("--attack", default="one-record", help="one-record, one-run or lira (one-record)")
    add(
        "--canary", help="pixels: worst case, blank, mislabeled, or records (pixels; lira: records)"
    )
    add("--canaries", type=int, help="how many (one-record 1, one-run 32, lira 100)")
    add("--models", type=int, default=64, help="how many are trained (64)")
    add("--queries", type=int, default=1, help="of each canary, moved a little, averaged (1)")
    add("--score", metavar="MODULE:FUNCTION", help="(released, canary) → number, larger for "
        "members, in place of ours")  # fmt: skip
    add("--confidence", type=float, default=0.95, help="of the lower bounds (0.95)")
    add("--processes", type=int, default=2, help="in parallel (2)")
    add("--folder", type=Path, help="where scores and report are kept (audits/MODULE.FUNCTION)")
    add("--seed", type=int, help="repeats an audit (drawn, and kept in the folder)")
    return made


def audit(words: Sequence[str]) -> list[str]:
    """Run the audit that the flags ask for, print it, and return what contradicts the claim."""
    if {"-h", "--help"} & set(words):  # also right after --command, which takes a value
        parser().parse_args(["--help"])
    asked = parser().parse_args(words)
    with loading():
        from dpsgd_torch.audit.attacks.attack import audit_training

    epsilon, curve = _claimed(asked)
    folder = asked.folder or Path("audits") / asked.command.replace(":", ".").replace("/", "_")
    seed = _seed(asked.seed, folder)
    report = audit_training(
        asked.command,
        _data(asked.data, asked.n, seed),
        epsilon=epsilon,
        delta=asked.delta,
        attack=asked.attack,
        canary=asked.canary,
        canaries=asked.canaries,
        models=asked.models,
        queries=asked.queries,
        score=asked.score,
        curve=curve,
        confidence=asked.confidence,
        folder=folder,
        processes=asked.processes,
        seed=seed,
        tell=_progress(sys.stderr.isatty()),
    )
    report.write(folder)
    print(f"{report}\nlook at {folder / 'audit.html'}")
    return report.faults


def _claimed(asked: argparse.Namespace) -> tuple[float, Any]:
    if asked.noise_multiplier is None:
        if asked.epsilon is None:
            raise ConfigError("epsilon: is missing; say --epsilon, or --noise-multiplier")
        return asked.epsilon, None
    from accountant import Gaussian, PldAccountant, PoissonSampled, TradeOff
    from accountant.errors import check, check_delta

    check_delta(asked.delta)
    check(asked.steps >= 1, "steps", asked.steps, "must be at least 1")
    noise = Gaussian(noise_multiplier=asked.noise_multiplier)
    event = PoissonSampled(sampling_rate=asked.sampling_rate, event=noise)
    exact = PldAccountant().compose(event, asked.steps).epsilon(asked.delta).upper
    if asked.epsilon is not None and asked.epsilon < exact:
        raise ConfigError(
            f"epsilon = {asked.epsilon:g}: this noise, rate and number of steps give {exact:.4g}; "
            "leave --epsilon out, or the noise"
        )
    return exact, TradeOff([(event, asked.steps)])


def _data(name: str, n: int, seed: int) -> Any:
    from dpsgd_torch.audit.attacks.training import check_signature, found

    if n < 2:
        raise ConfigError(f"n = {n}: must be at least 2")
    if name in ("digits", "mnist"):
        data = _of_task(name)
    elif ":" in name:
        make = found(name, "data")
        check_signature(make, ("n", "seed"), "data")
        try:
            data = make(n, seed)
        except Exception as error:
            raise DataError(f"data = {name}: raises {told(error)}; mend it") from None
    else:
        raise ConfigError(f"data = {name}: must be digits, mnist or module:function")
    inputs, targets = data
    if len(inputs) < n:
        raise DataError(f"n = {n}: {name} has {len(inputs)} records; ask for fewer")
    return inputs[:n], targets[:n]


def _of_task(name: str) -> Any:
    if name == "digits":
        from dpsgd_torch.tasks.digits.task import digits_task

        return digits_task(0.0).train
    from dpsgd_torch.tasks.mnist.task import mnist_task

    return mnist_task("mnist", None, 0.0).train


def _seed(given: int | None, folder: Path) -> int:
    """The one that is given, that of an audit begun in the folder, or a new one."""
    import json

    if given is not None:
        if given < 0:
            raise ConfigError(f"seed = {given}: must be 0 or more")
        return given
    try:
        return int(json.loads((folder / "design.json").read_text())["seed"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return secrets.randbits(32)


def _progress(live: bool) -> Callable[[int, int, float], None]:
    shown = {"at": 0.0}

    def tell(done: int, models: int, left: float) -> None:
        now = time.monotonic()
        if done < models and now - shown["at"] < (0.2 if live else 10):
            return
        shown["at"] = now
        rest = f", {_spoken(left)} left" if done < models else ""
        line = f"{done} of {models} models trained{rest}"
        if live:
            print(
                f"\r\x1b[K{line}", end="\n" if done == models else "", file=sys.stderr, flush=True
            )
        else:
            print(line, file=sys.stderr, flush=True)

    return tell


def _spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
