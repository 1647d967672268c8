"""The guarantee of a run in words: what it promises, what it covers, and what it does not."""

from __future__ import annotations

import textwrap

from accountant import Relation, event_from_json
from accountant.statement import describe_event, round_down, round_up
from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.app.evidence import Audited, evidence
from dpsgd_torch.app.report.recipe import recipe
from dpsgd_torch.mechanisms.discrete import CELLS
from dpsgd_torch.noise.grid import sensitivity_in_cells
from dpsgd_torch.privacy.cross_check import opacus_prices
from dpsgd_torch.privacy.guarantee import PrivacyGuarantee
from dpsgd_torch.privacy.plan import PrivacyPlan

_NEIGHBOURS = {
    Relation.ADD_OR_REMOVE_ONE: "adding or removing",
    Relation.REPLACE_ONE: "replacing",
}
_COVERED = [
    "the weights after every step: model.safetensors and every checkpoint",
    "what is computed from those weights and public data: test loss and accuracy, metrics.jsonl",
    "the ledger, config.json and privacy.json",
    "what is released beside the steps and listed above: statistics and the choice of features "
    "(releases.json), validation scores, predictions.csv",
]
_GENERATOR = (
    "attacks on the pseudo-random generator: keyed with 256 secret bits, but PCG64DXSM is not a "
    "cryptographic one."
)
_NOT_COVERED = [
    "private/: training loss, batch sizes, gradient norms, the key of the random streams. "
    "Publish the folder without it.",
    "what was chosen by looking at other runs on the same data: hyper-parameters, early stopping, "
    "the decision to publish. Each such run costs its own ε.",
    "the number n and the fact that this data set was used: both are taken as public.",
    "the test set, which is taken as public.",
    _GENERATOR,
    "how long steps took and what memory they held: told on the terminal, and in report.html "
    "rounded to two digits.",
    "that the run was not refused: before the first charge the model was tried on some training "
    "rows, and would have been refused had it mixed them, written to itself or raised.",
]
_ALONE = (
    "each example's gradient depends on it alone: tried on made-up rows and on some training rows "
    "before the first charge, not proven. (Measured in each step: the largest clipped norm, the "
    "noise that was added, and that nothing else changed the weights.)"
)
_ASSUMED = [
    "no record moves the last bits of another's gradient, once clipped, by more than 2^-19 of the "
    "clip norm; that much is charged for each of twice the expected batch and 100 more. Every pass "
    "had the same number of rows, in which no bit of a made-up row's gradient moved with its place "
    "or its company.",
    "nobody tells the output of AES-256 from random bits.",
]
_SECURE = (
    "Secure mode: samples and noise come from AES-256 in counter mode, under a key of 256 bits of "
    "the operating system's, kept in private/ alone: with it an interrupted run repeats the same "
    "noise, and does not pay twice. The sum was rounded to a grid of 2^-30 of the clip norm, and "
    "the noise, of deviation {cells:.4g} cells, drawn exactly [Canonne, Kamath, Steinke 2020]: its "
    "total variation distance from the law that was charged is 0. Rounding, of the sum and of "
    "every other record's gradient, was charged as sensitivity: {all:.6g} times the clip norm in "
    "all."
)


_FEW = 1000  # records


def statement(
    config: RunConfig,
    spent: PrivacyGuarantee | None,
    *,
    plan: PrivacyPlan | None = None,
    claim: str,
    stopped: str,
    has_baseline: bool,
    note: str = "",
    prior: str = "",
    labels: float | None = None,
    audited: Audited | None = None,
) -> str:
    """The text of statement.txt."""
    if labels is not None:
        return _labels_only(config, labels, about(note, prior))
    if spent is None or plan is None:
        return (
            f"{config.preset} on {config.dataset}, trained without differential privacy.\n\n"
            "No privacy is promised: the weights may give away any training record.\n"
            + "".join(f"\n{words}\n" for words in about(note, prior))
        )
    return (
        "\n\n".join(
            [
                f"{config.preset} on {config.dataset}, trained with differential privacy.",
                _guarantee(spent, plan),
                _proof(spent, plan),
                *_secure(plan),
                *([_wrap(evidence(audited, spent))] if audited else []),
                _listed("Covered by ε:", _COVERED),
                _listed("Not covered by ε:", _exceptions(config, plan, has_baseline)),
                _listed("Assumed:", _assumed(config, plan)),
                *about(note, prior),
                *map(_wrap, recipe(config)),
                *_remarks(spent, claim, stopped, config.precision),
            ]
        )
        + "\n"
    )


def about(note: str, prior: str) -> list[str]:
    """What a task says of its data, and of what was known before it, as paragraphs."""
    told = {"About the data": note, "Prior, not covered by ε": prior}
    return [_wrap(f"{what}: {words}") for what, words in told.items() if words]


def _labels_only(config: RunConfig, epsilon: float, about: list[str]) -> str:
    return (
        "\n\n".join(
            [
                f"{config.preset} on {config.dataset}, trained on randomized labels.",
                _wrap(
                    f"Guarantee: whatever is computed from the answers, the weights included, is "
                    f"(ε, 0)-differentially private with ε = {epsilon!r}, between "
                    "training sets that differ in the label of one record (the unit of privacy is "
                    "one label). Each label was told through randomized response, once, before "
                    "anything looked at it; privacy.json says how often it was drawn."
                ),
                _wrap(
                    "Not covered: the inputs. Who is in the data, and what their inputs are, may "
                    "be learnt in full. It is the right promise only where the inputs are public "
                    "and the labels alone are sensitive. Also not: private/, and other runs on the "
                    "same labels, each of which costs its own ε."
                ),
                *about,
            ]
        )
        + "\n"
    )


def _guarantee(spent: PrivacyGuarantee, plan: PrivacyPlan) -> str:
    sampler, unit = plan.sampling, spent.unit
    rows = f" (the unit of privacy is one {unit})"
    if spent.rows_per_unit:
        rows = f" with all its rows (the unit of privacy is one {unit}, not one row)"
    return _wrap(
        f"Guarantee: the weights are (ε, δ)-differentially private with ε = "
        f"{round_up(spent.epsilon)} and δ = {spent.delta!r}, between training sets that differ by "
        f"{_NEIGHBOURS[sampler.relation]} one {unit}{rows}. It holds for "
        f"{spent.steps} charged steps; in each, {sampler.describe()}, {_clip_and_noise(plan)}."
        f"{sampler.describe_vectors(spent.noise_multiplier)}{_also(spent)}{_risk(spent, plan)}"
    )


def _risk(spent: PrivacyGuarantee, plan: PrivacyPlan) -> str:
    """Where noise was calibrated to a risk in place of ε."""
    if spent.risk is None:
        return ""
    reached = round_up(100 * spent.risk["reached"], 4)
    return (
        f" The noise was chosen so that no attacker, who sees every noisy sum and knows all other "
        f"records, reaches more than {plan.limit}; of what was charged {reached} % is certified."
    )


def _also(spent: PrivacyGuarantee) -> str:
    """What the same ε pays besides."""
    words = []
    for row in spent.also:
        fields = {name: value for name, value in row.items() if name != "count"}
        words.append(f"{row['count']} × {describe_event(event_from_json(fields))}")
    folds = f" The steps are those of {spent.runs} models." if spent.runs > 1 else ""
    return folds + (f" The same ε pays for {'; '.join(words)}." if words else "")


def _clip_and_noise(plan: PrivacyPlan) -> str:
    first, last = plan.step(0), plan.step(plan.sampling.steps - 1)
    clip = plan.clipping.describe(first.clip_norm, last.clip_norm)
    words = f"{clip} and {plan.noise.describe(first, last)}"
    if first.count_noise:
        words += (
            f"; the count got noise of deviation {first.count_noise:.6g}, and the two together are "
            f"charged as Gaussian noise of {plan.noise_multiplier.at(0):.6g} times the clip norm"
        )
    return words


def _proof(spent: PrivacyGuarantee, plan: PrivacyPlan) -> str:
    theirs = (
        f"Opacus's own accountant gives {round_up(spent.epsilon_opacus_rdp, 7)} on the common grid "
        f"of orders; on equal orders the two differ by {spent.agreement:.1e} relative."
        if opacus_prices(plan.events())
        else "Opacus has no price for this sampler, so no accountant but ours was asked."
    )
    return _wrap(
        f"Proof: the exact privacy loss, composed between certified bounds, puts ε between "
        f"{round_down(spent.epsilon_lower, 7)} and {round_up(spent.epsilon, 7)}. Cross-check: "
        f"Rényi accounting, which can only be above, gives {round_up(spent.epsilon_rdp, 7)} at "
        f"order {spent.optimal_order:.6g} (improved conversion) or "
        f"{round_up(spent.epsilon_rdp_classic, 7)} (classic). {theirs}"
    )


def _secure(plan: PrivacyPlan) -> list[str]:
    if not plan.noise.secure:
        return []
    charged = sensitivity_in_cells(plan.sampling) / CELLS
    return [_wrap(_SECURE.format(cells=plan.step(0).noise_multiplier * CELLS, all=charged))]


def _exceptions(config: RunConfig, plan: PrivacyPlan, has_baseline: bool) -> list[str]:
    items = [*_NOT_COVERED[:4], plan.noise.not_covered, *_NOT_COVERED[4:]]
    if plan.noise.secure:
        items.remove(_GENERATOR)
    if has_baseline:
        items.insert(
            1,
            "the non-private baseline, whose curves report.html shows: where the data is private, "
            "do not publish that page.",
        )
    if config.folds > 1 or config.validation != "none" or config.privacy_unit != "record":
        items.append(
            "that the run was not refused: ids that differ in every row, or a fold without a row "
            "or a positive label, would have ended it.",
        )
    if config.validation == "public":
        items.insert(1, "the rows that were held out to watch: they are declared public.")
    if config.seed is not None:
        items.insert(0, "anyone who knows the seed the run was given: the noise can be subtracted.")
    return items


def _assumed(config: RunConfig, plan: PrivacyPlan) -> list[str]:
    items = [_ALONE, *(_ASSUMED if plan.noise.secure else [])]
    if config.precision != "float32":
        items.append(
            "a processor rounds an example's values alike whatever else is in its batch, as in "
            f"float32; in {config.precision} one that does not moves the others' gradients by some "
            f"{'2⁻⁸' if config.precision == 'bf16' else '2⁻¹¹'} of them."
        )
    return items


def _remarks(spent: PrivacyGuarantee, claim: str, stopped: str, precision: str) -> list[str]:
    remarks: list[str] = []
    if precision != "float32":
        remarks.append(
            _wrap(
                f"Precision: the forward and backward passes ran in {precision}. Norms were taken "
                "from those same values, and sums made of them, in float32 and float64; clipping "
                "to 2⁻⁹ below the clip norm covers what they round. Noise, weights and optimizer "
                "are float64 and float32."
            )
        )
    if claim:
        remarks.append(_wrap(f"What its notebook claimed, and what holds: {claim}"))
    if spent.epsilon > 10:
        remarks.append(
            _wrap(
                f"Plainly: ε = {round_up(spent.epsilon)} bounds next to nothing. An attacker's "
                "odds on a record may rise by a factor of e^ε; look for a few units at most."
            )
        )
    if spent.dataset_size < _FEW:
        remarks.append(
            _wrap(
                f"With n = {spent.dataset_size} records little can be promised: noise that hides "
                "one record among so few drowns much of what they have in common, and δ is a "
                f"promise only well below 1/n = {1 / spent.dataset_size:.2g}."
            )
        )
    if spent.delta >= 1 / spent.dataset_size:
        remarks.append(_wrap("δ is not below 1/n: publishing one record in full could satisfy it."))
    if stopped:
        remarks.append(_wrap(f"Training ended early: {stopped}"))
    if spent.watched:
        remarks.append(
            _wrap(
                "When to stop was decided by looking at scores, so ε is that of all the steps that "
                "were planned, not of those that were taken."
            )
        )
    if spent.steps_charged_again:
        remarks.append(
            _wrap(
                f"{spent.steps_charged_again} of the charges are for steps drawn afresh after an "
                "interruption: they were paid for again."
            )
        )
    return remarks


def _listed(title: str, items: list[str]) -> str:
    return "\n".join([title, *(_wrap(item, "  - ", "    ") for item in items)])


def _wrap(text: str, first: str = "", rest: str = "") -> str:
    return textwrap.fill(text, 88, initial_indent=first, subsequent_indent=rest)
