"""Folds: cut between units, with randomness of their own."""

import json

import numpy as np
import pytest
import torch

from dpsgd_torch.app.folds import make_folds
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.tasks.drug_responses.files import write_responses
from dpsgd_torch.tasks.drug_responses.synthetic import synthetic_responses
from dpsgd_torch.tasks.drug_responses.task import response_task
from dpsgd_torch.train import main
from dpsgd_torch.training.streams import Streams


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lish-moa")
    write_responses(folder, *synthetic_responses(600, 150, 12))
    return folder


def config(**changes):
    settings = {"batch_size": 16, "dataset_size": 600, "validation": "private", **changes}
    return PRESETS["moa"]().config.changed(**settings)


def test_no_unit_is_on_both_sides_of_a_fold_and_each_is_held_out_once(data):
    task = response_task(data, (), "all")
    units = task.units["drug_id"]
    held = []
    for part in make_folds(config(folds=3, privacy_unit="drug_id"), task, units, root=1):
        outside = set(np.asarray(part.validation.units).tolist())
        inside = set(part.units.tolist())
        assert not outside & inside
        assert outside | inside == set(units.tolist())
        held.append(outside)
    assert len(set.union(*held)) == sum(map(len, held))


def test_a_fold_is_drawn_for_each_unit_alone():
    """Who else is there must not matter: folds are uniform and independent, not a partition."""
    sizes = [
        np.count_nonzero(Streams(root).numpy("folds").integers(2, size=100) == 0)
        for root in range(200)
    ]
    assert np.var(sizes) > 15  # a partition into halves would have none; independent draws have 25


def test_the_declared_sizes_do_not_depend_on_the_draw(data):
    task = response_task(data, (), "all")
    declared = {
        (part.config.dataset_size, part.validation.size)
        for root in range(4)
        for part in make_folds(config(folds=3), task, None, root)
    }
    assert declared == {(400, 200)}


def test_folds_share_no_randomness(data, tmp_path):
    """The planted bug would be one key: then one record would join batches of all folds at once."""
    out = tmp_path / "run"
    words = ["--preset", "moa", "--data-dir", str(data), "--folds", "3", "--epochs", "1"]
    assert main([*words, "--batch-size", "64", "--seed", "1", "--out", str(out)]) == 0
    roots, joined = set(), []
    for fold in (1, 2, 3):
        kept = json.loads((out / f"fold-{fold}" / "private" / "streams.json").read_text())
        roots.add(kept["root"])
        joined.append(Streams(int(kept["root"], 16)).numpy("sampling").random(4000) < 0.5)
    assert len(roots) == 3
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert 0.45 < np.mean(joined[a] == joined[b]) < 0.55


def test_without_validation_all_rows_train(data):
    task = response_task(data, (), "all")
    (part,) = make_folds(config(validation="none"), task, None, root=1)
    assert part.validation is None
    assert torch.equal(part.train[0], task.train[0])
