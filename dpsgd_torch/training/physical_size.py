"""Physical batch size "auto": the largest power of two whose examples fit a budget of memory.

The budget is fixed, so that a seed gives the same run on any machine with that much memory.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch

from dpsgd_torch.errors import ModelError
from dpsgd_torch.training.private_optimizer import sums_are_long

AUTO = "auto"
WITHOUT_PRIVACY = 128  # nothing of an example is kept, and nothing is rehearsed
BUDGET = 1 << 30  # bytes; on one core larger batches were no faster


def begun_with(asked: int | str) -> int:
    """The number asked for, or one that stands in its place until there is a better."""
    return WITHOUT_PRIVACY if asked == AUTO else int(asked)


def fitting(
    example: int, *, rows: int, batch_size: int, free: int | None = None, ranks: int = 1
) -> int:
    """How many examples a pass may hold.

    Args:
        example: bytes that one takes: what its pass saves, and its part of the gradients.
        rows: so many at most a step is likely to draw.
        batch_size: the expected one; its sums may not be of too many pieces.
        free: bytes of memory that are left, at half of which the budget ends.
        ranks: processes of the run, which may share that memory.

    Raises:
        ModelError: not so many as must be fit in what is left.

    >>> fitting(1 << 20, rows=314, batch_size=250), fitting(1 << 23, rows=314, batch_size=250)
    (512, 128)
    """
    free = None if free is None else free // ranks
    budget = BUDGET if free is None else min(BUDGET, free // 2)
    size = 1 << max(0, (budget // max(1, example)).bit_length() - 1)
    size = min(size, 1 << (rows - 1).bit_length())
    best = 1 << math.ceil(math.log2(math.sqrt(2 * batch_size)))  # the sums' rounding is least
    while size != best and sums_are_long(batch_size, size, ranks):
        size = 2 * size if size < best else size // 2
    if free is not None and min(size, rows) * example > free:
        needed, left = (f"{value / 2**30:.2g} GiB" for value in (min(size, rows) * example, free))
        raise ModelError(
            f"physical_batch_size = auto: {min(size, rows)} at once need {needed}, and {left} of "
            "memory are left; free some, or make the model or its inputs smaller"
        )
    return size


def free_memory(device: torch.device) -> int | None:
    """Bytes that are left on the device, or within this process's limit; None where unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    left = [value for value in (_of_machine(), _of_group()) if value is not None]
    return min(left) if left else None


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, ValueError, StopIteration):
        return None


def _of_group(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Of a container's limit; files that are cached count as free."""
    try:
        most, held = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, most - held + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):  # no limit, or none that is told
        return None
