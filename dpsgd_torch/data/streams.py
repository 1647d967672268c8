"""Streams: data without a length or random access, refused with the way out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import Dataset, IterableDataset

from dpsgd_torch.errors import DataError


def refuse_stream(given: Any, name: str) -> None:
    """Refuse what can only be passed over in its own order.

    Raises:
        DataError: Poisson sampling needs a length and random access.
    """
    if not is_stream(given):
        return
    raise DataError(
        f"{name} = {type(given).__name__}: is a stream, and Poisson sampling, which the ε rests "
        "on, needs len(dataset) and dataset[i]: every record must be free to join any batch; "
        "write the stream to a file once (np.lib.format.open_memmap, an Arrow file) and hand "
        "that over (docs/datasets.md)"
    )


def is_stream(given: Any) -> bool:
    """Whether it says that it is one, or can be iterated over and nothing else.

    >>> is_stream(iter([1])), is_stream([1])
    (True, False)
    """
    if isinstance(given, IterableDataset | Iterator):
        return True
    if isinstance(given, Dataset) and not hasattr(type(given), "__len__"):
        return True
    return not hasattr(type(given), "__getitem__") and hasattr(type(given), "__iter__")
