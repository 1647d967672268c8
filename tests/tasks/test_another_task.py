"""A task is a kind with a name: registered in a line, it has flags, a preset, runs and exports."""

import json
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.errors import ConfigError, ExportError
from dpsgd_torch.export.__main__ import main as export
from dpsgd_torch.tasks import registry
from dpsgd_torch.tasks.base import Knobs, PresetValues, TaskKind, knob
from dpsgd_torch.tasks.task import Task, accuracy, glorot_
from dpsgd_torch.train import main as train


@dataclass(frozen=True, kw_only=True)
class MoonKnobs(Knobs):
    width: int = knob(4, "of the inner layer")


class Moons(TaskKind):
    """Points of two half circles."""

    name, what, knobs = "moons", "half circles", MoonKnobs
    presets = (
        PresetValues("moons", "two half circles", values={"batch_size": 20, "delta": 1e-3}),
        PresetValues("wide-moons", "with a wide layer", values={"batch_size": 20, "width": 9}),
    )

    def points(self, count):
        angle = torch.linspace(0, 3, count)
        return torch.stack([0.5 + angle.cos() / 2, angle.sin()], dim=1).clamp(0, 1)

    def load(self, knobs, data_dir, partial):
        data = self.points(100), (torch.arange(100) > 49).long()
        return Task(
            train=data,
            test=data,
            make_model=lambda generator: glorot_(self.architecture(knobs, ()), generator),
            loss=nn.CrossEntropyLoss(),
            metrics={"accuracy": accuracy},
            labels=("in", "out"),
        )

    def architecture(self, knobs, labels):
        return nn.Sequential(nn.Linear(2, knobs.width), nn.ReLU(), nn.Linear(knobs.width, 2))

    def public_inputs(self, knobs):
        return self.points


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(registry.TASKS, "moons", Moons())
    monkeypatch.setattr("dpsgd_torch.app.run.write_report", lambda *_: None)


def test_it_is_trained_resumed_and_exported_by_its_name(tmp_path, capsys):
    run = tmp_path / "run"
    assert train(["--preset", "moons", "--width", "6", "--epochs", "2", "--out", str(run)]) == 0
    config = json.loads((run / "config.json").read_text())
    assert (config["dataset"], config["task"], config["dataset_size"]) == (
        "moons", {"width": 6}, 100,
    )  # fmt: skip
    assert train(["--resume", str(run)]) == 0
    assert export([str(run), "--to", "c", "--out", str(tmp_path / "c")]) == 0
    assert "epsilon: at most" in (tmp_path / "c" / "model.h").read_text()


def test_help_shows_its_flags_and_not_those_of_other_tasks(capsys):
    with pytest.raises(SystemExit):
        train(["--preset", "wide-moons", "--help"])
    told = capsys.readouterr().out
    assert "of the inner layer (default: 9)" in told
    assert "--hidden" not in told
    assert "  wide-moons        with a wide layer" in told


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--hidden", "8"], "hidden = 8: is for drug responses, not moons; drop it"),
        (["--dropout", "0.1"], "dropout = 0.1: is for "),
        (["--width", "two"], "invalid int value: 'two'"),
        (["--select-features", "3"], "select_features = 3: is for tabular data"),
        (["--dataset", "digits"], "dataset = digits: does not fit preset moons"),
    ],
)
def test_what_is_for_another_task_is_refused_by_its_name(flags, line, capsys):
    assert train(["--preset", "moons", *flags]) == 2
    assert line in capsys.readouterr().err


def test_its_flag_is_refused_elsewhere_by_its_name(capsys):
    assert train(["--preset", "digits", "--width", "3"]) == 2
    assert "width = 3: is for half circles, not digits; drop it" in capsys.readouterr().err


class Bare(TaskKind):
    """What the base class alone gives."""

    name, what = "bare", "nothing"

    def load(self, knobs, data_dir, partial):
        raise AssertionError


@dataclass(frozen=True)
class Unhelpful(Knobs):
    depth: int = 2


@dataclass(frozen=True, kw_only=True)
class Clashing(Knobs):
    epochs: int = knob(2, "the run has these")


def bare(**fields):
    return type("Other", (Bare,), fields)()


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (Bare, "must be a TaskKind, made"),
        (bare(knobs=Unhelpful), "bare: depth has no help"),
        (bare(presets=(PresetValues("digits", "another"),)), "digits has a preset digits"),
    ],
)
def test_what_is_no_whole_task_is_refused_when_it_is_registered(kind, line):
    with pytest.raises(ConfigError, match=line):
        registry.register(kind)
    assert "bare" not in registry.TASKS


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"presets": (PresetValues("b", "", values={"wdth": 3}),)}, "wdth = 3: is for no task"),
        ({"presets": (PresetValues("b", ""),), "knobs": Clashing}, "epochs is a setting of every"),
    ],
)
def test_a_preset_that_cannot_be_built_names_what_is_wrong_and_others_still_can(
    fields, line, monkeypatch, capsys
):
    monkeypatch.setitem(registry.TASKS, "bare", bare(**fields))
    assert train(["--preset", "b"]) == 2
    assert line in capsys.readouterr().err
    assert PRESETS["mnist-lab"]().config.changed(epochs=7).epochs == 7


def test_a_task_that_does_not_tell_its_model_says_what_to_override():
    with pytest.raises(ExportError, match="override architecture"):
        Bare().architecture(Knobs(), ())
    with pytest.raises(ExportError, match="override public_inputs"):
        Bare().public_inputs(Knobs())
