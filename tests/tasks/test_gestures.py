"""The gesture task: made-up motion, what the network is given, and both presets end to end."""

import json
import math
import shlex
import warnings

import numpy as np
import pytest
import torch
from gesture_text import written
from scipy.stats import norm

from dpsgd_torch.app.export.source import read_run
from dpsgd_torch.app.flags import parse
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.app.progress import JsonPresenter
from dpsgd_torch.app.run import run
from dpsgd_torch.errors import ConfigError
from dpsgd_torch.export.__main__ import main as export
from dpsgd_torch.tasks.gestures.synthetic import synthetic_recordings
from dpsgd_torch.tasks.gestures.task import gesture_inputs, gesture_task
from dpsgd_torch.tasks.registry import architecture, public_inputs
from dpsgd_torch.tasks.strokes import stroke_images
from dpsgd_torch.train import main


@pytest.fixture(autouse=True)
def _hook(monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)


def test_made_up_recordings_are_the_same_for_one_seed_and_others_for_another():
    first, again = synthetic_recordings((4, 4)), synthetic_recordings((4, 4))
    assert (first.motion == again.motion).all()
    assert (first.motion != synthetic_recordings((4, 4), seed=1).motion).any()


def test_a_nod_begins_and_ends_with_gravity_alone():
    recordings = synthetic_recordings()
    size = np.linalg.norm(recordings.motion[recordings.gesture == 1, :, :3], axis=2)
    assert np.median(size[:, [0, 1, -2, -1]]) == pytest.approx(1, abs=0.1)
    assert size.max(axis=1).min() > 1.05


def test_motion_stays_within_the_sensor_and_mostly_below_where_it_saturates():
    motion = synthetic_recordings().motion
    assert np.abs(motion[:, :, :3]).max() <= 4
    assert (np.abs(motion[:, :, :3]) == 4).mean() < 0.01
    assert np.abs(motion[:, :, 3:]).max() < 2000


def test_a_wave_turns_to_and_fro_and_a_nod_up_and_down():
    recordings = synthetic_recordings()
    motion, gesture = recordings.motion, recordings.gesture
    yaw, pitch = (motion[:, :, axis].std(axis=1) for axis in (5, 4))
    assert (yaw > pitch)[gesture == 0].mean() > 0.9
    assert (pitch > yaw)[gesture == 1].mean() > 0.8


def test_the_split_is_the_same_every_time_and_nobody_is_in_two_parts():
    task, again = gesture_task(None, "cross-entropy"), gesture_task(None, "mean-squared")
    assert [len(part[1]) for part in (task.train, task.test, task.validation)] == [159, 53, 53]
    assert torch.allclose((task.train[0] + 1) / 2, again.train[0], atol=1e-6)
    assert (task.train[1] == again.train[1]).all()
    parts = torch.cat([task.train[0], task.test[0], task.validation[0]])
    assert len(torch.unique(parts, dim=0)) == 265


def test_inputs_are_scaled_and_in_the_order_they_were_recorded():
    motion = np.zeros((1, 119, 6))
    motion[0, 0] = [4, -4, 0, 2000, -2000, 0]
    motion[0, 1, 0] = 2
    inputs = gesture_inputs(motion, (0.0, 1.0))
    assert inputs.shape == (1, 714)
    assert inputs[0, :7].tolist() == [1, 0, 0.5, 1, 0, 0.5, 0.75]
    assert gesture_inputs(motion, (-1.0, 1.0))[0, :7].tolist() == [1, -1, 0, 1, -1, 0, 0.5]


@pytest.mark.parametrize("name", ["mnist-tutorial", "digits", "gesture", "gesture-notebook"])
def test_inputs_made_up_without_data_fit_the_model_built_without_data(name):
    config = PRESETS[name]().config
    model = architecture(config, ("a", "b", "c")).eval()
    inputs = public_inputs(config)(6)
    assert inputs.min() >= (-1 if name == "gesture" else 0)
    assert inputs.max() <= 1
    classes = 3 if config.dataset == "gestures" else 10
    assert model(inputs).shape == (6, classes)


def test_strokes_look_like_pen_on_paper():
    images = stroke_images(200)
    ink = (images > 0.5).float().mean(dim=(1, 2, 3))
    assert 0.03 < ink.median() < 0.3  # of MNIST's digits 0.13
    assert images[:, :, 0].max() < 0.5
    assert (images == stroke_images(200)).all()


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """A short run of the notebook's preset, past the epoch from which its last ones are drawn."""
    out = tmp_path_factory.mktemp("runs") / "notebook"
    words = ["--preset", "gesture-notebook", "--epochs", "101", "--batch-size", "32"]
    words += ["--microbatches", "32", "--out", str(out), "--seed", "1"]
    assert main(words) == 0
    return out


def test_the_notebook_reports_loss_and_mae_from_epoch_100(notebook):
    page = (notebook / "report.html").read_text()
    for title in ("Test MAE by epoch", "Test MAE from epoch 100", "Test loss from epoch 100"):
        assert f"<figcaption>{title}</figcaption>" in page


def test_the_statement_is_plain_about_made_up_data_and_few_records(notebook):
    words = " ".join((notebook / "statement.txt").read_text().split())
    assert "made up by a model of motion" in words
    assert "With n = 159 records little can be promised" in words
    assert "well below 1/n" in words


def test_the_run_says_what_its_numbers_mean(notebook):
    facts = json.loads((notebook / "task.json").read_text())
    assert facts == {
        "labels": ["hi", "sup"], "input_shape": [714], "input_range": [0.0, 1.0],
        "output": "probabilities", "synthetic": True,
    }  # fmt: skip
    outputs = read_run(notebook).model(public_inputs(read_run(notebook).config)(4))
    assert outputs.sum(dim=1).tolist() == pytest.approx([1] * 4)


def recorded(folder):
    """A folder of 50 recordings of two gestures, 30 of them for training."""
    folder.mkdir()
    return written(folder, synthetic_recordings((20, 30), seed=5))


def test_a_folder_of_ones_own_is_trained_on_and_its_size_taken(tmp_path):
    folder = recorded(tmp_path / "mine")
    out = tmp_path / "run"
    words = ["--preset", "gesture", "--batch-size", "10", "--epochs", "2"]
    assert main([*words, "--data-dir", str(folder), "--out", str(out)]) == 0
    assert json.loads((out / "task.json").read_text())["labels"] == ["left", "right"]
    assert json.loads((out / "privacy.json").read_text())["dataset_size"] == 30
    said = " ".join((out / "statement.txt").read_text().split())
    assert "one recording, not one person" in said


def gaussian_delta(epsilon, noise, steps):
    """δ of so many releases of all records: Gaussian, of mean √steps / noise [Balle, Wang 2018]."""
    mean = math.sqrt(steps) / noise
    here, there = norm.cdf(mean / 2 - epsilon / mean), norm.cdf(-mean / 2 - epsilon / mean)
    return here - math.exp(epsilon) * there


def test_with_30_recordings_a_batch_is_all_of_them_and_the_promise_is_right(tmp_path):
    """Fewer than the preset's batch of 64: the batch follows n, which is declared."""
    folder = recorded(tmp_path / "mine")
    out = tmp_path / "run"
    words = ["--preset", "gesture", "--epochs", "5", "--data-dir", str(folder)]
    assert main([*words, "--out", str(out)]) == 0
    config = json.loads((out / "config.json").read_text())
    assert (config["batch_size"], config["dataset_size"]) == (30, 30)
    spent = json.loads((out / "privacy.json").read_text())
    noise = spent["noise_multiplier"]
    assert 2.99 < spent["epsilon"] <= 3
    assert gaussian_delta(spent["epsilon"], noise, steps=5) <= 1e-3
    assert gaussian_delta(spent["epsilon"] - 0.01, noise, steps=5) > 1e-3
    said = " ".join((out / "statement.txt").read_text().split())
    assert "every record joined every batch (30 of 30: sampling hid none of them)" in said
    assert "With n = 30 records little can be promised" in said
    assert export([str(out), "--to", "c"]) == 0


def test_a_batch_that_was_asked_for_does_not_follow(tmp_path, capsys):
    folder = recorded(tmp_path / "mine")
    words = ["--preset", "gesture", "--batch-size", "64", "--data-dir", str(folder)]
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    assert "batch_size = 64: must be at most n = 30; lower" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [["--folds", "5"], []], ids=["folds", "one"])
def test_a_batch_leaves_out_who_is_held_out(tmp_path, words):
    folder, out = recorded(tmp_path / "mine"), tmp_path / "run"
    words = ["--preset", "gesture-best", "--epochs", "1", "--directions", "2", *words]
    words += ["--no-dp", "--validation", "public"]
    assert main([*words, "--data-dir", str(folder), "--out", str(out)]) == 0
    assert json.loads((out / "config.json").read_text())["batch_size"] == 24


def test_presets_follow_a_declared_number_and_keep_their_batch_where_it_fits():
    def batch(*words):
        return parse(["--preset", "gesture", *words]).preset.config.batch_size

    assert batch() == 64
    assert batch("--dataset-size", "159") == 64
    assert batch("--dataset-size", "36") == 36
    with pytest.raises(ConfigError, match="batch_size = 64: must be at most n = 36"):
        batch("--dataset-size", "36", "--batch-size", "64")


def test_an_interrupted_run_says_how_to_go_on_with_its_own_recordings(tmp_path, capsys):
    folder = recorded(tmp_path / "my recordings")
    out = tmp_path / "run"

    class Impatient(JsonPresenter):
        def follow(self, name, steps):
            next(iter(steps))
            raise KeyboardInterrupt

    words = ["--preset", "gesture", "--batch-size", "10", "--epochs", "2", "--out", str(out)]
    request = parse([*words, "--data-dir", str(folder), "--partial", "drop"])
    with pytest.raises(KeyboardInterrupt) as stopped:  # whose frames live on: the ledger must not
        run(request, Impatient())
    words = shlex.split(str(stopped.value).split("go on with ")[1])
    assert words[:3] == ["python", "-m", "dpsgd_torch.train"]
    assert main(["--resume", str(out)]) == 2  # not on made-up recordings
    assert "its data changed" in capsys.readouterr().err
    assert main(words[3:]) == 0
    assert (out / "report.html").exists()


def test_recordings_that_cannot_be_read_stop_the_run_before_it_begins(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["--preset", "gesture", "--data-dir", str(tmp_path), "--out", str(out)]) == 2
    assert "needs a file a gesture" in capsys.readouterr().err
    assert not out.exists()


def test_a_loss_that_does_not_fit_is_refused(capsys):
    assert main(["--preset", "digits", "--loss", "mean-squared"]) == 2
    assert "loss = mean-squared" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_a_torn_recording_is_dropped_by_the_command_line_when_asked(tmp_path, capsys):
    written(tmp_path, synthetic_recordings((6, 6), seed=6))
    lines = (tmp_path / "left.csv").read_text().split("\n")
    (tmp_path / "left.csv").write_text("\n".join(lines[:1] + lines[15:]))  # torn: the first
    words = ["--preset", "gesture", "--batch-size", "2", "--epochs", "1"]
    words += ["--data-dir", str(tmp_path), "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "--partial drop" in capsys.readouterr().err
    assert main([*words, "--partial", "drop"]) == 0
    told = capsys.readouterr().err
    assert "left.csv: dropped as no whole recording: 105 rows from line 2" in told
