"""Label privacy: labels randomized once, charged first; all training is on the answers."""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np
import torch
from numpy.typing import NDArray

from accountant import Event, Ledger, Relation
from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.errors import RunError
from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.mechanisms.randomized_response import LabelPrivacy, label_epsilon
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.tasks.task import Task

_FILE = "private/answers.json"


def randomized(task: Task, config: RunConfig, folder: RunFolder) -> tuple[Task, float]:
    """The task with its training labels told through randomized response, and what that cost.

    Training is by the debiased loss; the cost is that of every answer in the ledger, whatever
    config.json says.

    The answers are kept for a resumed run; answers that were charged and lost are drawn and paid
    for again.

    Raises:
        RunError, LedgerError: ledger, answers and configuration are not of one run.
    """
    assert config.label_epsilon is not None
    privacy = LabelPrivacy(len(task.labels), config.label_epsilon)
    privacy.refuse_dearer()
    path, labels = folder.path / _FILE, task.train[1].numpy()
    drawn_before = path.exists()
    ledger = Ledger(folder.ledger, delta=config.delta, relation=Relation.LABEL_CHANGE, resumed=True)
    try:
        _refuse_another(ledger.events(), privacy, folder)
        if not drawn_before:
            ledger.begin(first_step=0, environment="operating system", repeatable=False)
            ledger.reserve(0, privacy.event)
            drawn = privacy.draw(labels)
            folder.write_sealed(_FILE, {"answers": drawn.tolist()})
            ledger.settle(0, zlib.crc32(drawn.tobytes()))
        charged = ledger.events()
        epsilon = label_epsilon(charged, folder.ledger)
        told = {
            "epsilon": epsilon,
            "delta": 0.0,
            "relation": ledger.relation.value,
            "unit": "one label",
            "events": [{**event.to_json(), "count": count} for event, count in charged],
        }
    finally:
        ledger.close()
    answers = _answers(folder, len(labels), privacy.classes)
    folder.write_json("privacy.json", told)
    ready = dataclasses.replace(
        task,
        train=(task.train[0], torch.from_numpy(answers)),
        loss=privacy.debiased(),
        metrics={"loss": per_example(task.loss), **task.metrics},  # of test rows: the usual one
    )
    return ready, epsilon


def _refuse_another(
    events: list[tuple[Event, int]], privacy: LabelPrivacy, folder: RunFolder
) -> None:
    for event, _ in events:
        if event != privacy.event:
            before = LabelPrivacy.charged_as(event)
            told = event if before is None else f"{before.epsilon!r} among {before.classes}"
            raise RunError(
                f"{folder.path / 'config.json'}: label_epsilon = {privacy.epsilon!r} among "
                f"{privacy.classes}: the ledger's labels were told at {told}; resume with what the "
                "run began with"
            )


def _answers(folder: RunFolder, count: int, classes: int) -> NDArray[np.int64]:
    kept = folder.read_sealed(_FILE).get("answers")
    whole = isinstance(kept, list) and len(kept) == count
    if not whole or not all(type(value) is int and 0 <= value < classes for value in kept or []):
        raise RunError(f"{folder.path / _FILE}: holds no answer for each record; restore it")
    return np.array(kept, dtype=np.int64)
