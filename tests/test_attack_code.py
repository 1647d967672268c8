"""Kept scores belong to the code that made them: whatever of it changes, they are another's."""

import importlib
import sys

import pytest
import torch

from dpsgd_torch import RunError
from dpsgd_torch.audit.attacks.attack import audit_training

TRAIN = """
import torch
{imports}
def train(data, seed):
    {inside}
    noise = torch.randn(2, 5, generator=torch.Generator().manual_seed(seed))
    sums = torch.nn.functional.one_hot(data[1], 2).double().T @ data[0].double()
    return lambda asked: asked.double() @ (sums + scale() * noise).T
"""
DATA = torch.eye(5)[torch.arange(40) % 4], torch.arange(40) % 2


@pytest.mark.parametrize(
    ("imports", "inside", "changed"),
    [
        ("from my_noise import scale", "", "my_noise.py"),
        ("", "from my_noise import scale", "my_noise.py"),
        ("import my_parts.noise\nscale = my_parts.noise.scale", "", "my_parts/noise.py"),
        ("from my_parts import scale", "", "my_parts/noise.py"),
    ],
)
def test_scores_made_with_another_helper_are_refused(
    imports, inside, changed, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_parts").mkdir()
    (tmp_path / "my_parts/__init__.py").write_text("from .noise import scale\n")
    for name in ("my_noise.py", "my_parts/noise.py"):
        (tmp_path / name).write_text("def scale():\n    return 1.0\n")
    text = TRAIN.format(imports=imports, inside=inside or "pass")
    (tmp_path / "my_audited.py").write_text(text)
    importlib.invalidate_caches()
    asked = {"epsilon": 4.4, "delta": 1e-5, "models": 8, "folder": tmp_path / "kept"}
    try:
        audit_training("my_audited:train", DATA, **asked)
        audit_training("my_audited:train", DATA, **asked)  # nothing changed: it goes on
        (tmp_path / changed).write_text("def scale():\n    return 0.5\n")
        with pytest.raises(RunError, match=r"scores of another audit \(code differ\)"):
            audit_training("my_audited:train", DATA, **asked)
    finally:
        for name in [each for each in sys.modules if each.startswith("my_")]:
            del sys.modules[name]
