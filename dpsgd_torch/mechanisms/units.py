"""One contribution a unit of privacy, however many rows it has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.data.units import UnitRows


def per_unit_means(
    values: NDArray[np.float64], units: NDArray[np.int64] | None
) -> NDArray[np.float64]:
    """(units, d) mean over the rows of each unit; ``values`` themselves where rows are the unit.

    * Each row of the result depends on one unit alone, and lies within the range of its rows.

    >>> per_unit_means(np.array([[1.0], [3.0], [5.0]]), np.array([7, 7, 2]))
    array([[5.],
           [2.]])
    """
    if units is None:
        return values
    rows = UnitRows.of(units)
    sums = np.zeros((len(rows), values.shape[1]))
    np.add.at(sums, rows.codes, values)
    return sums / rows.counts[:, None]
