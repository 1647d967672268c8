"""A process group of torch.distributed as a run needs it: gathers, sums in order, who is missing.

Messages go by gloo on the CPU; tensors on a GPU go by NCCL.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from dpsgd_torch.errors import RunError, told

_FRAME = 1 << 11  # bytes of a message that goes in one piece
_AT_ONCE = 1 << 22  # values summed at once, so that memory holds little besides them
_SMALL = 1 << 17  # values of all ranks that rank 0 adds up itself: fewer messages are faster then
_PATIENCE = 5.0  # seconds in which those that are left say so
_LOOK = datetime.timedelta(seconds=0.5)  # how often whoever waits looks round
_LEAVE = 0.2  # seconds in which what is no longer waited for is let go of
_FAILED = "dpsgd_torch/failed"
_made: dict[tuple[int, float], Lines] = {}


def connected(timeout: float) -> bool:
    """Whether this process is one of several, connecting them where torchrun's variables say so.

    Raises:
        RunError: they cannot be connected.
    """
    if not dist.is_available():
        return False
    if not dist.is_initialized():
        if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return False
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        kinds = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        try:
            dist.init_process_group(kinds, timeout=datetime.timedelta(seconds=timeout))
        except (RuntimeError, ValueError, OSError) as error:
            raise RunError(
                f"rank {os.environ['RANK']}: the ranks cannot be connected at {where} "
                f"({told(error)}); if the port is in use, pass torchrun another --master-port"
            ) from error
    return dist.get_world_size() > 1


def lines_of(timeout: float) -> Lines:
    """The connections of this process, made once."""
    key = (id(dist.group.WORLD), timeout)
    if key not in _made:
        if not _made:
            atexit.register(_close_all)
        _made[key] = Lines(timeout)
    return _made[key]


def _close_all() -> None:
    """End the threads of gloo before the interpreter does.

    One that lets go of a tensor later asks for the interpreter's lock, and the process aborts.
    """
    for lines in _made.values():
        lines.close()
    _made.clear()


class Lines:
    """Collectives over all ranks; each raises ``RuntimeError`` where one does not take part.

    ``look`` is called twice a second while others are waited for, and may raise.
    """

    look: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, timeout: float) -> None:
        self.rank, self.size, self.timeout = dist.get_rank(), dist.get_world_size(), timeout
        self.local_rank = int(os.environ.get("LOCAL_RANK", self.rank))
        limit = datetime.timedelta(seconds=timeout)
        self._cpu = dist.new_group(backend="gloo", timeout=limit)
        self._gpu = dist.new_group(backend="nccl", timeout=limit) if _on_gpus() else self._cpu
        self._store = dist.distributed_c10d._get_default_store()
        self._name = f"dpsgd_torch/{len(_made)}"
        self.lost: set[int] = set()
        self._broken = False  # a rank took no part in something, which may still be waited for

    def close(self) -> None:
        """Leave the groups made here; nothing can be exchanged any more."""
        if self._broken:  # whose end would wait for those that do not answer
            time.sleep(_LEAVE)
            return
        for group in dict.fromkeys((self._cpu, self._gpu)):
            with contextlib.suppress(RuntimeError, ValueError):  # the user ended it
                dist.destroy_process_group(group)
        del self._cpu, self._gpu  # which held them

    def gather(self, content: bytes) -> list[bytes]:
        """Each rank's bytes, in the order of ranks."""
        frame = torch.zeros(_FRAME, dtype=torch.uint8)
        head = len(content).to_bytes(8, "little") + content[: _FRAME - 8]
        frame[: len(head)] = torch.frombuffer(bytearray(head), dtype=torch.uint8)
        frames = self._all(frame)
        sizes = [int.from_bytes(bytes(each[:8].tolist()), "little") for each in frames]
        longest = max(sizes)
        if longest > _FRAME - 8:
            whole = torch.zeros(longest, dtype=torch.uint8)
            if content:
                whole[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            frames = [torch.cat([frame[:8], rest]) for rest in self._all(whole)]
        return [f[8 : 8 + n].numpy().tobytes() for f, n in zip(frames, sizes, strict=True)]

    def _all(self, mine: torch.Tensor) -> list[torch.Tensor]:
        found = [torch.empty_like(mine) for _ in range(self.size)]
        self._waited(dist.all_gather(found, mine, group=self._cpu, async_op=True))
        return found

    def _ended(self, work: Any, tensor: torch.Tensor) -> None:
        if tensor.device.type == "cuda":
            work.wait()  # in its stream's own order
        else:
            self._waited(work)

    def _waited(self, work: Any) -> None:
        """Wait for what goes by gloo, looking round meanwhile."""
        self._broken = True  # until it has ended
        while True:
            try:
                work.wait(_LOOK)
                break
            except RuntimeError:
                if work.is_completed():
                    work.wait()  # what it failed by, if it did
                    break
            self.look()
        self._broken = False

    def broadcast(self, tensor: torch.Tensor) -> None:
        """Rank 0's values, in place."""
        group = self._of(tensor.device)
        self._ended(dist.broadcast(tensor, 0, group=group, async_op=True), tensor)

    def hand_round(self, tensors: Sequence[torch.Tensor], good: bool = True) -> bool:
        """Rank 0's values of all tensors, in place, a dtype at a time; returns its ``good``."""
        kinds = dict.fromkeys((t.device, t.dtype) for t in tensors)
        for device, dtype in kinds:
            alike = [t for t in tensors if (t.device, t.dtype) == (device, dtype)]
            word = torch.full((1,), good, dtype=dtype, device=device)  # goes along with them
            flat = torch.cat([*(t.reshape(-1) for t in alike), word])
            self.broadcast(flat)
            *parts, word = flat.split([*(t.numel() for t in alike), 1])
            if self.rank:
                for tensor, part in zip(alike, parts, strict=True):
                    tensor.copy_(part.view(tensor.shape))
                good = good and bool(word)
        return good

    def joined(self, mine: torch.Tensor) -> torch.Tensor:
        """(ranks, n): each rank's n values, in the order of ranks."""
        found = mine.new_empty(self.size * mine.numel())
        # torch 2.13 warns of the name that older ones have
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
        self._ended(gather(found, mine, group=self._of(mine.device), async_op=True), mine)
        return found.view(self.size, -1)

    def sent(
        self, values: torch.Tensor, outgoing: list[int], incoming: list[int]
    ) -> list[torch.Tensor]:
        """What each rank sent here, where ``values`` holds what goes to each in turn."""
        found = values.new_empty(sum(incoming))
        group = self._of(values.device)
        work = dist.all_to_all_single(found, values, incoming, outgoing, group=group, async_op=True)
        self._ended(work, values)
        return list(found.split(incoming))

    def summed(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Sums over ranks in float64, complete on rank 0, where the order is that of ranks.

        Each rank adds up one part of all, so that none receives more than twice its size; few
        values are added up by rank 0 alone, in the same order.
        """
        if not tensors:
            return []
        flat = torch.cat([t.reshape(-1).double() for t in tensors])
        for start in range(0, flat.numel(), _AT_ONCE):
            block = flat[start : start + _AT_ONCE]
            part = -(-block.numel() // self.size)
            padded = block.new_zeros(part * self.size)
            padded[: block.numel()] = block
            block.copy_(self._sum(padded)[: block.numel()])
        parts = flat.split([t.numel() for t in tensors])
        return [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]

    def sum_of_part(self, rows: torch.Tensor) -> torch.Tensor:
        """(n,) float64: this rank's row of every rank's (ranks, n), added in the order of ranks."""
        size, count = rows.shape
        total = rows.new_empty(count, dtype=torch.float64)
        width = max(1, _AT_ONCE // size)
        for start in range(0, count, width):
            block = rows[:, start : start + width].contiguous()
            received = torch.empty_like(block)
            group = self._of(rows.device)
            self._ended(dist.all_to_all_single(received, block, group=group, async_op=True), rows)
            first, *others = received.unbind()
            part = total[start : start + width].copy_(first)
            for other in others:
                part += other
        return total

    def hand_round_parts(self, rows: torch.Tensor) -> None:
        """Write each rank's own row of (ranks, n) over the others'."""
        own, group = rows[self.rank].clone(), self._of(rows.device)
        # torch 2.13 warns of the name that older ones have
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
        self._ended(gather(rows.view(-1), own, group=group, async_op=True), rows)

    def _sum(self, padded: torch.Tensor) -> torch.Tensor:
        group, received = self._of(padded.device), torch.empty_like(padded)
        if padded.numel() * self.size <= _SMALL:
            every = [torch.empty_like(padded) for _ in range(self.size)] if self.rank == 0 else None
            self._ended(dist.gather(padded, every, dst=0, group=group, async_op=True), padded)
            return _in_order(every) if every else padded
        work = dist.all_to_all_single(received, padded, group=group, async_op=True)
        self._ended(work, padded)
        total = _in_order(received.view(self.size, -1).unbind())
        parts = [torch.empty_like(total) for _ in range(self.size)] if self.rank == 0 else None
        self._ended(dist.gather(total, parts, dst=0, group=group, async_op=True), total)
        return torch.cat(parts) if parts else padded

    def missing(self) -> set[int]:
        """The ranks that do not say, within a few seconds, that they lost one, too."""
        keys = [f"{self._name}/lost/{rank}" for rank in range(self.size)]
        self._broken = True
        try:
            self._store.set(keys[self.rank], "1")
            until = time.monotonic() + _PATIENCE
            while True:
                left = {r for r, key in enumerate(keys) if not self._store.check([key])}
                if time.monotonic() > until or not left:
                    return left
                time.sleep(0.05)
        except RuntimeError:
            return {0}  # which kept what they say

    def tell(self, what: dict[str, Any]) -> None:
        """Leave word for whoever waits, now or later; the first word stands.

        Waits a few seconds for the others to have heard it: it may end with this process.
        """
        self._broken = True
        try:
            self._store.compare_set(_FAILED, "", json.dumps(what))
            keys = [f"{_FAILED}/heard/{rank}" for rank in range(self.size) if rank != self.rank]
            self._store.set(f"{_FAILED}/heard/{self.rank}", "1")
            until = time.monotonic() + _PATIENCE
            while time.monotonic() < until and not self._store.check(keys):
                time.sleep(0.05)
        except RuntimeError:  # nobody keeps it any more
            pass

    def word(self) -> dict[str, Any] | None:
        """What another rank left; None where nothing is."""
        try:
            if not self._store.check([_FAILED]):
                return None
            found: dict[str, Any] = json.loads(self._store.get(_FAILED))
            self._store.set(f"{_FAILED}/heard/{self.rank}", "1")
        except RuntimeError:
            return None
        return found

    def _of(self, device: torch.device) -> Any:
        return self._gpu if device.type == "cuda" else self._cpu


def _in_order(terms: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum of terms, added one after the other; the first is written over."""
    total = terms[0]
    for other in terms[1:]:
        total += other
    return total


def _on_gpus() -> bool:
    return bool(torch.cuda.is_available() and dist.is_nccl_available())
