"""Training longer than was planned: more steps under one ledger, one budget and one statement."""

from __future__ import annotations

import dataclasses
import warnings

from accountant import dpsgd_steps
from accountant.errors import check
from dpsgd_torch.errors import RunError
from dpsgd_torch.training.loop import epoch_ends
from dpsgd_torch.training.state import RunState

_WARNING = (
    "epochs: how long to train is decided in view of results now; ε adds up, and is that of a run "
    "planned so from the start. Privacy(epsilon=…, noise_multiplier=…) sets a limit beforehand, "
    "which holds whatever was seen"
)


def extend(run: RunState, epochs: float, *, shared: bool) -> None:
    """Plan ``epochs`` more, once all that were planned are done.

    * Steps are counted on, so that no noise is drawn a second time.
    * Noise that was calibrated so that the planned steps cost ε leaves no room for others; where
      it was given, ε goes up with the steps, as far as the budget.

    Args:
        shared: others charge the ledger too.

    Raises:
        RunError: nothing is left to train by, or some planned steps are left.
    """
    check(epochs > 0, "epochs", epochs, "must be a number > 0")
    was = run.sampling
    if run.privacy and run.privacy.noise_multiplier is None:
        cost = f"ε = {run.privacy.epsilon:g}" if run.privacy.epsilon else str(run.privacy.limit)
        raise RunError(
            f"epochs = {epochs:g}: the noise was calibrated so that {was.steps} steps cost "
            f"{cost}, which leaves none for more; begin a run of more epochs, or "
            "give noise_multiplier, and epsilon as its limit"
        )
    if run.stopped:
        raise RunError(f"epochs = {epochs:g}: {run.stopped}")
    if run.done < was.steps:
        raise RunError(
            f"epochs = {epochs:g}: {was.steps - run.done} of {was.steps} planned steps are left; "
            "take them first: fit() without epochs"
        )
    if why := _planned_whole(run, shared):
        raise RunError(f"epochs = {epochs:g}: {why}; begin a run of more epochs instead")
    steps = dpsgd_steps(
        dataset_size=was.dataset_size, batch_size=was.batch_size, epochs=run.epochs + epochs
    )
    sampling = dataclasses.replace(was, steps=max(steps, was.steps + 1))
    plan = dataclasses.replace(run.plan, sampling=sampling) if run.plan else None
    if plan and plan.budget is None and not run.extended:
        warnings.warn(_WARNING, stacklevel=3)
    if run.folder:
        kept = run.folder.read_sealed("private/contract.json")
        contract = {**kept["contract"], "sampling": sampling.to_json()}
        run.folder.write_sealed(
            "private/contract.json", {**kept, "contract": contract, "extended": True}
        )
    run.sampling, run.plan, run.epochs, run.extended = sampling, plan, run.epochs + epochs, True


def _planned_whole(run: RunState, shared: bool) -> str:
    """Why a run cannot be longer than it was planned; empty where it can."""
    if shared:
        return "its ledger is shared, and what others may charge was planned with its steps"
    if run.steering.held_out is not None:
        return "what its validation costs and decides was planned with its steps"
    if run.plan and run.plan.pays_ahead:
        return "its noise, or a round of its samples, is paid for as a whole"
    if run.sampling.steps != _epoch_steps(run):
        return "its last epoch is not a whole one"
    return ""


def _epoch_steps(run: RunState) -> int:
    """Steps of as many whole epochs as were begun."""
    sampling = run.sampling
    return dpsgd_steps(
        dataset_size=sampling.dataset_size,
        batch_size=sampling.batch_size,
        epochs=len(epoch_ends(sampling)),
    )
