"""The scattering transform is kymatio's, and a row's features are its own."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dpsgd_torch.features.scattering import Scattering

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "scattering.json").read_text())


def patterned(side: int) -> torch.Tensor:
    """The image the golden values are of; no generator's, so that no version draws another."""
    row, column = np.mgrid[:side, :side]
    return torch.from_numpy((1 + np.sin(row**2 / 7 + column)) * (1 + np.cos(column * row / 5)) / 4)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"side {case['side']}")
def test_every_path_agrees_with_kymatio(case):
    found = Scattering(side=case["side"], scales=case["scales"])(
        patterned(case["side"])[None, None]
    )
    golden = torch.tensor(case["sums"])
    assert found[0].shape == (len(golden), *case["shape"])
    weights = torch.arange(1, found[0, 0].numel() + 1) / found[0, 0].numel()
    assert (found[0].flatten(1) @ weights - golden).abs().max() < case["tolerance"]


def test_other_angles_would_be_caught():
    case = GOLDEN["cases"][0]
    found = Scattering(side=28)(patterned(28).T[None, None])
    weights = torch.arange(1, 50) / 49
    assert (found[0].flatten(1) @ weights - torch.tensor(case["sums"])).abs().max() > 0.05


def test_the_features_of_a_row_do_not_depend_on_other_rows():
    images = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    alone, among = Scattering(side=8)(images[55:56]), Scattering(side=8)(images)
    assert torch.allclose(alone[0], among[55], atol=1e-6)
    images[:55] = 0
    assert torch.equal(Scattering(side=8)(images)[55], among[55])
