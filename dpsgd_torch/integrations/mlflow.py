"""MLflow: a run's scalars and hyper-parameters in a tracking store."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from dpsgd_torch.integrations.logger import UNCOVERED, Logger, Value
from dpsgd_torch.integrations.needed import needed

_AT_ONCE = 500  # of a batch's 1000 metrics at most, 100 parameters
_LONGEST = 500  # characters of a parameter


class MLflowLogger(Logger):
    """Log what a run tells to an MLflow tracking store.

    Metrics are held for an epoch and sent together. No model is uploaded, and nothing but what is
    logged leaves the run; MLflow itself reports its use to its makers unless
    ``MLFLOW_DISABLE_TELEMETRY=true``.

    Args:
        experiment: the experiment's name; made where there is none.
        run_name: what the run is called.
        tracking_uri: such as ``sqlite:///mlflow.db``, which needs sqlalchemy and alembic, or a
            server's; None takes MLflow's own setting.
        run_id: a run to go on with; ``logger.run_id`` of the one that was interrupted.
        every, private: as for each ``Logger``.

    Raises:
        TrainingError: mlflow is not installed.
    """

    def __init__(
        self,
        experiment: str = "dpsgd_torch",
        *,
        run_name: str | None = None,
        tracking_uri: str | None = None,
        run_id: str | None = None,
        every: int = 10,
        private: bool = False,
    ) -> None:
        super().__init__(every=every, private=private)
        needed("mlflow.tracking", "mlflow")
        self.experiment, self.run_name, self.tracking_uri = experiment, run_name, tracking_uri
        self.run_id = run_id
        self._client: Any = None
        self._held: list[Any] = []

    def start(self, parameters: Mapping[str, Value], done: int) -> None:
        entities = needed("mlflow.entities", "mlflow")
        client = needed("mlflow.tracking", "mlflow").MlflowClient(self.tracking_uri)
        self._client, self._held = client, []
        if self.run_id is not None:
            client.update_run(self.run_id, status="RUNNING")
            return
        found = client.get_experiment_by_name(self.experiment)
        place = found.experiment_id if found else client.create_experiment(self.experiment)
        tags = {UNCOVERED: "train_loss, norms"} if self.private else {}
        self.run_id = client.create_run(place, run_name=self.run_name, tags=tags).info.run_id
        told = [entities.Param(k, str(v)[:_LONGEST]) for k, v in parameters.items()]
        client.log_batch(self.run_id, params=told[:100])

    def scalar(self, name: str, value: float, step: int) -> None:
        metric = needed("mlflow.entities", "mlflow").Metric
        self._held.append(metric(name, float(value), int(1000 * time.time()), step))
        if len(self._held) >= _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        held, self._held = self._held, []
        if self._client and held:
            self._client.log_batch(self.run_id, metrics=held)

    def finish(self, *, complete: bool) -> None:
        if self._client is None:  # it failed to start
            return
        self.flush()
        self._client.set_terminated(self.run_id, "FINISHED" if complete else "KILLED")
        self._client = None
