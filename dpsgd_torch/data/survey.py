"""Survey of rows, a piece at a time: ranges, constant columns, and what is not finite.

What it holds is private where the rows are: it is for refusals and for the screen alone.
"""

from __future__ import annotations

import math

import torch

from dpsgd_torch.data.base import Batch, Data
from dpsgd_torch.data.trees import leaves, length, named

_COLUMNS = 1 << 20  # beyond so many values a row, its range is one for all of them
_VALUES = 1 << 21  # at once, of rows that memory holds anyway
_NARROW = {  # kinds without a range in torch: what holds all their values
    torch.bool: torch.uint8,
    torch.uint16: torch.int32,
    torch.uint32: torch.int64,
    torch.uint64: torch.int64,
}


class Column:
    """What one tensor of a tree holds, over all rows so far.

    * ``least``, ``most``: the smallest and the largest finite value and the first row that has it,
      (∞, −1) and (−∞, −1) where there is none; ``ignored`` values count as none.
    * ``spoilt``: how many rows hold NaN or an infinity, ``first_spoilt`` the first of them.
    """

    def __init__(self, ignored: int | None = None) -> None:
        self.ignored = ignored
        self.rows, self.spoilt, self.first_spoilt = 0, 0, -1
        self.least: tuple[float, int] = (math.inf, -1)
        self.most: tuple[float, int] = (-math.inf, -1)
        self.table = self.whole = False  # a row of numbers, column by column; whole numbers
        self.low: torch.Tensor | None = None  # of each column, over what is finite
        self.high: torch.Tensor | None = None

    def add(self, rows: torch.Tensor) -> torch.Tensor | None:
        """Take in more rows; returns which of them are not finite, None where all are."""
        flat, spoilt = _plain(rows).reshape(len(rows), -1), None
        self.whole = not (rows.is_floating_point() or rows.is_complex())
        self.table = rows.ndim == 2 and rows.is_floating_point() and flat.shape[1] <= _COLUMNS
        if flat.shape[1]:
            low, high = _range(flat)
            if flat.is_floating_point() and not torch.isfinite(low + high).all():
                finite = torch.isfinite(flat)
                low, high = _range(flat, finite)
                bad = ~finite.all(1)
                spoilt = bad if bad.any() else None  # low + high may overflow
            self._widen(low, high)
            self._extremes(flat, low, high)
        if spoilt is not None:
            if not self.spoilt:
                self.first_spoilt = self.rows + int(spoilt.nonzero()[0])
            self.spoilt += int(spoilt.sum())
        self.rows += len(rows)
        return spoilt

    @property
    def constant(self) -> torch.Tensor:
        """Which columns hold one value in every row."""
        assert self.low is not None
        assert self.high is not None
        return self.low == self.high

    @property
    def empty(self) -> torch.Tensor:
        """Which columns never hold a finite value."""
        assert self.low is not None
        assert self.high is not None
        return self.low > self.high

    def _widen(self, low: torch.Tensor, high: torch.Tensor) -> None:
        if self.low is None or self.high is None:
            self.low, self.high = low, high
        else:
            self.low, self.high = self.low.minimum(low), self.high.maximum(high)

    def _extremes(self, flat: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> None:
        if self.ignored is not None and (out := flat == self.ignored).any():
            if out.all():
                return
            low, high = _range(flat, ~out)
        least, most = low.min().item(), high.max().item()
        if least < self.least[0]:
            self.least = least, self.rows + _row(flat, least)
        if most > self.most[0]:
            self.most = most, self.rows + _row(flat, most)


class Survey:
    """Every tensor of a data set's inputs and targets, by where it is: ``inputs``, ``targets.0``.

    >>> survey = Survey()
    >>> survey.add((torch.tensor([[1.0, 2.0], [math.nan, 2.0]]), torch.tensor([0, 5])))
    >>> survey.rows, survey.finite, survey.columns["targets"].most
    (2, 1, (5, 1))
    """

    def __init__(self, ignored: int | None = None) -> None:
        self._ignored = ignored
        self.columns: dict[str, Column] = {}
        self.rows = self.finite = 0  # finite: rows whose every value is

    def add(self, batch: Batch) -> None:
        spoilt: torch.Tensor | None = None
        for part, tree, ignored in (
            ("inputs", batch[0], None),
            ("targets", batch[1], self._ignored),
        ):
            for name, tensor in named(tree, part):
                column = self.columns.setdefault(name, Column(ignored))
                bad = column.add(tensor)
                if bad is not None:
                    spoilt = bad if spoilt is None else spoilt | bad
        count = length(batch[0])
        self.rows += count
        self.finite += count if spoilt is None else count - int(spoilt.sum())

    @classmethod
    def of(cls, data: Data, ignored: int | None = None) -> Survey:
        """All rows of what memory holds, as many at a time as pass quickly."""
        survey = cls(ignored)
        whole = data.in_memory()
        assert whole is not None
        wide = sum(math.prod(tensor.shape[1:]) for tensor in leaves(whole))
        for batch in data.batches(max(1, _VALUES // max(1, wide))):
            survey.add(batch)
        return survey


def finite_rows(batch: Batch) -> torch.Tensor:
    """Which rows hold nothing but finite values."""
    found = [_plain(tensor) for tensor in leaves(batch)]
    good = [torch.isfinite(tensor.reshape(len(tensor), -1)).all(1) for tensor in found]
    return torch.stack(good).all(0)


def _plain(rows: torch.Tensor) -> torch.Tensor:
    """Real numbers of a kind that ranges can be taken of."""
    rows = rows.detach()
    if rows.is_complex():
        return torch.view_as_real(rows.resolve_conj())
    if rows.dtype in _NARROW:
        return rows.to(_NARROW[rows.dtype])
    if rows.is_floating_point() and rows.dtype.itemsize < 4:
        return rows.float()
    return rows


def _range(
    flat: torch.Tensor, counted: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The least and the largest of each column; of nothing, such that least > largest."""
    over = (0, 1) if flat.shape[1] > _COLUMNS else (0,)
    if counted is None:
        return flat.amin(over).reshape(-1), flat.amax(over).reshape(-1)
    if flat.is_floating_point():
        top, bottom = math.inf, -math.inf
    else:
        top, bottom = torch.iinfo(flat.dtype).max, torch.iinfo(flat.dtype).min
    low, high = flat.where(counted, top).amin(over), flat.where(counted, bottom).amax(over)
    return low.reshape(-1), high.reshape(-1)


def _row(flat: torch.Tensor, value: float) -> int:
    return int((flat == value).any(1).nonzero()[0])
