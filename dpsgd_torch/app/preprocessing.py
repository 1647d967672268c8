"""What a run releases about its table before it trains: features chosen, scales, frequencies."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from accountant import Event, Laplace, Ledger, calibrate, calibrate_noise
from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.mechanisms.exponential import choice_event
from dpsgd_torch.mechanisms.library import opendp
from dpsgd_torch.mechanisms.statistics import FeatureSelection, FeatureStatistics, LabelFrequencies
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.tasks.task import Pair, Table, Task

_FILE, _KEPT = "releases.json", "private/releases.json"
Events = tuple[tuple[Event, int], ...]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Preprocessing:
    """Releases planned from declared numbers, so that their cost is known before any is drawn.

    Each is charged in full before its noise is drawn, and written to releases.json, which may be
    published, and to private/, where a resumed run reads it; one that was charged but never written
    is drawn and charged anew.
    """

    selection: FeatureSelection | None = None
    statistics: FeatureStatistics | None = None
    frequencies: LabelFrequencies | None = None

    @classmethod
    def of(cls, config: RunConfig, task: Task) -> Preprocessing:
        """What ``config`` asks of ``task``, its noise calibrated to the ε stated for each."""
        table, size, delta = task.table, config.dataset_size, config.delta
        if table is None or not config.dp:
            return cls()
        assert size is not None
        selection = statistics = frequencies = None
        low, high = table.low, table.high
        if config.select_features:
            keep = config.select_features
            each = _range(config.selection_epsilon, delta, keep)
            selection = FeatureSelection(low=low, high=high, keep=keep, epsilon=each)
            low, high = low[:keep], high[:keep]  # as many, whichever they will be
        if config.statistics_epsilon:
            statistics = FeatureStatistics(
                low=low,
                high=high,
                noise_multiplier=_noise(config.statistics_epsilon, delta, 2 * len(low)),
                size=size,
            )
        if config.frequencies_epsilon:
            frequencies = LabelFrequencies(
                noise_multiplier=_noise(config.frequencies_epsilon, delta, 1), size=size
            )
        if selection or statistics or frequencies:
            opendp()  # now, or not at all: nothing may fail between charge and draw
        return cls(selection, statistics, frequencies)

    @property
    def events(self) -> Events:
        """What all of it costs."""
        parts = (self.selection, self.statistics, self.frequencies)
        return tuple(event for part in parts if part for event in part.events)

    def carry_out(
        self, task: Task, units: torch.Tensor | None, ledger: Ledger | None, folder: RunFolder
    ) -> Task:
        """The task with its inputs chosen and scaled, and its model started at the frequencies."""
        table = task.table
        if table is None or ledger is None or not self.events:
            return task
        ids = None if units is None else units.numpy()
        draws = _Draws(ledger.part("preprocessing"), folder)
        rows = task.train[0].double().numpy()
        columns = np.arange(rows.shape[1])
        location, scale = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
        if self.selection:
            chosen = self.selection
            columns = draws.once("columns", chosen.events, lambda: [chosen.draw(rows, ids)])[0]
            columns = columns.astype(np.int64)
            location, scale = np.zeros(len(columns)), np.ones(len(columns))
        if self.statistics:
            ranges = dataclasses.replace(
                self.statistics, low=table.low[columns], high=table.high[columns]
            )
            kept = rows[:, columns]
            location, scale = draws.once(
                "location and scale", ranges.events, lambda: list(ranges.draw(kept, ids))
            )
        start: torch.Tensor | None = None
        if self.frequencies:
            asked, targets = self.frequencies, task.train[1].double().numpy()
            found = draws.once("frequencies", asked.events, lambda: [asked.draw(targets, ids)])[0]
            start = torch.from_numpy(found).float()
        return _prepared(task, table, columns, location, scale, start)


class _Draws:
    """Releases by name, each charged once and kept."""

    def __init__(self, ledger: Ledger, folder: RunFolder) -> None:
        self._ledger, self._folder, self._step = ledger, folder, 0
        kept = (folder.path / _KEPT).exists()
        self._kept: dict[str, Any] = folder.read_sealed(_KEPT) if kept else {}
        if kept:
            folder.write_json(_FILE, self._kept)
        self._begun = False

    def once(
        self, name: str, events: list[tuple[Event, int]], draw: Callable[[], list[Any]]
    ) -> list[Any]:
        """What was released under ``name``, or is now."""
        count = sum(times for _, times in events)
        if name not in self._kept:
            if not self._begun:  # never the last attempt: its draws cannot be repeated
                self._ledger.begin(first_step=0, environment="operating system", repeatable=False)
                self._begun = True
            for event, times in events:
                self._ledger.reserve(self._step, event, times)
            arrays = draw()
            self._kept[name] = [array.tolist() for array in arrays]
            self._folder.write_sealed(_KEPT, self._kept)
            self._folder.write_json(_FILE, self._kept)
            self._ledger.settle(self._step, zlib.crc32(arrays[0].tobytes()), count)
        self._step += count
        return [np.array(values) for values in self._kept[name]]


@lru_cache
def _noise(epsilon: float, delta: float, releases: int) -> float:
    if releases == 1:
        return 1 / epsilon  # pure differential privacy: δ would save a fold in 10^4
    return calibrate_noise(
        epsilon, delta, lambda noise: [(Laplace(noise_multiplier=noise), releases)]
    )


@lru_cache
def _range(epsilon: float, delta: float, choices: int) -> float:
    if choices == 1:
        return epsilon  # likewise
    return calibrate(
        epsilon,
        delta,
        lambda each: [(choice_event(each), choices)],
        between=(epsilon, epsilon / (100 * choices)),
    )


def _prepared(
    task: Task,
    table: Table,
    columns: NDArray[np.int64],
    location: Floats,
    scale: Floats,
    frequencies: torch.Tensor | None,
) -> Task:
    def ready(inputs: torch.Tensor) -> torch.Tensor:
        kept = inputs[:, torch.from_numpy(columns)]
        shift, size = (torch.from_numpy(values).float() for values in (location, scale))
        return (kept - shift) / size

    def pair(data: Pair) -> Pair:
        return ready(data[0]), data[1]

    named = dataclasses.replace(
        table,
        columns=tuple(table.columns[i] for i in columns),
        low=table.low[columns],
        high=table.high[columns],
    )
    predictions = task.predictions
    if predictions:
        predictions = dataclasses.replace(predictions, inputs=ready(predictions.inputs))
    return dataclasses.replace(
        task,
        train=pair(task.train),
        test=None if task.test is None else pair(task.test),
        make_model=lambda generator: table.make_model(generator, len(columns), frequencies),
        table=named,
        predictions=predictions,
    )
