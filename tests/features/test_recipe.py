"""Features of images: one norm, each row its own, kept by content, else made anew."""

import dataclasses
import functools
import stat

import pytest
import torch

from dpsgd_torch.features import recipe as recipe_module
from dpsgd_torch.features.cache import kept
from dpsgd_torch.features.made_up.digits import made_up_digits
from dpsgd_torch.features.pretrained import WIDTH, Pretrained
from dpsgd_torch.features.recipe import Recipe
from dpsgd_torch.features.whitening import Whitening

SMALL = Recipe(made_up="digits", directions=20, scales=1, ridge=0.1, made=200)


@pytest.fixture(scope="module")
def images():
    return made_up_digits(40, 8, seed=5)[0]


def test_every_row_has_the_declared_norm_and_is_its_own(images):
    found = SMALL(images)
    assert found.shape == (40, 20)
    assert torch.allclose(found.norm(dim=1), torch.tensor(4.0))
    assert torch.allclose(SMALL(images[7:8])[0], found[7], atol=1e-5)


def test_directions_are_whitened_on_what_they_were_made_of():
    made = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7)
    whitening = Whitening.of(made, count=3, ridge=1e-6, norm=1.0)
    z = (made - whitening.mean) @ whitening.directions
    assert torch.allclose(z.T @ z / 500, torch.eye(3), atol=1e-3)
    assert whitening.directions.abs().argmax(dim=0).tolist() == [5, 4, 3]


def test_directions_of_many_features_are_those_of_the_whole_decomposition():
    generator = torch.Generator().manual_seed(0)
    made = torch.randn(300, 250, generator=generator) * torch.logspace(0, -2, 250)
    found = Whitening.of(made, count=20, ridge=1e-6, norm=1.0)
    centred = (made - made.mean(dim=0)).double()
    variances, vectors = torch.linalg.eigh(centred.T @ centred / 300)
    exact = (vectors[:, -20:] / variances[-20:].sqrt()).flip(1)
    agree = (exact * found.directions).sum(dim=0).abs() * variances[-20:].flip(0)
    assert (agree - 1).abs().max() < 1e-3


def test_a_networks_values_are_added_at_their_own_norm_and_kept(images, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe_module, "Pretrained", functools.partial(Pretrained, images=256))
    recipe = dataclasses.replace(SMALL, pretrained_on="signs", folder=tmp_path / "features")
    found = recipe(images)
    assert found.shape == (40, 20 + WIDTH)
    assert torch.allclose(found[:, 20:].norm(dim=1), torch.tensor(4.0), atol=1e-4)
    assert torch.equal(found[:, :20], SMALL(images))
    assert recipe.knows_classes
    assert not dataclasses.replace(recipe, made_up="objects").knows_classes
    assert len([path for path in recipe.folder.iterdir() if path.name[:4] == "netw"]) == 1


@pytest.mark.parametrize("name", ["none", "leaves"])
def test_other_whitenings_give_features_too(images, name):
    found = dataclasses.replace(SMALL, made_up=name)(images)
    assert torch.allclose(found.norm(dim=1), torch.tensor(4.0))
    assert "no class knowledge" in dataclasses.replace(SMALL, made_up=name).prior


def test_kept_features_are_read_again_bit_for_bit(images, tmp_path):
    recipe = dataclasses.replace(SMALL, folder=tmp_path / "features")
    first = recipe(images)
    names = sorted(path.name for path in recipe.folder.iterdir())
    assert [name.split("-")[0] for name in names] == ["basis", "rows"]
    assert torch.equal(recipe(images), first)
    assert torch.equal(SMALL(images), first)
    assert sorted(path.name for path in recipe.folder.iterdir()) == names


def test_they_are_nobody_elses_to_read(images, tmp_path):
    recipe = dataclasses.replace(SMALL, folder=tmp_path / "features")
    recipe(images)
    assert stat.S_IMODE(recipe.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in recipe.folder.iterdir()} == {0o600}


def test_other_rows_or_settings_are_not_taken_for_what_is_kept(images, tmp_path):
    recipe = dataclasses.replace(SMALL, folder=tmp_path / "features")
    first = recipe(images)
    moved = images.clone()
    moved[3, 0, 4, 4] += 0.01
    assert not torch.equal(recipe(moved)[3], first[3])
    other = dataclasses.replace(recipe, ridge=0.2)(images)
    assert not torch.allclose(other, first, atol=1e-3)


def test_a_damaged_file_is_made_anew(tmp_path):
    made = []

    def make():
        made.append(True)
        return torch.arange(3.0)

    for damage in (None, b"", b"not a tensor"):
        if damage is not None:
            (tmp_path / "rows-key.safetensors").write_bytes(damage)
        assert kept("key", make, what="rows", folder=tmp_path).tolist() == [0, 1, 2]
    assert len(made) == 3
    kept("key", make, what="rows", folder=tmp_path)
    assert len(made) == 3


def test_without_a_cache_that_can_be_written_they_are_made_each_time(tmp_path):
    (tmp_path / "file").write_text("")
    found = kept("key", lambda: torch.ones(2), what="rows", folder=tmp_path / "file" / "features")
    assert found.tolist() == [1, 1]
