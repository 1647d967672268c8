"""A torch ``Dataset``, or the ``DataLoader`` over one, as data."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from dpsgd_torch.data.base import Data
from dpsgd_torch.data.dataset import FromDataset
from dpsgd_torch.data.examples import Targets
from dpsgd_torch.data.streams import refuse_stream
from dpsgd_torch.data.workers import TIMEOUT
from dpsgd_torch.errors import DataError, outside


def as_data(given: Any, device: str | torch.device, name: str) -> Data | None:
    """``FromDataset`` of a map-style dataset or a loader's; None of what is neither.

    * A pair of tensors in a ``TensorDataset`` is None too: it is taken as the tensors it holds.

    Raises:
        DataError: a stream, or a loader whose sampler or options would be lost.
    """
    if isinstance(given, DataLoader):
        return _of_loader(given, name)
    refuse_stream(given, name)
    if not isinstance(given, Dataset) or _is_pair(given):
        return None
    return FromDataset(given)


def _is_pair(given: Any) -> bool:
    return type(given) is TensorDataset and len(given.tensors) == 2


def _of_loader(loader: DataLoader[Any], name: str) -> Data | None:
    refuse_odd_loader(loader, name)
    dataset: Any = loader.dataset  # which torch takes without being a Dataset
    if not isinstance(dataset, Dataset):
        return None
    warnings.warn(
        f"{name} = DataLoader: its dataset, collate_fn and {loader.num_workers} workers are taken; "
        "Poisson sampling with the trainer's batch_size replaces its batch size and shuffling",
        UserWarning,
        stacklevel=outside(),
    )
    return rows_of_loader(loader)


def refuse_odd_loader(loader: DataLoader[Any], name: str) -> None:
    """Refuse a loader whose sampler or options would be lost, or whose rows are a stream.

    Raises:
        DataError: which.
    """
    refuse_stream(loader.dataset, name)
    sampler, batches = loader.sampler, loader.batch_sampler
    usual = type(sampler) in (RandomSampler, SequentialSampler) and type(batches) is BatchSampler
    if not usual or getattr(sampler, "replacement", False):
        odd = type(sampler if type(batches) is BatchSampler else batches).__name__
        raise DataError(
            f"{name} = DataLoader with {odd}: batches are drawn by Poisson sampling, whose law the "
            "ε rests on; pass loader.dataset (FromDataset(loader.dataset, collate_fn, workers=…) "
            "for its options)"
        )
    if loader.worker_init_fn is not None:
        raise DataError(
            f"{name} = DataLoader with a worker_init_fn: generators are seeded for each row here; "
            "pass FromDataset(loader.dataset, collate_fn, workers=…)"
        )


def rows_of_loader(loader: DataLoader[Any], targets: Targets = None) -> FromDataset:
    """The rows that a loader would have batched, by its collate_fn and workers."""
    collate = None if loader.collate_fn is default_collate else loader.collate_fn
    timeout = loader.timeout or TIMEOUT
    return FromDataset(
        loader.dataset, collate, workers=loader.num_workers, targets=targets, timeout=timeout
    )
