"""Checkpoints of a run: written by rank 0, of what all ranks hold, and read back by any number."""

from __future__ import annotations

from typing import Any

from dpsgd_torch.training import checkpoint, sharded_checkpoint
from dpsgd_torch.training.history import History
from dpsgd_torch.training.state import RunState


def keep(run: RunState, *, begun: bool = False) -> None:
    """Write a checkpoint, of nothing that a step did not leave; all ranks do so.

    Args:
        begun: of the beginning, before which there was no step.
    """
    if not begun:
        run.refuse_changed_state()
    held = len(run.charges.ledger) if run.plan and not begun else 0
    if run.shards:
        sharded_checkpoint.save(run, run.shards, held)
    elif run.folder:
        checkpoint.save_checkpoint(
            run.folder.checkpoints,
            run.done,
            run.model,
            run.optimizer,
            held,
            run.history,
            None if begun else run.noise_state,
            run.kept,
            attempt=None if begun else run.attempt,
        )


def put_back(run: RunState) -> tuple[int, int, History]:
    """Load the newest checkpoint on all ranks; returns steps, charges and history then.

    Raises:
        RunError: there is none, or the newest is damaged; the newest good one is named.
    """
    folder = run.folder
    if run.shards:
        return sharded_checkpoint.load(run, run.shards)
    empty: tuple[dict[str, Any], bytes] = ({}, b"")
    state, content = checkpoint.read_newest(folder.checkpoints) if folder else empty
    state = run.world.first(lambda: state, "the newest checkpoint")
    content = run.world.first_bytes(lambda: content)
    run.kept_in = state.get("attempt")
    return checkpoint.put_back(state, content, run.model, run.optimizer, run.noise_state, run.kept)
