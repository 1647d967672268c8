"""Random convolutions are what the paper says, patch by patch; a row's features are its own."""

import dataclasses

import pytest
import torch

from dpsgd_torch import ConfigError
from dpsgd_torch.features.convolutions import RandomConvolutions
from dpsgd_torch.features.made_up.things import made_up_things
from dpsgd_torch.features.recipe import Recipe
from dpsgd_torch.tasks.base import ImageKnobs

SIDE, SIZE = 14, 6
RECIPE = Recipe(made_up="things", directions=20, scales=1, made=200, kernels=15)


@pytest.fixture(scope="module")
def images():
    return made_up_things(300, SIDE, seed=3)[0]


@pytest.fixture(scope="module")
def cut(images):
    return RandomConvolutions.of(images, count=40, seed=1)


def levelled(patch):
    centred = patch - patch.mean()
    return centred / (centred.square().mean() + 0.01).sqrt()


def by_hand(cut, image, grid):
    """In float64, one patch and one cell after another."""
    kernels, mean, whitening = (each.double() for each in (cut.kernels, cut.mean, cut.whitening))
    places = SIDE - SIZE + 1
    found = torch.zeros(2, len(kernels), grid, grid, dtype=torch.float64)
    per = places // grid
    for row in range(places):
        for column in range(places):
            patch = image[0, row : row + SIZE, column : column + SIZE].double().flatten()
            response = kernels @ (whitening @ (levelled(patch) - mean))
            both = torch.stack([response - 0.25, -response - 0.25]).clamp_min(0)
            found[:, :, row // per, column // per] += both / per**2
    return found.flatten()


def test_every_value_agrees_with_one_patch_at_a_time_in_double_precision(cut, images):
    found = cut(images[:3])
    for image, values in zip(images[:3], found, strict=True):
        assert (values - by_hand(cut, image, 3)).abs().max() < 1e-4


def test_a_kernel_that_is_turned_or_not_whitened_would_be_caught(cut, images):
    turned = dataclasses.replace(cut, kernels=cut.kernels.flip(1))
    plain = dataclasses.replace(cut, whitening=torch.eye(SIZE**2))
    for wrong in (turned, plain):
        assert (wrong(images[:1])[0] - by_hand(cut, images[0], 3)).abs().max() > 0.05


def test_patches_of_other_images_are_whitened(cut):
    """Σ to the unit matrix, but for the ridge, which shrinks the rarest directions."""
    others = made_up_things(300, SIDE, seed=4)[0]
    patches = others[:, 0].unfold(1, SIZE, 1).unfold(2, SIZE, 1).reshape(-1, SIZE**2)
    patches = torch.stack([levelled(patch) for patch in patches[::7] if patch.std() > 0.02])
    before = torch.linalg.eigvalsh(torch.cov(patches.T))[1:]  # one is 0: they have no mean
    after = torch.linalg.eigvalsh(torch.cov((patches @ cut.whitening).T))
    assert before[-1] / before[0] > 50
    assert after.max() < 1.3
    assert after[10:].min() > 0.15


def test_how_bright_a_patch_is_says_nothing(cut, images):
    plain, brighter = cut(images[:20] * 0.5), cut(images[:20] * 0.5 + 0.3)
    assert torch.allclose(plain, brighter, atol=1e-3)
    assert not torch.allclose(plain, cut(images[:20]), atol=0.1)


def test_kernels_are_of_norm_1_and_of_their_seed_alone(cut, images):
    assert torch.allclose(cut.kernels.norm(dim=1), torch.ones(40))
    torch.manual_seed(5)
    again = RandomConvolutions.of(images, count=40, seed=1)
    assert torch.equal(again.kernels, cut.kernels)
    assert not torch.equal(RandomConvolutions.of(images, count=40, seed=2).kernels, cut.kernels)


def test_the_features_of_a_row_do_not_depend_on_other_rows(cut, images):
    among = cut(images[:25])
    assert torch.allclose(cut(images[17:18])[0], among[17], atol=1e-6)


def test_a_recipe_adds_their_directions_at_the_declared_norm_and_keeps_them(images, tmp_path):
    recipe = dataclasses.replace(RECIPE, folder=tmp_path / "features")
    found = recipe(images[:30])
    assert found.shape == (30, 40)
    assert torch.allclose(found[:, 20:].norm(dim=1), torch.tensor(4.0))
    assert torch.equal(found[:, :20], dataclasses.replace(RECIPE, kernels=None)(images[:30]))
    assert torch.equal(recipe(images[:30]), found)
    names = sorted(path.name.split("-")[0] for path in recipe.folder.iterdir())
    assert names == ["basis", "basis", "rows"]
    other = dataclasses.replace(recipe, kernels=16)(images[:30])
    assert not torch.allclose(other[:, 20:], found[:, 20:], atol=1e-3)


def test_the_statement_says_what_they_were_cut_from():
    words = "15 random convolutions, cut from and whitened by made-up things"
    assert words in RECIPE.prior
    assert "random convolutions" not in dataclasses.replace(RECIPE, kernels=None).prior


def test_they_are_refused_where_there_is_nothing_to_cut(images):
    with pytest.raises(ConfigError, match="kernels = 300: are cut from the images that whiten"):
        ImageKnobs(kernels=300, whitened_by="none")
    with pytest.raises(ConfigError, match="kernels = -1: must be a whole number"):
        ImageKnobs(kernels=-1)
    with pytest.raises(ConfigError, match="kernels = 5: images of side 14 have no 3×3 patches"):
        RandomConvolutions.of(images, count=5, size=13)
