"""Frozen models of the user's: each row by itself, no pickle run, all else refused in one line."""

import contextlib
import dataclasses
import json
import zipfile

import onnx
import pytest
import torch
from frozen_files import (
    SHAPE,
    Scripted,
    bomb,
    changed,
    exported,
    graph_changed,
    onnx_model,
    onnx_net,
    saved,
    small_net,
)
from torch import nn

from dpsgd_torch import ConfigError
from dpsgd_torch.errors import PrivateDataWarning
from dpsgd_torch.features.frozen import opened
from dpsgd_torch.features.made_up.leaves import dead_leaves
from dpsgd_torch.features.model_files.named import ModelFile
from dpsgd_torch.features.recipe import Recipe

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
ROWS = dead_leaves(45, 8, seed=5)[0]


def model_of(path, shape=SHAPE):
    """Opened, and seen to take each row by itself."""
    model = opened(ModelFile.named(str(path)), shape)
    model.probe(ROWS[:10])
    return model


def recipe_of(path, **changes):
    asked = {"made_up": "leaves", "directions": 5, "made": 100, "scattering": False}
    return Recipe(**{**asked, "model": ModelFile.named(str(path)), **changes})


def refusal(path, shape=SHAPE):
    with pytest.raises(ConfigError) as caught:
        model_of(path, shape)
    told = str(caught.value)
    assert told.startswith("features_from = ")
    assert "\n" not in told
    return told


def scripted(path, net):
    torch.jit.save(torch.jit.script(Scripted(net)), path)
    return path


@pytest.mark.parametrize("kind", ["any", "one row", "script"])
def test_a_torch_model_says_the_same_from_its_file(kind, tmp_path):
    net = small_net()
    if kind == "script":
        path = scripted(tmp_path / "net.pt", net.train())  # its file is put into eval mode
    else:
        path = exported(tmp_path / "net.pt2", net, batch=1 if kind == "one row" else None)
    found = model_of(path)(ROWS)
    assert found.shape == (45, 6)
    assert torch.allclose(found, net.eval()(ROWS), atol=1e-5)


@pytest.mark.parametrize("rows", ["rows", 1, 7])
def test_an_onnx_model_says_the_same_from_its_file(rows, tmp_path):
    model, net = onnx_net(rows=rows)
    found = model_of(saved(tmp_path / "net.onnx", model))(ROWS)
    assert torch.allclose(found, net(ROWS), atol=1e-5)


def test_values_are_whitened_to_one_norm_beside_the_transforms(tmp_path):
    path = exported(tmp_path / "net.pt2", small_net())
    both = recipe_of(path, scattering=True, scales=1)
    found = both(ROWS)
    assert found.shape == (45, 10)
    assert torch.allclose(found[:, 5:], recipe_of(path)(ROWS))
    assert torch.allclose(found[:, 5:].norm(dim=1), torch.tensor(4.0))
    assert torch.equal(found[:, :5], dataclasses.replace(both, model=None)(ROWS))
    assert recipe_of(path, made_up="none")(ROWS).shape == (45, 6)


def test_values_are_kept_by_what_is_in_the_file(tmp_path):
    path = exported(tmp_path / "net.pt2", small_net())
    kept = recipe_of(path, folder=tmp_path / "features")
    first = kept(ROWS)
    renamed = path.rename(tmp_path / "other.pt2")
    assert torch.equal(recipe_of(renamed, folder=tmp_path / "features")(ROWS), first)
    assert len(list((tmp_path / "features").iterdir())) == 2  # a basis and rows
    exported(renamed, small_net(outputs=5))
    assert not torch.equal(recipe_of(renamed, folder=tmp_path / "features")(ROWS), first)


def test_a_file_that_changed_since_it_was_named_is_refused(tmp_path):
    path = exported(tmp_path / "net.pt2", small_net())
    named = ModelFile.named(str(ModelFile.named(str(path))))
    exported(path, small_net(outputs=5))
    with pytest.raises(ConfigError, match=r"is another file than was named \(sha256 .*put that"):
        opened(named, SHAPE)


class Centred(nn.Module):
    def forward(self, x):
        return x.flatten(1) - x.flatten(1).mean(dim=0)


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.seen += x.sum()
        return x.flatten(1)[:, :6] + self.seen


QUANTIZED = [
    ("Flatten", ["x"], ["f"]),
    ("DynamicQuantizeLinear", ["f"], ["q", "s", "z"]),
    ("DequantizeLinear", ["q", "s", "z"], ["y"]),
]


@pytest.mark.parametrize("kind", ["batch norm", "mean", "dropout", "state", "script", "ranges"])
def test_a_model_whose_rows_hang_on_each_other_is_refused(kind, tmp_path):
    path = tmp_path / "net.pt2"
    if kind == "batch norm":
        exported(path, small_net().train())
    elif kind == "mean":
        exported(path, Centred())
    elif kind == "dropout":
        exported(path, nn.Sequential(nn.Flatten(), nn.Dropout(0.5)).train())
    elif kind == "state":
        exported(path, Counted(), batch=1)
    elif kind == "script":
        path = scripted(tmp_path / "net.pt", Counted())
    else:
        path = saved(tmp_path / "net.onnx", onnx_model(QUANTIZED))
    assert "changes with the other rows (by " in refusal(path)


def test_what_takes_one_row_at_a_time_may_take_its_ranges_from_it(tmp_path):
    path = saved(tmp_path / "net.onnx", onnx_model(QUANTIZED, rows=1))
    assert model_of(path)(ROWS).shape == (45, 64)


def test_a_rows_features_are_the_same_wherever_it_lies(tmp_path):
    recipe = recipe_of(exported(tmp_path / "net.pt2", small_net()))
    alone, last = recipe(ROWS[7:8])[0], recipe(torch.cat([ROWS[8:], ROWS[7:8]]))[-1]
    assert torch.allclose(alone, last, atol=1e-5)
    assert torch.allclose(alone, recipe(ROWS)[7], atol=1e-5)


@pytest.mark.filterwarnings("ignore:local, not covered by ε")
def test_a_row_that_gives_no_numbers_is_zero_and_told_on_the_screen_alone(tmp_path):
    recipe = recipe_of(exported(tmp_path / "net.pt2", small_net()))
    rows = ROWS.clone()
    rows[3, 0, 2, 2] = torch.nan
    with pytest.warns(PrivateDataWarning, match="of 1 of 45 rows, the first row 3, are no numbers"):
        found = recipe(rows)
    assert found[3].eq(0).all()
    assert torch.allclose(found[4], recipe(ROWS)[4], atol=1e-5)


def touched(mark):
    return f"__import__('pathlib').Path('{mark}').touch()"


def in_samples(at, held, mark):
    return bomb(mark) if at.startswith("data/sample_inputs") else held


def in_weights(at, held, mark):
    held = held.replace(b'"use_pickle": false', b'"use_pickle": true')
    return bomb(mark) if at == "data/weights/weight_0" else held


def in_size(at, held, mark):
    return held.replace(b"Symbol('", f"{touched(mark)} or Symbol('".encode())


def in_guards(at, held, mark):
    guard = json.dumps([touched(mark)]).encode()
    return held.replace(b'"guards_code": []', b'"guards_code": ' + guard)


def in_model(at, held, mark):
    return bomb(mark) if at == "data.pkl" else held


@pytest.mark.parametrize("put", [in_samples, in_size, in_guards])
def test_what_torchs_own_reader_runs_of_a_file_is_not_run(put, tmp_path):
    """Example inputs and guards are left out, an odd size is refused."""
    mark, path = tmp_path / "ran", exported(tmp_path / "net.pt2", small_net())
    changed(path, lambda at, held: put(at, held, mark))
    if put is in_size:
        assert "is no sum or product of sizes" in refusal(path)
    else:
        assert torch.allclose(model_of(path)(ROWS), small_net()(ROWS), atol=1e-5)
    assert not mark.exists()
    with contextlib.suppress(Exception):  # the control: whatever it makes of what that gives
        torch.export.load(path).module()(ROWS)
    assert mark.exists()


def test_a_pickled_weight_is_refused_and_not_run(tmp_path):
    mark, path = tmp_path / "ran", exported(tmp_path / "net.pt2", small_net())
    changed(path, lambda at, held: in_weights(at, held, mark))
    assert "holds pickled tensors (data/weights/model_weights_config.json)" in refusal(path)
    assert not mark.exists()


def test_other_members_of_an_export_are_refused_by_name(tmp_path):
    path = exported(tmp_path / "net.pt2", small_net())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("net/data/constants/opaque_obj_0", bomb(tmp_path / "ran"))
    assert "holds 'data/constants/opaque_obj_0', which may run when read" in refusal(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_with_what_to_do_instead(zipped, tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "net.pt"
    if zipped:
        torch.save({"a": torch.zeros(2)}, path)
        changed(path, lambda at, held: in_model(at, held, mark))
    else:
        path.write_bytes(bomb(mark))
    told = refusal(path)
    assert "is a pickle, which may run anything when it is read; save the model with" in told
    assert "torch.export.save(" in told
    assert not mark.exists()


def test_an_archive_with_two_members_of_one_name_is_refused(tmp_path):
    path = exported(tmp_path / "net.pt2", small_net())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"")
    assert "holds two members of one name" in refusal(path)


class Writes(nn.Module):
    def forward(self, x):
        torch.save(x, "rows.pt")
        return x.flatten(1)


def test_a_script_that_writes_files_is_refused_before_any_of_it_runs(tmp_path):
    told = refusal(scripted(tmp_path / "net.pt", Writes()))
    assert "calls torch.save, which no feature needs" in told


def test_operators_of_others_are_refused_by_name(tmp_path):
    path = exported(tmp_path / "net.pt2", small_net())

    def other(graph):
        graph["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.mine.conv.default"

    told = refusal(graph_changed(path, other))
    assert "operator = 'torch.ops.mine.conv.default': is none of those taken" in told


def external(model):
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location="weights.bin")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    return model


ROOT = [("Flatten", ["x"], ["f"]), ("Log", ["f"], ["g"]), ("Sqrt", ["g"], ["y"])]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: onnx_model([("Abs", ["x"], ["y"])], shape=(3, 8, 8)),
         "takes rows of shape (3, 8, 8), and these have"),
        (lambda: onnx_net(shape=(64,))[0], "takes rows of shape (64), and these have (1, 8, 8)"),
        (lambda: onnx_net(opset=99)[0], "onnxruntime cannot run it ("),
        (lambda: external(onnx_net()[0]), "keeps w in another file, which its digest"),
        (lambda: onnx_model(ROOT), "gives values that are no numbers of a made-up row"),
        (lambda: onnx_model([("Nonsense", ["x"], ["y"])]), "onnxruntime cannot run it ("),
        (lambda: onnx_model([("Identity", ["x"], ["y"]), ("Abs", ["x"], ["z"])],
                            outputs=("y", "z")), "has 2 outputs"),
        (lambda: onnx_model([("ReduceMean", ["x"], ["y"], {"axes": [0], "keepdims": 0})]),
         "gives (1, 8, 8) for 32 rows; export it to give a tensor with a row for each"),
        (lambda: onnx_model([("Expand", ["x", "s"], ["y"])], [("s", [1, 200, 8, 8])]),
         "gives 12800 values a row; between 1 and 8192"),
    ],
)  # fmt: skip
def test_an_onnx_model_that_does_not_fit_is_refused_in_one_line(model, words, tmp_path):
    assert words in refusal(saved(tmp_path / "net.onnx", model()))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.onnx", None, "there is no such file; name a model: FILE.onnx, FILE.pt2"),
        ("net.onnx", b"nonsense", "is no ONNX ("),
        ("net.onnx", b"", "onnxruntime cannot run it ("),
        ("net.bin", b"nonsense", "is no .onnx file, nor one of torch.export.save"),
        ("net.pt2", b"PK\x05\x06" + bytes(18), "is a pickle"),
        ("net.onnx@sha256:12", b"", "has no SHA-256 of 64 hexadecimal digits"),
    ],
)
def test_a_file_that_is_no_model_is_refused_in_one_line(name, content, words, tmp_path):
    if content is not None:
        (tmp_path / name.partition("@")[0]).write_bytes(content)
    assert words in refusal(tmp_path / name)


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_damaged_export_is_refused_in_one_line(cut, tmp_path):
    path = exported(tmp_path / "net.pt2", small_net())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole))] + whole[int(cut * len(whole)) + 200 :])
    refusal(path)


def test_json_of_a_graph_may_be_anything(tmp_path):
    path = exported(tmp_path / "net.pt2", small_net())
    graph_changed(path, lambda graph: graph.pop("graph_module"))
    assert "torch cannot open it (KeyError" in refusal(path)
    changed(path, lambda at, held: json.dumps([]).encode() if at.endswith("model.json") else held)
    refusal(path)
