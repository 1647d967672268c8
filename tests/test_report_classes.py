"""Class by class on the report: counts of the public test rows alone, and records beside a run."""

import dataclasses
import json
import math
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torchmetrics.classification import MulticlassCalibrationError

from dpsgd_torch.app.classified import Classified, classify
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.app.report.class_plots import class_pictures
from dpsgd_torch.app.report.records import beside_records, comparable, records_of
from dpsgd_torch.data.in_memory import InMemory
from dpsgd_torch.tasks.digits.task import digits_task
from dpsgd_torch.tasks.registry import TASKS
from dpsgd_torch.tasks.task import Task, accuracy
from dpsgd_torch.train import main
from dpsgd_torch.training.history import EpochRecord, History


class Never:
    """Training rows that nobody may look at."""

    def __getattr__(self, name):
        raise AssertionError("a training row was asked for")

    def __getitem__(self, index):
        raise AssertionError("a training row was asked for")


class Told(nn.Module):
    """Gives its inputs out, changed by as much, as logits."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, inputs):
        return self.scale * inputs


def task_of(logits, truth, labels=("a", "b", "c"), output="logits"):
    return Task(
        train=Never(),
        test=(logits, truth),
        make_model=lambda _: Told(),
        loss=nn.CrossEntropyLoss(),
        metrics={},
        labels=labels,
        output=output,
    )


def counted(models, task):
    return classify(models, InMemory(*task.test), task)


def made_up(rows, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, classes, generator=generator)
    truth = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return logits, truth  # calibrated: bins err to both sides, which coarser ones would hide


def test_a_confusion_matrix_holds_each_test_row_once_by_truth_and_by_what_was_told():
    logits = torch.tensor([[9.0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9], [0, 0, 9]])
    found = counted([Told()], task_of(logits, torch.tensor([0, 1, 1, 2, 2])))
    assert found.confusion.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 2]]
    assert found.of_class.tolist() == [1, 2, 2]
    assert found.by_class.tolist() == [1.0, 0.5, 1.0]
    assert found.accuracy == 0.8


@pytest.mark.parametrize(("rows", "classes"), [(2500, 3), (700, 10)])
@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_the_calibration_error_is_that_of_torchmetrics(rows, classes, output):
    logits, truth = made_up(rows, classes)
    told = logits if output == "logits" else logits.softmax(1)
    found = counted([Told()], task_of(told, truth, tuple(map(str, range(classes))), output))
    theirs = MulticlassCalibrationError(classes, n_bins=15, norm="l1")(logits.softmax(1), truth)
    assert found.calibration_error == pytest.approx(float(theirs), abs=1e-6)
    assert 0.001 < found.calibration_error < 0.1
    assert found.confusion.sum() == found.bins[:, 0].sum() == rows
    assert found.accuracy == pytest.approx(accuracy(logits, truth).mean().item())


def test_several_models_are_counted_each_and_their_accuracies_averaged():
    logits, truth = made_up(200, 3)
    task = task_of(logits, truth)
    right, turned = counted([Told()], task), counted([Told(-1.0)], task)
    both = counted([Told(), Told(-1.0)], task)
    assert both.confusion.tolist() == (right.confusion + turned.confusion).tolist()
    assert both.accuracy == pytest.approx((right.accuracy + turned.accuracy) / 2)
    assert (both.rows, both.of_class.sum()) == (200, 200)


@pytest.mark.parametrize(
    ("logits", "truth", "labels", "why"),
    [
        (torch.zeros(4, 3), torch.zeros(4, 3), ("a", "b", "c"), "several labels"),
        (torch.zeros(4, 5, 9), torch.zeros(4, 5).long(), (), "the next token"),
        (torch.zeros(4, 2), torch.zeros(4).long(), ("a", "b", "c"), "each of 3 classes"),
        (torch.full((4, 3), math.nan), torch.zeros(4).long(), ("a", "b", "c"), "not finite"),
    ],
)
def test_what_cannot_be_counted_is_told_in_words(logits, truth, labels, why):
    assert why in counted([Told()], task_of(logits, truth, labels))


def test_without_test_rows_nothing_is_counted():
    task = dataclasses.replace(task_of(torch.zeros(1, 3), torch.zeros(1).long()), test=None)
    assert "no test rows" in classify([Told()], None, task)


def test_pictures_say_in_words_what_they_show():
    logits = torch.tensor([[9.0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9], [0, 0, 9]])
    task = task_of(logits, torch.tensor([0, 1, 1, 2, 2]), ("<b>", "$x^2$", "鳥"))
    matrix, by_class, reliability = class_pictures(counted([Told()], task))
    assert "1 times, $x^2$ is taken for &lt;b&gt;" in matrix.html
    assert "<b>" not in matrix.html
    assert "鳥" in matrix.svg
    assert "From 50.0% ($x^2$, 2 rows) to 100.0% (<b>, 1 rows)" in by_class.note
    assert "so it is too sure" in reliability.note
    for picture in (matrix, by_class, reliability):
        assert picture.html.startswith('<svg role="img" aria-label="')


def test_many_classes_have_no_matrix_and_a_class_without_rows_no_share():
    classes = 50
    logits, _ = made_up(400, classes)
    found = counted([Told()], task_of(logits, torch.arange(400) % 49, tuple(map(str, range(50)))))
    assert np.isnan(found.by_class).tolist() == [False] * 49 + [True]
    assert [each.title for each in class_pictures(found)] == [
        "Accuracy of each class", "Calibration",
    ]  # fmt: skip


def test_records_belong_to_a_task_and_name_their_source():
    text = {name: records_of(name) for name in TASKS}
    assert {name for name, records in text.items() if records} == {
        "mnist", "fashion-mnist", "digits",
    }  # fmt: skip
    for record in sum(text.values(), ()):
        assert 0 < record.epsilon < 10
        assert 50 < record.accuracy < 100  # per cent
        assert record.source
        assert record.own == record.source.startswith("python ")
    shuffled = [r for name in ("mnist", "fashion-mnist") for r in text[name] if "Boneh" in r.who]
    assert [r.accuracy for r in shuffled] == [98.7, 89.7]
    assert all("shuffled but priced as Poisson" in r.note for r in shuffled)


@pytest.mark.parametrize(
    ("preset", "changes"),
    [("gesture", {}), ("moa", {}), ("text", {}), ("digits", {"dp": False})],
)
def test_a_run_that_has_no_like_is_set_beside_no_record(preset, changes):
    assert comparable(PRESETS[preset]().config.changed(**changes)) == ()


def test_the_run_ends_where_its_history_does():
    rows = [EpochRecord(epoch=i, step=i, epsilon=i / 2, test={"accuracy": 0.4 + i / 20})
            for i in (1, 2, 4)]  # fmt: skip
    told = beside_records(History(rows), records_of("digits")).alt
    assert "this run ends at 60.00 % for ε = 2; " in told
    assert "digits 92.2 % for ε = 3" in told
    assert beside_records(History(rows), ()) is None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "run"
    hook = warnings.showwarning
    words = ["--preset", "digits", "--epochs", "1", "--folds", "2", "--seed", "3", "--json"]
    try:
        assert main([*words, "--out", str(out)]) == 0
    finally:
        warnings.showwarning = hook
    return out


def test_the_page_shows_what_the_saved_models_tell_of_the_test_rows(run):
    task = digits_task(dropout=0.0)
    models = [task.make_model(torch.Generator()) for _ in range(2)]
    for number, model in enumerate(models, 1):
        model.load_state_dict(load_file(run / f"fold-{number}" / "model.safetensors"))
    found = counted(models, dataclasses.replace(task, train=Never()))
    assert isinstance(found, Classified)
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert found.accuracy == pytest.approx(last["test_accuracy"], abs=1e-6)
    page = (run / "report.html").read_text()
    assert "Counts of the 360 test rows, each told by 2 models" in " ".join(page.split())
    for picture in class_pictures(found):
        assert picture.html in page
    assert "python benchmarks/presets.py" in page
    assert "Boneh" not in page
