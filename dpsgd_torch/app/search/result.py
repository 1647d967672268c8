"""What a search leaves: the best run's publishable files, the whole price, a picture of trials."""

from __future__ import annotations

import dataclasses
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accountant.statement import round_up
from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.app.report.plots import trials_picture
from dpsgd_torch.app.search.allowance import Rule
from dpsgd_torch.app.search.trials import Trials
from dpsgd_torch.storage.run_folder import RunFolder

_KEPT = ("model.safetensors", "task.json", "releases.json", "predictions.csv")


def write_result(
    folder: RunFolder,
    trials: Trials,
    rule: Rule,
    epsilon: float,
    best: dict[str, Any],
    followed: str = "",
    known: Sequence[str] = (),
) -> Path:
    """Write DIR/best, privacy.json and statement.txt, each with the price of the whole search."""
    run, kept = trials.folder / f"{best['trial']:04d}", folder.path / "best"
    kept.mkdir(exist_ok=True)
    for name in _KEPT:
        if (run / name).exists():
            shutil.copy(run / name, kept)
    config = RunFolder(run).read_json("config.json")
    RunFolder(kept).write_json("config.json", config)
    # an epoch's own ε would understate it: that this run is shown, the search has decided
    epochs = RunFolder(run).read_lines("metrics.jsonl")
    RunFolder(kept).write_lines("metrics.jsonl", [{**row, "epsilon": epsilon} for row in epochs])
    privacy = {
        "epsilon": epsilon,
        "delta": trials.config.delta,
        "relation": "add_or_remove_one",
        "unit": trials.config.privacy_unit,
        "covers": "the best run of the search",
        "trials": rule.trials,
        "law": dataclasses.asdict(rule.law) if rule.law else None,
        "a trial may spend": dataclasses.asdict(trials.bound),
    }
    words = _statement(trials.config, rule, epsilon, best["values"], followed)
    words += "".join(f"\n{each}\n" for each in known)
    for place in (folder, RunFolder(kept)):
        place.write_json("privacy.json", privacy)
        place.write_text("statement.txt", words)
    return kept


def draw_picture(folder: RunFolder, trials: Trials) -> None:
    """private/trials.svg: the score of every trial so far, and the best."""
    scores = [row["score"] for row in trials.finished()]
    if scores:
        folder.write_text("private/trials.svg", trials_picture(scores))


def _statement(
    config: RunConfig, rule: Rule, epsilon: float, values: dict[str, Any], followed: str
) -> str:
    unit = config.privacy_unit
    if rule.law:
        how = (
            f"The number of trials was drawn, before the first, from a truncated negative binomial "
            f"law (η = {rule.law.eta:g}, γ = {rule.law.gamma:.6g}) with mean {rule.law.mean:.4g}; "
            "each was proposed at random, whatever came before; the one with the best score is "
            "released. The price is that of Papernot and Steinke 2022, Theorem 2."
        )
        covered = "the best run's files, in best/, and nothing else of the search"
    else:
        chosen = " and of the exponential mechanism that chose among them" if rule.once else ""
        how = f"{rule.trials} trials were run. The price is that of all of them together{chosen}."
        covered = (
            "the best run's files, in best/, and the weights of every trial, though these lie in "
            "private/, beside what is not covered"
        )
    seeded = (
        "Not covered either: anyone who knows the seed that the search was given; it tells the "
        "trials' number and values, and the noise can be subtracted."
    )
    found = ", ".join(f"{name} = {value}" for name, value in values.items())
    parts = [
        f"A search from {config.preset} on {config.dataset}, under differential privacy.",
        f"Guarantee: the released run is (ε, δ)-differentially private with ε = "
        f"{round_up(epsilon)} and δ = {config.delta!r}, the search included, between training sets "
        f"that differ by adding or removing one {unit} (the unit of privacy is one {unit}). {how}",
        f"Covered by ε: {covered}.",
        "Not covered by ε: private/, with the trials' scores, their number and their picture, and "
        "what the screen showed of them. Publish the folder without it. Scores are taken on rows "
        "declared public, or were paid for in each trial.",
        *([] if config.seed is None else [seeded]),
        "Nor are another search on the same data, which costs its own ε, and attacks on the last "
        "bits of floating-point noise or on the pseudo-random generator.",
        f"Chosen: {found}. {followed}",
    ]
    return "\n\n".join(textwrap.fill(part, 88) for part in parts) + "\n"
