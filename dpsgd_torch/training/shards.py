"""A model over several ranks, each of which holds a part of every parameter and of its sums.

Not on ``fully_shard`` of torch: its hooks gather in lockstep, which asks every rank for as many
passes as any other has, and reduce one gradient of a batch, which is never made here. What is
gathered here is gathered on touch, by whatever operation meets a parameter first.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from accountant.errors import check
from dpsgd_torch.data.tensors import give_back
from dpsgd_torch.errors import GuaranteeBroken, ModelError
from dpsgd_torch.noise.blocks import BLOCKS
from dpsgd_torch.noise.independent import INDEPENDENT
from dpsgd_torch.privacy.privacy import Privacy
from dpsgd_torch.training.early_stopping import EarlyStopping
from dpsgd_torch.training.optimizers import parts_of
from dpsgd_torch.training.shard_units import Cut, Unit, units_of
from dpsgd_torch.training.world import World

_AT_ONCE = 1 << 20  # values of sums that are sent in one message at least
_DONE: list[Any] = ["done"]
_ELEMENTWISE = (
    *("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adadelta", "Adagrad", "RMSprop"),
    *("Rprop", "ASGD"),
)


class Shards:
    """Parameters in parts: gathered on touch within a phase, let go of as others are touched.

    * An optimizer of the model is made to step by the parts that this rank holds.
    * Ranks need not run the same passes: in each round each says what it needs next, and all
      serve all; a rank with no examples, or done with its own, serves until all are done.
    * What is asked for goes by ``World.exchange``: what fails on one rank ends all.
    * A phase writes to no part: what it wrote to a parameter it lost, or is refused at its end.

    Args:
        model: the same on all ranks, whole.
        optimizer: over its trained parameters, element by element.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, world: World) -> None:
        self.world = world
        _refuse_by_name(model, optimizer)
        self._units = units_of(model, world.size, world.rank)
        self._most = 2 * max(unit.nbytes for unit in self._units)
        self._of_memory: dict[int, Unit] = {}
        self._held: OrderedDict[int, Unit] = OrderedDict()  # gathered, the oldest touch first
        self._apart, self._touching = False, False
        self.buffers = dict(model.named_buffers())
        found = {
            cut.p: (cut, shard)
            for unit in self._units
            for cut, shard in zip(unit.cuts, unit.shards, strict=True)
        }
        self._named = {cut.name: shard for cut, shard in found.values()}
        held = [p for group in optimizer.param_groups for p in group["params"]]
        self.cuts = [found[p][0] for p in held if p.requires_grad]
        self._sums: list[torch.Tensor] = []
        for part in parts_of(optimizer):
            _swap(part, {p: (cut, shard) for p, (cut, shard) in found.items()}, world.rank)

    # in place of a model, for whoever looks at what is released

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """This rank's parts, by the parameters' names."""
        return iter(self._named.items())

    def named_buffers(self) -> Iterator[tuple[str, torch.Tensor]]:
        return iter(self.buffers.items())

    @property
    def params(self) -> list[nn.Parameter]:
        """The parameters that are trained, as the model has them, in the optimizer's order."""
        return [cut.p for cut in self.cuts]

    @property
    def all_cuts(self) -> list[Cut]:
        """Of all parameters, also those that are not trained."""
        return [cut for unit in self._units for cut in unit.cuts]

    def cut_of(self, name: str) -> Cut | None:
        """The parameter that "optimizer.3.exp_avg" belongs to."""
        kind, _, rest = name.partition(".")
        return self.cuts[int(rest.partition(".")[0])] if kind == "optimizer" else None

    @property
    def are_apart(self) -> bool:
        return self._apart

    def take(self) -> None:
        """Have this rank's parts of a model that is whole."""
        for unit in self._units if not self._apart else ():
            unit.take()

    def take_apart(self) -> None:
        """Keep the parts of this rank alone."""
        if self._apart:
            return
        for unit in self._units:
            unit.take()
            self._free(unit)
        give_back()
        self._apart = True

    def put_together(self) -> None:
        """Make the model whole on every rank; all ranks do so."""
        if self._apart:
            for unit in self._units:
                unit.put(self.world.joined(unit.flat))
            self._held.clear()
            self._apart = False

    def make_room(self) -> None:
        """Have the model's memory again, to be loaded into."""
        for unit in self._units if self._apart else ():
            unit.have()
        self._held.clear()
        self._apart = False

    @contextlib.contextmanager
    def phase(self) -> Iterator[None]:
        """Around all that runs the model or adds to sums; each rank enters as often as others.

        Raises:
            GuaranteeBroken: what ran inside wrote to a parameter.
        """
        if not self._apart:
            yield
            return
        self._let_go()  # of what an error left
        give_back()
        with _Touch(self):
            yield
        for unit in self._held.values():
            if unit.written:
                self._round(["gather", unit.number])
        while any(want != _DONE for want in self._round(_DONE)):
            pass
        held = self._held.values()
        written = [unit for unit in held if unit.differs or not unit.is_as_taken()]
        self._let_go()
        give_back()
        if written:
            raise GuaranteeBroken(
                f"{written[0].cuts[0].name}, or what is beside it: was written to in a pass, by "
                "something that adds no noise; nothing was released: write to no parameter there"
            )

    def touch(self, function: Any, args: Any, kwargs: Any) -> None:
        """Have the parameters whole that an operation is about to be called with."""
        touched = {u.number: u for leaf in tree_leaves((args, kwargs)) if (u := self._unit(leaf))}
        for unit in touched.values():
            if not unit.whole:
                self._make_room_for(unit, touched)
                self._round(["gather", unit.number])
            self._held[unit.number] = unit
            self._held.move_to_end(unit.number)
        if touched and function._schema.is_mutable:
            for declared, given in zip(function._schema.arguments, args, strict=False):
                if declared.alias_info is not None and declared.alias_info.is_write:
                    for unit in filter(None, map(self._unit, tree_leaves(given))):
                        unit.written = True

    def begin_sums(self) -> None:
        """Sums of nothing, of this rank's parts."""
        self._sums = []

    @property
    def sums(self) -> list[torch.Tensor]:
        """Flat float64 sums over all ranks, of this rank's part of each trained parameter."""
        if not self._sums:
            self._sums = [
                torch.zeros(cut.length(self.world.rank), dtype=torch.float64, device=cut.p.device)
                for cut in self.cuts
            ]
        return self._sums

    def add(self, totals: Iterator[torch.Tensor]) -> None:
        """Add one rank's sums, a tensor a trained parameter, to those of whoever holds its part."""
        waiting, first = list[torch.Tensor](), 0
        for number, total in enumerate(totals):
            waiting.append(total.reshape(-1))
            if number + 1 == len(self.cuts) or sum(map(len, waiting)) >= _AT_ONCE:
                kinds = {each.dtype for each in waiting}
                kind = "float32" if kinds == {torch.float32} else "float64"
                self._round(["add", first, number + 1, kind], waiting)
                waiting, first = [], number + 1

    def _unit(self, leaf: Any) -> Unit | None:
        if not isinstance(leaf, torch.Tensor):
            return None
        try:
            return self._of_memory.get(leaf.untyped_storage()._cdata)
        except (NotImplementedError, RuntimeError):  # sparse, or without memory
            return None

    def _let_go(self) -> None:
        for unit in self._held.values():
            self._free(unit)
        self._held.clear()

    def _free(self, unit: Unit) -> None:
        for place in unit.places():
            self._of_memory.pop(place, None)
        unit.free()
        self._of_memory |= dict.fromkeys(unit.places(), unit)

    def _make_room_for(self, unit: Unit, needed: dict[int, Unit]) -> None:
        """Let go of what was touched longest ago, unless it was written to."""
        left = self._most - unit.nbytes - sum(each.nbytes for each in self._held.values())
        for number, old in list(self._held.items()):
            if left >= 0:
                break
            if number not in needed and not old.written:
                left += old.nbytes
                del self._held[number]
                self._free(old)

    def _round(self, want: list[Any], totals: Sequence[torch.Tensor] = ()) -> list[Any]:
        """One round: all ranks say what they need, and each need is served, in the same order."""
        wants = self.world.exchange("the parameters", want)
        told = [tuple(each) for each in wants]
        for each in dict.fromkeys(told):
            asking = [rank for rank, other in enumerate(told) if other == each]
            if each[0] == "gather":
                self._gather(self._units[each[1]], wanted=each == tuple(want))
            elif each[0] == "add":
                _, first, end, kind = each
                self._add(range(first, end), kind, asking, totals)
        return wants

    def _gather(self, unit: Unit, *, wanted: bool) -> None:
        gathered = self.world.joined(unit.flat)
        if wanted and unit.whole:  # once more, since it was written to
            unit.differs = not unit.is_as_gathered(gathered)
        elif wanted:
            unit.put(gathered)

    def _add(
        self, which: range, kind: str, asking: list[int], totals: Sequence[torch.Tensor]
    ) -> None:
        """What the asking ranks have of some parameters, added in the order of ranks."""
        cuts = self.cuts[which.start : which.stop]
        sums = self.sums[which.start : which.stop]
        mine, world = self.world.rank, self.world
        dtype, outgoing = getattr(torch, kind), [0] * world.size
        values = torch.empty(0, dtype=dtype, device=cuts[0].p.device)
        if mine in asking:
            ranks = range(world.size)
            outgoing = [sum(cut.length(rank) for cut in cuts) for rank in ranks]
            parts = [t[c.of(r)] for r in ranks for t, c in zip(totals, cuts, strict=True)]
            values = torch.cat([part.to(dtype) for part in parts])
        here = sum(cut.length(mine) for cut in cuts)
        came = world.sent(values, outgoing, [here * (rank in asking) for rank in range(world.size)])
        for rank in asking:
            lengths = [cut.length(mine) for cut in cuts]
            for total, part in zip(sums, came[rank].split(lengths), strict=True):
                total += part


class _Touch(TorchDispatchMode):
    """Sees each operation, also those of a backward pass, before it reads its tensors."""

    def __init__(self, shards: Shards) -> None:
        super().__init__()
        self._shards = shards

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._shards.touch(func, args, kwargs)
        return func(*args, **(kwargs or {}))


def _swap(
    optimizer: torch.optim.Optimizer, found: dict[nn.Parameter, tuple[Cut, nn.Parameter]], rank: int
) -> None:
    """Let an optimizer step by parts, with what it holds of them."""
    for group in optimizer.param_groups:
        for place, p in enumerate(group["params"]):
            cut, shard = found[p]
            group["params"][place] = shard
            if p in optimizer.state:
                state = optimizer.state.pop(p)
                optimizer.state[shard] = {
                    name: value.reshape(-1)[cut.of(rank)].clone()
                    if isinstance(value, torch.Tensor) and value.shape == p.shape
                    else value
                    for name, value in state.items()
                }


def sharded_privacy(privacy: Privacy | None, watch: EarlyStopping | None) -> Privacy:
    """What is asked of privacy, with noise that each rank can draw a part of.

    Raises:
        InvalidValue: there is none, or a part of it needs the model whole.
    """
    check(privacy is not None, "shard", True, "is for private runs", "pass privacy=…")
    assert privacy
    kind = privacy.noise
    rule = "no rank can draw a part of it by itself; pass shard=False"
    check(kind in (INDEPENDENT, BLOCKS), "noise", type(kind).__name__, rule)
    keeps = watch is not None and watch.keep_best
    check(not keeps, "keep_best", keeps, "needs the model whole; pass shard=False")
    return dataclasses.replace(privacy, noise=BLOCKS)


def _refuse_by_name(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for part in parts_of(optimizer):
        kind = type(part)
        if (
            kind.__module__.split(".")[:2] != ["torch", "optim"]
            or kind.__name__ not in _ELEMENTWISE
        ):
            raise ModelError(
                f"optimizer {kind.__name__}: must act element by element to step by parts of "
                f"parameters; use one of torch.optim ({', '.join(_ELEMENTWISE)}), or leave shard "
                "out"
            )
    if not any(True for _ in model.parameters()):
        raise ModelError("model: has no parameters, so nothing can be sharded; leave shard out")
