"""Audit of a training function: models with and without canaries, attacked by what is released."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from accountant import Gaussian, PoissonSampled, TradeOff
from accountant.auditing.operating import Certified, Claim
from accountant.errors import check, check_delta
from dpsgd_torch.audit.attacks.canary import KINDS, make_canaries
from dpsgd_torch.audit.attacks.code import code_of
from dpsgd_torch.audit.attacks.models import Design, Job, Tell, fingerprint, train_all
from dpsgd_torch.audit.attacks.report import AttackReport
from dpsgd_torch.audit.attacks.training import Rows, check_signature, found
from dpsgd_torch.audit.attacks.verdict import likelihood_ratios, of_many, of_one_record
from dpsgd_torch.errors import ConfigError, DataError, shown

ATTACKS = {
    "one-record": "many models with one record and without it: tells D from D ∪ {x}",
    "one-run": "many canaries in each model, each by a coin of its own; one model is enough",
    "lira": "real records in half of the models each: likelihood ratios against shadow models",
}
_USUAL = {"one-record": ("pixels", 1), "one-run": ("pixels", 32), "lira": ("records", 100)}


def audit_training(
    train: Callable[[Rows, int], Any] | str,
    data: Rows,
    *,
    epsilon: float,
    delta: float,
    attack: str = "one-record",
    canary: str | None = None,
    canaries: int | None = None,
    models: int = 64,
    queries: int = 1,
    score: Callable[[Any, Any], float] | str | None = None,
    curve: Certified | None = None,
    confidence: float = 0.95,
    folder: Path | None = None,
    processes: int = 1,
    seed: int = 0,
    tell: Tell | None = None,
) -> AttackReport:
    """Attack what a training function releases, and say what that shows of its ε.

    Args:
        train: (data, seed) → model, anything that answers a tensor of inputs, or a list of all
            vectors that were released; data is (inputs, targets). Noise and batches are drawn by
            the seed. ``module:function`` where processes are to find it.
        data: the records that all runs have.
        epsilon: what is claimed, at ``delta``, for adding or removing one record.
        attack: a key of ``ATTACKS``.
        canary: pixels, blank, mislabeled or records; None is what fits the attack.
        canaries: how many; one for ``one-record``.
        models: how many are trained.
        queries: how often a model is asked of each canary, moved a little.
        score: (released, canary) → number, larger for members, in place of ours.
        curve: the trade-off curve that is claimed; None is that of (ε, δ), and weaker.
        confidence: of the lower bounds.
        folder: where scores are kept, so that an interrupted audit goes on; None keeps none.
        processes: in parallel; functions are given by name then.
        seed: of canaries, coins, and all trainings.
        tell: called after each model with (done, all, seconds left).

    Raises:
        ConfigError, RunError: what cannot be audited, or fails.

    >>> def train(data, seed):
    ...     inputs, targets = data  # a sum with noise, as a linear model
    ...     noise = torch.randn(2, 5, generator=torch.Generator().manual_seed(seed))
    ...     sums = torch.nn.functional.one_hot(targets, 2).double().T @ inputs.double()
    ...     return lambda asked: asked.double() @ (sums + noise).T
    >>> data = torch.eye(5)[torch.arange(40) % 4], torch.arange(40) % 2
    >>> report = audit_training(train, data, epsilon=4.4, delta=1e-5, models=200)
    >>> report.faults, 0 < report.best < 4.4
    ([], True)
    """
    started = time.monotonic()
    kind, count = _checked(attack, canary, canaries, models, queries, processes)
    check(epsilon >= 0, "epsilon", epsilon, "must be 0 or more")
    check_delta(delta)
    check(0 < confidence < 1, "confidence", confidence, "must lie in (0, 1)", "0.95 is customary")
    rows = _rows(data)
    function = found(train, "command") if isinstance(train, str) else train
    check_signature(function, ("data", "seed"), "command")
    scoring = found(score, "score") if isinstance(score, str) else score
    if scoring is not None:
        check_signature(scoring, ("released", "canary"), "score")
    streams = [np.random.default_rng([seed, part]) for part in range(3)]
    made = make_canaries(rows, kind, count, streams[0])
    coins = _coins(attack, models, count, streams[1])
    seeds = [int(s) for s in streams[2].choice(2**31, models, replace=False)]
    design = Design(
        train=_named(train), code=code_of(function), data=fingerprint(*rows), attack=attack,
        canary=kind, canaries=count, models=models, queries=queries,
        score=_named(score) + (code_of(scoring) if scoring else ""), seed=seed,
    )  # fmt: skip
    job = Job(train, score, made, queries, seed)
    scores = train_all(
        job, coins, seeds, folder=folder, design=design, processes=processes, tell=tell
    )
    claimed = Claim(epsilon, delta) if curve is None else curve
    sampled = _is_sampled(claimed)
    if attack == "one-record":
        verdict = of_one_record(scores, coins, claimed, delta, confidence, sampled)
    else:
        (_, values), *_ = scores.items()
        if attack == "lira" and values.shape == coins.shape:
            values, coins = likelihood_ratios(values, coins)
            scores = {"likelihood ratio": values}
        verdict = of_many(scores, coins, claimed, epsilon, delta, confidence, sampled)
    return AttackReport(
        train=_named(train), attack=attack, canary=kind, canaries=count, models=models,
        records=len(made.base[0]), epsilon=epsilon, delta=delta, confidence=confidence,
        whole_curve=curve is not None, curve=claimed, verdict=verdict,
        seconds=time.monotonic() - started,
    )  # fmt: skip


def _is_sampled(claimed: Certified) -> bool:
    """Whether its curve is known not to be a Gaussian's."""
    if not isinstance(claimed, TradeOff):
        return False
    return not all(
        isinstance(event, Gaussian)
        or (isinstance(event, PoissonSampled) and event.sampling_rate == 1)
        for event, _ in claimed.events
    )


def _checked(
    attack: str, canary: str | None, canaries: int | None, models: int, queries: int, processes: int
) -> tuple[str, int]:
    if attack not in ATTACKS:
        raise ConfigError(f"attack = {shown(attack)}: must be one of {', '.join(ATTACKS)}")
    kind, count = _USUAL[attack]
    kind, count = canary or kind, canaries or count
    if canary == "blank" and canaries is None:
        count = 1
    if kind not in KINDS:
        raise ConfigError(f"canary = {shown(kind)}: must be one of {', '.join(KINDS)}")
    if attack == "one-record" and count != 1:
        raise ConfigError(
            f"canaries = {count}: one-record tells one apart; choose one-run or lira for many"
        )
    least = {"one-record": 8, "one-run": 1, "lira": 8}[attack]
    check(models >= least, "models", models, f"must be at least {least} for {attack}")
    check(queries >= 1, "queries", queries, "must be at least 1")
    check(processes >= 1, "processes", processes, "must be at least 1")
    if attack != "one-record" and count * models < 10:
        raise ConfigError(
            f"canaries = {count}: {count * models} coins in all show nothing; make 10 at least"
        )
    return kind, count


def _rows(data: Any) -> Rows:
    try:
        inputs, targets = (torch.as_tensor(part) for part in data)
    except (TypeError, ValueError, RuntimeError):
        raise DataError("data: must be (inputs, targets), tensors or arrays") from None
    if len(inputs) != len(targets) or len(inputs) < 2:
        raise DataError(
            f"data: {len(inputs)} inputs and {len(targets)} targets; must be as many, 2 or more"
        )
    return inputs, targets


def _coins(attack: str, models: int, count: int, stream: np.random.Generator) -> np.ndarray:
    """(models, canaries) which are in; of one record exactly in half, or the one less, in turn."""
    if attack != "one-record":
        return stream.random((models, count)) < 0.5
    # in, in, out, out: the first two have the same data, and each half has both
    first = bool(stream.random() < 0.5)
    return (((np.arange(models) // 2) % 2) == int(first))[:, None]


def _named(function: Any) -> str:
    if function is None or isinstance(function, str):
        return function or ""
    return f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', '')}"
