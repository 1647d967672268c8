"""Label privacy: labels randomized once, charged first; all training is on the answers."""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np
import torch

from accountant import Ledger, Relation
from dpsgd_torch.config import RunConfig
from dpsgd_torch.mechanisms.label_privacy import LabelPrivacy
from dpsgd_torch.tasks.task import Task
from dpsgd_torch.training.losses import per_example
from dpsgd_torch.training.run_folder import RunFolder

_FILE = "private/answers.json"


def randomized(task: Task, config: RunConfig, folder: RunFolder) -> tuple[Task, float]:
    """The task with its training labels told through randomized response, and what that cost.

    Training is by the debiased loss; the cost is ε times how often the labels were drawn.

    The answers are kept for a resumed run; answers that were charged and lost are drawn and paid
    for again.
    """
    assert config.label_epsilon is not None
    privacy = LabelPrivacy(len(task.labels), config.label_epsilon)
    drawn_before = (folder.path / _FILE).exists()
    ledger = Ledger(
        folder.ledger, delta=config.delta, relation=Relation.LABEL_CHANGE, resumed=drawn_before
    )
    try:
        if not drawn_before:
            ledger.begin(first_step=0, environment="operating system", repeatable=False)
            ledger.reserve(0, privacy.event)
            drawn = privacy.draw(task.train[1].numpy())
            folder.write_json(_FILE, drawn.tolist())
            ledger.settle(0, zlib.crc32(drawn.tobytes()))
        events = [{**event.to_json(), "count": count} for event, count in ledger.events()]
        epsilon = config.label_epsilon * len(ledger)  # answers that were lost count too
        told = {
            "epsilon": epsilon,
            "delta": 0.0,
            "relation": ledger.relation.value,
            "unit": "one label",
            "events": events,
        }
    finally:
        ledger.close()
    folder.write_json("privacy.json", told)
    answers = torch.from_numpy(np.array(folder.read_json(_FILE), dtype=np.int64))
    ready = dataclasses.replace(
        task,
        train=(task.train[0], answers),
        loss=privacy.debiased(),
        metrics={"loss": per_example(task.loss), **task.metrics},  # of test rows: the usual one
    )
    return ready, epsilon
