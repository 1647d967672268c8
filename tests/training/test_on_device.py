"""What is made where the tensors are: a checksum in whole numbers, the same in any order."""

import pytest
import torch

from dpsgd_torch.training import released_state
from dpsgd_torch.training.released_state import on_device


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(1000, dtype=torch.float32),
        torch.arange(7, dtype=torch.bfloat16),
        torch.tensor(3.0),
        torch.tensor([True, False, True]),
        torch.arange(6).view(2, 3),
    ],
)
def test_any_bit_that_changes_is_seen(tensor, monkeypatch):
    whole = int(on_device(tensor))
    monkeypatch.setattr(released_state, "_WORDS", 64)
    assert int(on_device(tensor)) == whole, "pieces of another size"
    octets = tensor.clone().reshape(-1).view(torch.uint8)
    for place in (0, octets.numel() // 2, octets.numel() - 1):
        changed = octets.clone()
        changed[place] ^= 1
        assert int(on_device(changed.view(tensor.dtype))) != whole


def test_values_that_change_places_are_seen():
    values = torch.tensor([1.0, 2.0, 2.0, 1.0])
    seen = {int(on_device(values[torch.tensor(order)])) for order in ([0, 1, 2, 3], [1, 0, 3, 2])}
    assert len(seen) == 2
    assert int(on_device(values)) == int(on_device(values[torch.tensor([3, 2, 1, 0])]))


def test_an_empty_tensor_has_one():
    assert int(on_device(torch.empty(0))) == 0
