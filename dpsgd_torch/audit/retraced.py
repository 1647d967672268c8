"""Grey-box audit with rows and code at hand: a run's last steps again, bit for bit."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dpsgd_torch.audit.checks import Check
from dpsgd_torch.audit.replayed import largest_change
from dpsgd_torch.errors import GuaranteeBroken, RunError
from dpsgd_torch.training.trainer import Trainer

_CLAIM = "the weights are records, clip and planned noise, bit for bit"


def retrace(
    make: Callable[[Path], Trainer], run: str | os.PathLike[str], records: int = 5
) -> list[Check]:
    """Take the steps between a run's last two checkpoints again, and compare the weights.

    * Batches, sums, clip and noise are computed anew from the rows and ``private/``; that the
      weights come out equal says that the noise in them is what ``replay`` holds against the plan.
    * At each of these steps the sum is computed with and without each of the first ``records`` of
      its batch, and the most that one moves it is held against the clip.
    * It works on a copy: the run and its ledger stay as they are.

    Args:
        make: a folder → the trainer as the run was begun, with that folder as ``run_dir``.
        run: the finished run's folder.
        records: how many of each batch are left out in turn.

    Raises:
        RunError: fewer than two checkpoints, or the run was trained elsewhere than on the CPU.
    """
    found = sorted((Path(run) / "private" / "checkpoints").glob("step-*"))
    if len(found) < 2:
        raise RunError(f"run {run}: holds fewer than two checkpoints; nothing lies between them")
    newest, end = found[-1], int(found[-1].name.partition("-")[2])
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "run"
        shutil.copytree(run, copy)
        shutil.rmtree(copy / newest.relative_to(run))
        trainer = make(copy)
        if trainer.state.device.type != "cpu":
            raise RunError(f"run {run}: only what was trained on the CPU repeats bit for bit")
        trainer.resume()
        begun, changes, same = trainer.done, [], False
        with contextlib.suppress(GuaranteeBroken):  # it compares each step's with the ledger's
            for _ in trainer.run():
                if trainer.done >= end:
                    break
                changes.append(largest_change(trainer, records, step=trainer.done))
            same = _same(trainer, newest)
        words = f"steps {begun} to {end - 1}, equal"
        if not same:
            words = f"step {trainer.done}: other weights come out"
        trainer.close()
    worst = min(changes, key=lambda change: change.p_value, default=None)
    return [Check(_CLAIM, float(same), words), *([worst] if worst else [])]


def _same(trainer: Trainer, checkpoint: Path) -> bool:
    from safetensors.torch import load_file

    kept: dict[str, Any] = load_file(checkpoint / "tensors.safetensors")
    now = dict(trainer.model.named_parameters())
    return all(torch.equal(kept[f"model.{name}"], p.detach()) for name, p in now.items())
