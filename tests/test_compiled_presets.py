"""--compile on the presets: which steps are compiled, in graphs without a break, and which not."""

import shutil

import pytest
import torch
from torch._dynamo.utils import counters

from dpsgd_torch.tasks.drug_responses.files import write_responses
from dpsgd_torch.tasks.drug_responses.synthetic import synthetic_responses
from dpsgd_torch.train import main

pytestmark = [
    pytest.mark.skipif(
        not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler is here"
    ),
    pytest.mark.filterwarnings("ignore:local, not covered by ε"),
]


@pytest.fixture(autouse=True)
def counted(inductor):
    torch._dynamo.reset()
    counters.clear()


@pytest.fixture(scope="module")
def responses(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lish-moa")
    train, test = synthetic_responses(300, 120, 12)
    write_responses(folder, train, test)
    return folder


def trained(capsys, tmp_path, *words) -> str:
    out = tmp_path / "run"
    assert main([*words, "--compile", "--seed", "4", "--out", str(out)]) == 0
    return capsys.readouterr().out


def without_a_break(graphs: int) -> bool:
    """So many graphs were compiled, none broke, and no batch compiled another."""
    told = counters["stats"].get("unique_graphs")
    return not counters["graph_break"] and not counters["recompiles"] and told == graphs


@pytest.mark.long
def test_the_notebooks_preset_is_compiled_in_bfloat16(capsys, tmp_path, responses, monkeypatch):
    monkeypatch.setattr("dpsgd_torch.precision.Precision.slowness", lambda self, device: "")
    small = ["--preset", "moa-notebook", "--data-dir", str(responses), "--hidden", "16,8"]
    said = trained(capsys, tmp_path, *small, "--epochs", "1", "--precision", "bf16")
    assert said.index("compiling (about ") < said.index("compiled passes of ")
    assert without_a_break(graphs=3)
    assert (tmp_path / "run" / "statement.txt").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    "words",
    [
        ["--preset", "digits", "--epochs", "1"],
        ["--preset", "gesture", "--epochs", "1", "--batch-size", "10"],
    ],
    ids=lambda words: words[1],
)
def test_a_presets_step_is_two_graphs_without_a_break(capsys, tmp_path, words):
    assert "compiled passes of " in trained(capsys, tmp_path, *words)
    assert without_a_break(graphs=2)


@pytest.mark.long
@pytest.mark.filterwarnings("default:compile")
@pytest.mark.parametrize("preset", ["moa", "moa-notebook"])
def test_weight_normalisation_in_float32_goes_on_without(capsys, tmp_path, responses, preset):
    """Its layers are one node to autograd, and others where a trace looks on."""
    words = ["--preset", preset, "--epochs", "1", "--batch-size", "64", "--hidden", "16,8"]
    words += ["--data-dir", str(responses), "--compile", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "a parameter is met where no pass that was looked at met it; the run goes on" in said
