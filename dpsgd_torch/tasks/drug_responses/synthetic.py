"""Made-up drug responses, from a model of how drugs move expression and viability of cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.tasks.drug_responses.files import CELLS, GENES, LIMIT, Responses
from dpsgd_torch.tasks.drug_responses.synthetic_drugs import (
    TEST_ROWS,
    TRAIN_ROWS,
    Drugs,
    synthetic_drugs,
)

NOTE = (
    "The drug responses were made up by a model, not measured: nobody's privacy is at stake and "
    "nothing is learnt about real drugs."
)

_FACTORS = 24
_SHARED = 0.4  # of a gene's variance, in rows that no drug moves
_OWN_GENES = 12  # moved by a label beside its direction in factor space
_LABEL, _DRUG = 0.8, 1.3  # typical push by a label, and by a drug whatever its labels
_PLAIN = 7.0  # push of the two commonest labels, and harm done by each: seen at a glance
_PLAIN_HARM = (1.0, 5.0)
_KINDS = ("inhibitor", "antagonist", "agonist", "blocker", "activator")

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class _World:
    """What holds for every row: loadings, and what labels and drugs do.

    ``loadings`` (factors, genes); ``label_factors`` (labels, factors); ``label_genes``
    (labels, genes); ``label_harm`` (labels,), how far viability falls; ``drug_factors``
    (drugs, factors), ``drug_harm`` and ``potency`` (drugs,); ``cell_gain`` (cells,).
    """

    loadings: Floats
    label_factors: Floats
    label_genes: Floats
    label_harm: Floats
    drug_factors: Floats
    drug_harm: Floats
    potency: Floats
    cell_gain: Floats


def synthetic_responses(
    train_rows: int = TRAIN_ROWS,
    test_rows: int = TEST_ROWS,
    labels: int = 206,
    seed: int = 20261126,
) -> tuple[Responses, Responses]:
    """Training and test rows of the public data set's schema and statistics, the same for one seed.

    Counts are the public ones, in proportion: controls, drugs and their rows, label frequencies
    with a long tail (see synthetic_drugs). Unlike files, the test rows have targets and units.

    A row's factors are normal, and moved by its drug's own signature and by its labels, each along
    a direction of its own; potency varies by drug and replicate and grows with dose and time. Genes
    load on the factors, each label moves some genes more, and the rest is heavy-tailed noise. Harm
    drags all cells' viability down together, and expression along the first factor.

    How strong labels are was set by one thing, how well a model without privacy does: on the real
    data, constant label frequencies have a mean column-wise log loss of about 0.021 and good models
    about 0.016; here 0.0208 on the training rows and 0.0200 on the test rows, and 0.0157 on the
    test rows for a network of two hidden layers of 512 (batch normalisation, dropout, 20 epochs).
    As on the real data a few labels are found almost surely and many hardly at all (area under the
    ROC curve 1.00 for the two commonest, 0.70 in the median). No private model was looked at.

    Raises:
        ConfigError: fewer than 120 rows in either part, or no label.

    >>> train, test = synthetic_responses(300, 120, 4)
    >>> train.inputs.shape, test.targets.shape, train.labels[0][:9]
    ((300, 875), (120, 4), 'label_000')
    """
    rng = np.random.default_rng(seed)
    drugs = synthetic_drugs(rng, train_rows, test_rows, labels)
    world = _world(rng, drugs)
    names, column = _label_names(rng, labels)
    numbers = rng.choice(16**9, train_rows + test_rows, replace=False)
    codes = _codes(rng, drugs)
    parts = []
    for rows, chosen in (
        (drugs.train_rows, numbers[:train_rows]),
        (drugs.test_rows, numbers[train_rows:]),
    ):
        drug, time, dose = _plan(rng, rows)
        parts.append(
            Responses(
                ids=tuple(f"id_{number:09x}" for number in np.sort(chosen)),
                inputs=_inputs(rng, world, drugs.has, drug, time, dose),
                targets=drugs.has[drug][:, column].astype(np.float32),
                labels=names,
                units={"drug_id": codes[drug]},
            )
        )
    return parts[0], parts[1]


def _world(rng: np.random.Generator, drugs: Drugs) -> _World:
    count, labels = (int(size) for size in drugs.has.shape)
    strength = _LABEL * rng.lognormal(0.0, 0.9, (labels, 1))
    strength[:2] = _PLAIN
    harm = (rng.random(labels) < 0.15) * rng.exponential(1.0, labels)
    harm[:2] = _PLAIN_HARM[:labels]
    moved = np.zeros((labels, len(GENES)))
    own = rng.integers(len(GENES), size=(labels, _OWN_GENES))
    push = rng.normal(0, 0.45, own.shape) * strength
    np.put_along_axis(moved, own, push, axis=1)
    spread = _DRUG * rng.lognormal(-0.6, 0.7, (count, 1))
    return _World(
        loadings=_loadings(rng),
        label_factors=_f32(strength * _directions(rng, labels)),
        label_genes=_f32(moved),
        label_harm=_f32(harm),
        drug_factors=_f32(spread * rng.normal(size=(count, _FACTORS)) * _decay()),
        drug_harm=_f32((rng.random(count) < 0.12) * rng.exponential(1.5, count)),
        potency=_f32(rng.lognormal(0.0, 0.3, count)),
        cell_gain=_f32(rng.uniform(0.75, 1.25, len(CELLS))),
    )


def _decay() -> NDArray[np.float64]:
    """Size of each factor's loadings: the first few explain most."""
    return np.asarray(np.arange(1.0, _FACTORS + 1) ** -0.5)


def _directions(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    direction = rng.normal(size=(count, _FACTORS))
    return np.asarray(direction / np.linalg.norm(direction, axis=1, keepdims=True))


def _loadings(rng: np.random.Generator) -> Floats:
    loadings = rng.normal(size=(_FACTORS, len(GENES))) * _decay()[:, None]
    share = rng.beta(4, 4 * (1 - _SHARED) / _SHARED, len(GENES))
    return _f32(loadings * np.sqrt(share) / np.linalg.norm(loadings, axis=0))


def _label_names(rng: np.random.Generator, labels: int) -> tuple[tuple[str, ...], Ints]:
    """Names by column, and which label, sorted by frequency, stands in each column."""
    kinds = rng.integers(len(_KINDS), size=labels)
    names = tuple(f"label_{i:03d}_{_KINDS[kind]}" for i, kind in enumerate(kinds))
    return names, rng.permutation(labels)


def _codes(rng: np.random.Generator, drugs: Drugs) -> Ints:
    """A code for each drug in no order that tells; those in training come first, without gaps."""
    trained = int((drugs.train_rows > 0).sum())
    rest = len(drugs.train_rows) - trained
    return np.concatenate([rng.permutation(trained), trained + rng.permutation(rest)])


def _plan(rng: np.random.Generator, rows: Ints) -> tuple[Ints, Ints, Ints]:
    """Drug, time (0, 1, 2) and dose (0, 1) of each row, shuffled; six rows are all six of them."""
    drug = np.repeat(np.arange(len(rows)), rows)
    nth = np.arange(len(drug)) - np.repeat(np.cumsum(rows) - rows, rows)
    both = (nth + rng.integers(6, size=len(rows))[drug]) % 6
    order = rng.permutation(len(drug))
    return drug[order], (both % 3)[order], (both // 3)[order]


def _inputs(
    rng: np.random.Generator,
    world: _World,
    has: NDArray[np.bool_],
    drug: Ints,
    time: Ints,
    dose: Ints,
) -> Floats:
    """(rows, 875), in the order of COLUMNS."""
    rows, treated = len(drug), (drug > 0).astype(np.float32)
    effect = world.potency[drug] * rng.lognormal(0, 0.2, rows).astype(np.float32) * treated
    effect *= np.array([0.85, 1.0, 1.1], np.float32)[time] * np.array([0.9, 1.1], np.float32)[dose]
    labels = has[drug].astype(np.float32)
    harm = effect * (labels @ world.label_harm + world.drug_harm[drug])
    factors = rng.standard_normal((rows, _FACTORS), np.float32)
    factors += effect[:, None] * (world.drug_factors[drug] + labels @ world.label_factors)
    factors[:, 0] -= harm
    genes = factors @ world.loadings
    genes += effect[:, None] * (labels @ world.label_genes)
    own = np.sqrt(1 - (world.loadings**2).sum(axis=0))
    genes += own * _noise(rng, rows, len(GENES))
    fall = 0.5 * rng.standard_normal(rows, np.float32) + 1.6 * harm
    cells = 0.6 * _noise(rng, rows, len(CELLS)) - fall[:, None] * world.cell_gain
    measured = np.concatenate([genes, cells], axis=1, dtype=np.float64).clip(-LIMIT, LIMIT)
    given = np.stack([drug == 0, 24 * (time + 1), dose], axis=1)
    return np.concatenate([given, measured.round(4) + 0.0], axis=1).astype(np.float32)


def _noise(rng: np.random.Generator, rows: int, columns: int) -> Floats:
    """Normal, of a width that varies by row: heavy tails, of variance 1."""
    width = np.sqrt(5 / rng.chisquare(7, rows)).astype(np.float32)  # Student's t, 7 degrees
    return rng.standard_normal((rows, columns), np.float32) * width[:, None]


def _f32(values: NDArray[np.float64]) -> Floats:
    return values.astype(np.float32)
