"""The default preset on real MNIST, whole: minutes, so a long check."""

import json

import pytest
from safetensors.torch import load_file

from dpsgd_torch import DataError
from dpsgd_torch.tasks.mnist.fetch import load_splits
from dpsgd_torch.train import main


@pytest.mark.long
def test_the_tutorial_learns_mnist_and_its_figures_are_the_known_ones(tmp_path, capsys):
    try:
        load_splits("mnist", None)
    except DataError as reason:
        pytest.skip(str(reason))
    assert main(["--seed", "1", "--out", str(tmp_path / "run")]) == 0
    spent = json.loads((tmp_path / "run" / "privacy.json").read_text())
    assert spent["epsilon_lower"] <= 0.3702552337009516 <= spent["epsilon"] < 0.370256
    assert spent["epsilon_rdp"] == pytest.approx(0.5631726, abs=1e-7)
    assert spent["epsilon_rdp_classic"] == pytest.approx(0.7903529, abs=1e-7)
    assert spent["optimal_order"] == 18
    assert spent["agreement"] < 1e-6
    assert spent["steps"] == 720
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["test_accuracy"] > 0.89
    parameters = load_file(tmp_path / "run" / "model.safetensors").values()
    assert sum(p.numel() for p in parameters) == 26_010
