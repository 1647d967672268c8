"""report.html's part on a board: measured by an export, kept for a report made anew."""

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from dpsgd_torch.app.export import board
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.app.stored_config import read_config
from dpsgd_torch.export.__main__ import main as export
from dpsgd_torch.export.boards import board as board_named
from dpsgd_torch.export.cost import Block, Cost, LayerCost
from dpsgd_torch.export.emulate import available_boards
from dpsgd_torch.export.kept_cost import from_json, to_json
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.storage.sealed import sealed
from dpsgd_torch.train import main as train

HINT = "<code>python -m dpsgd_torch.export RUN --to c --cost</code>"
COST = Cost(
    layers=(
        LayerCost("dense 64→10", "dense", (10,), 700, 10, 900),
        LayerCost("softmax", "softmax", (10,), 0, 20, 100),
    ),
    blocks=(Block("dense 64→10", 0, 10, 0, 1), Block("scratch", 12, 8, 1, 1, scratch=True)),
    rest=16, code_bytes=800, flash_bytes=1900, arena_bytes=20, buffer_bytes=76, stack_bytes=100,
    ram_bytes=196, instructions=1016, instructions_m0=4000,
)  # fmt: skip
needs_pip_board = pytest.mark.skipif(
    board_named("unicorn-m4") not in available_boards(), reason="needs ziglang and unicorn"
)


@pytest.fixture(autouse=True)
def _hook(monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert train(["--preset", "digits", "--epochs", "1", "--seed", "1", "--out", str(out)]) == 0
    return out


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


def page(run):
    return (run / "report.html").read_text()


def kept(run, cost=COST, **told):
    """As an export leaves it."""
    folder = RunFolder(run)
    return board.keep(folder, read_config(folder), cost, {"weights_sha256": sha256(run), **told})


def sha256(run):
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


def test_a_report_says_how_to_measure_and_training_measures_nothing(trained):
    assert page(trained).count("<h2>On a board</h2>") == 1
    assert HINT in page(trained)
    assert not (trained / "board.json").exists()


@needs_pip_board
def test_an_export_puts_table_picture_and_estimates_into_the_report(run, capsys):
    before = page(run)
    assert export([str(run), "--to", "c", "--cost"]) == 0
    told, after = capsys.readouterr().out, page(run)
    assert f"{run / 'report.html'}: has this now" in told
    assert HINT not in after
    for row in json.loads((run / "board.json").read_text())["cost"]["layers"]:
        assert f"{row['instructions']:,}</td>" in after
        assert f"{row['name']}</td>" in after
    for words in ('class="cost"', "RAM: the arena", "Raspberry Pi Pico", "NUCLEO-H7A3ZI-Q"):
        assert after.count(words) >= 1
    start, end = (before.index(mark) for mark in ("<!-- on a board", "<!-- so much"))
    assert after.startswith(before[:start])
    assert after.endswith(before[end:])
    assert export([str(run), "--to", "arduino", "--cost"]) == 0
    assert page(run) == after  # the same weights: the same part, once


def test_a_report_made_anew_has_what_was_measured(run):
    assert kept(run)
    measured = page(run)
    assert "dense 64→10" in measured
    assert train(["--resume", str(run)]) == 0
    assert part(page(run)) == part(measured)


def part(text):
    return text[text.index("<!-- on a board") : text.index("<!-- so much")]


def test_what_was_measured_of_other_weights_is_not_told(run):
    folder = RunFolder(run)
    board.keep(folder, read_config(folder), COST, {"weights_sha256": "0" * 64})
    assert HINT in page(run)
    assert "dense 64→10" not in page(run)


def test_names_are_told_as_text(run):
    layers = (dataclasses.replace(COST.layers[0], name="<b>&"), COST.layers[1])
    assert kept(run, dataclasses.replace(COST, layers=layers), preset="<script>")
    told = page(run)
    assert "<script>" not in told
    assert "<b>&" not in told
    assert "preset: &lt;script&gt;" in told
    assert "&lt;b&gt;&amp;" in told


def test_a_report_of_an_earlier_version_gets_the_part_before_its_epochs(run):
    old = page(run).replace(board_part(page(run)), "")
    (run / "report.html").write_text(old)
    assert kept(run)
    assert page(run).index("On a board") < page(run).index("<h2>Epoch by epoch</h2>")
    (run / "report.html").unlink()
    assert not kept(run)
    (run / "report.html").write_text("mine")
    assert not kept(run)
    assert page(run) == "mine"


def board_part(text):
    return part(text) + "<!-- so much on a board -->\n"


def test_what_was_measured_is_read_back():
    assert from_json(json.loads(json.dumps(to_json(COST)))) == COST


@pytest.mark.parametrize(
    "change",
    [
        {"layers": []},
        {"layers": None},
        {"flash_bytes": -1},
        {"flash_bytes": "many"},
        {"core": 4},
        {"more": 1},
        {"blocks": [dict(dataclasses.asdict(COST.blocks[0]), last=9)]},
        {"blocks": [dict(dataclasses.asdict(COST.blocks[0]), made=1, last=0)]},
        {"layers": [dict(dataclasses.asdict(COST.layers[0]), name=7)]},
        {"layers": [dict(dataclasses.asdict(COST.layers[0]), ram_bytes=1.5)]},
    ],
)
def test_a_file_that_holds_no_costs_is_as_none(run, change):
    data = {**to_json(COST), **change}
    with pytest.raises(ValueError, match="holds no costs of a model"):
        from_json(data)
    told = {"cost": data, "provenance": {"weights_sha256": sha256(run)}}
    (run / "board.json").write_text(json.dumps(sealed(told)))
    folder = RunFolder(run)
    assert HINT in board.on_a_board(folder, read_config(folder))


@pytest.mark.parametrize("text", ["", "{}", "[]", "7", '{"cost": {}, "sha256": "0"}'])
def test_a_damaged_file_is_as_none(run, text):
    (run / "board.json").write_text(text)
    folder = RunFolder(run)
    assert HINT in board.on_a_board(folder, read_config(folder))


def test_no_board_is_spoken_of_where_no_model_goes_there(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    for preset in ("moa", "text"):
        assert board.on_a_board(folder, PRESETS[preset]().config) == ""
    assert HINT in board.on_a_board(folder, PRESETS["gesture"]().config)
    (tmp_path / "model.safetensors").unlink()  # a cross-validation has several
    assert board.on_a_board(folder, PRESETS["gesture"]().config) == ""


@pytest.mark.parametrize("preset", ["gesture-best", "digits-best"])
def test_a_head_on_features_says_in_one_line_why_nothing_is_measured(preset, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    told = board.on_a_board(RunFolder(tmp_path), PRESETS[preset]().config)
    assert "Nothing to measure: transform = " in told
    assert "its model is a head on" in told
    assert "--cost" not in told


@needs_pip_board
def test_ranges_from_private_data_leave_the_report_as_it_is(run, capsys):
    before = page(run)
    words = [str(run), "--to", "c", "--cost", "--calibrate-on-private-data"]
    assert export(words) == 0
    assert page(run) == before
    assert not (run / "board.json").exists()


def test_training_loads_nothing_that_measures():
    code = (
        "import sys, dpsgd_torch.app.run\n"
        "found = {'onnx', 'unicorn', 'ziglang'} & set(sys.modules)\n"
        "found |= {m for m in sys.modules if m.startswith('dpsgd_torch.export')}\n"
        "assert not found, found"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
