"""What a run has spent: the figures of privacy.json, each from the ledger or the plan."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from accountant import Event, Ledger, RdpAccountant, exact
from dpsgd_torch.clipping.flat import FLAT
from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.noise.independent import INDEPENDENT
from dpsgd_torch.privacy.cross_check import (
    opacus_epsilon,
    opacus_prices,
    refuse_disagreement,
)
from dpsgd_torch.privacy.plan import PrivacyPlan


@dataclass(frozen=True, kw_only=True)
class PrivacyGuarantee:
    """The guarantee in numbers; ``epsilon`` is the best valid bound, the rest is how it came.

    The true ε lies between ``epsilon_lower`` and ``epsilon``; Rényi accounting, ours and
    Opacus's, cross-checks it; where Opacus has no price for the sampler its figures are NaN.

    ``charges`` counts what is in the ledger and ``steps`` those for a step of training (one paid
    twice counts twice); ``also`` is what was released besides. ``watched``: training ended by what
    was seen, and ε is that of all that was planned. ``extended``: more was planned after results
    were seen; with a budget, which was fixed before, ε is the budget. ``risk``: where noise was
    calibrated to a risk, what was asked and what is certified of the ledger. ``clipping``: the
    kind, where it is not flat; one that tells a count has ``noise_multiplier`` for both together.
    """

    epsilon: float
    epsilon_lower: float
    delta: float
    epsilon_rdp: float
    epsilon_rdp_classic: float
    optimal_order: float
    epsilon_opacus_rdp: float
    agreement: float
    relation: str
    sampler: str
    sampling_rate: float
    dataset_size: int
    batch_size: int
    charges: int
    steps: int
    steps_charged_again: int
    planned_steps: int
    noise_multiplier: float
    effective_noise_multiplier: float
    clip_norm: float
    microbatch_size: int
    unit: str
    rows_per_unit: int | None
    runs: int
    noise_multiplier_schedule: dict[str, Any]
    clip_norm_schedule: dict[str, Any]
    also: list[dict[str, Any]]
    watched: bool = False
    noise: str = INDEPENDENT.name
    extended: bool = False
    risk: dict[str, Any] | None = None
    clipping: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields, with ∞ and NaN as null, which JSON has no word for."""
        fields = dataclasses.asdict(self)
        if self.noise == INDEPENDENT.name:
            del fields["noise"]  # as when there was no other
        if not self.extended:
            del fields["extended"]
        if self.risk is None:
            del fields["risk"]
        if self.clipping is None:
            del fields["clipping"]  # flat, as when there was no other
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in fields.items()
        }


def figures(spent: PrivacyGuarantee | None) -> dict[str, Any]:
    """What privacy.json says, also of a run without privacy."""
    return spent.to_json() if spent else {"epsilon": None, "delta": None, "private": False}


def privacy_spent(
    plan: PrivacyPlan, ledger: Ledger, *, watched: bool = False, extended: bool = False
) -> PrivacyGuarantee:
    """Price the ledger exactly, and by both Rényi accountants as cross-checks.

    Where a run was ``watched`` and ended by what was seen, everything planned is priced: ε of the
    steps taken would be a promise chosen in view of the outcome, which no composition covers
    [Rogers, Roth, Ullman, Vadhan 2016, on odometers].

    Where a run was ``extended`` after results were seen, its budget is what was promised before.

    Raises:
        GuaranteeBroken: the cross-checks differ by more than 1e-6 on equal orders, or the exact ε
            is above theirs; or the ledger, read back from disk, holds more than was planned.
    """
    planned = _counted(plan.events())
    beyond = _counted(ledger.events()) - planned
    if beyond.total() > _most_again(plan, ledger) or set(beyond) - set(planned):
        raise GuaranteeBroken(
            f"ledger: its {len(ledger)} charges are not those of the plan; the run states no ε: "
            "report it"
        )
    accountant = ledger.accountant
    if watched:
        accountant = RdpAccountant(relation=ledger.relation)
        accountant.compose_all(priced_events(plan, ledger, watched=True))
    priced = exact()
    priced.compose_all(accountant.events)
    bounds = priced.epsilon(plan.delta)
    bound = accountant.epsilon(plan.delta)
    classic = accountant.epsilon(plan.delta, "rdp-classic")
    epsilon_opacus, agreement = opacus_epsilon(accountant.events, plan.delta)
    refuse_disagreement(bounds.upper, min(bound.upper, epsilon_opacus), agreement)
    if not opacus_prices(accountant.events):
        epsilon_opacus = agreement = math.nan  # nobody but us was asked
    first = plan.step(0)
    beside = [(event, n) for event, n in _beside(plan, accountant.events) if n]
    # Where the budget would have stopped the run was fixed beforehand: no more could be spent.
    most = plan.budget if watched and plan.budget else bounds.upper
    least = plan.budget if extended and plan.budget else 0.0
    risk = None
    if plan.limit:
        reached = plan.limit.reached(accountant.events)
        if watched:  # no more could be spent
            reached = min(reached, plan.limit.most)
        risk = {"asked": plan.limit.to_json(), "reached": reached}
    return PrivacyGuarantee(
        epsilon=max(min(bounds.upper, most), least),
        epsilon_lower=min(bounds.lower, most),
        delta=plan.delta,
        epsilon_rdp=bound.upper,
        epsilon_rdp_classic=classic.upper,
        optimal_order=bound.order,
        epsilon_opacus_rdp=epsilon_opacus,
        agreement=agreement,
        relation=ledger.relation.value,
        sampler=plan.sampling.name,
        sampling_rate=plan.sampling.rate,
        dataset_size=plan.sampling.dataset_size,
        batch_size=plan.sampling.batch_size,
        charges=len(ledger),
        steps=len(ledger) - sum(n for _, n in _beside(plan, ledger.accountant.events)),
        steps_charged_again=ledger.charged_again(),
        planned_steps=plan.sampling.steps * plan.runs,
        noise_multiplier=plan.noise_multiplier.at(0),
        effective_noise_multiplier=plan.noise_multiplier.at(0) / plan.sampling.sensitivity,
        clip_norm=first.clip_norm,
        microbatch_size=plan.sampling.microbatch_size,
        unit=plan.sampling.unit,
        rows_per_unit=plan.sampling.rows_per_unit,
        runs=plan.runs,
        noise_multiplier_schedule=plan.noise_multiplier.to_json(),
        clip_norm_schedule=plan.clip_norm.to_json(),
        also=[{**event.to_json(), "count": count} for event, count in beside],
        watched=watched,
        noise=plan.noise.name,
        extended=extended,
        risk=risk,
        clipping=None if plan.clipping == FLAT else plan.clipping.to_json(),
    )


def priced_events(plan: PrivacyPlan, ledger: Ledger, *, watched: bool) -> list[tuple[Event, int]]:
    """What ε is that of: the ledger; or all that is planned, and what may have been paid twice."""
    held = _counted(ledger.events())
    if not watched:
        return list(held.items())
    planned, again = _counted(plan.events()), _most_again(plan, ledger)
    return [(event, planned[event] + min(held[event], again)) for event in planned | held]


def _most_again(plan: PrivacyPlan, ledger: Ledger) -> int:
    """How many charges there may be beyond the plan: steps, or a whole run's noise, drawn anew."""
    return ledger.charged_again() + (ledger.attempts_again() if plan.pays_ahead else 0)


def _beside(plan: PrivacyPlan, events: list[tuple[Event, int]]) -> list[tuple[Event, int]]:
    """Of each event, how many were released besides the steps of training."""
    steps, also = {event for event, _ in plan.step_events()}, _counted(list(plan.also))
    return [(event, min(n, also[event]) if event in steps else n) for event, n in events]


def _counted(events: list[tuple[Event, int]]) -> Counter[Event]:
    total: Counter[Event] = Counter()
    for event, count in events:
        total[event] += count
    return total
