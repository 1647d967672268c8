"""Metrics of any shape: what a function gives over all test rows is told as it is."""

import json
import warnings

import numpy as np
import pytest
import torch
import torchmetrics
from refused import refused
from sklearn.metrics import confusion_matrix, f1_score, roc_auc_score
from small_problem import make_trainer, small_data, small_model, weights
from torch import nn

from dpsgd_torch import ModelError
from dpsgd_torch.data.in_memory import InMemory
from dpsgd_torch.training.evaluation import evaluate
from dpsgd_torch.training.metrics import Metrics, numbers

MANY = 2100  # rows: three batches of the test data, the last one smaller


def f1(outputs, targets):
    return f1_score(targets, outputs.argmax(1), average="macro")


def area(outputs, targets):
    """Undefined where all rows are of one class, as the few that a metric is tried on are."""
    return roc_auc_score(targets, outputs.softmax(1), multi_class="ovr")


def right(outputs, targets):
    return outputs.argmax(1) == targets


def accuracy(outputs, targets):
    return right(outputs, targets).float().mean()


def all_outputs(model, data):
    model.eval()
    with torch.no_grad():
        return model(data[0]), data[1]


def scored(metrics, records=MANY, model=None, loss=None):
    """What an evaluation tells, beside the model's outputs and targets."""
    data, model = small_data(records, seed=5), model or small_model()
    loss = loss or nn.CrossEntropyLoss(reduction="none")
    found = evaluate(model, Metrics(loss, metrics), InMemory.of(data, "cpu", "test"))
    return found, *all_outputs(model, data)


def test_a_number_over_all_rows_is_told_as_it_is():
    test = small_data(MANY, seed=5)
    trainer = make_trainer(
        test_tensors=test, metrics={"accuracy": accuracy, "f1": f1, "area": area}
    ).fit()
    outputs, targets = all_outputs(trainer.model, test)
    last = trainer.history.epochs[-1].test
    assert last["accuracy"] == pytest.approx(float(accuracy(outputs, targets)))
    assert last["accuracy"] > 0.2
    assert last["f1"] == pytest.approx(f1(outputs, targets))
    assert last["area"] == pytest.approx(area(outputs, targets))
    assert list(last) == ["loss", "accuracy", "f1", "area"]


def test_a_mean_over_rows_is_the_same_number_whichever_way_it_is_asked():
    found, outputs, targets = scored(
        {
            "rows": right,
            "mean": accuracy,
            "array": lambda o, t: right(o, t).numpy(),
            "float": lambda o, t: float(accuracy(o, t)),
            "numpy": lambda o, t: np.float64(accuracy(o, t)),
            "object": torchmetrics.classification.MulticlassAccuracy(3, average="micro"),
        }
    )
    expected = float(accuracy(outputs, targets))
    assert [found[name] for name in list(found)[1:]] == [pytest.approx(expected)] * 6


def test_torchmetrics_objects_are_updated_batch_by_batch_and_begun_anew():
    areas = torchmetrics.classification.MulticlassAUROC(3)
    both = torchmetrics.MetricCollection(
        {
            "f1": torchmetrics.classification.MulticlassF1Score(3),
            "each": torchmetrics.classification.MulticlassF1Score(3, average="none"),
        }
    )
    test = small_data(MANY, seed=5)
    trainer = make_trainer(test_tensors=test, metrics={"area": areas, "all": both}).fit()
    outputs, targets = all_outputs(trainer.model, test)
    last = trainer.history.epochs[-1].test
    assert last["area"] == pytest.approx(area(outputs, targets), abs=1e-6)
    assert last["all/f1"] == pytest.approx(f1(outputs, targets), abs=1e-6)
    each = f1_score(targets, outputs.argmax(1), average=None, labels=range(3))
    assert [last[f"all/each/{k}"] for k in range(3)] == pytest.approx(each.tolist(), abs=1e-6)


def test_several_numbers_have_names_of_their_own():
    found, outputs, targets = scored(
        {
            "counts": lambda o, t: confusion_matrix(t, o.argmax(1), labels=range(3)),
            "of": lambda o, t: {"mean": o.mean(), "sides": {"low": o.min(), "high": o.max()}},
        }
    )
    expected = confusion_matrix(targets, outputs.argmax(1), labels=range(3))
    assert found["counts/0/2"] == expected[0, 2]
    assert sum(found[f"counts/{i}/{j}"] for i in range(3) for j in range(3)) == MANY
    assert found["of/sides/high"] == pytest.approx(float(outputs.max()))
    assert len(found) == 1 + 9 + 3


def by_class(outputs, targets):
    return torch.stack([(targets == k).float().mean() for k in range(3)])


@pytest.mark.parametrize("records", [1, 2, 3, 5, 7, 1001])
def test_neither_one_row_nor_as_many_rows_as_classes_leave_a_doubt(records):
    found, outputs, targets = scored({"rows": right, "all": accuracy, "classes": by_class}, records)
    assert found["rows"] == pytest.approx(float(accuracy(outputs, targets)))
    assert found["all"] == pytest.approx(found["rows"])
    assert [found[f"classes/{k}"] for k in range(3)] == pytest.approx(
        by_class(outputs, targets).tolist()
    )


def test_as_many_numbers_as_rows_from_what_few_alike_are_too_little_for_are_refused():
    def shares(outputs, targets):
        if len(set(targets.tolist())) < 2:
            raise ValueError("one class only")
        return by_class(outputs, targets)

    three = InMemory.of((small_data(3)[0], torch.arange(3)), "cpu", "test")
    metrics = Metrics(nn.CrossEntropyLoss(reduction="none"), {"a": shares})
    with pytest.raises(ModelError, match=r"metric a over 3 .*gives 3 values for 3 rows"):
        evaluate(small_model(), metrics, three)
    found, _, _ = scored({"a": shares})
    assert {"a/0", "a/1", "a/2"} <= set(found)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(36, 3)

    def forward(self, x):
        return {"logits": self.layer(x.flatten(1)), "state": torch.zeros(2, 4), "name": "two"}


def test_of_several_outputs_a_metric_is_given_the_rows():
    def macro(outputs, targets):
        assert outputs["state"] is None
        assert outputs["name"] == "two"
        return f1(outputs["logits"], targets)

    def loss(outputs, targets):
        return nn.functional.cross_entropy(outputs["logits"], targets, reduction="none")

    found, outputs, targets = scored({"f1": macro}, model=TwoHeads(), loss=loss)
    assert found["f1"] == pytest.approx(f1(outputs["logits"], targets))
    trainer = make_trainer(
        model=TwoHeads(), loss=loss, metrics={"f1": macro}, test_tensors=small_data(30)
    ).fit()
    assert 0 <= trainer.history.epochs[-1].test["f1"] <= 1


def test_it_is_kept_with_the_run_and_trains_the_same_weights(tmp_path):
    settings = {"metrics": {"f1": f1, "c": by_class}, "test_tensors": small_data(30, seed=5)}
    trainer = make_trainer(run_dir=tmp_path / "run", **settings)
    for at in trainer.run():
        if at.step == 15:
            break
    trainer.close()
    again = make_trainer(run_dir=tmp_path / "run", **settings).resume().fit()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["test_c/2"] for line in lines] == [
        record.test["c/2"] for record in again.history.epochs
    ]
    assert torch.equal(weights(again.model), weights(make_trainer().fit().model))


def test_without_privacy_metrics_are_the_same():
    test = small_data(MANY, seed=5)
    trainer = make_trainer(privacy=None, metrics={"f1": f1, "rows": right}, test_tensors=test).fit()
    outputs, targets = all_outputs(trainer.model, test)
    assert trainer.history.epochs[-1].test["f1"] == pytest.approx(f1(outputs, targets))


def writes(outputs, targets):
    return outputs.clamp_(min=0).mean()


@pytest.mark.parametrize(
    ("metric", "match"),
    [
        (lambda o, t: float(o[:, 7].mean()), "metric m over 30 test rows: failed .IndexError"),
        (lambda o, t: (o.mean(), o.std()), "m = tuple: must be a number.* return a dict"),
        (lambda o, t: None, "m = NoneType: must be a number"),
        (lambda o, t: "good", "m = str: must be a number"),
        (lambda o, t: o.mean().to(torch.complex64), "m = Tensor: must be a number"),
        (lambda o, t: o.new_zeros(0), "m: gives 0 numbers"),
        (lambda o, t: o.new_zeros(8, 30), "m: gives 240 numbers: must be 1 to 100"),
        (lambda o, t: {"b/c": 1.0, "b": {"c": 2.0}}, "m: gives m/b/c twice"),
        (writes, "metric m over .*writes to the outputs"),
        (torchmetrics.classification.MulticlassAccuracy(5), "metric m over 30 test rows: failed"),
        (torchmetrics.MeanMetric, "metric = MeanMetric: is a class"),
        (0.5, "metric m = float: must be a function"),
    ],
)
def test_a_metric_that_will_not_do_is_refused_before_anything_is_charged(metric, match):
    refused(match, model=small_model(), metrics={"m": metric}, test_tensors=small_data(30))


def test_two_metrics_of_one_name_are_refused():
    two = {"f1": by_class, "f1/1": accuracy}
    refused(
        "f1: gives f1/1, which another is called",
        model=small_model(), metrics=two, test_tensors=small_data(30),
    )  # fmt: skip


def test_a_metric_that_fails_later_is_nan_and_training_goes_on():
    calls = []

    def fails_at_last(outputs, targets):
        calls.append(len(targets))
        if calls.count(30) == 3:
            raise ValueError("Input contains NaN")
        return torch.ones(2) if calls.count(30) < 4 else torch.ones(3)

    trainer = make_trainer(metrics={"m": fails_at_last}, test_tensors=small_data(30))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trainer.fit()
    values = [record.test["m/1"] for record in trainer.history.epochs]
    assert values[0] == 1.0
    assert np.isnan(values[1:]).all()
    assert [list(record.test) for record in trainer.history.epochs] == [["loss", "m/0", "m/1"]] * 3
    messages = [str(warning.message) for warning in told]
    assert "Input contains NaN" in messages[0]
    assert "gives m/0, m/1, m/2 where it gave m/0, m/1 before" in messages[1]
    assert trainer.done == 30


def test_an_array_of_one_number_is_a_number():
    assert numbers("a", np.ones((1, 1))) == {"a": 1.0}
    assert numbers("a", {"b": torch.tensor([2.0])}) == {"a/b": 2.0}
