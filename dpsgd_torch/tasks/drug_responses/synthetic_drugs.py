"""Made-up drugs: how many rows each has, and which labels, as in the public data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.errors import ConfigError

TRAIN_ROWS, TEST_ROWS = 23_814, 3_982  # of the public data set, as are all counts below
_CONTROLS, _TEST_CONTROLS = 1_866, 358
_DRUGS, _OF_SIX = 3_289, 2_774  # the controls' id is one of the drugs
_REFERENCE = (718, 246, 203, 202, 196, 194, 186, 178)  # rows of drugs measured again and again
_OTHERS = TRAIN_ROWS - _CONTROLS - sum(_REFERENCE)
_MOST_ROWS, _MOST_LABELS = 18, 7
_LEAST_ROWS = 120
_SECOND_LABEL = 0.13  # chance that a label goes to a drug that has one already
_RANKS = (0, 1, 2, 8, 16, 30, 50, 80, 100, 150, 190, 203, 204, 205)
_POSITIVES = (832, 726, 435, 338, 275, 180, 100, 52, 36, 18, 7, 6, 1, 1)

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Drugs:
    """Drug 0 is the control; those after it are in training, the last ones in the test alone.

    ``train_rows`` and ``test_rows`` count each drug's rows; ``has``, (drugs, labels), says which
    labels it has. Labels are sorted by frequency, the commonest first.
    """

    train_rows: Ints
    test_rows: Ints
    has: Bools


def synthetic_drugs(
    rng: np.random.Generator, train_rows: int, test_rows: int, labels: int
) -> Drugs:
    """Drugs for so many rows, in proportion to the public data set.

    Eight reference drugs have hundreds of rows each, in training and test; all other test drugs
    are new. One of them carries nearly all rows of the two commonest labels, so that a promise to
    a row and one to a drug differ as much as they do on the real data.

    Raises:
        ConfigError: fewer than 120 rows in either part, or no label.

    >>> drugs = synthetic_drugs(np.random.default_rng(1), 2_381, 398, 20)
    >>> drugs.train_rows[:4].tolist(), drugs.has[1].nonzero()[0].tolist()
    ([187, 72, 25, 20], [0, 1])
    """
    for name, value, least in (
        ("train_rows", train_rows, _LEAST_ROWS),
        ("test_rows", test_rows, _LEAST_ROWS),
        ("labels", labels, 1),
    ):
        if value < least:
            raise ConfigError(f"{name} = {value}: must be at least {least}")
    reference = [round(rows * train_rows / TRAIN_ROWS) for rows in _REFERENCE]
    reference = [rows for rows in reference if rows > _MOST_ROWS]
    train = _sizes(rng, train_rows, _CONTROLS / TRAIN_ROWS, reference)
    again = [round(rows * test_rows / train_rows) for rows in reference]
    test = _sizes(rng, test_rows, _TEST_CONTROLS / TEST_ROWS, again)

    share = label_shares(labels)
    known = len(reference)
    has = np.zeros((len(train), labels), np.bool_)
    for drug in range(1, known + 1):
        has[drug, [0, min(1, labels - 1)] if drug == 1 else min(drug, labels - 1)] = True
    _give_labels(rng, train, has, share * train_rows, known, at_least_one=True)
    new = np.zeros((len(test), labels), np.bool_)
    new[: known + 1] = has[: known + 1]
    _give_labels(rng, test, new, share * test_rows, known, at_least_one=False)
    old, fresh = len(train) - 1 - known, len(test) - 1 - known
    return Drugs(
        train_rows=np.concatenate([train, np.zeros(fresh, np.int64)]),
        test_rows=np.concatenate([test[: known + 1], np.zeros(old, np.int64), test[known + 1 :]]),
        has=np.concatenate([has, new[known + 1 :]]),
    )


def label_shares(labels: int) -> NDArray[np.float64]:
    """Share of the rows that has each label, falling: the public curve at evenly spaced ranks.

    >>> [round(23_814 * share) for share in label_shares(206)[[0, 1, 2, -1]]]
    [832, 726, 435, 1]
    """
    ranks = np.linspace(0, _RANKS[-1], labels)
    return np.asarray(np.exp(np.interp(ranks, _RANKS, np.log(_POSITIVES))) / TRAIN_ROWS)


def _sizes(rng: np.random.Generator, rows: int, controls: float, reference: list[int]) -> Ints:
    """Rows of the control, of each reference drug and of the others, adding up to ``rows``."""
    control = round(controls * rows)
    others = rows - control - sum(reference)
    of_six = round(others / _OTHERS * _OF_SIX)
    left = others - 6 * of_six
    odd = round(left / (_OTHERS - 6 * _OF_SIX) * (_DRUGS - 1 - len(_REFERENCE) - _OF_SIX))
    # The others never have six, so that the number of drugs with six is the public one.
    allowed = np.array([n for n in range(1, _MOST_ROWS + 1) if n != 6])
    weight = 1 / allowed + 0.05
    at = rng.choice(len(allowed), odd, p=weight / weight.sum())
    while off := left - int(allowed[at].sum()):
        moved = np.clip(at + np.sign(off), 0, len(allowed) - 1)
        size = np.abs(allowed[moved] - allowed[at])
        movable = np.flatnonzero((size > 0) & (size <= abs(off)))
        if not len(movable):
            break
        drug = rng.choice(movable)
        at[drug] = moved[drug]
    return np.array([control + off, *reference, *allowed[at], *[6] * of_six], np.int64)


def _give_labels(
    rng: np.random.Generator,
    rows: Ints,
    has: Bools,
    wanted: NDArray[np.float64],
    known: int,
    *,
    at_least_one: bool,
) -> None:
    """Fill ``has`` until each label has about the wanted rows; rare labels choose first."""
    labels = has.shape[1]
    free = np.arange(len(rows)) > known  # neither control nor reference
    for label in [0, *range(labels - 1, 0, -1)]:
        left = round(wanted[label]) - int(rows[has[:, label]].sum())
        if left <= 0 and not has[:, label].any() and at_least_one:
            left = 1
        while left > 0:
            count = has.sum(axis=1)
            fits = free & (rows <= left) & ~has[:, label] & (count < _MOST_LABELS)
            second = rng.random() < _SECOND_LABEL
            choice = np.flatnonzero(fits & ((count > 0) == second))
            if not len(choice):
                choice = np.flatnonzero(fits)
            if len(choice):
                weight = np.maximum(count[choice], 1.0) ** 1.5
                drug = int(rng.choice(choice, p=weight / weight.sum()))
            else:
                able = np.flatnonzero(free & ~has[:, label] & (count < _MOST_LABELS))
                if not len(able) or has[:, label].any():
                    break
                drug = int(able[rows[able].argmin()] if at_least_one else rng.choice(able))
                if not at_least_one and rng.random() * rows[drug] > left:
                    break
            has[drug, label] = True
            left -= int(rows[drug])
            if label and left < 3:  # small drugs are few: the rarest labels need them
                break
