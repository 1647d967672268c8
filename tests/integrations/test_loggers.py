"""Loggers: the real libraries read back what a run told them, and ε is the trainer's."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mlflow.tracking import MlflowClient
from small_problem import make_trainer, sgd, small_data, weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dpsgd_torch import EarlyStopping, Privacy, RunError, Validation
from dpsgd_torch.integrations import MLflowLogger, TensorBoardLogger
from dpsgd_torch.training.callbacks import Callback

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*")  # of mlflow's own queries


def right(outputs, targets):
    return outputs.argmax(1) == targets


def logged(logger, **changes):
    settings = {"metrics": {"accuracy": right}, "test_tensors": small_data(30, seed=5), **changes}
    return make_trainer(callbacks=[logger], **settings)


class TensorBoard:
    """A logger, and what TensorBoard reads of it: name → [(step, value)]."""

    def __init__(self, folder):
        self.folder = folder / "events"

    def logger(self, **more):
        return TensorBoardLogger(self.folder, **more)

    def scalars(self):
        read = EventAccumulator(str(self.folder)).Reload()
        return {
            name: [(event.step, event.value) for event in read.Scalars(name)]
            for name in read.Tags()["scalars"]
        }

    def parameters(self):
        read = EventAccumulator(str(self.folder)).Reload()
        text = read.Tensors("parameters/text_summary")[0].tensor_proto.string_val[0].decode()
        rows = [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]
        return dict(rows)


class MLflow:
    def __init__(self, folder, empty=None):
        self.uri, self.id = f"sqlite:///{folder}/mlflow.db", None
        if empty:
            shutil.copy(empty, folder / "mlflow.db")

    def logger(self, **more):
        self.made = MLflowLogger("tests", tracking_uri=self.uri, run_id=self.id, **more)
        return self.made

    def run(self):
        self.id = self.made.run_id
        return MlflowClient(self.uri).get_run(self.id)

    def scalars(self):
        client, run = MlflowClient(self.uri), self.run()
        return {
            name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        }

    def parameters(self):
        return self.run().data.params


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A data base with its tables, which take seconds to make."""
    folder = tmp_path_factory.mktemp("mlflow")
    MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture(params=[TensorBoard, MLflow])
def store(request, tmp_path):
    if request.param is TensorBoard:
        return TensorBoard(tmp_path)
    return MLflow(tmp_path, request.getfixturevalue("empty"))


def nearly(pairs):
    """Event files hold 32 bits."""
    return [(step, pytest.approx(value, rel=1e-6)) for step, value in pairs]


def test_epsilon_and_metrics_are_the_trainers(store):
    trainer = logged(store.logger()).fit()
    found, epochs = store.scalars(), trainer.history.epochs
    assert found["epsilon"] == nearly([(r.step, r.epsilon) for r in epochs])
    assert found["test/accuracy"] == nearly([(r.step, r.test["accuracy"]) for r in epochs])
    assert found["test/loss"] == nearly([(r.step, r.test["loss"]) for r in epochs])
    spent = trainer.privacy_spent()
    assert found["guarantee/epsilon"] == nearly([(30, spent.epsilon)])
    assert found["guarantee/delta"] == nearly([(30, 1e-3)])
    assert found["learning_rate"] == nearly([(10, 0.2), (20, 0.2), (30, 0.2)])
    assert torch.equal(weights(trainer.model), weights(make_trainer().fit().model))


def test_what_epsilon_does_not_cover_is_told_only_where_it_is_asked_for(store):
    logged(store.logger()).fit()
    told = store.scalars()
    assert set(told) == {
        "epoch", "epsilon", "guarantee/delta", "guarantee/epsilon", "learning_rate",
        "test/accuracy", "test/loss",
    }  # fmt: skip


def test_where_it_is_asked_for_it_is_named_so(store):
    trainer = logged(store.logger(private=True)).fit()
    found, rows = store.scalars(), trainer.history.private
    losses = [(10 * row["epoch"], row["train_loss"]) for row in rows]
    assert found["not_covered_by_ε/train_loss"] == nearly(losses)
    median, high = (found[f"not_covered_by_ε/norm_{of}"] for of in ("median", "90th_percentile"))
    assert all(0 < low[1] <= top[1] < 100 for low, top in zip(median, high, strict=True))


def test_hyper_parameters_are_those_that_were_declared_and_no_seed(store):
    trainer = logged(store.logger(), seed=918273645).fit()
    found = store.parameters()
    assert found["optimizer/kind"] == "SGD"
    assert float(found["optimizer/momentum"]) == 0.5
    assert float(found["noise_multiplier"]) == 1.0
    assert float(found["privacy/clip_norm"]) == float(found["clip_norm"]) == 0.5
    assert int(found["sampling/batch_size"]) == trainer.sampling.batch_size
    assert not any("918273645" in value for value in found.values())


class Raising(Callback):
    def on_step(self, trainer, progress):
        if progress.step == 13:
            raise OSError("disk is full")


def test_a_resumed_run_goes_on_in_the_same_place(store, tmp_path):
    def make(*more):
        trainer = logged(store.logger(every=1), run_dir=tmp_path / "run", checkpoint_every=30)
        trainer.callbacks += more
        return trainer

    first = make(Raising())
    with pytest.raises(RunError, match="disk is full"):
        first.fit()
    first.close()
    assert [step for step, _ in store.scalars()["learning_rate"]] == list(range(1, 14))
    trainer = make().resume().fit()
    found = store.scalars()
    assert found["epsilon"] == nearly([(r.step, r.epsilon) for r in trainer.history.epochs])
    assert sorted({step for step, _ in found["learning_rate"]}) == list(range(1, 31))
    if isinstance(store, TensorBoard):  # which replaces what is repeated
        assert [step for step, _ in found["learning_rate"]] == list(range(1, 31))


def test_a_run_that_ended_early_is_told_with_what_it_was_priced_at(store):
    public = Validation(
        tensors=small_data(20), public=True, score=lambda out, _: torch.ones(len(out))
    )
    trainer = logged(
        store.logger(), validation=public, early_stopping=EarlyStopping(patience=1), epochs=9
    ).fit()
    assert trainer.ended
    found = store.scalars()
    assert found["guarantee/epsilon"][0][1] == pytest.approx(trainer.privacy_spent().epsilon)
    assert found["guarantee/epsilon"][0][1] > found["epsilon"][-1][1]
    assert [value for _, value in found["validation"]] == [1.0, 1.0]


def test_without_privacy_no_epsilon_is_told(store):
    logged(store.logger(), privacy=None).fit()
    assert not [name for name in store.scalars() if "epsilon" in name]
    assert store.parameters()["privacy"] == "none"


def test_groups_of_parameters_have_learning_rates_of_their_own(store):
    def two(parameters):
        first, *others = parameters
        return sgd([{"params": [first]}, {"params": others, "lr": 0.1}])

    logged(store.logger(every=30), optimizer=two).fit()
    found = store.scalars()
    assert found["learning_rate/0"][-1] == (30, pytest.approx(0.2))
    assert found["learning_rate/1"][-1] == (30, pytest.approx(0.1))


def test_mlflow_knows_how_a_run_ended(tmp_path, empty):
    store = MLflow(tmp_path, empty)
    tight = Privacy(epsilon=1.2, noise_multiplier=1.0, delta=1e-3, clip_norm=0.5)
    assert logged(store.logger(private=True), privacy=tight).fit().stopped
    assert store.run().info.status == "FINISHED"
    assert store.run().data.tags["not_covered_by_ε"] == "train_loss, norms"
    store.id = None
    for at in logged(store.logger()).run():
        if at.step == 3:
            break
    assert store.run().info.status == "KILLED"


@pytest.mark.parametrize(
    ("missing", "made"),
    [("tensorboard", "TensorBoardLogger('there')"), ("mlflow", "MLflowLogger()")],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(missing, made):
    code = f"""
import sys
sys.modules[{missing!r}] = None
from dpsgd_torch import TrainingError
from dpsgd_torch.integrations import MLflowLogger, TensorBoardLogger
try:
    {made}
except TrainingError as error:
    print(error)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.startswith(f"{missing}: is missing")
    assert ended.stdout.endswith("pip install 'dpsgd_torch[integrations]'\n")
