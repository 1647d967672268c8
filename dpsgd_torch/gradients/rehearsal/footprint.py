"""Bytes that an example takes: what autograd saves of its forward pass."""

from __future__ import annotations

import torch

from dpsgd_torch.data.base import Batch
from dpsgd_torch.gradients.rehearsal.carried import carried
from dpsgd_torch.gradients.rehearsal.draws import same_draws
from dpsgd_torch.gradients.rehearsal.oracle import Oracle
from dpsgd_torch.gradients.rehearsal.passes import rows


def saved_per_example(oracle: Oracle, batch: Batch, of: str, device: torch.device) -> int:
    """What two examples save beyond one; weights, which both passes save, are none of it."""
    one, two = (_saved(oracle, rows(batch, slice(count)), of, device) for count in (1, 2))
    return max(0, two - one)


def _saved(oracle: Oracle, batch: Batch, of: str, device: torch.device) -> int:
    """Bytes of all storages that a graph holds."""
    held: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.layout is torch.strided:
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        same_draws(device),
        torch.enable_grad(),
        carried(torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)),
    ):
        losses = oracle.losses(oracle.outputs(batch[0], of), batch[1], of)
    del losses  # which kept the storages where they were
    return sum(held.values())
