"""--audit, --advantage and --tpr-at-fpr from the command line to the folder they leave."""

import json
import shutil

import pytest

from accountant.ledger.recorded import read_events
from accountant.risk.limit import RiskLimit
from dpsgd_torch.train import main

DIGITS = ["--preset", "digits", "--epochs", "2", "--seed", "5"]


@pytest.fixture
def train(tmp_path, capsys):
    def run(*flags, status=0):
        assert main([*DIGITS, "--out", str(tmp_path / "run"), *flags]) == status
        said = capsys.readouterr()
        return tmp_path / "run", said.err if status else said.out

    return run


def test_an_audited_run_tells_both_bounds_and_what_was_inserted_into_the_released_run(train):
    folder, said = train("--audit", "1000")
    told = json.loads((folder / "privacy.json").read_text())
    found = told["audit_outside"]
    assert 0 <= found["best"] < told["epsilon"]
    assert found["correct"] > found["guesses"] / 2
    words = " ".join((folder / "statement.txt").read_text().split())
    assert "Evidence from below: ε ≥ 0" in words
    assert "1000 canaries were made for an audit" in words
    assert "this very run, the released one" in words
    assert "Fixed before the run" in words
    assert "nothing of any record's ε" in words
    page = (folder / "report.html").read_text()
    assert "ε ≥, audited (95%)" in page
    assert "2 operating points, 0 above the certified curve" in page
    assert "local, not covered by ε:\nε ≤ 3" in said


def test_what_rests_on_the_noise_is_in_no_artefact(train):
    folder, _ = train("--audit", "200")
    inside = json.loads((folder / "private" / "canaries.json").read_text())
    assert inside["bounds"]["mechanism as measured"] > 0
    shutil.rmtree(folder / "private")
    for path in folder.rglob("*"):
        assert path.is_dir() or b"mechanism as measured" not in path.read_bytes()


def test_an_audit_that_cannot_be_is_refused_before_anything_is_charged(train):
    folder, said = train("--audit", "3000", status=2)
    assert said.startswith("error: audit = 3000: must be ≤ 2730, one a trained value")
    assert not folder.exists()
    _, said = train("--audit", "--microbatches", "64", status=2)
    assert said.startswith("error: audit = 1000: needs one private model, each example clipped")
    _, said = train("--audit", "5", status=2)
    assert said.startswith("error: audit = 5: must be at least 10")


def test_a_run_whose_noise_is_for_an_advantage_keeps_it_and_says_so(train):
    folder, _ = train("--advantage", "0.1")
    limit, events = RiskLimit(advantage=0.1), read_events(folder / "ledger.sqlite")
    assert 0.0999 < limit.reached(events) <= 0.1
    risk = json.loads((folder / "privacy.json").read_text())["risk"]
    assert risk["asked"] == {"advantage": 0.1}
    assert 0.0999 < risk["reached"] <= 0.1
    words = " ".join((folder / "statement.txt").read_text().split())
    assert "reaches more than an advantage of 10 %; of what was charged 10.0000 %" in words


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--advantage", "0.1", "--epsilon", "2"], "advantage = 0.1: stands alone"),
        (["--tpr-at-fpr", "0.001@0.02"], "tpr_at_fpr = 0.001@0.02: must be TPR@FPR"),
        (["--tpr-at-fpr", "much"], "tpr_at_fpr = much: must be TPR@FPR"),
        (["--advantage", "1"], "advantage = 1.0: must lie strictly"),
        (["--advantage", "0.1", "--no-dp"], "dp = False: leaves --advantage without effect"),
    ],
)
def test_a_risk_that_cannot_be_asked_is_refused_in_one_line(train, flags, told):
    _, said = train(*flags, status=2)
    assert said.startswith(f"error: {told}")
