"""What a run by randomized labels released is read from its ledger alone, and told everywhere."""

import contextlib
import json
import sqlite3
import warnings

import numpy as np
import pytest

from accountant import LedgerError, RandomizedResponse, Relation
from dpsgd_torch.app.randomized_labels import label_epsilon
from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.export.__main__ import main as export
from dpsgd_torch.mechanisms import randomized_response
from dpsgd_torch.mechanisms.randomized_response import LabelPrivacy
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.train import main

WORDS = ["--preset", "digits", "--no-dp", "--label-epsilon", "3", "--epochs", "1", "--seed", "5"]


@pytest.fixture(autouse=True)
def _hook(monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)


@pytest.fixture
def run(tmp_path):
    assert main([*WORDS, "--out", str(tmp_path / "run")]) == 0
    return tmp_path / "run"


def edit(path, **changes):
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, **changes}))


def edit_both(folder, **changes):
    """In config.json and in the run's own copy of it, as only who holds private/ can."""
    edit(folder / "config.json", **changes)
    kept = RunFolder(folder).read_sealed("private/plan.json")
    kept["config"] |= changes
    RunFolder(folder).write_sealed("private/plan.json", kept)


def refusal(capsys, *words):
    capsys.readouterr()
    assert main(list(map(str, words))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    "changes",
    [
        {"label_epsilon": 1.0},
        {"label_epsilon": None},
        {"label_epsilon": None, "dp": True, "epsilon": 1.0},
        {"delta": 1e-9},
        {"seed": False},  # the statement would no longer say that the noise can be subtracted
        {"twin": True},
        {"privacy_unit": "patient"},
        {"learning_rate": 0.5},
    ],
    ids=str,
)
def test_a_config_that_was_edited_before_a_resume_is_refused_by_the_field(run, capsys, changes):
    before = {p: p.read_bytes() for p in run.iterdir() if p.is_file() and p.name != "config.json"}
    edit(run / "config.json", **changes)
    line = refusal(capsys, "--resume", run)
    assert "config.json: " in line
    assert any(f"{name} changed" in line for name in changes)
    assert {path: path.read_bytes() for path in before} == before


def test_an_epsilon_that_is_not_the_ledgers_is_refused_even_where_every_copy_was_edited(
    run, capsys
):
    edit_both(run, label_epsilon=1.0)
    line = refusal(capsys, "--resume", run)
    assert "label_epsilon = 1.0 among 10: the ledger's labels were told at 3.0 among 10" in line
    assert json.loads((run / "privacy.json").read_text())["epsilon"] == 3.0
    assert "ε = 3.0" in (run / "statement.txt").read_text()


def test_a_run_by_row_whose_unit_or_delta_was_edited_is_refused_likewise(tmp_path, capsys):
    run = tmp_path / "run"
    words = ["--preset", "digits", "--epochs", "1", "--out", str(run), "--noise-multiplier", "3"]
    assert main(words) == 0
    good = (run / "config.json").read_text()
    for field, value in {"delta": 1e-2, "clip_norm": 0.5, "dataset_size": 5000}.items():
        (run / "config.json").write_text(good)
        edit(run / "config.json", **{field: value})
        assert f"{field} changed" in refusal(capsys, "--resume", run)
    (run / "config.json").write_text(good)
    edit_both(run, delta=1e-4)  # the trainer's contract still knows
    assert "its privacy changed" in refusal(capsys, "--resume", run)


def test_a_lost_ledger_is_refused_whether_or_not_the_answers_are_lost_too(run, capsys):
    (run / "ledger.sqlite").unlink()
    assert "missing or empty; restore it" in refusal(capsys, "--resume", run)
    (run / "private" / "answers.json").unlink()
    assert "missing or empty; restore it" in refusal(capsys, "--resume", run)


@pytest.mark.parametrize("answers", [None, [1, 2], [10] * 1437, ["1"] * 1437])
def test_answers_of_another_run_are_refused(run, capsys, answers):
    RunFolder(run).write_sealed("private/answers.json", {"answers": answers})
    assert "answers.json: holds no answer for each record" in refusal(capsys, "--resume", run)


@pytest.mark.parametrize("epsilon", [1e-6, 0.1, 1 / 3, 2.0, 3.0, 12.5, 30.0, 36.0, 45.0])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_what_an_answer_was_charged_as_tells_its_epsilon_and_never_less(classes, epsilon):
    event = LabelPrivacy(classes, epsilon).event
    found = LabelPrivacy.charged_as(event)
    truth = np.log1p((1 - event.noise_parameter) * classes / event.noise_parameter)
    assert found.classes == classes
    assert found.epsilon == pytest.approx(epsilon, rel=1e-3 if epsilon < 31 else 0.3)
    assert found.epsilon >= truth * (1 - 1e-9)
    assert truth <= epsilon * (1 + 1e-9)
    LabelPrivacy(classes, epsilon).refuse_dearer()  # OpenDP would draw it


def test_a_ledger_of_something_else_states_no_epsilon_for_labels(tmp_path):
    other = RandomizedResponse(noise_parameter=0.5, relation=Relation.REPLACE_ONE)
    with pytest.raises(LedgerError, match="no answer about labels"):
        label_epsilon([(other, 1)], tmp_path)
    with pytest.raises(LedgerError, match="holds no answer"):
        label_epsilon([], tmp_path)


def test_the_loss_says_which_answers_it_is_for():
    first, second = (LabelPrivacy(10, epsilon).debiased() for epsilon in (3.0, 1.0))
    assert str(first) != str(second)
    assert "epsilon=3.0" in str(first)


@pytest.mark.parametrize("to", [["c"], ["onnx"], ["header"], ["tflite"]])
def test_an_export_says_what_labels_were_promised(run, tmp_path, to):
    out = tmp_path / "out"
    assert export([str(run), "--to", *to, "--out", str(out)]) == 0
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    words = " ".join(files.pop("statement.txt").decode().split())
    assert "as far as labels go" in words
    text = b"".join(files.values())
    assert b"at most 3.0000" in text
    assert b"label_change, the unit of privacy is one label" in text
    assert b"without differential privacy" not in text


def test_the_unit_of_an_export_is_the_runs(run, tmp_path, capsys):
    edit(run / "privacy.json", unit="one person")
    capsys.readouterr()
    assert export([str(run), "--to", "c", "--out", str(tmp_path / "out")]) == 2
    assert "unit = 'one person': config.json asks for one label" in capsys.readouterr().err


def test_an_export_refuses_an_epsilon_below_the_ledgers(run, tmp_path, capsys):
    edit(run / "privacy.json", epsilon=1.0)
    capsys.readouterr()
    assert export([str(run), "--to", "c", "--out", str(tmp_path / "out")]) == 2
    assert "the ledger's charges cost 3.0 at least" in capsys.readouterr().err


def test_a_label_epsilon_that_cannot_be_drawn_is_refused_before_it_is_charged(
    tmp_path, monkeypatch, capsys
):
    def dearer(*_):
        raise GuaranteeBroken("randomized response: OpenDP's price is above what is charged")

    monkeypatch.setattr(randomized_response, "refuse_dearer", dearer)
    run = tmp_path / "run"
    capsys.readouterr()
    assert main([*WORDS, "--out", str(run)]) == 2
    monkeypatch.undo()
    with contextlib.closing(sqlite3.connect(run / "ledger.sqlite")) as ledger:
        assert ledger.execute("SELECT COUNT(*) FROM charge").fetchone() == (0,)
    assert main(["--resume", str(run)]) == 0
