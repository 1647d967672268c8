"""What an installation without extras can do, and what it says of what it cannot."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLES = ("pandas", "opendp", "sklearn")
MODELS = ("transformers", "timm", "peft")
EXPORT = ("onnx", "onnxscript", "onnxruntime", "flatbuffers", "unicorn")
EXTRAS = (*TABLES, *MODELS, *EXPORT, "cryptography", "optuna")
APPLICATION = ("matplotlib", "jinja2", "rich", "platformdirs", "torchvision")
OWN_MODEL = """
import torch
from dpsgd_torch import Privacy, Trainer
data = torch.rand(64, 5), torch.randint(2, (64,))
trainer = Trainer(
    torch.nn.Linear(5, 2), torch.nn.CrossEntropyLoss(), data,
    privacy=Privacy(epsilon=3, delta=1e-3, clip_norm=1.0), batch_size=16, epochs=1,
    optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
assert trainer.fit().privacy_spent().epsilon <= 3
trainer.save(sys.argv[1])
"""
DOOR = """
from importlib import import_module
raise SystemExit(import_module(sys.argv[1]).main(sys.argv[2:]))
"""


def without(packages, code, *arguments):
    """``code`` in a process in which ``packages`` cannot be imported."""
    blocked = f"import sys\nsys.modules.update(dict.fromkeys({packages!r}))\n"
    return subprocess.run(
        [sys.executable, "-c", blocked + code, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


def test_a_model_of_ones_own_needs_no_extra_and_nothing_of_the_application(tmp_path):
    ended = without((*EXTRAS, *APPLICATION), OWN_MODEL, tmp_path / "run")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "run" / "privacy.json").exists()


def test_a_preset_is_trained_and_reported_without_extras(tmp_path):
    command = ["dpsgd_torch.train", "--preset", "gesture", "--epochs", 1, "--out", tmp_path / "run"]
    ended = without(EXTRAS, DOOR, *command)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    ("package", "extra", "command"),
    [
        ("sklearn", "tables", ["dpsgd_torch.train", "--preset", "digits"]),
        ("opendp", "tables", ["dpsgd_torch.train", "--preset", "moa", "--epochs", 1]),
        ("transformers", "models", ["dpsgd_torch.train", "--preset", "text"]),
        ("cryptography", "secure", ["dpsgd_torch.train", "--preset", "digits", "--secure"]),
        ("onnx", "export", ["dpsgd_torch.export.__main__", "run", "--to", "c"]),
    ],
)
def test_what_an_extra_brings_is_named_before_anything_is_begun(package, extra, command, tmp_path):
    out = ["--out", tmp_path / "run"]
    ended = without((package,), DOOR, *command, *out)
    assert ended.returncode == 2
    assert f"error: {package}: is missing; pip install 'dpsgd_torch[{extra}]'" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()
