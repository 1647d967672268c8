"""Made-up drug responses have the public data set's statistics, and are the same for one seed."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from dpsgd_torch.errors import ConfigError
from dpsgd_torch.tasks.drug_responses.files import COLUMNS
from dpsgd_torch.tasks.drug_responses.synthetic import synthetic_responses

GENES, CELLS = slice(3, 775), slice(775, 875)


@pytest.fixture(scope="module")
def full():
    """Both parts at full size: some seconds."""
    return synthetic_responses()


@pytest.fixture(scope="module")
def small():
    return synthetic_responses(600, 200, 12)


def test_one_seed_makes_one_data_set(small):
    again = synthetic_responses(600, 200, 12)
    for part, other in zip(small, again, strict=True):
        assert part.ids == other.ids
        assert part.labels == other.labels
        for name in ("inputs", "targets"):
            assert (getattr(part, name) == getattr(other, name)).all()
        assert (part.units["drug_id"] == other.units["drug_id"]).all()
    train, _ = synthetic_responses(600, 200, 12, seed=1)
    assert train.ids != small[0].ids
    assert (train.inputs != small[0].inputs).any()


def test_small_parts_have_the_same_columns_in_proportion(small):
    train, test = small
    assert train.inputs.shape == (600, len(COLUMNS))
    assert test.inputs.shape == (200, len(COLUMNS))
    assert train.inputs.dtype == train.targets.dtype == np.float32
    assert train.targets.shape == (600, 12)
    assert train.labels == test.labels
    assert len(set(train.labels)) == 12
    assert train.inputs[:, 0].sum() == 47
    assert train.targets.sum(axis=0).max() == 21
    assert (train.targets.sum(axis=0) > 0).all()


@pytest.mark.parametrize(("rows", "labels"), [(600, 206), (120, 1), (1000, 40), (3001, 206)])
def test_every_label_has_a_positive_whatever_the_size(rows, labels):
    train, test = synthetic_responses(rows, 150, labels)
    assert len(train.ids) == rows
    assert len(test.ids) == 150
    assert (train.targets.sum(axis=0) > 0).all()
    assert len(np.unique(train.units["drug_id"])) == train.units["drug_id"].max() + 1


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((100, 200, 5), "train_rows = 100"),
        ((200, 3, 5), "test_rows = 3"),
        ((200, 200, 0), "labels = 0"),
    ],
)
def test_sizes_too_small_are_refused(sizes, words):
    with pytest.raises(ConfigError, match=f"{words}: must be at least"):
        synthetic_responses(*sizes)


def test_a_drug_has_its_labels_in_all_of_its_rows(small):
    for part in small:
        drug = part.units["drug_id"]
        for code in np.unique(drug):
            assert (np.ptp(part.targets[drug == code], axis=0) == 0).all()


def test_controls_share_one_id_and_have_no_label(small):
    ids = set()
    for part in small:
        control = part.inputs[:, 0] == 1
        ids |= set(part.units["drug_id"][control])
        assert not set(part.units["drug_id"][~control]) & ids
        assert not part.targets[control].any()
    assert len(ids) == 1


def test_rows_and_drugs_are_as_many_as_in_the_public_data(full):
    train, test = full
    assert train.inputs.shape == (23_814, 875)
    assert test.inputs.shape == (3_982, 875)
    assert len(set(train.ids) | set(test.ids)) == 23_814 + 3_982
    rows = np.bincount(train.units["drug_id"])
    assert len(rows) == 3_289
    assert (rows == 6).sum() == 2_774
    assert sorted(rows[rows > 18])[::-1] == [1866, 718, 246, 203, 202, 196, 194, 186, 178]
    assert train.inputs[:, 0].sum() == 1_866
    for column, values in ((1, (24, 48, 72)), (2, (0, 1))):
        counts = [(train.inputs[:, column] == value).mean() for value in values]
        assert sum(counts) == 1
        assert np.allclose(counts, 1 / len(values), atol=0.01)


def test_six_rows_are_the_six_of_time_and_dose(full):
    train, _ = full
    drug = train.units["drug_id"]
    six = np.bincount(drug)[drug] == 6
    settings = {(int(d), *row) for d, row in zip(drug[six], train.inputs[six, 1:3], strict=True)}
    assert len(settings) == 6 * 2_774


def test_labels_are_as_frequent_as_in_the_public_data(full):
    train, test = full
    positives = np.sort(train.targets.sum(axis=0))[::-1]
    assert positives[0] == 832
    assert abs(positives[1] - 726) <= 5
    assert (positives == 1).sum() == 2
    assert (positives > 0).all()
    assert 16_000 < positives.sum() < 18_000  # the public data have 16,844
    of_row = train.targets.sum(axis=1)
    assert 0.36 < (of_row == 0).mean() < 0.42
    assert 0.04 < (of_row > 1).mean() < 0.10
    assert of_row.max() == 7
    share = train.targets.mean(axis=0), test.targets.mean(axis=0)
    assert np.corrcoef(*share)[0, 1] > 0.95
    assert 0.019 < _log_loss(share[0], train.targets) < 0.023


def test_the_test_has_new_drugs_but_for_those_measured_again_and_again(full):
    train, test = full
    rows = np.bincount(train.units["drug_id"], minlength=test.units["drug_id"].max() + 1)
    seen = rows[np.unique(test.units["drug_id"])]
    assert (seen > 18).sum() == 9
    assert ((seen == 0) | (seen > 18)).all()


def test_values_are_of_four_decimals_and_clipped_at_ten(full):
    for part in full:
        measured = part.inputs[:, 3:]
        assert np.abs(measured).max() == 10
        assert (measured == np.round(measured.astype(np.float64), 4).astype(np.float32)).all()


def test_genes_are_nearly_standard_with_heavy_tails_and_few_factors(full):
    genes = full[0].inputs[:6_000, GENES][:, ::3].astype(np.float64)
    spread = genes.std(axis=0)
    assert 0.9 < np.median(spread) < 1.4
    assert np.abs(genes.mean(axis=0)).max() < 0.6
    scaled = (genes - genes.mean(axis=0)) / spread
    assert np.square(np.square(scaled)).mean() > 4  # of a normal one 3
    explained = np.linalg.eigvalsh(np.cov(genes.T))[::-1]
    explained /= explained.sum()
    assert 0.15 < explained[0] < 0.35
    assert 0.45 < explained[:25].sum() < 0.75


def test_viability_falls_together_and_far(full):
    cells = full[0].inputs[:, CELLS].astype(np.float64)
    correlation = np.corrcoef(cells.T)[np.triu_indices(100, 1)]
    assert 0.8 < correlation.mean() < 0.97
    low, high = np.percentile(cells, [1, 99])
    assert low < -6
    assert high < 3
    commonest = full[0].targets.sum(axis=0).argmax()
    assert cells[full[0].targets[:, commonest] == 1].mean() < -5


def test_the_two_commonest_labels_are_plain_and_most_are_not(full):
    train, test = full
    common = np.argsort(-train.targets.sum(axis=0))[:10]
    keep = np.random.default_rng(0).permutation(len(train.ids))[:4_000]
    compress = PCA(40, whiten=True, svd_solver="randomized", random_state=0).fit(
        train.inputs[keep, 3:]
    )
    inputs, new = (compress.transform(x[:, 3:]) for x in (train.inputs[keep], test.inputs))
    scores, gain = [], []
    for label in common:
        model = LogisticRegression(C=0.01).fit(inputs, train.targets[keep, label])
        chance, truth = model.predict_proba(new)[:, 1], test.targets[:, label]
        scores.append(roc_auc_score(truth, chance))
        base = np.full(len(truth), train.targets[:, label].mean())
        gain.append(1 - _log_loss(chance, truth) / _log_loss(base, truth))
    assert min(scores[:2]) > 0.98
    assert min(gain[:2]) > 0.7
    assert min(scores) < 0.8
    assert np.median(gain[2:]) < 0.5


def _log_loss(chance, truth):
    return -np.mean(truth * np.log(chance) + (1 - truth) * np.log1p(-chance))
