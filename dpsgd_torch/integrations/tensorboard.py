"""TensorBoard: a run's scalars and hyper-parameters as event files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dpsgd_torch.integrations.logger import Logger, Value
from dpsgd_torch.integrations.needed import needed


class TensorBoardLogger(Logger):
    """Write what a run tells to TensorBoard event files; ``tensorboard --logdir`` shows them.

    A run that is resumed with the same ``log_dir`` replaces the steps it repeats.

    Args:
        log_dir: a folder for the event files, one folder a run.
        every, private: as for each ``Logger``.

    Raises:
        TrainingError: tensorboard is not installed.

    >>> import tempfile
    >>> logger = TensorBoardLogger(tempfile.mkdtemp())  # Trainer(…, callbacks=[logger])
    """

    def __init__(
        self, log_dir: str | os.PathLike[str], *, every: int = 10, private: bool = False
    ) -> None:
        super().__init__(every=every, private=private)
        self._tensorboard = needed("torch.utils.tensorboard", "tensorboard")
        self.log_dir = os.fspath(log_dir)
        self._writer: Any = None

    def start(self, parameters: Mapping[str, Value], done: int) -> None:
        writer = self._tensorboard.SummaryWriter(
            self.log_dir, purge_step=done + 1 if done else None
        )
        self._writer = writer
        if not done:
            rows = [f"| {name} | {value} |" for name, value in parameters.items()]
            writer.add_text("parameters", "\n".join(["| parameter | value |", "|---|---|", *rows]))
            summary = needed("torch.utils.tensorboard.summary", "tensorboard")
            for part in summary.hparams(dict(parameters), {"epsilon": 0.0, "test/loss": 0.0}):
                writer.file_writer.add_summary(part)

    def scalar(self, name: str, value: float, step: int) -> None:
        if self._writer:
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        if self._writer:
            self._writer.flush()

    def finish(self, *, complete: bool) -> None:
        if self._writer:
            self._writer.close()
        self._writer = None
