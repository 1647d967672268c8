"""White-box one-run audit: canaries in a run, each in or out by its own coin."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from accountant import DiscreteGaussian, Gaussian, PoissonSampled
from accountant.auditing.measured import Measurements, epsilon_as_measured
from accountant.auditing.seen_outside import epsilon_seen
from accountant.errors import check
from dpsgd_torch.audit.checks import Check, canary_height, equal_rates, noise_energy, noise_fresh
from dpsgd_torch.audit.diracs import Diracs, values_at
from dpsgd_torch.audit.guessed import FROM_OUTSIDE, Guessed, guessed, likelihood_ratio
from dpsgd_torch.audit.outsider import Outsider
from dpsgd_torch.audit.report import AuditReport
from dpsgd_torch.data.units import Indices
from dpsgd_torch.errors import RunError
from dpsgd_torch.noise.blocks import BlockGaussian
from dpsgd_torch.noise.grid import GridGaussian
from dpsgd_torch.noise.independent import IndependentGaussian
from dpsgd_torch.privacy.guarantee import PrivacyGuarantee
from dpsgd_torch.privacy.plan import PrivacyPlan
from dpsgd_torch.training.private_optimizer import PrivateOptimizer, trained_by
from dpsgd_torch.training.state import RunState
from dpsgd_torch.training.trainer import Trainer


class Audited(Protocol):
    """A ``Trainer`` or a ``Private`` loop."""

    state: RunState

    def privacy_spent(self) -> PrivacyGuarantee: ...


class Canaries:
    """Records that a run is audited by, in the released run itself.

    * A canary is a record of its own: a gradient along one random coordinate, a thousand clip
      norms long, which goes through the run's own clip and noise.
    * Half of them, by fair coins, are in; each of these joins each batch by the sampler's own
      draw. Coins, coordinates and draws come from the run's streams.
    * Real records lose nothing of their ε: canaries are made without looking at any. The model
      pays: up to ``count`` coordinates are pushed about.
    * Two attackers see every noisy sum and score a canary by the log of the likelihood ratio of all
      that its coordinate showed. The *insider* (``report``) knows all records too, and so the
      noise: what comes of its scores is no part of what ε covers. The *outsider* (``outside``)
      knows the canaries alone: its findings are computed from what ε covers, and may be published.

    Args:
        count: how many canaries there are coins for, m.
        confidence: of the lower bounds.

    >>> from dpsgd_torch import Privacy, Trainer
    >>> trainer = Trainer(
    ...     torch.nn.Linear(30, 2), torch.nn.CrossEntropyLoss(),
    ...     (torch.rand(64, 30), torch.randint(2, (64,))),
    ...     privacy=Privacy(epsilon=8, delta=1e-3, clip_norm=1.0), batch_size=16, epochs=2,
    ...     optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1), seed=1)
    >>> canaries = Canaries(count=50).insert(trainer)
    >>> report = canaries.report(trainer.fit())
    >>> report.best <= report.epsilon <= 8 and not report.faults
    True
    """

    def __init__(self, count: int = 1000, *, confidence: float = 0.95) -> None:
        check(count >= 10, "canaries", count, "must be at least 10", "1000 is customary")
        check(0 < confidence < 1, "confidence", confidence, "must lie in (0, 1)")
        self.count, self.confidence = count, confidence
        self._run: RunState | None = None

    def insert(self, trainer: Audited) -> Canaries:
        """Put them into a run that has not begun, or that is about to resume with them.

        Raises:
            RunError: it has begun, or is of a kind that has no white-box audit.
        """
        run = trainer.state
        _refuse(run, self.count)
        assert run.plan
        steps, m = run.sampling.steps, self.count
        self._run, self._rate = run, _rate(run.plan)
        self._declared = run.sampling.microbatches  # what a sum is to be divided by
        self._scores, self._joins = np.zeros(m), np.zeros(m)
        self._outsider = Outsider(
            m,
            steps,
            rate=self._rate,
            noise_multiplier=run.plan.step(0).noise_multiplier,
            confidence=self.confidence,
        )
        self._last = np.zeros(m)
        self._steps = np.zeros((steps, 5))  # quiet values, energy, correlation, joined, their sum
        self._joined: Indices = np.zeros(0, np.int64)
        self._before = np.zeros(m)
        run.inserted = self
        run.kept.add("canaries", self)
        return self

    @property
    def coins(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """(count,) which are in: the secret that is guessed."""
        stream = self._begun().streams.numpy("coins")
        return stream.random(self.count) < 0.5

    @property
    def places(self) -> Indices:
        """(count,) the coordinate of each, over all trained parameters in a row."""
        run = self._begun()
        everywhere = sum(p.numel() for p in trained_by(run.optimizer))
        stream = run.streams.numpy("coins", step=1)
        return np.sort(stream.choice(everywhere, self.count, replace=False))

    def join(self, optimizer: PrivateOptimizer) -> None:
        """Add the gradients of those that are in this step's batch, through the run's clip."""
        run, step, places = self._begun(), optimizer.plan.step, self.places

        def stream(name: str, /, *, step: int = step) -> np.random.Generator:
            del name
            return run.streams.numpy("canaries", attempt=run.attempt, step=step)

        drawn = run.sampling.draw(stream, step, self.count, None).rows
        self._before = values_at(optimizer.params, optimizer.sums, places)
        self._joins[drawn] += 1
        self._joined = drawn[self.coins[drawn]]
        if self._joined.size:
            long = optimizer.clipping.far(optimizer.plan.clip_norm)
            optimizer.accumulate(Diracs(optimizer.params, places[self._joined], long))

    def see(self, optimizer: PrivateOptimizer) -> None:
        """Score what the release shows along every canary's coordinate."""
        plan, q = optimizer.plan, self._rate
        grads = [p.grad for p in optimizer.params if p.grad is not None]
        told = values_at(optimizer.params, grads, self.places) * self._declared
        shown = (told - self._before) / plan.clip_norm
        sigma = plan.noise_multiplier
        self._scores += likelihood_ratio(shown, sigma, q)
        self._outsider.see(told / plan.clip_norm, self._joined, self.coins, sigma)
        quiet = np.ones(self.count, bool)
        quiet[self._joined] = False
        noise = np.where(quiet, shown / sigma, 0.0)
        lengths = np.linalg.norm(noise) * np.linalg.norm(self._last)
        if plan.step >= len(self._steps):  # more epochs than were planned
            self._steps = np.pad(self._steps, ((0, plan.step + 1 - len(self._steps)), (0, 0)))
        self._steps[plan.step] = (
            quiet.sum(),
            noise @ noise,
            noise @ self._last / lengths if lengths else 0.0,
            self._joined.size,
            shown[self._joined].sum(),
        )
        self._last = noise

    def describe(self) -> str:
        """What was inserted, and that the audited run is the released one: for the statement."""
        return (
            f"{self.count} canaries were made for an audit, without looking at a record; each was "
            "put into this very run, the released one, or left out, by a fair coin: a gradient "
            "along one random coordinate, clipped, sampled and noised like a record's. No "
            "record's ε is larger for them."
        )

    def report(self, trainer: Audited) -> AuditReport:
        """The insider's lower bounds beside the certified ε, and what was tested along the way.

        The number of guesses follows from the certified ε alone. ``best`` is the best of the bounds
        that assume nothing, each at the confidence that pays for having looked at both.
        """
        spent = trainer.privacy_spent()
        found = self._guessed(self._scores, spent)
        alone = dict(found.bounds)
        if (seen := self._measured()) is not None:
            measured = epsilon_as_measured(seen, delta=spent.delta, confidence=self.confidence)
            alone["mechanism as measured"] = measured
        return AuditReport(
            checks=self._checks(),
            epsilon=spent.epsilon,
            delta=spent.delta,
            confidence=self.confidence,
            canaries=found.canaries,
            guesses=found.guesses,
            correct=found.correct,
            bounds=alone,
            best=found.best,
        )

    def outside(self, spent: PrivacyGuarantee) -> Guessed:
        """What the outsider found: noisy sums and the canaries' draws alone, so ε covers it."""
        found = self._guessed(self._outsider.scores, spent)
        if not self._alike():
            return found
        seen = self._outsider.seen(int(self._joins.sum()), self.count * len(self._taken()))
        if seen is None:
            return found
        measured = epsilon_seen(seen, delta=spent.delta, confidence=self.confidence)
        return replace(found, bounds={**found.bounds, FROM_OUTSIDE: measured})

    def figures(self, spent: PrivacyGuarantee) -> dict[str, Any]:
        """The outsider's findings, for what is published."""
        return self.outside(spent).to_json()

    def _guessed(self, scores: np.ndarray, spent: PrivacyGuarantee) -> Guessed:
        return guessed(
            scores,
            self.coins,
            epsilon=spent.epsilon,
            delta=spent.delta,
            confidence=self.confidence,
            sampled=self._rate < 1,
        )

    def _taken(self) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        return self._steps[self._steps[:, 0] + self._steps[:, 3] > 0]

    def _measured(self) -> Measurements | None:
        """None where steps differ by plan: no one step was measured then."""
        plan = self._begun().plan
        assert plan
        if not self._alike():
            return None
        taken, sigma = self._taken(), plan.step(0).noise_multiplier
        joined = float(taken[:, 3].sum())
        return Measurements(
            values=int(taken[:, 0].sum()),
            energy=float(taken[:, 1].sum()) * sigma**2,
            joins=int(self._joins.sum()),
            chances=self.count * len(taken),
            height=float(taken[:, 4].sum()) / joined if joined else 0.0,
            steps=len(taken),
        )

    def _alike(self) -> bool:
        plan = self._begun().plan
        assert plan
        return len({plan.step(t).noise_multiplier for t in range(plan.sampling.steps)}) == 1

    def _checks(self) -> list[Check]:
        taken, plan = self._taken(), self._begun().plan
        assert plan
        found = [
            noise_energy(taken[:, 1], taken[:, 0]),
            noise_fresh(taken[1:, 2], np.minimum(taken[1:, 0], taken[:-1, 0])),
        ]
        if self._rate < 1:
            found.append(equal_rates(self._joins, len(taken), self._rate))
        sigmas = np.array([plan.step(t).noise_multiplier for t in range(len(taken))])
        spread = float(np.sqrt((taken[:, 3] * sigmas**2).sum()))
        off = float((taken[:, 4] - taken[:, 3]).sum())
        found.append(canary_height(off, spread, float(taken[:, 3].sum())))
        return found

    def _begun(self) -> RunState:
        if self._run is None:
            raise RunError("canaries: are in no run; call insert(trainer) before it begins")
        return self._run

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What checkpoints keep, in ``private/``."""
        return {n: torch.from_numpy(a.copy()) for n, a in self._arrays().items()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """What ``state_dict`` gave; older runs had no outsider, who then starts anew."""
        arrays = {name: kept.numpy().copy() for name, kept in state.items()}
        self._joins, self._last, self._steps = (arrays[n] for n in ("joins", "last", "steps"))
        scores = arrays["scores"]
        self._scores, outside = scores if scores.ndim == 2 else (scores, 0 * scores)
        self._outsider.load(outside, arrays)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {
            "scores": np.stack([self._scores, self._outsider.scores]),  # in-, outsider's
            "joins": self._joins,
            "last": self._last,
            "steps": self._steps,
            **self._outsider.arrays(),
        }


def audit_run(trainer: Trainer, canaries: int = 1000, *, confidence: float = 0.95) -> AuditReport:
    """Fit a trainer that has not begun with canaries in it, and report what they show."""
    inserted = Canaries(canaries, confidence=confidence).insert(trainer)
    trainer.fit()
    return inserted.report(trainer)


def _rate(plan: PrivacyPlan) -> float:
    """The rate by which a record is in a batch, as the event that is charged says."""
    event = plan.event(0)
    return event.sampling_rate if isinstance(event, PoissonSampled) else 1.0


def _refuse(run: RunState, count: int) -> None:
    if run.plan is None:
        raise RunError("canaries: the run is not private, so nothing is to be audited")
    if run.charges.are_open or run.inserted is not None:
        raise RunError("canaries: the run has begun, or has some; insert them once, before it does")
    if not run.world.is_alone:
        raise RunError(
            "canaries: each of several processes would insert them; audit a run of one process"
        )
    if not isinstance(run.plan.event(0), PoissonSampled | Gaussian | DiscreteGaussian):
        raise RunError(
            f"canaries: are scored for Poisson samples, or for all records in each step, not for "
            f"{run.sampling.name}; drop the sampler, or the canaries"
        )
    known = IndependentGaussian | BlockGaussian | GridGaussian
    alone = run.sampling.sensitivity == run.sampling.period == 1
    if not isinstance(run.plan.noise, known) or not alone:
        raise RunError(
            "canaries: are scored where noise and samples are independent in each step and each "
            "example is clipped by itself; audit the run's final model instead"
        )
    check(
        run.plan.clipping.whole,
        "clipping",
        run.plan.clipping.name,
        "cuts a canary, along one coordinate, to its own group's part of the clip norm alone",
        "clip all parameters together, or audit the run's final model",
    )
    everywhere = sum(p.numel() for p in trained_by(run.optimizer))
    check(count <= everywhere, "canaries", count, f"must be ≤ {everywhere}, one a trained value")
