"""What cannot be run is refused in one line that names the flag, before anything is touched."""

import json
import os
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.tasks.mnist.idx import FILES
from dpsgd_torch.train import main

DIGITS = ["--preset", "digits", "--epochs", "1"]
NUMBERS = ("--noise-multiplier", "--clip-norm", "--learning-rate", "--epsilon")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where everything happens; the warnings hook that main installs is taken off again."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snapshot(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def refused(folder, capsys):
    """Run main, hold it to the rules of a refusal, and return its one line."""

    def check(*argv):
        before = snapshot(folder)
        assert main([str(word) for word in argv]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        assert snapshot(folder) == before
        return lines[0].replace("_", "-")

    return check


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--preset", "nonsense"),
        ("--dataset", "nonsense"),
        ("--device", "nonsense"),
        ("--device", "meta"),
        ("--nonsense", "1"),
        ("--epochs", "0"),
        ("--epochs", "1.5"),
        ("--batch-size", "0"),
        ("--batch-size", "1438"),
        ("--microbatches", "0"),
        ("--microbatches", "3"),
        ("--microbatches", "256"),
        ("--physical-batch-size", "0"),
        ("--checkpoint-every", "0"),
        ("--dropout", "1"),
        ("--seed", "-1"),
        ("--delta", "0"),
        ("--delta", "1"),
        ("--delta", "-0.1"),
        ("--delta", "nan"),
        *((flag, value) for flag in NUMBERS for value in ("0", "-1", "nan", "inf", "much")),
        ("--clip-schedule", "linear"),
        ("--noise-schedule", "linear:nan"),
        ("--rows-per-unit", "0"),
        ("--tpr-at-fpr", "7"),
        ("--tpr-at-fpr", "-0"),
        ("--folds", "0"),
        ("--patience", "0"),
        ("--privacy-unit", "patient"),
        ("--label-epsilon", "3"),
        ("--statistics-epsilon", "1"),
    ],
)
def test_a_value_outside_its_domain_is_refused(refused, flag, value):
    line = refused(*DIGITS, "--out", "run", flag, value)
    assert flag.strip("-") in line
    assert value in line


@pytest.mark.parametrize("flag", ["--noise-multiplier", "--clip-norm", "--learning-rate"])
def test_a_number_too_large_to_compute_with_is_refused(refused, flag):
    line = refused(*DIGITS, "--out", "run", flag, "1e+300")
    assert flag.strip("-") in line
    assert "1e+300" in line


def test_a_flag_without_its_value_is_refused(refused):
    assert "--batch-size" in refused("--preset", "digits", "--batch-size")


def test_a_data_set_that_does_not_fit_the_preset_is_refused(refused):
    assert "dataset = digits" in refused("--preset", "mnist-tutorial", "--dataset", "digits")


def test_an_out_folder_that_holds_something_is_refused(refused, folder):
    (folder / "results").mkdir()
    (folder / "results" / "thesis.txt").write_text("years of work")
    assert "out = results: is not empty" in refused(*DIGITS, "--out", "results")


def test_an_out_that_is_a_file_is_refused(refused, folder):
    (folder / "thesis.txt").write_text("years of work")
    assert "out = thesis.txt" in refused(*DIGITS, "--out", "thesis.txt")


def test_an_out_below_a_file_is_refused(refused, folder):
    (folder / "thesis.txt").write_text("years of work")
    assert "out = thesis.txt/run" in refused(*DIGITS, "--out", "thesis.txt/run")


def test_an_out_of_a_name_too_long_is_refused(refused):
    assert "File name too long" in refused(*DIGITS, "--out", "9" * 4000)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_out_that_may_not_be_written_is_refused(refused, folder):
    (folder / "locked").mkdir(mode=0o500)
    assert "out = locked/run" in refused(*DIGITS, "--out", "locked/run")


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--device", "nonsense"), ("--out", "data"), ("--out", "thesis.txt/run")],
)
def test_flags_are_refused_before_any_data_is_read(refused, folder, flag, value):
    (folder / "thesis.txt").write_text("years of work")
    (folder / "data").mkdir()
    for name in FILES:
        (folder / "data" / name).write_bytes(b"damaged")
    assert f"{flag.strip('-')} = {value}" in refused("--data-dir", "data", flag, value)


def test_resuming_a_folder_that_is_no_run_is_refused(refused, folder):
    (folder / "results").mkdir()
    (folder / "results" / "thesis.txt").write_text("years of work")
    for path in ("results", "nowhere", "results/thesis.txt"):
        line = refused("--resume", path)
        assert path in line
        assert "resume" in line


@pytest.mark.parametrize("file", ["config.json", "private/streams.json"])
@pytest.mark.parametrize("content", ["{", "[]", '{"root": "xyz", "preset": 1}'])
def test_resuming_a_run_with_a_damaged_file_is_refused_by_its_name(refused, folder, file, content):
    (folder / "private").mkdir()
    kept = RunFolder(folder)
    kept.write_root(7)
    kept.write_json("config.json", PRESETS["digits"]().config.to_json())
    (folder / file).write_text(content)
    assert file in refused("--resume", ".")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--epochs", "3"),
        ("--seed", "1"),
        ("--out", "elsewhere"),
        ("--preset", "digits"),
        ("--preset", "mnist-tutorial"),
    ],
)
def test_resuming_with_flags_of_a_new_run_is_refused(refused, flag, value):
    line = refused("--resume", "old-run", flag, value)
    assert "resume = old-run: a run goes on as it began" in line
    assert flag in line


def test_a_damaged_file_in_the_data_dir_is_refused_by_name(refused, folder):
    (folder / "data").mkdir()
    for name, shape in FILES.items():
        header = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
        (folder / "data" / name).write_bytes(header + bytes(100))
    line = refused("--data-dir", folder / "data", "--out", "run")
    assert str(folder / "data" / next(iter(FILES))).replace("_", "-") in line


def command(*argv):
    """The same through a process of its own."""
    line = [sys.executable, "-m", "dpsgd_torch.train", *argv]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(line, capture_output=True, text=True, env=environment)


def test_the_shell_sees_status_2_and_one_line(folder):
    done = command("--batch-size", "60001")
    rule = "must be at most n = 60000; lower --batch-size"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: batch_size = 60001: {rule}\n"
    assert not snapshot(folder)


def test_a_delta_above_1_over_n_is_warned_of_and_the_run_goes_on(folder):
    done = command(*DIGITS, "--delta", "0.01", "--out", "run")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: delta = 0.01 is not below 1/n = 0.000696")
    assert len(done.stderr.splitlines()) == 1
    assert json.loads((folder / "run" / "privacy.json").read_text())["delta"] == 0.01
    assert "δ is not below 1/n" in (folder / "run" / "statement.txt").read_text()
