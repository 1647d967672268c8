"""Views, averages, filters and corrected optimizers from the command line: told, or refused."""

import json

import pytest

from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.app.report.recipe import recipe
from dpsgd_torch.errors import ConfigError
from dpsgd_torch.train import main


def test_a_run_says_whose_weights_it_leaves_and_what_its_gradients_are(tmp_path, capsys):
    words = ["--preset", "digits", "--epochs", "1", "--views", "2", "--average", "ema:0.9"]
    more = ["--filter", "doppler:0.8", "--out", str(tmp_path / "run"), "--seed", "1"]
    assert main([*words, *more]) == 0
    told = " ".join((tmp_path / "run" / "statement.txt").read_text().split())
    assert "the gradients of 2 augmented views were averaged before the clip" in told
    assert "low-pass filtered (DOPPLER of first order, pole 0.8)" in told
    assert "an exponential average (decay 0.9) of those after each step" in told
    privacy = json.loads((tmp_path / "run" / "privacy.json").read_text())
    assert privacy["weights"].startswith("an exponential average")


def test_by_default_nothing_is_told_and_nothing_is_asked():
    assert recipe(RunConfig()) == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optimizer": "adam-bc", "filter": "disk"}, "optimizer = adam-bc"),
        ({"average": "ema:2"}, "average = ema:2"),
        ({"filter": "kalman"}, "filter = kalman"),
        ({"average": "ema", "shard": True}, "--shard"),
        ({"views": 2, "compile": True}, "--compile"),
        ({"views": 2, "microbatches": 50}, "--microbatches"),
        ({"views": 2, "privacy_unit": "drug_id"}, "--privacy-unit"),
        ({"views": 0}, "views = 0"),
        ({"weight_decay": -1.0}, "weight_decay"),
    ],
)
def test_what_cannot_be_had_together_is_refused_in_one_line(values, words):
    with pytest.raises(ConfigError, match=words) as refused:
        PRESETS["mnist-tutorial"]().config.changed(**values)
    assert "\n" not in str(refused.value)


def test_views_of_what_has_none_are_refused_before_anything_is_charged(tmp_path, capsys):
    words = ["--preset", "digits-best", "--epochs", "1", "--views", "2"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    assert "has no augmentation as it is trained here" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["adam", "adamw", "adam-bc", "adamw-bc"])
def test_each_optimizer_is_made_with_what_was_asked(kind):
    from torch import nn, zeros

    from dpsgd_torch.app.assembly import _optimizer

    config = RunConfig(optimizer=kind, weight_decay=0.1, learning_rate=0.01, noise_floor=0.5)
    group = _optimizer(config)([nn.Parameter(zeros(1))]).param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.01, 0.1)
    if kind.endswith("-bc"):
        assert (group["floor"], group["decoupled"]) == (0.5, kind == "adamw-bc")
