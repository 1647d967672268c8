"""``export_model``: any module, whoever trained it, to every target."""

import copy
import math

import grimp
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export import export_model
from dpsgd_torch.export.check import compare
from dpsgd_torch.export.compiler import compile_model
from dpsgd_torch.export.synthetic import synthetic_inputs
from dpsgd_torch.export.target import TARGETS
from dpsgd_torch.export.to_c import to_c
from dpsgd_torch.export.to_onnx import answers, to_onnx

C_FILES = ("src/mine_model.c", "include/mine_model.h")
FILES = {
    "onnx": ("model.onnx",), "tflite": ("model.tflite",), "header": ("model.h",),
    "c": ("model.c", "model.h"), "arduino": ("mine.ino", "model.c", "model.h"),
    "arduino-library": ("mine_model.zip",),
    "platformio": ("platformio.ini", "library.json", *C_FILES, "src/main.cpp"),
    "zephyr": (
        "zephyr/module.yml", "CMakeLists.txt", "Kconfig", "samples/classify/CMakeLists.txt",
        "samples/classify/prj.conf", "samples/classify/sample.yaml", *C_FILES,
        "samples/classify/src/main.c",
    ),
    "esp-idf": (
        "CMakeLists.txt", "idf_component.yml", "examples/classify/CMakeLists.txt",
        "examples/classify/main/CMakeLists.txt", *C_FILES, "examples/classify/main/main.c",
    ),
    "cmake": ("CMakeLists.txt", *C_FILES, "examples/classify.c"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("dpsgd_torch.export.check.available_boards", list)


def network(*layers):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(*(make() for make in layers))


def mlp():
    return network(lambda: nn.Linear(6, 8), nn.Tanh, lambda: nn.Linear(8, 2))


def made(model, out, **changes):
    facts = {"input_shape": (6,), "input_range": (-1, 1), "out": out, **changes}
    return export_model(model, **facts)


def test_the_targets_are_all_known_here():
    assert FILES.keys() == TARGETS.keys()


@pytest.mark.parametrize("to", FILES)
def test_every_target_holds_what_it_was_told_of_where_it_comes_from(tmp_path, to):
    done = made(mlp(), tmp_path / "mine", to=to, provenance={"run": "no. 7", "epsilon": "2"})
    assert done.names == FILES[to]
    content = b"".join((tmp_path / "mine" / name).read_bytes() for name in done.names)
    assert b"no. 7" in content
    assert "What ε covers is not stated" in (tmp_path / "mine" / "statement.txt").read_text()


def test_the_c_is_compared_with_torch_and_a_changed_weight_is_refused(tmp_path, monkeypatch):
    done = made(mlp(), tmp_path / "good", check=True)
    assert {c.who for c in done.comparisons} >= {"C on this machine, gcc"}
    assert not done.differences

    def faulty(program):
        wrong = copy.deepcopy(program)
        wrong.steps[-1].operation.weights[:] *= -1
        return to_c(wrong)

    monkeypatch.setattr("dpsgd_torch.export.check.to_c", faulty)
    with pytest.raises(ExportError, match=r"check: C on this machine, .* DIFFERS"):
        made(mlp(), tmp_path / "bad", check=True)


def test_the_model_itself_stays_as_it_was(tmp_path):
    model = network(lambda: nn.Linear(6, 4), lambda: nn.Dropout(0.5)).double().train()
    before = copy.deepcopy(model.state_dict())
    made(model, tmp_path, to="onnx")
    assert model.training
    assert model[0].weight.dtype == torch.float64
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    graph = onnx.load(tmp_path / "model.onnx")
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    np.testing.assert_array_equal(held["0.weight"], before["0.weight"].numpy().astype(np.float32))


def test_a_model_in_training_mode_is_exported_as_it_answers_in_evaluation(tmp_path):
    model = network(lambda: nn.Linear(6, 4), lambda: nn.BatchNorm1d(4), lambda: nn.Linear(4, 2))
    model[1].running_mean += 3
    inputs = synthetic_inputs(20, (6,), (-1, 1))
    made(model.train(), tmp_path, to="onnx")
    assert model[1].running_mean.min() == 3
    with torch.no_grad():
        expected = model.eval()(inputs).numpy()
    assert np.allclose(answers(onnx.load(tmp_path / "model.onnx"), inputs), expected, atol=1e-5)


def test_what_is_no_chain_of_layers_goes_to_onnx_and_is_refused_for_c_by_its_operator(tmp_path):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.scale = nn.Linear(6, 6), torch.tensor(2.0)

        def forward(self, x):
            return x / (
                2 + self.layer(x) * torch.eye(6)[0]
            )  # float32, also where the rest is float64

    assert made(Branches(), tmp_path / "onnx", to="onnx").names == ("model.onnx",)
    with pytest.raises(ExportError, match="operator = Div"):
        made(Branches(), tmp_path / "c")
    assert not (tmp_path / "c").exists()


class Pair(nn.Module):
    def forward(self, x):
        return x, x


class Mean(nn.Module):
    def forward(self, x):
        return x.mean()


REFUSED = {
    "to = 'wasm': must be one of": {"to": "wasm"},
    "int8 = False: c is in integers only": {"int8": False},
    r"input_shape = \(7,\): the model raises": {"input_shape": (7,)},
    r"input_shape = \(\): must be": {"input_shape": ()},
    r"input_shape = \(0,\): must be": {"input_shape": (0,)},
    r"input_range = \(1, 1\): must be": {"input_range": (1, 1)},
    "input_range = .*inf": {"input_range": (0, math.inf)},
    "input_range = 'ab'": {"input_range": "ab"},
    "labels = .*: are 3, and the model has 2": {"labels": ("a", "b", "c")},
    "labels = .*: must be different": {"labels": ("a", "a")},
    "labels = .*: must be diff": {"labels": ("a", "b\n")},
    "output = 'odds'": {"output": "odds"},
    "provenance = .* mend 'run'": {"provenance": {"run": "a\nb"}},
    r"public_inputs = \(3, 5\): must be": {"public_inputs": torch.zeros(3, 5)},
    "answers a tuple": {"model": Pair()},
    r"answers a tensor of shape \(\)": {"model": Mean()},
    "no number": {"model": nn.Sequential(nn.Linear(6, 2), nn.Threshold(math.inf, math.nan))},
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_exported_is_refused_by_name_and_writes_nothing(tmp_path, words):
    changes = dict(REFUSED[words])
    with pytest.raises(ExportError, match=words):
        made(changes.pop("model", None) or mlp(), tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_public_inputs_give_the_ranges_and_are_told(tmp_path):
    narrow = 0.01 * torch.ones(20, 6)
    made(mlp(), tmp_path / "given", public_inputs=narrow)
    made(mlp(), tmp_path / "made up")
    given, usual = ((tmp_path / n / "model.h").read_text() for n in ("given", "made up"))
    assert "inputs that were given as public" in given
    assert "inputs made up without the data" in usual
    scale = [float(text.split("OUTPUT_SCALE ")[1].split("f")[0]) for text in (given, usual)]
    assert scale[0] < scale[1] / 2


@pytest.mark.parametrize("shape", [(5,), (1,), (1, 6, 6), (3, 2, 9), (2, 7)])
def test_made_up_inputs_lie_in_the_declared_range_and_are_the_same_again(shape):
    inputs = synthetic_inputs(40, shape, (-3, 5))
    assert inputs.shape == (40, *shape)
    assert inputs.dtype == torch.float32
    assert inputs.min() >= -3
    assert inputs.max() <= 5
    assert inputs.max() - inputs.min() > 6
    assert torch.equal(inputs, synthetic_inputs(40, shape, (-3, 5)))


def test_ranges_from_made_up_inputs_carry_a_network_that_sees_strokes(tmp_path):
    """Images that are mostly dark, unlike evenly random ones."""
    model = network(
        lambda: nn.Conv2d(1, 6, 3), nn.ReLU, lambda: nn.MaxPool2d(2), nn.Flatten,
        lambda: nn.Linear(54, 10),
    ).eval()  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    images = (torch.rand(60, 1, 8, 8, generator=generator) < 0.25).float()
    public = synthetic_inputs(400, (1, 8, 8), (0, 1)).numpy()
    program = compile_model(to_onnx(model, (1, 8, 8), {}), input_range=(0, 1), public_inputs=public)
    with torch.no_grad():
        first = next(compare(program, images.numpy(), model(images).numpy()))
    same = int(first.found.split("same answer for ")[1].split(" ")[0])
    assert same >= 57


def test_export_of_a_model_knows_nothing_of_presets_runs_or_tasks():
    graph = grimp.build_graph("dpsgd_torch", cache_dir=None)
    app = {f"dpsgd_torch.{name}" for name in (
        "config", "presets", "run", "assembly", "flags", "stored_config", "search", "tasks",
        "report", "progress", "train", "labels",
    )}  # fmt: skip
    for entry in ("api", "saved_model"):
        known = graph.find_upstream_modules(f"dpsgd_torch.export.{entry}")
        assert not {name for name in known if ".".join(name.split(".")[:2]) in app}, entry
    source = graph.find_upstream_modules("dpsgd_torch.app.export.job")
    assert "dpsgd_torch.app.config" in source  # so the names above are those of modules
