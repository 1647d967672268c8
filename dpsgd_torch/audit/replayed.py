"""Grey-box audit of a finished run: its draws, noise, charges and sums again, step by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from accountant.errors import check
from accountant.ledger.recorded import read_events
from dpsgd_torch.audit.canaries import Audited
from dpsgd_torch.audit.checks import Check
from dpsgd_torch.audit.draws import batch_checks, noise_checks
from dpsgd_torch.audit.report import AuditReport
from dpsgd_torch.data.units import Indices
from dpsgd_torch.errors import RunError
from dpsgd_torch.gradients.methods import per_example_gradients
from dpsgd_torch.gradients.rehearsal.draws import FrozenDraws, same_draws
from dpsgd_torch.noise.base import Noise
from dpsgd_torch.noise.blocks import BLOCKS
from dpsgd_torch.noise.independent import INDEPENDENT
from dpsgd_torch.privacy.plan import PrivacyPlan
from dpsgd_torch.samplers.poisson import PoissonSampler
from dpsgd_torch.schedules import Constant, schedule_from_json
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.training.feed import Feed
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
from dpsgd_torch.training.sampling import physical_batches
from dpsgd_torch.training.streams import Streams

_ROUNDING = 1e-4  # of passes over batches of different length, in float32
_NOT_CHECKED = (
    "the sums themselves: a folder holds neither the rows nor the model's code; "
    "dpsgd_torch.audit.largest_change(trainer) recomputes them where these are at hand",
    "noise added to the weights in the run itself: only what its streams give is drawn again",
)


def replay(folder: RunFolder) -> AuditReport:
    """Every step's batch and noise drawn again from ``private/``, and the ledger counted.

    Each check is exact, and corrected for its number of steps or records; an honest run fails one
    in a million times.

    Raises:
        RunError: no private run is there, or one of a kind that cannot be replayed.
    """
    folder.refuse_links()
    kept = folder.read_sealed("private/contract.json")
    plan = _plan(folder, kept)
    streams = Streams(folder.read_root(), kept["noise_context"])
    done, values = _reached(folder)
    check(done >= 2, "steps", done, "too few to be tested", "name a run that has trained")
    steps, charged = range(done), _charged(folder)
    attempts = charged.total() - done
    checks = [_charges(plan, charged, done)]
    checks += batch_checks(plan.sampling, streams, steps, 0)
    checks += noise_checks(plan, streams, steps, 0, values=values)
    not_checked = list(_NOT_CHECKED)
    if attempts > 0:
        not_checked.append(
            f"the {attempts} charges beyond one a step: those of steps drawn anew after a crash, "
            "or of statistics, selection and validation"
        )
    return AuditReport(checks=checks, not_checked=not_checked)


def largest_change(trainer: Audited, records: int = 20, *, step: int | None = None) -> Check:
    """The most that one record moves a step's sum, over the clip norm, on the CPU or wherever.

    The batch of ``step`` goes through the run's own clip at the weights that it has now, with and
    without each of its first ``records`` records. Nothing is released, nothing is charged.

    Args:
        records: how many of the batch are left out in turn.
        step: whose batch; the last one that was taken if left out.
    """
    run = trainer.state
    if run.plan is None or not run.charges.are_open:
        raise RunError("trainer: has no private run; fit it first, or resume one")
    step = max(0, run.done - 1) if step is None else step
    drawn = Feed(run).draw(step)
    clip_norm, most = run.plan.step(step).clip_norm, 0.0
    owners = np.unique(drawn.slots)[:records]
    kind, layouts = run.method.kind, run.method.layouts
    with per_example_gradients(run.model, kind, layouts, run.forward) as wrapped:

        def summed(kept: Indices) -> torch.Tensor:
            optimizer = PrivateOptimizer(run.optimizer, microbatches=run.sampling.microbatches)
            assert run.plan
            optimizer.begin(run.plan.step(step), np.random.default_rng(0))
            slots, rows = drawn.slots[kept], drawn.rows[kept]
            for piece in physical_batches(slots, run.physical_batch_size):
                inputs, targets = run.data.take(rows[piece])
                wrapped.backward(run.loss, inputs, targets)
                shared: list[Any] = []
                if drawn.weights is not None:
                    local = np.unique(slots[piece], return_inverse=True)[1]
                    shared = [
                        torch.from_numpy(part).to(run.device)
                        for part in (local, drawn.weights[kept][piece])
                    ]
                optimizer.accumulate(wrapped.vectors(optimizer.params, *shared))
            return torch.cat([part.double().flatten() for part in optimizer.sums])

        run.modes.restore()
        with same_draws(run.device), FrozenDraws():
            everyone = np.arange(len(drawn.slots))
            whole = summed(everyone)
            for owner in owners:
                left = everyone[drawn.slots != owner]
                most = max(most, float((whole - summed(left)).norm()))
    for p in run.model.parameters():
        p.grad = None
    bound = run.sampling.sensitivity * clip_norm
    return Check(
        "one record moves the sum by no more than is charged",
        float(most <= bound * (1 + _ROUNDING)),
        f"{most / clip_norm:.6f} clip norms at most, of {len(owners)} records",
    )


def _plan(folder: RunFolder, kept: dict[str, Any]) -> PrivacyPlan:
    asked = kept["contract"]
    if not asked.get("privacy"):
        raise RunError(f"run {folder.path}: is not private, so nothing is to be audited")
    sampling = asked["sampling"]
    noise = asked["privacy"].get("noise", {"noise": INDEPENDENT.name})
    kinds: dict[str, Noise] = {each.name: each for each in (INDEPENDENT, BLOCKS)}
    drawn = kinds.get(noise.get("noise"))
    if "sampler" in sampling or drawn is None:
        raise RunError(
            f"run {folder.path}: has a sampler or noise of its own kind; replay draws Poisson "
            "samples and independent noise"
        )
    clip = asked["privacy"]["clip_norm"]
    return PrivacyPlan(
        sampling=PoissonSampler(**sampling),
        clip_norm=schedule_from_json(clip) if isinstance(clip, dict) else Constant(clip),
        noise_multiplier=schedule_from_json(kept["noise_multiplier"]),
        delta=asked["privacy"]["delta"],
        noise=drawn,
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


def _charged(folder: RunFolder) -> Counter[Any]:
    return Counter(dict(read_events(folder.ledger)))


def _charges(plan: PrivacyPlan, charged: Counter[Any], done: int) -> Check:
    """The ledger holds each step's event, as often as it was taken."""
    wanted = Counter(plan.event(step) for step in range(done))
    missing = sum(max(0, count - charged[event]) for event, count in wanted.items())
    words = f"{charged.total()} charges for {done} steps" + (f", {missing} missing" * (missing > 0))
    return Check("every step is charged as what was planned", float(not missing), words)
