"""``dpsgd``: one name for every command, with the exit statuses that each has."""

import subprocess
import sys

import pytest

from accountant.cli.flags import parser
from dpsgd_torch import __main__ as door
from dpsgd_torch.shell import called
from dpsgd_torch.version import __version__


def test_help_names_every_command_and_each_explains_itself(capsys):
    assert door.main(["--help"]) == 0
    told = capsys.readouterr().out
    for command in (*door._DOORS, *door._ACCOUNTS):
        assert f"\n  {command} " in told
        with pytest.raises(SystemExit) as ended:
            door.main([command, "--help"])
        assert ended.value.code == 0
        assert "usage: " in capsys.readouterr().out


def test_what_a_run_costs_has_every_command_of_the_accountant():
    [commands] = [a.choices for a in parser()._actions if a.choices and a.metavar == "COMMAND"]
    assert sorted(door._ACCOUNTS) == sorted(commands)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "error: command = none: must be one of train, search, export, audit, plan"),
        (["trian"], "error: command = 'trian': did you mean train?; see dpsgd --help"),
        (["\x1b[2J"], r"error: command = '\x1b[2J': must be one of"),
        (["train", "--epochs", "0"], "error: epochs = 0"),
        (["search", "--preset", "moa"], "error: preset, epsilon: name both"),
        (["export", "nowhere", "--to", "c"], "error: "),
    ],
)
def test_what_is_refused_is_one_line_and_status_2(capsys, words, line):
    assert door.main(words) == 2
    told = capsys.readouterr().err
    assert told.startswith(line)
    assert told.count("\n") == 1


def test_a_flag_that_an_accountants_command_lacks_is_refused_by_the_name_it_was_called(capsys):
    with pytest.raises(SystemExit) as ended:
        door.main(["noise", "--n", "9"])
    assert ended.value.code == 2
    assert "see dpsgd noise --help" in capsys.readouterr().err


def test_an_answer_is_the_accountants(capsys):
    asked = "epsilon --n 6000 --batch-size 250 --noise-multiplier 1.3 --steps 9 --delta 1e-5"
    answers = []
    for main in (door.main, __import__("accountant.__main__", fromlist=["main"]).main):
        assert main(asked.split()) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]
    assert answers[0].startswith("ε = ")


def test_the_package_runs_too_and_tells_its_version():
    command = [sys.executable, "-m", "dpsgd_torch", "--version"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.stdout, ended.returncode) == (f"dpsgd_torch {__version__}\n", 0), ended.stderr


@pytest.mark.parametrize(
    ("begun", "name"),
    [
        ("/usr/bin/dpsgd", "dpsgd train"),
        ("C:/Scripts/dpsgd.exe", "dpsgd train"),
        ("/x/dpsgd_torch/train.py", "python -m dpsgd_torch.train"),
        ("/x/dpsgd_torch/__main__.py", "python -m dpsgd_torch.train"),
    ],
)
def test_a_command_calls_itself_as_it_was_called(monkeypatch, begun, name):
    monkeypatch.setattr(sys, "argv", [begun])
    assert called("train") == name
