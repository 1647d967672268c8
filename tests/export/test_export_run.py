"""From a run's folder to files, by the command line: what they hold, what they must not hold."""

import json
import re
import shutil
import sys
import warnings
from pathlib import Path

import onnx
import pytest
import torch
from gesture_text import written

from dpsgd_torch.app.export.source import float_outputs, read_run
from dpsgd_torch.export.__main__ import main as export
from dpsgd_torch.export.check import compare
from dpsgd_torch.export.compiler import compile_model, to_channels_last
from dpsgd_torch.export.reference import trace
from dpsgd_torch.export.to_c import to_c
from dpsgd_torch.export.to_onnx import to_onnx
from dpsgd_torch.tasks.gestures.synthetic import synthetic_recordings
from dpsgd_torch.tasks.registry import public_inputs
from dpsgd_torch.train import main as train

PLACES = [str(Path(__file__).parents[2]), sys.prefix, str(Path.home())]


@pytest.fixture(autouse=True)
def _hook(monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A short run of a classifier of gestures and one of digits."""
    made = {}
    for preset, more in {"gesture": ["--epochs", "20"], "digits": ["--epochs", "6"]}.items():
        made[preset] = tmp_path_factory.mktemp("runs") / preset
        assert train(["--preset", preset, "--out", str(made[preset]), "--seed", "1", *more]) == 0
    return made


@pytest.fixture(scope="module", params=["gesture", "digits"])
def run(request, runs):
    return runs[request.param]


TARGETS = {
    "onnx": (["onnx"], ["model.onnx"]),
    "float tflite": (["tflite"], ["model.tflite"]),
    "int8 tflite": (["tflite", "--int8"], ["model_int8.tflite"]),
    "header": (["header"], ["model.h"]),
    "float header": (["header", "--no-int8"], ["model.h"]),
    "c": (["c"], ["model.c", "model.h"]),
    "arduino": (["arduino"], ["out.ino", "model.c", "model.h"]),
    "arduino-library": (["arduino-library"], ["out_model.zip"]),
    "cmake": (
        ["cmake"],
        ["CMakeLists.txt", "src/out_model.c", "include/out_model.h", "examples/classify.c"],
    ),
}


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_says_where_it_comes_from_and_nothing_of_the_machine(run, target, tmp_path):
    flags, names = TARGETS[target]
    out = tmp_path / "out"
    assert export([str(run), "--to", *flags, "--out", str(out)]) == 0
    made = [str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()]
    assert sorted(made) == sorted([*names, "statement.txt"])
    weights = read_run(run).provenance["weights_sha256"].encode()
    for name in names:
        content = (out / name).read_bytes()
        for place in PLACES:
            assert place.encode() not in content, (name, place)
        assert b"site-packages" not in content
        if not name.endswith("model.c"):  # its header says it
            assert weights in content
            assert b"at most 3.0000" in content


def test_a_library_is_called_like_its_run_and_lies_in_its_folder(run, tmp_path, capsys):
    mine = tmp_path / "Wave 2"
    mine.symlink_to(run)
    for to, there in {"esp-idf": ["gesture_model", "digits_model"], "platformio": ["src"]}.items():
        assert export([str(mine), "--to", to]) == 0
        assert any((run / "export" / to / name).is_dir() for name in there)
    headers = [path.name for path in (run / "export").rglob("*_model.h")]
    assert set(headers) == {f"{run.name}_model.h"}
    nameless = shutil.copytree(run, tmp_path / "漢字")
    shutil.rmtree(nameless / "export")
    for words in ([str(nameless)], [str(run), "--out", str(tmp_path / "漢")]):
        assert export([*words, "--to", "cmake"]) == 2
        assert "a library is called like its folder" in capsys.readouterr().err
    assert not (tmp_path / "漢").exists()
    assert not (nameless / "export" / "cmake").exists()


def test_the_onnx_file_is_valid_pinned_and_named_cleanly(run):
    source = read_run(run)
    model = to_onnx(source.model, source.input_shape, source.provenance)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert {entry.key: entry.value for entry in model.metadata_props} == source.provenance
    names = [tensor.name for tensor in model.graph.initializer]
    for name in source.model.state_dict():
        assert name in names
    assert all(re.fullmatch(r"[a-z0-9_.]+", name) for name in names)
    dims = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == [1, *source.input_shape]


def test_the_statement_of_the_files_says_they_are_covered(run, tmp_path):
    out = tmp_path / "out"
    assert export([str(run), "--to", "c", "--out", str(out)]) == 0
    words = " ".join((out / "statement.txt").read_text().split())
    assert "Exported: model.c, model.h. Covered by ε" in words
    assert "inputs made up without the data" in words
    assert "Guarantee: the weights are" in words


def test_private_ranges_are_taken_only_when_asked_for_and_said_to_be_uncovered(run, tmp_path):
    out = tmp_path / "out"
    flags = ["--to", "c", "--out", str(out), "--calibrate-on-private-data"]
    assert export([str(run), *flags]) == 0
    words = " ".join((out / "statement.txt").read_text().split())
    assert "NOT covered by ε: --calibrate-on-private-data" in words
    assert "PRIVATE RECORDS" in (out / "model.h").read_text()


def test_no_number_in_an_export_depends_on_the_records(runs, tmp_path, monkeypatch):
    """The same weights make the same bytes where the data cannot even be read."""
    first, second = tmp_path / "a", tmp_path / "b"
    assert export([str(runs["digits"]), "--to", "c", "--out", str(first)]) == 0

    def unreadable(*_: object):
        raise AssertionError("the exporter read the records")

    monkeypatch.setattr("dpsgd_torch.app.export.job.load_data", unreadable)
    assert export([str(runs["digits"]), "--to", "c", "--out", str(second)]) == 0
    for name in ("model.c", "model.h"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_check_passes_and_one_changed_weight_makes_it_fail(run, capsys):
    assert export([str(run), "--to", "c", "--check", "--inputs", "20"]) == 0
    said = capsys.readouterr().out
    assert "TensorFlow Lite Micro's interpreter 0 of " in said
    assert "unicorn-m4 (Cortex-M4)" in said
    source = read_run(run)
    model = to_onnx(source.model, source.input_shape, source.provenance)
    inputs = public_inputs(source.config)(20)
    program = compile_model(model, input_range=source.input_range, public_inputs=inputs.numpy())
    sources = to_c(program)
    last = program.steps[-1].operation
    feeding = trace(program, program.quantize(to_channels_last(inputs.numpy())))[-2]
    busiest = int(feeding.reshape(20, -1).astype(int).sum(axis=0).argmax())
    last.weights[0, busiest] = -127 if last.weights[0, busiest] > 0 else 127
    found = compare(program, inputs.numpy(), float_outputs(source, inputs).numpy(), sources=sources)
    compared = [c for c in found if c.holds is not None]
    assert [c.holds for c in compared if "interpreter" in c.who] == [True]
    assert not any(c.holds for c in compared if "interpreter" not in c.who)


def test_a_second_export_takes_the_kept_model(runs, monkeypatch):
    assert export([str(runs["digits"]), "--to", "onnx"]) == 0

    def again(*_: object):
        raise AssertionError("exported again")

    monkeypatch.setattr("dpsgd_torch.app.export.job.to_onnx", again)
    assert export([str(runs["digits"]), "--to", "tflite"]) == 0


REFUSED = {
    "there is no such folder": ["nowhere", "--to", "c"],
    "int8 = False: c is in integers only": ["{run}", "--to", "c", "--no-int8"],
    "onnx is in float32 only": ["{run}", "--to", "onnx", "--int8"],
    "float32 files have no ranges": ["{run}", "--to", "tflite", "--calibrate-on-private-data"],
    "inputs = 0": ["{run}", "--to", "c", "--inputs", "0"],
    "invalid choice: 'wasm'": ["{run}", "--to", "wasm"],
    "the following arguments are required": ["{run}"],
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_exported_is_refused_in_one_line(runs, words, capsys):
    flags = [flag.format(run=runs["digits"]) for flag in REFUSED[words]]
    assert export(flags) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert words in lines[0]


def test_an_unfinished_run_is_refused_with_how_to_finish_it(runs, tmp_path, capsys):
    for name in ("task.json", "config.json"):
        (tmp_path / name).write_bytes((runs["digits"] / name).read_bytes())
    assert export([str(tmp_path), "--to", "c"]) == 2
    assert "--resume" in capsys.readouterr().err


def test_weights_of_another_model_are_refused(runs, tmp_path, capsys):
    for path in runs["digits"].iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(
        (runs["gesture"] / "model.safetensors").read_bytes()
    )
    assert export([str(tmp_path), "--to", "c"]) == 2
    assert "does not fit the model" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--check", "--calibrate-on-private-data"])
def test_data_that_the_run_was_not_trained_on_is_never_taken_for_it(tmp_path, flag, capsys):
    folder, run, out = tmp_path / "mine", tmp_path / "run", tmp_path / "out"
    folder.mkdir()
    written(folder, synthetic_recordings((20, 30), seed=5))
    words = ["--preset", "gesture", "--batch-size", "10", "--epochs", "2"]
    assert train([*words, "--data-dir", str(folder), "--out", str(run)]) == 0
    capsys.readouterr()
    to = [str(run), "--to", "tflite", "--int8", "--inputs", "4", "--out", str(out), flag]
    assert export(to) == 2
    assert "pass --data-dir" in capsys.readouterr().err
    assert not out.exists()
    assert export([*to, "--data-dir", str(folder)]) == 0


def test_a_run_without_privacy_says_so_in_its_files(tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    assert train(["--preset", "digits", "--no-dp", "--epochs", "1", "--out", str(run)]) == 0
    assert export([str(run), "--to", "c", "--out", str(out)]) == 0
    assert "trained without differential privacy" in (out / "model.h").read_text()


def test_the_report_of_provenance_is_complete(run):
    told = read_run(run).provenance
    assert told.keys() >= {
        "epsilon", "delta", "relation", "run", "weights_sha256", "version", "preset"
    }  # fmt: skip
    assert json.dumps(told)
    assert torch.equal(
        float_outputs(read_run(run), public_inputs(read_run(run).config)(2)),
        float_outputs(read_run(run), public_inputs(read_run(run).config)(2)),
    )
