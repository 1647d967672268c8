"""A run with --qat: the same charges, weights under the same names, an export with its ranges."""

import json
import warnings

import pytest
from safetensors.torch import load_file

from dpsgd_torch.export.__main__ import main as export
from dpsgd_torch.train import main as train


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("dpsgd_torch.app.run.write_report", lambda *_: None)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)


def trained(out, *flags):
    shared = ["--preset", "gesture", "--epochs", "1", "--seed", "1", "--out", str(out)]
    assert train([*shared, *flags]) == 0
    return out


def test_a_run_with_qat_costs_the_same_and_exports_a_plain_model(tmp_path):
    plain, aware = trained(tmp_path / "plain"), trained(tmp_path / "aware", "--qat")
    told = [json.loads((run / "privacy.json").read_text())["epsilon"] for run in (plain, aware)]
    assert told[0] == told[1]
    weights = [load_file(run / "model.safetensors") for run in (plain, aware)]
    assert weights[0].keys() == weights[1].keys()
    assert any((weights[0][name] != weights[1][name]).any() for name in weights[0])
    assert "Quantisation-aware" in " ".join((aware / "statement.txt").read_text().split())
    assert export([str(aware), "--to", "c", "--out", str(aware / "c")]) == 0
    assert "made up without the data" in (aware / "c" / "model.h").read_text()
    assert export([str(aware), "--to", "c", "--out", str(aware / "d"),
        "--calibration", "all"]) == 0  # fmt: skip
    first, other = ((aware / name / "model.c").read_text() for name in "cd")
    assert first != other
    assert "biases corrected" in " ".join((aware / "d" / "model.h").read_text().split())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--preset", "moa"], "qat = True"),
        (["--preset", "gesture", "--compile"], "drop it, or --compile"),
        (["--preset", "gesture", "--precision", "bf16"], "drop it, or --precision"),
        (["--preset", "gesture-best"], "no board computes"),
    ],
)
def test_rounding_where_none_follows_is_refused_before_anything_is_charged(
    flags, words, tmp_path, capsys
):
    assert train([*flags, "--qat", "--out", str(tmp_path / "run")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run" / "ledger.sqlite").exists()
