"""How fast a run goes and what it takes: examples a second, time in exchanges, memory."""

from __future__ import annotations

import platform
import resource
import sys
import time

import torch

from dpsgd_torch.training.world import ALONE, World

_FIRST = 1  # steps that are not timed: what is compiled and loaded in them is not met again


class Speed:
    """What rank 0 measures of the steps that this process takes.

    Examples are those expected, which are public: what a batch really held is not. The time is
    measured, and hangs on it a little; it is told to two digits, and no ε covers it.

    >>> speed = Speed(250)
    >>> speed.examples_per_second is None
    True
    """

    def __init__(
        self, batch_size: int, world: World = ALONE, device: torch.device | str = "cpu"
    ) -> None:
        self._batch_size, self._world, self._device = batch_size, world, torch.device(device)
        self._steps, self._began, self._waited, self._last = 0, 0.0, 0.0, 0.0

    def stepped(self) -> None:
        """Count a step that was taken."""
        self._steps, self._last = self._steps + 1, time.perf_counter()
        if self._steps == _FIRST:
            self._began, self._waited = self._last, self._world.waited

    @property
    def took_steps(self) -> bool:
        return self._steps > 0

    @property
    def _seconds(self) -> float:
        return self._last - self._began

    @property
    def examples_per_second(self) -> float | None:
        """Of all processes together; None before two steps were taken."""
        steps = self._steps - _FIRST
        if steps < 1 or self._seconds <= 0:
            return None
        return _rounded(steps * self._batch_size / self._seconds)

    @property
    def efficiency(self) -> float | None:
        """The part of its time in which rank 0 neither waited for others nor exchanged with them.

        None for one process.
        """
        if self._world.is_alone or self._steps <= _FIRST or self._seconds <= 0:
            return None
        return _rounded(max(0.0, 1 - (self._world.waited - self._waited) / self._seconds))

    @property
    def peak_memory(self) -> int:
        """MiB that this process held at most; of tensors on the GPU, where it trains there."""
        if self._device.type == "cuda":
            return round(torch.cuda.max_memory_allocated(self._device) / 2**20)
        unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes there, KiB on Linux
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)

    def told(self) -> list[tuple[str, str]]:
        """What a report says of it: names and values."""
        many = self._world.size
        on = _name(self._device)
        told = [("processes", str(many)), ("device", f"{on} each" if many > 1 else on)]
        if (rate := self.examples_per_second) is not None:
            told.append(("examples a second", f"{rate:,.4g}"))
            told.append(("and process", f"{_rounded(rate / many):,.4g}")) if many > 1 else None
        if (part := self.efficiency) is not None:
            told.append(("time not spent in exchanges", f"{part:.0%}"))
        kind = "tensors on the GPU" if self._device.type == "cuda" else "the process"
        told.append((f"most memory of {kind}", f"{_rounded(self.peak_memory):,.4g} MiB"))
        return told


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {platform.machine()}, {threads} thread{'s' if threads > 1 else ''}"


def _rounded(value: float) -> float:
    """To two digits.

    >>> _rounded(12345.0), _rounded(0.0512)
    (12000.0, 0.051)
    """
    return float(f"{value:.2g}")
