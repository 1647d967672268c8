"""What the steps to come draw, and its rows, loaded while training goes on."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from accountant import PrivacyError
from dpsgd_torch.data.base import Batch, Wanted
from dpsgd_torch.data.units import Indices
from dpsgd_torch.errors import GuaranteeBroken
from dpsgd_torch.samplers.base import Batch as Drawn
from dpsgd_torch.training.sampling import physical_batches
from dpsgd_torch.training.shares import share
from dpsgd_torch.training.state import RunState


class Feed:
    """Draws and physical batches of one run, in the order of its steps.

    * A draw is a pure function of the streams and touches no row: drawn ahead it costs nothing.
    * What was loaded ahead meets the model in its own step alone, which is charged before; where
      the run ends early it is dropped.
    * Every rank draws the whole batch, and takes its share of it alone.
    * Data in memory is taken when it is needed, as ever.
    """

    def __init__(self, run: RunState) -> None:
        self._run, self._step = run, run.done
        self._drawn: dict[int, Drawn] = {}
        self._asked: deque[Indices] = deque()
        self._next: Batch | None = None
        loads = run.data.in_memory() is None
        self._batches = run.data.ahead(self._wanted()) if loads else None

    def draw(self, step: int) -> Drawn:
        """Who is in the batch of ``step``, over all ranks."""
        self._step = step
        found = self._drawn.pop(step, None)
        return self._draw(step) if found is None else found

    def share(self, drawn: Drawn) -> Drawn:
        """The part of a batch that this rank takes, a row for each view of each record."""
        run = self._run
        return run.views.spread(share(drawn, run.world.rank, run.world.size))

    def ready(self, step: int) -> None:
        """Have the first physical batch of ``step``, before the step is charged.

        Raises:
            DataError: it cannot be had; nothing was charged for the step.
        """
        if self._batches is None or self._next is not None:
            return
        try:
            self._next = next(self._batches, None)
        except PrivacyError as error:
            raise type(error)(
                f"step {step}: {error}; nothing was charged for it, and the run goes on from there "
                "when it is fitted again or resumed"
            ).with_traceback(error.__traceback__) from None

    def take(self, indices: Indices) -> Batch:
        """The next physical batch, which is of these rows; augmented, where that was asked for."""
        return self._made(indices, self._taken)

    def again(self, indices: Indices) -> Batch:
        """A physical batch of the step that was drawn last, whichever, as that step has it."""
        return self._made(indices, self._run.data.take)

    def _made(self, indices: Indices, taken: Callable[[Indices], Batch]) -> Batch:
        rows, run = self._run.views.once(indices), self._run
        batch = taken(rows)
        return run.views.made(
            batch,
            rows,
            lambda: run.streams.key("augmentation", attempt=run.attempt, step=self._step),
        )

    def _taken(self, indices: Indices) -> Batch:
        if self._batches is None:
            return self._run.data.take(indices)
        batch, self._next = self._next or next(self._batches), None
        if not np.array_equal(self._asked.popleft(), indices):
            raise GuaranteeBroken(
                f"batch of {len(indices)} rows: others were loaded than are taken; nothing was "
                "released: take a step's physical batches in their order"
            )
        return batch

    def close(self) -> None:
        """Let go of what was loaded, and end the workers."""
        if self._batches is not None:
            self._batches.close()

    def _draw(self, step: int) -> Drawn:
        run = self._run
        stream = partial(run.streams.numpy, attempt=run.attempt, step=step)
        return run.sampling.draw(stream, step, len(run.data), run.units)

    def _wanted(self) -> Iterator[Wanted]:
        run = self._run
        for step in range(run.done, run.sampling.steps):
            try:
                drawn = self._drawn[step] = self._draw(step)
            except Exception:  # the step itself meets it again, where it can be told
                return
            key = run.streams.key("augmentation", attempt=run.attempt, step=step)
            drawn = self.share(drawn)
            for piece in physical_batches(drawn.slots, run.at_once):
                rows = run.views.once(drawn.rows[piece])
                self._asked.append(rows)
                yield Wanted(rows, key)


@contextlib.contextmanager
def feeding(run: RunState) -> Iterator[Feed]:
    """A feed that is closed at the end, however it ends."""
    feed = Feed(run)
    try:
        yield feed
    finally:
        feed.close()
