"""``dpsgd audit --command``: somebody else's training, from the shell."""

import json
from pathlib import Path

import pytest

from dpsgd_torch.__main__ import main

HERE = str(Path(__file__).parent)
CLAIM = ["--noise-multiplier", "1", "--data", "audited_trainings:tiny_data", "--n", "60"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", HERE)  # for processes that are begun


def audit(train, *words, models=16, processes=1):
    common = ["--models", str(models), "--processes", str(processes), "--seed", "1"]
    return main(["audit", "--command", f"audited_trainings:{train}", *CLAIM, *common, *words])


def test_an_honest_training_is_audited_and_leaves_a_page_and_data(capsys):
    assert audit("honest") == 0
    out, err = capsys.readouterr()
    assert "assumes nothing" in out
    assert "nothing contradicts the claim" in out
    assert "16 of 16 models trained" in err
    folder = Path("audits/audited_trainings.honest")
    assert f"look at {folder / 'audit.html'}" in out
    assert json.loads((folder / "audit.json").read_text())["models"] == 16


def test_a_fault_is_exit_status_1(capsys):
    assert audit("tenth_noise", models=64) == 1
    assert "the attack does better than its trade-off curve allows" in capsys.readouterr().out


def test_what_is_finished_is_not_trained_again_and_nothing_changes(capsys):
    assert audit("honest") == 0
    whole = capsys.readouterr().out
    folder = Path("audits/audited_trainings.honest")
    for number in (3, 7):
        (folder / f"model-{number:04d}.npz").unlink()
    kept = (folder / "model-0000.npz").stat().st_mtime_ns
    assert audit("honest") == 0
    assert capsys.readouterr().out == whole
    assert (folder / "model-0000.npz").stat().st_mtime_ns == kept


def test_a_folder_of_another_audit_is_refused(capsys):
    assert audit("honest") == 0
    assert audit("honest", models=12) == 2
    assert "keeps scores of another audit (models differ)" in capsys.readouterr().err


def test_processes_find_the_function_and_one_that_dies_is_told_in_one_line(capsys):
    assert audit("honest", models=8, processes=2) == 0
    one = capsys.readouterr().out
    assert audit("honest", "--folder", "other", models=8) == 0
    assert capsys.readouterr().out.split("look at")[0] == one.split("look at")[0]
    assert audit("dying", models=8, processes=2) == 2
    err = capsys.readouterr().err
    assert "error: processes = 2: one died while it trained" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("train", "words", "message"),
    [
        ("missing", [], "audited_trainings has no missing; name a function of it"),
        ("NOT_A_FUNCTION", [], "is no function, but int"),
        ("without_seed", [], "is called with (data, seed): too many positional arguments"),
        ("honest", ["--data", "birds"], "data = birds: must be digits, mnist or module:function"),
        ("honest", ["--n", "1"], "n = 1: must be at least 2"),
        ("honest", ["--score", "nowhere:score"], "there is no module nowhere"),
        ("honest", ["--epsilon", "1"], "this noise, rate and number of steps give 4.377"),
        ("honest", ["--bird"], "unrecognized arguments: --bird"),
        ("not_finite", [], "what is released is not finite"),
        ("seedless", [], "are the same though their seeds differ"),
    ],
)
def test_what_cannot_be_audited_is_refused_in_one_line(train, words, message, capsys):
    assert audit(train, *words) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("error: ")
    assert message in err


def test_a_name_without_a_function_and_a_claim_without_epsilon_are_refused(capsys):
    assert main(["audit", "--command", "audited_trainings"]) == 2
    assert "say --epsilon, or --noise-multiplier" in capsys.readouterr().err
    assert main(["audit", "--command", "audited_trainings", "--epsilon", "3"]) == 2
    assert "must be module:function" in capsys.readouterr().err


def test_the_help_of_both_kinds_of_audit(capsys):
    for words, told in (([], "--command module:function"), (["--command"], "train(data, seed)")):
        with pytest.raises(SystemExit) as ended:
            main(["audit", *words, "--help"])
        assert ended.value.code == 0
        assert told in " ".join(capsys.readouterr().out.split())
