"""Grey-box audit of a finished run: its draws, noise, charges and sums again, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from accountant import Event
from accountant.errors import InvalidValue, check
from accountant.ledger.recorded import read_charges, read_events
from dpsgd_torch.audit.canaries import Audited
from dpsgd_torch.audit.checks import Check
from dpsgd_torch.audit.draws import batch_checks, noise_checks
from dpsgd_torch.audit.report import AuditReport
from dpsgd_torch.clipping.kinds import clipping_from_json
from dpsgd_torch.data.units import Indices
from dpsgd_torch.errors import RunError
from dpsgd_torch.gradients.methods import per_example_gradients
from dpsgd_torch.gradients.rehearsal.draws import FrozenDraws, same_draws
from dpsgd_torch.noise.blocks import BLOCKS
from dpsgd_torch.noise.grid import GRID
from dpsgd_torch.noise.independent import INDEPENDENT
from dpsgd_torch.privacy.plan import PrivacyPlan
from dpsgd_torch.samplers.registry import sampler_from_json
from dpsgd_torch.schedules import Constant, schedule_from_json
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.training.feed import Feed
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
from dpsgd_torch.training.sampling import physical_batches
from dpsgd_torch.training.streams import Streams

_ROUNDING = 1e-4  # of passes over batches of different length, in float32
_NOT_CHECKED = (
    "the sums themselves, and the noise in the weights: a folder holds neither the rows nor the "
    "model's code; dpsgd_torch.audit.retrace(make, run) recomputes both where these are at hand",
)


def replay(folder: RunFolder) -> AuditReport:
    """Every step's batch and noise drawn again from ``private/``, and the ledger counted.

    Every attempt is: what was drawn anew after a crash, too, and none may share another's noise.
    Each check is exact, and corrected for its number of steps or records; an honest run fails one
    in a million times.

    Raises:
        RunError: no private run is there, or one of a kind that cannot be replayed.
    """
    folder.refuse_links()
    kept = folder.read_sealed("private/contract.json")
    plan = _plan(folder, kept)
    streams = Streams(folder.read_root(), kept["noise_context"], secure=plan.noise.secure)
    done, values = _reached(folder)
    check(done >= 2, "steps", done, "too few to be tested", "name a run that has trained")
    ledger, part = _ledger(folder)
    steps = plan.sampling.steps  # validation is charged as steps beyond
    charged = [charge for charge in read_charges(ledger, part) if charge[1] < steps]
    drawn = [(attempt, step) for attempt, step, _ in charged]
    checks = [_charges(plan, charged, done)]
    checks += batch_checks(plan.sampling, streams, drawn)
    checks += noise_checks(plan, streams, drawn, values=values)
    not_checked = list(_NOT_CHECKED)
    beside = sum(count for _, count in read_events(ledger)) - len(charged)
    if beside > 0:
        not_checked.append(
            f"{beside} charges of other parts: statistics, selection, validation or other folds"
        )
    return AuditReport(checks=checks, not_checked=not_checked)


def largest_change(trainer: Audited, records: int = 20, *, step: int | None = None) -> Check:
    """The most that one record moves a step's sum, over the clip norm, on the CPU or wherever.

    The batch of ``step`` goes through the run's own clip at the weights that it has now, with and
    without each of its first ``records`` records, each with all its views. Where a count is told
    beside the sum, both together are held against the charge, each over its own noise. Nothing is
    released, nothing is charged.

    Args:
        records: how many of the batch are left out in turn.
        step: whose batch; the last one that was taken if left out.
    """
    run = trainer.state
    if run.plan is None or not run.charges.are_open:
        raise RunError("trainer: has no private run; fit it first, or resume one")
    step = max(0, run.done - 1) if step is None else step
    feed = Feed(run)
    drawn = run.views.spread(feed.draw(step))
    plan, most = run.step_plan(step), 0.0
    owners = np.unique(drawn.slots)[:records]
    method, scale = run.method, run.precision.loss_scale
    given = (run.forward, scale, method.program, run.each_alone)
    with per_example_gradients(run.model, method.kind, method.layouts, *given) as wrapped:

        def summed(kept: Indices) -> torch.Tensor:
            """Sums in clip norms, and the count in so many as its noise makes it worth."""
            assert run.plan
            count, z = 0.0, run.plan.noise_multiplier.at(step)
            optimizer = PrivateOptimizer(
                run.optimizer,
                microbatches=run.sampling.microbatches,
                clipping=run.plan.clipping,
                groups=run.groups,
            )
            optimizer.begin(plan, np.random.default_rng(0))
            slots, rows = drawn.slots[kept], drawn.rows[kept]
            for piece in physical_batches(slots, run.at_once):
                inputs, targets = feed.again(rows[piece])
                wrapped.backward(run.loss, inputs, targets)
                shared: list[Any] = []
                if drawn.weights is not None:
                    local = np.unique(slots[piece], return_inverse=True)[1]
                    shared = [
                        torch.from_numpy(part).to(run.device)
                        for part in (local, drawn.weights[kept][piece])
                    ]
                norms = optimizer.accumulate(wrapped.vectors(optimizer.params, *shared))
                if run.followed:
                    counted = run.followed.clipping.counted(norms.double(), plan.clip_norm)
                    count += float(counted.sum())
            moved = [part.double().flatten() / plan.clip_norm for part in optimizer.sums]
            if run.followed:
                moved = [part * (z / plan.noise_multiplier) for part in moved]
                moved += [moved[0].new_tensor([count * z / plan.count_noise])]
            return torch.cat(moved)

        run.modes.restore()
        with same_draws(run.device), FrozenDraws():
            everyone = np.arange(len(drawn.slots))
            whole = summed(everyone)
            for owner in owners:
                left = everyone[drawn.slots != owner]
                most = max(most, float((whole - summed(left)).norm()))
    for p in run.model.parameters():
        p.grad = None
    bound = run.sampling.sensitivity
    return Check(
        "one record moves the sum by no more than is charged",
        float(most <= bound * (1 + _ROUNDING)),
        f"{most:.6f} clip norms at most, of {len(owners)} records",
    )


def _plan(folder: RunFolder, kept: dict[str, Any]) -> PrivacyPlan:
    asked = kept["contract"]
    if not asked.get("privacy"):
        raise RunError(f"run {folder.path}: is not private, so nothing is to be audited")
    sampling = asked["sampling"]
    noise = asked["privacy"].get("noise", INDEPENDENT.to_json())
    known = next((each for each in (INDEPENDENT, BLOCKS, GRID) if each.to_json() == noise), None)
    try:
        sampler = sampler_from_json(sampling) if known else None
    except InvalidValue:
        sampler = None
    if sampler is None or known is None:
        raise RunError(
            f"run {folder.path}: has a sampler or noise of its own kind; replay draws the samples "
            "of --sampling, independent noise and that of secure mode; dpsgd_torch.audit.retrace "
            "takes the last steps of any run again"
        )
    clip = asked["privacy"]["clip_norm"]
    return PrivacyPlan(
        sampling=sampler,
        clip_norm=schedule_from_json(clip) if isinstance(clip, dict) else Constant(clip),
        noise_multiplier=schedule_from_json(kept["noise_multiplier"]),
        delta=asked["privacy"]["delta"],
        noise=known,
        clipping=clipping_from_json(asked["privacy"].get("clipping")),
    )


def _reached(folder: RunFolder) -> tuple[int, int]:
    """Steps taken by the last checkpoint, and how many values were trained, roughly."""
    from safetensors import safe_open

    found: Sequence[Any] = sorted(folder.checkpoints.glob("step-*"))
    if not found:
        raise RunError(f"run {folder.path}: has no checkpoint; name the folder of a run")
    with safe_open(found[-1] / "tensors.safetensors", "np") as tensors:
        names = [name for name in tensors.keys() if name.startswith("model.")]  # noqa: SIM118
        values = sum(int(np.prod(tensors.get_slice(name).get_shape())) for name in names)
    return int(found[-1].name.partition("-")[2]), values


def _ledger(folder: RunFolder) -> tuple[Path, str]:
    """Of a fold's folder, the whole run's ledger and the fold's part of it."""
    if folder.ledger.exists() or not (folder.path.parent / folder.ledger.name).exists():
        return folder.ledger, "training"
    return folder.path.parent / folder.ledger.name, folder.path.name


def _charges(plan: PrivacyPlan, charged: list[tuple[int, int, Event]], done: int) -> Check:
    """Each step that was taken is charged, and each charge is that of its step."""
    missing = len(set(range(done)) - {step for _, step, _ in charged})
    first: dict[int, int] = {}
    for attempt, step, _ in charged:
        first[attempt] = min(step, first.get(attempt, step))
    others = sum(event != plan.event(step, first[attempt]) for attempt, step, event in charged)
    words = f"{len(charged)} charges for {done} steps" + f", {missing} missing" * (missing > 0)
    words += f", {others} of another price" * (others > 0)
    held = not missing and not others
    return Check("every step is charged as what was planned", float(held), words)
