"""Parameters cut in equal parts, one a rank, and put together again in the memory they had."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from dpsgd_torch.errors import ModelError
from dpsgd_torch.noise.blocks import Place


class Cut:
    """Where each rank's part of a flattened parameter is: as equal as can be, in order."""

    def __init__(self, p: nn.Parameter, name: str, ranks: int) -> None:
        self.p, self.name, self.size, self.ranks = p, name, p.numel(), ranks
        self.part = -(-self.size // ranks)

    def of(self, rank: int) -> slice:
        """The elements that a rank holds.

        >>> cut = Cut(nn.Parameter(torch.zeros(7)), "bias", 3)
        >>> [cut.of(rank) for rank in range(3)]
        [slice(0, 3, None), slice(3, 6, None), slice(6, 7, None)]
        """
        start = min(rank * self.part, self.size)
        return slice(start, min(start + self.part, self.size))

    def length(self, rank: int) -> int:
        part = self.of(rank)
        return int(part.stop - part.start)

    def place(self, rank: int, number: int) -> Place:
        """What its noise is drawn for, where it is parameter ``number`` of the optimizer's."""
        part = self.of(rank)
        return Place(number, part.start, part.stop, self.size)


class Unit:
    """The parameters of one module, whole or in parts; they are gathered together.

    A parameter keeps its identity: only its memory is given back and had again, so that graphs,
    modules and whoever else holds it know no difference.
    """

    def __init__(self, number: int, cuts: Sequence[Cut], rank: int) -> None:
        self.number, self.cuts, self._rank = number, list(cuts), rank
        first = cuts[0].p
        self._at = [0]
        for cut in cuts:
            self._at.append(self._at[-1] + cut.part)
        self.flat = first.detach().new_zeros(self._at[-1])  # this rank's parts, once it took them
        self.shards = [
            nn.Parameter(self.flat[at : at + cut.length(rank)], cut.p.requires_grad)
            for cut, at in zip(self.cuts, self._at, strict=False)
        ]
        self.flat.untyped_storage().resize_(0)
        self.whole = self.written = self.differs = False
        self.nbytes = sum(cut.size * cut.p.element_size() for cut in cuts)

    def places(self) -> Iterable[int]:
        """What tells the parameters' memory from others'."""
        return [cut.p.untyped_storage()._cdata for cut in self.cuts]

    @torch.no_grad()
    def take(self) -> None:
        """Take this rank's parts of the parameters, which are whole."""
        if not self.flat.untyped_storage().nbytes():
            self.flat.untyped_storage().resize_(self.flat.numel() * self.flat.element_size())
            self.flat.zero_()
        for cut, shard in zip(self.cuts, self.shards, strict=True):
            shard.copy_(cut.p.detach().view(-1)[cut.of(self._rank)])

    def free(self) -> None:
        """Give the parameters' memory back."""
        for cut in self.cuts:
            if not cut.p.untyped_storage().resizable():  # numpy, or a file, has had it
                cut.p.data = torch.empty_like(cut.p.detach())
            cut.p.untyped_storage().resize_(0)
        self.whole = self.written = self.differs = False

    def have(self) -> None:
        """Have the parameters' memory again, with anything in it."""
        for cut in self.cuts:
            cut.p.untyped_storage().resize_(cut.size * cut.p.element_size())
        self.whole = True

    def put(self, gathered: torch.Tensor) -> None:
        """Make the parameters whole of what all ranks hold, (ranks, n)."""
        self.have()
        for cut, at in zip(self.cuts, self._at, strict=False):
            for rank, row in enumerate(gathered):
                _memory(cut.p)[cut.of(rank)] = row[at : at + cut.length(rank)]

    def is_as_taken(self) -> bool:
        """Whether what is whole has this rank's parts in it still."""
        return all(
            torch.equal(_memory(cut.p)[cut.of(self._rank)], shard.detach())
            for cut, shard in zip(self.cuts, self.shards, strict=True)
        )

    def is_as_gathered(self, gathered: torch.Tensor) -> bool:
        """Whether what is whole is what all ranks hold."""
        return all(
            torch.equal(_memory(cut.p)[cut.of(rank)], row[at : at + cut.length(rank)])
            for cut, at in zip(self.cuts, self._at, strict=False)
            for rank, row in enumerate(gathered)
        )


def units_of(model: nn.Module, ranks: int, rank: int) -> list[Unit]:
    """A unit for each module that has parameters of its own, by dtype and device.

    Raises:
        ModelError: a parameter shares its memory, or is not contiguous in it.
    """
    units, seen, memory = list[Unit](), set[nn.Parameter](), dict[int, str]()
    for path, module in model.named_modules():
        kinds: dict[tuple[torch.dtype, torch.device], list[Cut]] = {}
        for name, p in module.named_parameters(path, recurse=False):
            if p in seen:
                continue
            seen.add(p)
            _refuse_shared(p, name, memory)
            kinds.setdefault((p.dtype, p.device), []).append(Cut(p, name, ranks))
        for cuts in kinds.values():
            units.append(Unit(len(units), cuts, rank))
    return units


def _refuse_shared(p: nn.Parameter, name: str, memory: dict[int, str]) -> None:
    storage = p.untyped_storage()
    own = p.is_contiguous() and storage.nbytes() == p.numel() * p.element_size()
    other = memory.setdefault(storage._cdata, name)
    if other != name or not own:
        shared = f"shares its memory with {other}" if other != name else "is part of other memory"
        raise ModelError(
            f"parameter {name}: {shared}, or is not contiguous, so it cannot be sharded; set "
            "p.data = p.detach().clone(memory_format=torch.contiguous_format), or leave shard out"
        )


def _memory(p: nn.Parameter) -> torch.Tensor:
    """The values, flat, as another tensor: what is written there is no write to the parameter."""
    flat = torch.empty(0, dtype=p.dtype, device=p.device)
    return flat.set_(p.untyped_storage(), 0, (p.numel(),), (1,))
