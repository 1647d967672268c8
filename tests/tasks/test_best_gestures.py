"""`gesture-best`: a linear head on statistics of motion, and what its statement rests on."""

import json

import pytest

from dpsgd_torch import ConfigError
from dpsgd_torch.app.flags import parse
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.errors import ExportError
from dpsgd_torch.tasks.registry import architecture, public_inputs
from dpsgd_torch.train import main


def test_at_epsilon_1_made_up_gestures_are_told_apart_and_no_class_is_known(tmp_path, capsys):
    out = tmp_path / "run"
    flags = ["--preset", "gesture-best", "--epsilon", "1", "--seed", "1", "--out", str(out)]
    assert main(flags) == 0
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["test_accuracy"] > 0.9
    assert json.loads((out / "privacy.json").read_text())["epsilon"] <= 1
    words = " ".join((out / "statement.txt").read_text().split())
    assert "Prior, not covered by ε" in words
    assert "made-up motions about random axes, of no known gesture: no class knowledge" in words
    assert "chosen on made-up motions alone" in words
    assert json.loads((out / "task.json").read_text())["input_range"] == [-2.0, 2.0]


def test_the_learning_rate_follows_epsilon():
    def config(*flags):
        return parse(["--preset", "gesture-best", *flags]).preset.config

    assert config() == config("--epsilon", "3")
    assert config("--epsilon", "1").learning_rate < config("--epsilon", "8").learning_rate
    assert config("--epsilon", "1", "--learning-rate", "2").learning_rate == 2


def test_a_head_on_statistics_is_not_exported():
    asked = PRESETS["gesture-best"]().config
    for refused in (lambda: architecture(asked, ("a", "b")), lambda: public_inputs(asked)):
        with pytest.raises(ExportError, match="transform = statistics: its model is a head"):
            refused()
    assert architecture(asked.changed(transform="none"), ("a", "b")) is not None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--directions", "33"], "directions = 33: must be at most 32"),
        (["--loss", "mean-squared"], "loss = mean-squared: is for the network"),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(flags, words):
    with pytest.raises(ConfigError, match=words):
        parse(["--preset", "gesture-best", *flags])
