"""ε from below in words: what was inserted, what was declared beforehand, what was found."""

from __future__ import annotations

from dataclasses import dataclass

from accountant.statement import round_down, round_up
from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.audit.canaries import Canaries
from dpsgd_torch.audit.guessed import FROM_OUTSIDE, Guessed
from dpsgd_torch.audit.report import AuditReport
from dpsgd_torch.privacy.guarantee import PrivacyGuarantee
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.tasks.base import require
from dpsgd_torch.tasks.task import Task
from dpsgd_torch.training.private_optimizer import trained_by
from dpsgd_torch.training.streams import Streams
from dpsgd_torch.training.trainer import Trainer


@dataclass(frozen=True)
class Audited:
    """An audit of the run itself; ``inside`` rests on the noise and is for no artefact."""

    described: str
    outside: Guessed
    inside: AuditReport
    values: int
    """How many are trained, each the coordinate of one canary at most."""


def evidence(audited: Audited, spent: PrivacyGuarantee) -> str:
    """The paragraphs of statement.txt on what the audit of this run showed."""
    found, m = audited.outside, audited.outside.canaries
    verdict = ""
    if found.best > spent.epsilon:
        verdict = (
            " THIS CONTRADICTS THE GUARANTEE: an honest run comes here once in twenty at most; "
            "do not rely on it before that is understood."
        )
    return (
        f"Evidence from below: ε ≥ {below(found.best)} ({found.confidence:.0%} confidence), beside "
        f"ε ≤ {round_up(spent.epsilon)} certified. {audited.described} An attacker who was given "
        "the canaries and every noisy sum, all of which ε covers, guessed the coins of the "
        f"{found.guesses} that it was surest of, {found.correct} of them rightly. Fixed before the "
        "run, by the program: that number of guesses, which follows from the certified ε alone, "
        "and the bound, the larger of two that assume nothing of the mechanism (binomial, Steinke, "
        "Nasr, Jagielski 2023; f-DP, Mahloujifar, Melis, Chaudhuri 2024), each computed at "
        f"{(1 + found.confidence) / 2:.1%}, so that the larger holds at {found.confidence:.0%}."
        f"{verdict} {_assuming(found)}What an "
        "attacker who knows every other record found, and the noise as it was measured, are in "
        "private/canaries.json and not covered by ε. What the audit cost: nothing of any record's "
        f"ε and nothing of the unit of privacy; of the model, up to {m} of its {audited.values} "
        "trained values received a canary's gradient."
    )


def _assuming(found: Guessed) -> str:
    """What the same sums show of a mechanism that is assumed: declared beforehand, too."""
    if FROM_OUTSIDE not in found.bounds:
        return ""
    return (
        "A check of the mechanism, no attack on a record, fixed before the run, too: if each step "
        "adds independent Gaussian noise of one deviation to a Poisson sample of the declared "
        "rate, which these sums do not prove, then by the noise and the reach that they show "
        f"ε ≥ {below(found.bounds[FROM_OUTSIDE])} ({found.confidence:.0%} by itself). "
    )


def below(epsilon: float) -> str:
    """A lower bound, rounded down."""
    return round_down(epsilon) if epsilon else "0"


def unfit(config: RunConfig, task: Task, root: int) -> None:
    """Refuse more canaries than the model has trained values, before anything is charged."""
    if config.audit is None:
        return
    model = task.make_model(Streams(root).torch("init"))
    values = sum(p.numel() for p in model.parameters() if p.requires_grad)
    require(
        config.audit <= values, "audit", config.audit, f"must be ≤ {values}, one a trained value"
    )


def insert(config: RunConfig, trainer: Trainer) -> Canaries | None:
    """Put the canaries that were asked for into a run that has not begun, or is about to go on."""
    return Canaries(config.audit).insert(trainer) if config.audit else None


def found_by(canaries: Canaries | None, trainer: Trainer, folder: RunFolder) -> Audited | None:
    """What the audit of a finished run shows; what ε does not cover is kept in private/ alone."""
    if canaries is None:
        return None
    inside = canaries.report(trainer)
    folder.write_json("private/canaries.json", inside.to_json())
    values = sum(p.numel() for p in trained_by(trainer.state.optimizer))
    outside = canaries.outside(trainer.privacy_spent())
    return Audited(canaries.describe(), outside, inside, values)
