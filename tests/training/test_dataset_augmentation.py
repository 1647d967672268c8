"""Augmentation of a Dataset's rows: drawn for each step and row, by whoever loads them."""

import random

import numpy as np
import pytest
import torch
from pictures import Pictures, noisy, summed
from small_problem import make_trainer, weights

from dpsgd_torch import DataError
from dpsgd_torch.data import FromDataset
from dpsgd_torch.data.base import Wanted
from dpsgd_torch.tasks.mnist.torchvision_import import torchvision_datasets


class Recorded:
    """Draws a number from each global generator for a row, and keeps it."""

    def __init__(self):
        self.drawn = []

    def __call__(self, x):
        self.drawn.append((float(torch.rand(())), random.random(), np.random.rand()))
        return x * (1 + self.drawn[-1][0])


def recorded(tmp_path=None, stop=None, resume=False, **changes):
    """A run's weights, and what each of the rows of its steps drew."""
    transform = Recorded()
    trainer = make_trainer(
        data=FromDataset(Pictures(), transform=transform), run_dir=tmp_path, **changes
    )
    if resume:
        trainer.resume()
    else:
        trainer.open()
    transform.drawn.clear()
    for at in (steps := trainer.run()):
        if at.step == stop:
            break
    steps.close()
    trainer.close()
    return weights(trainer.model), transform.drawn


def test_each_step_and_row_draws_anew_from_every_global_generator():
    _, drawn = recorded()
    assert len(drawn) > 300
    for generator in zip(*drawn, strict=True):
        assert len(set(generator)) == len(drawn)


def test_what_a_row_draws_does_not_depend_on_what_is_taken_with_it_or_by_whom():
    rows = np.array([5, 90, 3, 41, 7, 8])

    def taken(workers, pieces, key=b"a step's"):
        data = FromDataset(Pictures(), workers=workers, transform=summed)
        wanted = [Wanted(piece, key) for piece in np.array_split(rows, pieces)]
        return torch.cat([inputs for inputs, _ in data.ahead(wanted)])

    whole = taken(0, 1)
    for workers, pieces in ((0, 3), (1, 2), (3, 6)):
        assert torch.equal(taken(workers, pieces), whole)
    assert not torch.equal(taken(0, 1, b"another's"), whole)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert torch.equal(taken(0, 2), whole)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dp", [True, False])
def test_an_augmented_run_has_the_same_weights_by_any_number_of_workers(dp):
    without = {} if dp else {"privacy": None}
    runs = [
        make_trainer(data=FromDataset(Pictures(), workers=workers, transform=noisy), **without)
        for workers in (0, 2)
    ]
    one, other = (weights(trainer.fit().model) for trainer in runs)
    assert torch.equal(one, other)


def test_a_resumed_run_draws_what_the_interrupted_one_would_have(tmp_path):
    whole, drawn = recorded(tmp_path / "whole")
    _, before = recorded(tmp_path / "part", stop=17)
    resumed, after = recorded(tmp_path / "part", resume=True)
    assert torch.equal(resumed, whole)
    assert before == drawn[: len(before)]
    assert after == drawn[-len(after) :]
    assert len(before) + len(after) >= len(drawn), "from the checkpoint at step 14 on"


def test_the_rows_of_no_step_are_the_same_each_time():
    data = FromDataset(Pictures(), workers=1, transform=noisy)
    rows = np.arange(9)
    assert torch.equal(data.take(rows)[0], data.take(rows)[0])
    assert torch.equal(next(data.batches(9))[0], data.take(rows)[0])
    assert not torch.equal(data.take(rows)[0], Pictures().inputs[:9])


def test_random_transforms_within_a_torchvision_dataset_repeat_too(tmp_path):
    folders = torchvision_datasets().ImageFolder
    from PIL import Image
    from torchvision.transforms import v2

    for row, x in enumerate(torch.rand(48, 8, 8, generator=torch.Generator().manual_seed(0))):
        (tmp_path / f"class{row % 3}").mkdir(exist_ok=True)
        picture = Image.fromarray((255 * x).byte().numpy())
        picture.save(tmp_path / f"class{row % 3}" / f"{row}.png")
    drawn = v2.Compose(
        [
            *(v2.Grayscale(), v2.RandomCrop(6), v2.RandomHorizontalFlip()),
            *(v2.ToImage(), v2.ToDtype(torch.float32, scale=True)),
        ]
    )
    within = [FromDataset(folders(tmp_path, transform=drawn), workers=w) for w in (0, 2)]
    beside = FromDataset(folders(tmp_path), transform=drawn)
    one, other = (weights(make_trainer(data=data, epochs=1).fit().model) for data in within)
    assert torch.equal(one, other)
    for key in (b"", b"a step's"):
        given = [next(data.ahead([Wanted(np.arange(48), key)]))[0] for data in (*within, beside)]
        assert torch.equal(given[0], given[1])
        assert torch.equal(given[0], given[2])


def test_what_draws_from_a_generator_of_its_own_is_refused_with_the_way_out():
    own = np.random.default_rng(0)
    data = FromDataset(Pictures(), transform=lambda x: x + float(own.random()))
    with pytest.raises(DataError, match=r"row \d+ differs when it is taken again.*global generat"):
        make_trainer(data=data)


def test_no_function_of_the_users_sees_two_rows_at_once():
    """A mixup in the collate function would make examples depend on each other."""
    seen = []

    def mixup(items):
        seen.append(len(items))
        x = torch.stack([x for x, _ in items])
        mixed = torch.rand(()) * x + x[torch.randperm(len(items))]
        return mixed, torch.tensor([y for _, y in items])

    make_trainer(data=FromDataset(Pictures(), mixup), epochs=1).fit()
    assert set(seen) == {1}
