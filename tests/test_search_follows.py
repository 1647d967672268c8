"""What of a preset follows ε or n follows it in a search, too; the chosen run's prior is told."""

import dataclasses
import json

import pytest

from accountant.calibration import cost
from accountant.ledger.recorded import read_events
from dpsgd_torch.search import main
from dpsgd_torch.tasks.digits.kind import Digits

QUICK = ["--preset", "digits", "--epsilon", "3"]


@pytest.fixture
def followed(monkeypatch, tmp_path):
    """The folder of a search from ``digits`` with a rule of its own, 2 ε."""
    rule = dataclasses.replace(
        Digits.presets[0], follow=lambda epsilon: {"learning_rate": 2 * epsilon}
    )
    monkeypatch.setattr(Digits, "presets", (rule, *Digits.presets[1:]))

    def search(*flags):
        folder = tmp_path / "search"
        flags = [*QUICK, *flags, "--set", "epochs=1", "--stopping", "fixed", "--out", str(folder)]
        assert main(flags) == 0
        return folder

    return search


def test_what_follows_epsilon_follows_what_one_trial_spends(followed):
    """The planted bugs were the preset's own rate, and that of the whole search's ε, 6."""
    folder = followed("--trials", "2", "--vary", "clip_norm=0.5:2")
    for trial in ("0001", "0002"):
        run = folder / "private" / "trials" / trial
        spent = cost(read_events(run / "ledger.sqlite"), 1e-5)
        assert spent < 2.5  # of 3 for both
        rate = json.loads((run / "config.json").read_text())["learning_rate"]
        assert rate == pytest.approx(2 * spent, rel=1e-3)
    words = " ".join((folder / "statement.txt").read_text().split())
    assert "By the preset's rule, at ε = " in words
    assert f"may spend: learning_rate = {rate:.6g}." in words
    assert json.loads((folder / "privacy.json").read_text())["epsilon"] <= 3.0


@pytest.mark.parametrize("flags", [["--set", "learning_rate=7"], ["--vary", "learning_rate=7,7"]])
def test_what_is_set_or_varied_follows_nothing(followed, flags):
    folder = followed("--trials", "1", "--vary", "clip_norm=0.5:2", *flags)
    config = json.loads((folder / "best" / "config.json").read_text())
    assert config["learning_rate"] == 7
    assert "By the preset's rule" not in (folder / "statement.txt").read_text()


def test_the_default_range_lies_around_what_follows_epsilon(followed, capsys):
    folder = followed("--trials", "1")
    kept = json.loads((folder / "private" / "search.json").read_text())
    spread = {each["name"]: (each["low"], each["high"]) for each in kept["space"]}
    assert 2 < kept["followed"]["epsilon"] < 3  # by Rényi divergences, exactly priced
    assert spread["learning_rate"] == pytest.approx(
        (0.2 * kept["followed"]["epsilon"], 20 * kept["followed"]["epsilon"])
    )
    assert "learning_rate" not in kept["followed"]["values"]
    assert main(["--resume", str(folder)]) == 0


@pytest.fixture
def large_batch(monkeypatch):
    """``digits``, whose 1,437 images are fewer than its batch, and undeclared."""
    first = Digits.presets[0]
    values = {**first.values, "batch_size": 2000, "dataset_size": None}
    large = dataclasses.replace(first, values=values)
    monkeypatch.setattr(Digits, "presets", (large, *Digits.presets[1:]))


def batches(folder, *flags, changes=("--set", "epochs=1")):
    """Exit status, and the trials' batch sizes."""
    words = [*QUICK, *changes, "--trials", "1", "--stopping", "fixed", "--out", str(folder)]
    status = main([*words, *flags])
    configs = sorted((folder / "private" / "trials").glob("*/config.json"))
    return status, [json.loads(path.read_text())["batch_size"] for path in configs]


@pytest.mark.parametrize(
    ("flags", "batch"),
    [
        ([], 1437),
        (["--set", "dataset_size=1500"], 1500),  # what is declared, not what is counted
        (["--select", "exponential"], 1437 - round(1437 / 5)),
        (["--vary", "batch_size=300,300"], 300),
    ],
)
def test_a_presets_batch_is_lowered_to_n_as_in_a_single_run(large_batch, tmp_path, flags, batch):
    assert batches(tmp_path / "search", *flags) == (0, [batch])
    assert main(["--resume", str(tmp_path / "search")]) == 0


@pytest.mark.parametrize(
    "flags", [["--set", "batch_size=1438"], ["--vary", "batch_size=100,1438"]], ids=" ".join
)
def test_a_batch_of_ones_own_above_n_is_refused_before_any_trial(
    large_batch, tmp_path, flags, capsys
):
    assert batches(tmp_path / "search", *flags, "--seed", "1") == (2, [])
    assert "batch_size = 1438: must be at most n = 1437" in capsys.readouterr().err


def test_the_chosen_runs_prior_is_told(tmp_path):
    """A trial's own statement stays in private/, and this one is published."""
    folder = tmp_path / "search"
    flags = ["epochs=1", "transform=scattering", "directions=20", "scales=1", "keep_features=false"]
    settings = [word for flag in flags for word in ("--set", flag)]
    vary = ["--vary", "whitened_by=none,none"]
    flags = [*QUICK, *settings, *vary, "--trials", "1", "--stopping", "fixed"]
    assert main([*flags, "--out", str(folder)]) == 0
    words = " ".join((folder / "best" / "statement.txt").read_text().split())
    assert "Prior, not covered by ε: WITHOUT class knowledge" in words
    assert "a fixed scattering transform alone" in words
