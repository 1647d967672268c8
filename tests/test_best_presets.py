"""Presets on fixed features: settings follow ε, and the statement says what was known before."""

import json

import pytest
import torch

from dpsgd_torch import ConfigError
from dpsgd_torch.app.flags import parse
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.errors import ExportError
from dpsgd_torch.tasks.image_features import recipe_of
from dpsgd_torch.tasks.registry import architecture, public_inputs
from dpsgd_torch.train import main

PLAIN = ["--preset", "digits-best", "--pretrained-on", "none"]  # a CNN takes half a minute to learn
BEST = ["mnist-best", "fashion-best", "digits-best"]


def config(*flags):
    return parse(list(flags)).preset.config


def flat(path):
    return " ".join(path.read_text().split())


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dpsgd_torch" / "features"


@pytest.mark.parametrize("name", BEST)
def test_the_learning_rate_rises_with_epsilon_by_a_rule(name):
    rates = [config("--preset", name, "--epsilon", e).learning_rate for e in ("1", "2", "3", "8")]
    assert rates == sorted(rates)
    assert rates[0] < rates[-1]
    assert config("--preset", name) == config("--preset", name, "--epsilon", "3")


def test_a_rate_that_is_given_is_the_one_that_is_taken():
    given = config("--preset", "mnist-best", "--epsilon", "1", "--learning-rate", "7")
    assert given.learning_rate == 7


def test_random_convolutions_are_fashion_bests_alone_and_can_be_left_out():
    assert recipe_of(config("--preset", "fashion-best").task).kernels == 300
    assert recipe_of(config("--preset", "fashion-best", "--kernels", "0").task).kernels is None
    assert recipe_of(config("--preset", "mnist-best").task).kernels is None


def test_the_accuracy_at_epsilon_3_is_better_than_the_cnns(tmp_path, own_cache, capsys):
    """The CNN of ``digits`` has 92.2 % (docs/guides/presets.md)."""
    out = tmp_path / "run"
    assert main([*PLAIN, "--seed", "1", "--out", str(out)]) == 0
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["test_accuracy"] > 0.94
    assert json.loads((out / "privacy.json").read_text())["epsilon"] <= 3
    words = flat(out / "statement.txt")
    assert "Prior, not covered by ε: WITH class knowledge" in words
    assert "made-up digits, drawn by hand-written strokes: class knowledge of its author" in words
    assert "ε does not cover how it was chosen" in words
    assert "a linear head that learnt made-up images of these classes first" in words
    assert "what made-up digits alone say, 1,437 of another pen in place of these," in words
    assert "had been tried on this data's test images, which nothing paid for" in words
    assert json.loads((out / "task.json").read_text())["input_range"] == [-4.0, 4.0]
    names = sorted(each.name.split("-")[0] for each in own_cache.iterdir())
    assert names == ["basis", "head", "rows", "rows"]  # to train and to test on


def test_without_the_prior_the_statement_claims_no_class_knowledge(tmp_path, own_cache, capsys):
    out = tmp_path / "run"
    flags = ["--no-prior", "--no-keep-features", "--epochs", "1", "--batch-size", "32"]
    assert main([*PLAIN, *flags, "--seed", "1", "--out", str(out)]) == 0
    words = flat(out / "statement.txt")
    assert "signs, strokes drawn at random that nobody writes: no class knowledge" in words
    assert "WITHOUT class knowledge" in words
    assert "a linear head from zero" in words
    assert "class knowledge of its author" not in words
    assert "WITH class" not in words
    assert not own_cache.exists()


def test_a_head_is_not_exported_without_its_features():
    asked = PRESETS["digits-best"]().config
    with pytest.raises(ExportError, match="transform = scattering: its model is a head"):
        architecture(asked, tuple("0123456789"))
    with pytest.raises(ExportError, match="transform = scattering"):
        public_inputs(asked)
    asked = asked.changed(transform="none")
    assert isinstance(architecture(asked, tuple("0123456789")), torch.nn.Module)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--scales", "3"], "scales = 3: must be 1 or 2"),
        (["--dropout", "0.5"], "dropout = 0.5: is for the CNN"),
        (["--kernels", "9", "--whitened-by", "none"], "kernels = 9: are cut from the images that"),
        (["--ridge", "0"], "ridge = 0.0: must lie between"),
        (["--directions", "0"], "directions = 0: must be a whole number"),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(flags, words):
    with pytest.raises(ConfigError, match=words):
        parse(["--preset", "digits-best", *flags])
