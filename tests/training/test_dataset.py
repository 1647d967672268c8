"""A map-style Dataset as data: the same weights as its rows in memory, whoever loads them."""

import multiprocessing
import random

import numpy as np
import pytest
import torch
from pictures import Held, Named, Pictures
from small_problem import make_trainer, small_data, small_model, weights
from torch import nn
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from dpsgd_torch import DataError, Privacy, RunError, Validation
from dpsgd_torch.data import FromDataset
from dpsgd_torch.tasks.mnist.torchvision_import import torchvision_datasets


@pytest.fixture(scope="module")
def in_memory():
    return trained(Held(FromDataset(Pictures())))


def trained(data, **changes):
    return weights(make_trainer(data=data, **changes).fit().model)


@pytest.mark.parametrize("workers", [0, 2])
def test_it_trains_to_the_weights_of_its_rows_in_memory_bit_for_bit(in_memory, workers):
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(trained(FromDataset(Pictures(), workers=workers)), in_memory)
    assert multiprocessing.active_children() == []
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state[1:]


def test_beside_the_noise_which_the_digest_keys_it_is_the_pair_of_tensors():
    silent = {"privacy": None}
    assert torch.equal(trained(Pictures(), **silent), trained(small_data(), **silent))


@pytest.mark.parametrize(
    "data",
    [
        ConcatDataset([Subset(Pictures(), range(50)), Subset(Pictures(), range(50, 120))]),
        Subset(TensorDataset(*small_data()), range(120)),
        FromDataset(TensorDataset(*small_data())),
        FromDataset(Pictures(), lambda items: (items[0][0][None], torch.tensor([items[0][1]]))),
        FromDataset(Subset(Pictures(240), range(60, 240)), workers=1).rows(np.arange(-60, 60)),
    ],
    ids=["joined", "part", "of tensors", "collated", "rows"],
)
def test_datasets_of_torch_are_taken_as_they_are(data):
    own = data if isinstance(data, FromDataset) else FromDataset(data)
    assert torch.equal(trained(data, epochs=1), trained(Held(own), epochs=1))
    if len(data) == 120 and own.dataset is not None and not isinstance(own.dataset, Subset):
        assert torch.equal(own.take(np.arange(120))[0], small_data()[0])


class Sums(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = small_model()

    def forward(self, x, twice):
        return self.body(x + twice)


def test_items_that_are_dicts_call_the_model_by_their_names():
    inputs, targets = small_data()
    data = FromDataset(Named(), workers=1)
    rows, labels = data.take(np.arange(120))
    assert torch.equal(rows["twice"], 2 * inputs)
    assert torch.equal(labels, targets)
    assert torch.equal(trained(data, model=Sums()), trained(Held(data), model=Sums()))


def test_a_tuple_says_which_part_is_predicted():
    inputs, targets = small_data()
    rows = TensorDataset(targets, inputs, inputs)
    data = FromDataset(rows, targets=0)
    (x, again), y = data.take(np.array([3, 1]))
    assert torch.equal(x, again)
    assert torch.equal(y, targets[[3, 1]])
    with pytest.raises(DataError, match=r"items = tuple of Tensor.*: which part is predicted"):
        make_trainer(data=rows)


def test_a_loader_gives_its_dataset_and_says_that_its_batches_are_drawn_otherwise(in_memory):
    loader = DataLoader(Pictures(), batch_size=7, shuffle=True, num_workers=1)
    rule = "Poisson sampling with the trainer's batch_size replaces"
    with pytest.warns(UserWarning, match=rule) as told:
        trainer = make_trainer(data=loader)
    assert told[0].filename.endswith("small_problem.py"), "where the trainer was built"
    assert torch.equal(weights(trainer.fit().model), in_memory)


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(*small_data(), strict=True)


class Endless(Dataset):
    def __getitem__(self, row):
        return torch.zeros(1), 0


STREAMS = {
    "iterable": Stream(),
    "its loader": DataLoader(Stream()),
    "generator": iter(Stream()),
    "without a length": Endless(),
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_stream_is_refused_with_the_way_out(stream):
    with pytest.raises(DataError, match=r"train_tensors = \w+: is a stream.*len\(dataset\).*file"):
        make_trainer(data=stream)


REFUSED = {
    "weighted": (
        lambda: DataLoader(Pictures(), sampler=WeightedRandomSampler([1.0] * 120, 120)),
        r"DataLoader with WeightedRandomSampler: .*Poisson sampling.*pass loader\.dataset",
    ),
    "unbatched": (lambda: DataLoader(Pictures(), batch_size=None), "DataLoader with NoneType"),
    "seeds": (
        lambda: DataLoader(Pictures(), worker_init_fn=print),
        "worker_init_fn: generators are seeded for each row",
    ),
    "no target": (lambda: FromDataset(Pictures(), targets=2), r"targets = 2: must name some of"),
    "one part": (lambda: Subset(small_data()[0], range(9)), "items = Tensor: must hold inputs and"),
    "pictures": (
        lambda: FromDataset(Pictures(), transform=lambda x: [torchvision_datasets()]),
        r"row 0: inputs\.0 = module: must be a tensor, an array or a number; make one in transf",
    ),
    "workers": (lambda: FromDataset(Pictures(), workers=-1), "workers = -1: must be a whole"),
}


@pytest.mark.parametrize(("data", "rule"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_taken_is_refused_in_one_line(data, rule):
    with pytest.raises(ValueError if "workers =" in rule else DataError, match=rule) as refused:
        make_trainer(data=data())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_row_is_passed_over_once_before_the_first_step(tmp_path, workers):
    """The digest is taken along: a byte a row on disk counts what was read, here and in workers."""
    count = tmp_path / "count"

    def counted(row, x):
        with count.open("ab") as file:
            file.write(b".")
        return x

    trainer = make_trainer(data=FromDataset(Pictures(300, change=counted), workers=workers))
    trainer.open()
    kept = count.stat().st_size - 300
    assert 1 <= kept < 100, "row 0 for its shape, and what a rehearsal keeps, compared once more"
    trainer.close()


def test_a_run_is_resumed_by_more_workers_and_another_set_is_refused(tmp_path, in_memory):
    part = make_trainer(data=FromDataset(Pictures()), run_dir=tmp_path / "part")
    for at in part.run():
        if at.step == 17:
            break
    part.close()
    again = make_trainer(data=FromDataset(Pictures(), workers=2), run_dir=tmp_path / "part")
    assert torch.equal(weights(again.resume().fit().model), in_memory)
    again.close()
    for other in (
        Pictures(change=lambda row, x: x + (row == 77)),
        Pictures(119),
        FromDataset(Pictures(), transform=nn.Identity()),
    ):
        with pytest.raises(RunError, match="its data changed"):
            make_trainer(data=other, run_dir=tmp_path / "part").resume()


def test_a_fingerprint_of_ones_own_stands_in_for_the_rows(tmp_path):
    def rows(seed):
        return FromDataset(Pictures(seed=seed), fingerprint="of March")

    part = make_trainer(data=rows(1), run_dir=tmp_path / "part", epochs=1)
    next(part.run())
    part.close()
    again = make_trainer(data=rows(2), run_dir=tmp_path / "part", epochs=1).resume()
    assert again.done == 0, "other rows go unnoticed, as the docstring says"
    again.close()
    other = FromDataset(Pictures(), fingerprint="of April")
    with pytest.raises(RunError, match="its data changed"):
        make_trainer(data=other, run_dir=tmp_path / "part", epochs=1).resume()


@pytest.mark.parametrize("dp", [True, False])
def test_test_and_validation_rows_may_be_datasets_too(dp):
    def everything(kind):
        without = {} if dp else {"privacy": None}
        sets = [kind(FromDataset(Pictures(rows, rows), workers=1)) for rows in (120, 50, 40)]
        held_out = Validation(tensors=sets[2], noise_multiplier=5.0, bound=2.0)
        return make_trainer(data=sets[0], test_tensors=sets[1], validation=held_out, **without)

    own, usual = everything(lambda data: data).fit(), everything(Held).fit()
    assert torch.equal(weights(own.model), weights(usual.model))
    assert own.history.to_json() == usual.history.to_json()


def test_units_are_drawn_with_their_rows_loaded_ahead():
    units = np.arange(120) // 3
    privacy = Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5, unit="person")
    settings = {"privacy": privacy, "units": units, "rows_per_unit": 2, "batch_size": 6}
    data = FromDataset(Pictures(), workers=2)
    assert torch.equal(trained(data, **settings), trained(Held(data), **settings))


def folder_of_images(path, image, records=60):
    for row, (x, y) in enumerate(zip(*small_data(records), strict=True)):
        place = path / f"class {int(y)}" / f"{row:03}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray((255 * x[0]).byte().numpy()).save(place)


def test_a_folder_of_images_trains_with_torchvisions_transforms(tmp_path):
    folders = torchvision_datasets().ImageFolder
    from PIL import Image
    from torchvision.transforms import v2

    folder_of_images(tmp_path, Image)
    plain = [v2.Grayscale(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    whole = folders(tmp_path, transform=v2.Compose(plain))
    assert torch.equal(trained(whole), trained(Held(FromDataset(whole))))
    pictures = FromDataset(folders(tmp_path), workers=1, transform=v2.Compose(plain))
    for ours, theirs in zip(pictures.take(np.arange(60)), zip(*whole, strict=True), strict=True):
        assert torch.equal(ours, torch.stack([torch.as_tensor(part) for part in theirs]))
    assert torch.equal(trained(pictures), trained(Held(pictures)))
    with pytest.raises(DataError, match=r"row 0: inputs = Image: must be a tensor.*v2\.ToImage"):
        make_trainer(data=folders(tmp_path))
