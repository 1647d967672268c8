"""The four presets, a few steps each: private, told as synthetic, exported where they can be."""

import json
import shutil

import pytest
import torch
from tiny_runs import tiny_run

from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.errors import ConfigError
from dpsgd_torch.export.__main__ import main as export
from dpsgd_torch.tasks.cifar.synthetic import synthetic_objects
from dpsgd_torch.tasks.machines.synthetic import synthetic_machines
from dpsgd_torch.tasks.registry import TASKS, public_inputs
from dpsgd_torch.tasks.speech.synthetic import synthetic_speech
from dpsgd_torch.tasks.wake_words.synthetic import synthetic_figures

NAMES = ("keyword-spotting", "wake-words", "image-classification", "anomaly-detection")
BARE = ("keyword-spotting", "anomaly-detection")  # are exported below, and so have no norm

pytestmark = pytest.mark.filterwarnings("ignore:local, not covered by ε")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """name → the folder of a run of two steps, which each test of a preset shares."""
    done = {}

    def run(name):
        if name not in done:
            norm = "none" if name in BARE else "group"
            done[name] = tiny_run(name, tmp_path_factory.mktemp(name), norm)
        return done[name]

    return run


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_trains_and_its_statement_says_that_the_data_is_made_up(name, ran):
    out = ran(name)
    words = " ".join((out / "statement.txt").read_text().split())
    assert "made up by a" in words
    assert "nobody's privacy is at stake" in words
    assert json.loads((out / "task.json").read_text())["synthetic"] is True
    spent = json.loads((out / "privacy.json").read_text())
    assert 0 < spent["epsilon"] < 10
    assert spent["steps"] == 2
    assert f"ε = {spent['epsilon']:.2f}" in words
    (row,) = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    score = row["test_AUC" if name == "anomaly-detection" else "test_accuracy"]
    assert 0 <= score <= 1


def test_the_report_of_an_autoencoder_does_not_speak_of_classes(ran):
    report = (ran("anomaly-detection") / "report.html").read_text()
    assert "the model tells values, not a class" in report


@pytest.mark.parametrize("name", BARE)
def test_what_was_trained_goes_onto_a_board(name, ran):
    out = ran(name)
    assert export([str(out), "--to", "c"]) == 0
    text = (out / "export" / "c" / "model.h").read_text()
    assert "synthetic" in text
    assert "epsilon" in text


def test_a_recording_of_many_vectors_is_one_unit(ran, tmp_path, capsys):
    out = tmp_path / "copy"
    shutil.copytree(ran("anomaly-detection"), out)
    config = json.loads((out / "config.json").read_text())
    assert (config["privacy_unit"], config["dataset_size"]) == ("recording", 40)
    config["privacy_unit"] = "patient"
    (out / "config.json").write_text(json.dumps(config))
    assert export([str(out), "--to", "c"]) == 2
    assert "privacy_unit = 'patient'" in capsys.readouterr().err


def test_outputs_that_are_values_have_no_labels(ran, tmp_path, capsys):
    out = tmp_path / "copy"
    shutil.copytree(ran("anomaly-detection"), out)
    task = json.loads((out / "task.json").read_text())
    (out / "task.json").write_text(json.dumps({**task, "labels": ["usual", "unusual"]}))
    assert export([str(out), "--to", "c"]) == 2
    assert "labels = ['usual', 'unusual']: must be names" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_public_inputs_lie_in_the_declared_range_and_are_no_training_row(name):
    config = PRESETS[name]().config
    kind = TASKS[config.dataset]
    inputs = public_inputs(config)(24)
    low, high = kind.input_range(config.task)
    assert len(inputs) == 24
    assert inputs.dtype == torch.float32
    assert low <= inputs.min() < inputs.max() <= high
    trained = kind.load(config.task.__class__(made_up_rows=24), None, "refuse").train[0]
    assert not (trained[:24] == inputs).flatten(1).all(1).any()
    assert torch.equal(public_inputs(config)(24), inputs)


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: synthetic_speech(12, seed).sound,
        lambda seed: synthetic_objects(12, seed)[0],
        lambda seed: synthetic_figures(6, seed)[0],
        lambda seed: synthetic_machines(4, 2, seed, 5).values,
    ],
)
def test_made_up_records_are_the_same_for_one_seed_alone(make):
    assert (make(1) == make(1)).all()
    assert not (make(1) == make(2)).all()
    assert len({record.tobytes() for record in make(1)}) == len(make(1))


def test_flags_of_other_tasks_are_refused_by_name():
    with pytest.raises(ConfigError, match="unknown_one_in = 3: is for spoken keywords, not cifar"):
        PRESETS["image-classification"]().config.changed(unknown_one_in=3)
    with pytest.raises(ConfigError, match="norm = batch: must be one of group, standardized, none"):
        PRESETS["wake-words"]().config.changed(norm="batch")


def test_explain_loss_is_refused_where_there_is_no_accuracy():
    with pytest.raises(ConfigError, match="an autoencoder classes nothing"):
        PRESETS["anomaly-detection"]().config.changed(explain_loss=True)


def test_a_deep_classifier_becomes_integers_by_improved_ranges_by_default(ran, tmp_path):
    out = ran("keyword-spotting")
    asked = {"": [], "improved": ["--calibration", "improved"], "plain": ["--calibration", "plain"]}
    files = {}
    for name, flags in asked.items():
        to = tmp_path / (name or "default")
        assert export([str(out), "--to", "c", "--out", str(to), *flags]) == 0
        files[name] = (to / "model.c").read_bytes()
    assert files[""] == files["improved"] != files["plain"]
    own = {name for name, kind in TASKS.items() if kind.calibration == "improved"}
    assert own == {"speech", "wake-words", "cifar"}
    assert {TASKS[name].calibration for name in TASKS.keys() - own} == {"plain"}
