"""`moa-best`: controls begin without a mechanism, and the statement says who knew that."""

import pytest
import torch

from dpsgd_torch import ConfigError
from dpsgd_torch.app.flags import parse
from dpsgd_torch.tasks.drug_responses.files import COLUMNS, write_responses
from dpsgd_torch.tasks.drug_responses.model import SilentControls
from dpsgd_torch.tasks.drug_responses.synthetic import synthetic_responses
from dpsgd_torch.tasks.drug_responses.task import response_task
from dpsgd_torch.train import main


def config(*flags):
    return parse(["--preset", "moa-best", *flags]).preset.config


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lish-moa")
    write_responses(folder, *synthetic_responses(300, 120, 12))
    return folder


def test_passes_rate_and_what_frequencies_cost_follow_epsilon_by_a_rule():
    asked = [config("--epsilon", e) for e in ("1", "2", "3", "8")]
    assert [each.epochs for each in asked] == [20, 25, 29, 40]
    for name, sign in (("learning_rate", -1), ("frequencies_epsilon", 1)):
        values = [sign * getattr(each, name) for each in asked]
        assert values == sorted(set(values))
    assert asked[-1].frequencies_epsilon < 0.5
    assert config() == config("--epsilon", "3")
    assert config("--epsilon", "1", "--frequencies-epsilon", "0.3").frequencies_epsilon == 0.3


@pytest.mark.parametrize("features", ["all", "notebook"])
def test_controls_alone_begin_at_lower_odds(data, features):
    task = response_task(data, (), features, silent=True)
    model = task.make_model(torch.Generator().manual_seed(1))
    assert isinstance(model, SilentControls)
    inputs = task.train[0][:50]
    controls = inputs[:, COLUMNS.index("cp_type")] == 1
    lower = model.network(inputs) - model(inputs)
    assert 0 < controls.sum() < 50
    assert lower[controls].allclose(torch.tensor(6.0), atol=1e-4)
    assert not lower[~controls].any()


def test_the_statement_says_with_class_knowledge(data, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["--preset", "moa-best", "--data-dir", str(data), "--out", str(out), "--seed", "4"]
    assert main([*words, "--epochs", "1", "--batch-size", "64"]) == 0
    words = " ".join((out / "statement.txt").read_text().split())
    assert "Prior, not covered by ε: WITH class knowledge: rows treated with the vehicle" in words
    assert "of another seed than those that are trained on" in words


def test_controls_that_are_learnt_claim_no_class_knowledge(data):
    task = response_task(data, (), "all")
    assert not task.prior
    assert not isinstance(task.make_model(torch.Generator()), SilentControls)


@pytest.mark.parametrize("flags", [["--statistics-epsilon", "0.1"], ["--select-features", "9"]])
def test_what_moves_the_column_of_controls_is_refused(flags):
    with pytest.raises(ConfigError, match="moves columns that controls = silent reads as declared"):
        config(*flags)
    assert config(*flags, "--controls", "learnt").task.controls == "learnt"
