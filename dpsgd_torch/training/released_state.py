"""What a run releases, by checksum: noise, or nothing, is all that may have changed it."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Iterator, Mapping
from typing import Protocol

import torch
from torch import nn

from dpsgd_torch.data.tensors import raw_bytes
from dpsgd_torch.errors import GuaranteeBroken, ModelError
from dpsgd_torch.storage.aliases import place

Checksums = dict[str, int]
_WORDS = 1 << 22  # at once, so that memory holds little besides them
_ODD, _OTHER = 0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9  # any two odd ones with many bits


class Watched(Protocol):
    """What holds parameters and buffers by name: a model, or parts of one."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...

    def named_buffers(self) -> Iterator[tuple[str, torch.Tensor]]: ...


def released_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """All that a model's ``state_dict`` holds, on the CPU, each tensor with memory of its own.

    Tied parameters are told under each of their names, as ``state_dict`` does, and stay one tensor.

    Raises:
        ModelError: something in it is not a tensor, so no file of tensors could hold it.

    >>> tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> tied[1].weight = tied[0].weight
    >>> sorted(released_tensors(tied))
    ['0.bias', '0.weight', '1.bias', '1.weight']
    """
    state: Mapping[str, object] = model.state_dict()
    tensors, copies = dict[str, torch.Tensor](), dict[Hashable, torch.Tensor]()
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise ModelError(
                f"{name} = {type(value).__name__}: a model's state must be tensors to be saved and "
                "compared; drop get_extra_state, or keep it as a buffer"
            )
        where = place(value)
        tensors[name] = copies[where] = own_copy(value) if where not in copies else copies[where]
    return tensors


def own_copy(tensor: torch.Tensor) -> torch.Tensor:
    """The values on the CPU, contiguous, in memory that nothing else shares."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def checksums(model: Watched) -> Checksums:
    """A checksum of each tensor in the model's state, parameters first, tied ones once.

    >>> layer = nn.Linear(2, 1)
    >>> before = checksums(layer)
    >>> _ = layer.bias.data.add_(1)
    >>> [name for name, value in checksums(layer).items() if value != before[name]]
    ['bias']
    """
    held = [*model.named_parameters(), *model.named_buffers()]
    found = {name: zlib.crc32(raw_bytes(t)) for name, t in held if t.device.type != "cuda"}
    there = [(name, on_device(t)) for name, t in held if t.device.type == "cuda"]
    if there:  # copied to the CPU they would take longer than the step: one number of each is
        numbers = torch.stack([number for _, number in there]).tolist()
        found |= {name: number for (name, _), number in zip(there, numbers, strict=True)}
    return {name: found[name] for name, _ in held}


def on_device(tensor: torch.Tensor) -> torch.Tensor:
    """A checksum of 32 bits made where the tensor is, in whole numbers: the same in any order.

    >>> values = torch.tensor([1.0, 2.0, 3.0])
    >>> [int(on_device(t)) == int(on_device(values)) for t in (values.clone(), values.flip(0))]
    [True, False]
    """
    octets = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    octets = nn.functional.pad(octets, (0, -octets.numel() % 4))
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for start in range(0, octets.numel(), 4 * _WORDS):
        words = octets[start : start + 4 * _WORDS].view(torch.int32).long()
        place = torch.arange(words.numel(), device=tensor.device) + (start // 4 + 1)
        mixed = (words ^ (place * _ODD)) * _OTHER
        total += ((mixed ^ (mixed >> 29)) * _ODD).sum()
    return (total ^ (total >> 32)) & 0xFFFFFFFF


class ReleaseGuard:
    """Knows what the last noisy step left, and fails where the model holds anything else."""

    def __init__(self, model: Watched, *, watching: bool) -> None:
        self._model, self._watching = model, watching
        self._known: Checksums | None = None

    def watch(self, held: Watched) -> None:
        """Go on with the same values where they are now: a model, or this rank's parts of it."""
        if held is not self._model:
            self._model = held
            if self._known is not None:
                self.accept()

    def accept(self) -> int:
        """Take what the model holds now as released; returns one checksum, for the ledger."""
        self._known = checksums(self._model)
        return zlib.crc32(b"".join(value.to_bytes(4, "little") for value in self._known.values()))

    def check(self, steps: int) -> None:
        """Refuse what was written since, by name; before the first step there is nothing to know.

        Raises:
            GuaranteeBroken: something besides the noisy step wrote to the model.
        """
        if not self._watching or self._known is None:
            return
        was, now = self._known, checksums(self._model)
        names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
        if names:
            shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            raise GuaranteeBroken(
                f"{shown}: changed after {steps} steps, by something that adds no noise, so it may "
                "carry records out; this trainer releases nothing: keep what the forward pass, or "
                "the loop around it, writes out of the model"
            )

    def expect_step(self) -> None:
        """The noisy step comes next: nothing is known until it is accepted."""
        self._known = None

    def begin(self) -> None:
        """Accept the model as it is where nothing is known yet."""
        if self._known is None:
            self.accept()
