"""A model of one's own, from the trainer or by itself, to files; what its folder must not do."""

import hashlib
import json
import pickle
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from saved_models import refused, resealed
from small_problem import make_trainer, small_data, small_model
from torch import nn

from accountant.statement import round_up
from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.__main__ import main as export
from dpsgd_torch.export.saved_model import read_saved_model
from dpsgd_torch.export.to_onnx import answers

LABELS = ("left", "right", "né */")


class OwnMlp(nn.Module):
    """Written as users write them: layers as attributes, functions between them."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(36, 12), nn.Linear(12, 3)
        self.dropout = nn.Dropout(0.1)

    def forward(self, images):
        return self.last(self.dropout(torch.relu(self.first(images.flatten(1)))))


MODELS = {"mlp": OwnMlp, "cnn": small_model}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Host compilers, but no emulated boards; those have tests of their own."""
    monkeypatch.setattr("dpsgd_torch.export.check.available_boards", list)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)


@pytest.fixture(scope="module", params=MODELS)
def trained(request, tmp_path_factory):
    trainer = make_trainer(model=MODELS[request.param](), epochs=1).fit()
    path = tmp_path_factory.mktemp("saved") / request.param
    return trainer, trainer.save(path, input_range=(0, 1), labels=LABELS)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    trainer = make_trainer(model=OwnMlp(), epochs=1).fit()
    return trainer.save(tmp_path_factory.mktemp("saved") / "mine", input_range=(0, 1))


@pytest.fixture
def mine(honest, tmp_path):
    return Path(shutil.copytree(honest, tmp_path / "box" / "mine"))


def test_a_saved_model_goes_to_c_that_says_what_it_does(trained, capsys, tmp_path):
    trainer, folder = trained
    out = tmp_path / "out"
    flags = ["--to", "c", "--check", "--inputs", "40", "--out", str(out)]
    assert export([str(folder), *flags]) == 0
    said = capsys.readouterr().out
    assert re.search(r"C on this machine, gcc +0 of 120 bytes differ +ok", said)
    assert re.search(r"TensorFlow Lite Micro's interpreter +0 of 120 bytes differ", said)
    same = re.search(r"onnxruntime in float +same answer for (\d+) of 40", said)
    assert int(same[1]) >= 36
    header = (out / "model.h").read_text()
    assert f"epsilon: at most {round_up(trainer.privacy_spent().epsilon)}" in header
    assert "delta: 0.001" in header
    assert '{"left", "right", "n\\303\\251 */"}' in header


def test_the_graph_answers_as_the_trained_model_does_without_dropout(trained):
    trainer, folder = trained
    inputs = small_data(20, seed=5)[0]
    graph = read_saved_model(folder).subject.graph
    with torch.no_grad():
        expected = trainer.model.eval()(inputs).numpy()
    trainer.model.train()
    assert np.allclose(answers(graph, inputs), expected, rtol=1e-4, atol=1e-5)


def test_the_statement_of_the_files_tells_epsilon_and_what_it_does_not_cover(trained, tmp_path):
    _, folder = trained
    assert export([str(folder), "--to", "onnx", "--out", str(tmp_path / "out")]) == 0
    words = " ".join((tmp_path / "out" / "statement.txt").read_text().split())
    assert "Guarantee: the weights are differentially private, epsilon at most" in words
    assert "Not covered: whatever was chosen by looking at the records" in words
    assert "Exported: model.onnx. Covered by ε" in words


def test_a_save_without_input_range_writes_what_it_did_and_says_so_at_export(tmp_path, capsys):
    trainer = make_trainer(epochs=1).fit()
    folder = trainer.save(tmp_path / "mine")
    assert sorted(path.name for path in folder.iterdir()) == [
        "ledger.sqlite", "metrics.jsonl", "model.safetensors", "privacy.json", "private",
    ]  # fmt: skip
    line = refused(capsys, folder)
    assert "input_range was not given when it was saved" in line
    assert "trainer.save(path, input_range=(low, high))" in line


def test_a_run_in_a_folder_is_saved_into_it_and_exports_from_there(tmp_path, capsys):
    trainer = make_trainer(run_dir=tmp_path / "run", epochs=1).fit()
    assert ".resume().fit().save(path, input_range=" in refused(capsys, tmp_path / "run")
    assert trainer.save(tmp_path / "run", input_range=(0, 1)) == tmp_path / "run"
    assert export([str(tmp_path / "run"), "--to", "c"]) == 0
    assert "run: run" in (tmp_path / "run" / "export" / "c" / "model.h").read_text()


def test_a_model_trained_without_privacy_says_so(tmp_path):
    trainer = make_trainer(privacy=None, epochs=1).fit()
    folder = trainer.save(tmp_path / "plain", input_range=(0, 1))
    assert export([str(folder), "--to", "c", "--out", str(tmp_path / "out")]) == 0
    assert "trained without differential privacy" in (tmp_path / "out" / "model.h").read_text()
    assert "No ε covers them" in (tmp_path / "out" / "statement.txt").read_text()


def test_what_is_saved_depends_on_the_weights_and_on_no_record(tmp_path):
    saved = []
    for seed in (1, 2):
        model, data = small_model(), small_data(seed=seed)
        trainer = make_trainer(model=model, data=data, privacy=None)
        saved.append(trainer.save(tmp_path / str(seed), input_range=(0, 1)))
        assert export([str(saved[-1]), "--to", "tflite", "--int8", "--out", str(saved[-1])]) == 0
    for name in ("graph.onnx", "task.json"):
        first, second = ((folder / name).read_bytes() for folder in saved)
        assert first == second, name
    first, second = ((folder / "model_int8.tflite").read_bytes() for folder in saved)
    assert first.replace(b'"run": "1"', b'"run": "2"').replace(b"run: 1;", b"run: 2;") == second


def test_a_range_that_is_refused_loses_no_weights(tmp_path):
    trainer = make_trainer(epochs=1).fit()
    with pytest.raises(ExportError, match=r"input_range = \(1, 0\): must be .*weights and ledger"):
        trainer.save(tmp_path / "mine", input_range=(1, 0))
    assert (tmp_path / "mine" / "model.safetensors").exists()
    with pytest.raises(ExportError, match=r"labels = .* are 2, and the model has 3 outputs"):
        trainer.save(tmp_path / "other", input_range=(0, 1), labels=("a", "b"))
    with pytest.raises(ExportError, match="input_range = None"):
        trainer.save(tmp_path / "third", labels=("a", "b", "c"))


def test_weights_that_were_saved_over_are_not_exported_as_the_old_ones(mine, capsys):
    other = make_trainer(model=OwnMlp(), epochs=1, seed=12).fit().save(mine.parent / "other")
    shutil.copy(other / "model.safetensors", mine / "model.safetensors")
    assert "model.safetensors: is not what task.json was written for" in refused(capsys, mine)


def test_nothing_in_a_folder_is_unpickled(mine, monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"),
                         (torch, "load")):  # fmt: skip
        monkeypatch.setattr(module, name, forbidden)
    assert read_saved_model(mine).subject.declared.input_shape == (1, 6, 6)


@pytest.mark.parametrize("name", ["privacy.json", "task.json", "ledger.sqlite", "graph.onnx"])
@pytest.mark.parametrize("damage", ["lost", "emptied", "cut in half", "a list", "linked"])
def test_a_file_that_is_damaged_is_refused_by_its_name(mine, capsys, name, damage):
    content = (mine / name).read_bytes()
    (mine / name).unlink()
    if damage == "linked":
        (mine.parent / name).write_bytes(content)
        (mine / name).symlink_to(mine.parent / name)
    elif damage != "lost":
        damaged = {"emptied": b"", "a list": b"[]"}.get(damage, content[: len(content) // 2])
        (mine / name).write_bytes(damaged)
    assert name in refused(capsys, mine)


@pytest.mark.parametrize(
    "changes",
    [{"epsilon": 0.01}, {"epsilon": "3"}, {"delta": 0.5}, {"relation": "label_change"},
     {"unit": "person"}, {"private": False}, {"epsilon": 0.01, "trials": 20}],
    ids=str,
)  # fmt: skip
def test_no_export_says_less_than_the_ledger_costs(mine, capsys, changes):
    path = mine / "privacy.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    if changes == {"delta": 0.5}:  # at which the charges cost less: true, and of no use
        assert export([str(mine), "--to", "c"]) == 0
        assert "delta: 0.5" in (mine / "export" / "c" / "model.h").read_text()
    else:
        assert "privacy.json: " in refused(capsys, mine)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("labels", ["a", "b\n", "c"]), ("labels", ["a", "\udce9", "c"]), ("labels", "abc"),
        ("labels", ["a", "a", "b"]), ("labels", [1, 2, 3]), ("labels", ["x" * 1000, "b", "c"]),
        ("input_shape", [36]), ("input_shape", [10**9, 10**9]), ("input_shape", []),
        ("input_shape", ["6"]), ("input_shape", None), ("input_shape", [True, 6, 6]),
        ("input_range", [0.0, float("nan")]), ("input_range", [0, 10**400]), ("input_range", [0]),
        ("input_range", [0.0, "1.0f); system(\"x\""]), ("input_range", [1, 0]),
        ("output", "*/"), ("output", 7), ("unit", "a\nb"), ("unit", 7), ("unit", None),
        ("graph_sha256", None), ("weights_sha256", "0" * 64),
    ],
    ids=lambda value: ascii(value)[:20],
)  # fmt: skip
def test_facts_that_no_owner_could_declare_are_refused(mine, capsys, name, value):
    resealed(mine, **{name: value})
    line = refused(capsys, mine)
    assert line.isprintable()
    assert "task.json" in line


def changed(graph, kind):
    if kind == "another weight":
        tensor = next(each for each in graph.graph.initializer if each.name == "last.bias")
        array = onnx.numpy_helper.to_array(tensor) + 1
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    elif kind == "a file beside it":
        tensor = graph.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "../../../../etc/passwd"
    elif kind == "another operator":
        graph.graph.node[1].op_type = "Evil"
    return graph.SerializeToString()


@pytest.mark.parametrize("kind", ["another weight", "a file beside it", "another operator"])
def test_a_graph_of_something_else_is_refused_though_its_digest_was_mended(mine, capsys, kind):
    content = changed(onnx.load(mine / "graph.onnx"), kind)
    (mine / "graph.onnx").write_bytes(content)
    resealed(mine, graph_sha256=hashlib.sha256(content).hexdigest())
    assert "graph.onnx: " in refused(capsys, mine)


@pytest.mark.parametrize("flag", [["--data-dir", "x"], ["--calibrate-on-private-data"]])
def test_flags_that_need_data_only_its_owner_has_are_refused(mine, capsys, flag):
    assert "whose data only you have" in refused(capsys, mine, "--to", "c", *flag)
