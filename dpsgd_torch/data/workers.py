"""Worker processes that fetch what is wanted next while training goes on."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import time
import warnings
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data._utils import signal_handling

from dpsgd_torch.data.base import Batch, Wanted
from dpsgd_torch.data.examples import RowError
from dpsgd_torch.data.fetching import IDLE, Fault, Fetch
from dpsgd_torch.errors import told

TIMEOUT = 600.0  # seconds; longer than a batch may take to read, shorter than ranks wait
_AHEAD = 2  # pieces that each worker has in hand, at most
_LATE = "DataLoader timed out"  # of torch's, while its workers live
_MMAP_THRESHOLD, _LARGE = -3, 1 << 20  # mallopt's number, bytes
_LOOK = 5.0  # seconds after which it is seen whether all workers live
_NOTICED = 2.0  # seconds in which a process that dies is gone


def fetched(fetch: Fetch, wanted: Iterable[Wanted]) -> Generator[Batch | Fault]:
    """In this process, each when it is needed."""
    for each in wanted:
        yield fetch[each]


def fetched_ahead(
    fetch: Fetch, wanted: Iterable[Wanted], workers: int, timeout: float = TIMEOUT
) -> Generator[Batch | Fault]:
    """By so many processes, in the order wanted; they end when all is had, or this is closed.

    Raises:
        RowError: one died, or nothing came for ``timeout`` seconds.
    """
    fetch.busy = torch.full((workers, 2), IDLE, dtype=torch.int64).share_memory_()
    batches = _loading(fetch, wanted, workers, min(_LOOK, timeout))
    try:
        yield from _told(fetch.busy, batches, timeout)
    finally:
        batches._shutdown_workers()


def _loading(fetch: Fetch, wanted: Iterable[Wanted], workers: int, look: float) -> Any:
    with warnings.catch_warnings():  # as many as were asked for, on each pass anew
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader: DataLoader[Any] = DataLoader(
            fetch,
            batch_size=None,
            sampler=_Pieces(wanted),
            num_workers=workers,
            prefetch_factor=_AHEAD,
            collate_fn=_as_it_is,
            worker_init_fn=_begin,
            timeout=look,
            pin_memory=torch.cuda.is_initialized(),
            generator=torch.Generator(),  # the global one is not ours to draw from
        )
        batches: Any = iter(loader)
    # Of a death torch tells by a signal's handler that raises wherever the main thread is, in a
    # charge too; without it the next batch that is asked for does, some seconds later.
    signal_handling._remove_worker_pids(id(batches))  # type: ignore[attr-defined]
    batches._worker_pids_set = False
    return batches


def _told(busy: torch.Tensor, batches: Any, timeout: float) -> Iterator[Batch | Fault]:
    asked = time.monotonic()
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (RuntimeError, OSError) as error:
            if not (_LATE in str(error) and all(each.is_alive() for each in batches._workers)):
                raise _of_death(busy, error) from None
            if time.monotonic() - asked >= timeout:
                raise _of_silence(busy, timeout) from None
            continue
        yield batch
        asked = time.monotonic()


def _of_silence(busy: torch.Tensor, timeout: float) -> RowError:
    """Which rows are being taken while nothing comes."""
    rows = sorted(row for _, row in busy.tolist() if row != IDLE)
    where = f"row {rows[0]}: the worker process that takes it" if rows else "a worker process"
    return RowError(
        f"{where} handed over nothing for {timeout:g} s; mend what reads it, or raise "
        "FromDataset(timeout=…)"
    )


def _of_death(busy: torch.Tensor, error: Exception) -> RowError:
    """Which row a worker was at when it died, as far as can be told."""
    dead: list[int] = []
    until = time.monotonic() + _NOTICED
    while not dead and time.monotonic() < until:
        living = {process.pid for process in multiprocessing.active_children()}
        dead = [row for process, row in busy.tolist() if process not in living and row != IDLE]
        time.sleep(0.01)
    where = f"row {dead[0]}: the worker process that took it" if dead else "a worker process"
    return RowError(
        f"{where} died ({told(error)}); pass workers=0 to see why, or fewer workers if memory "
        "or /dev/shm ran out"
    )


class _Pieces(Sampler[Any]):
    """What is wanted, as the indices of a ``DataLoader``."""

    def __init__(self, wanted: Iterable[Wanted]) -> None:
        self._wanted = iter(wanted)

    def __iter__(self) -> Iterator[Wanted]:
        return self._wanted  # the loader asks for an iterator twice, and begins with the second


def _begin(worker: int) -> None:
    """Never collect what was inherited: a ledger's file is its owner's to close.

    Large blocks go back to the system when they are freed: in glibc before 2.38 aligned ones, which
    tensors are, leave gaps that the next does not fit, and a worker grows by what it has loaded.
    """
    gc.freeze()
    with contextlib.suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)


def _as_it_is(batch: Any) -> Any:
    return batch
