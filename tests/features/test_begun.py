"""A head that begins from made-up images of the classes: right beforehand, and never by chance."""

import pytest
import torch

from dpsgd_torch import ConfigError
from dpsgd_torch.features.begun import begun_head, regression
from dpsgd_torch.features.made_up.digits import made_up_digits
from dpsgd_torch.features.recipe import Recipe

RECIPE = Recipe(made_up="digits", directions=40, ridge=0.1, scales=1, made=500)


def test_other_made_up_digits_are_right_before_any_training(tmp_path):
    weights = begun_head(RECIPE, 8)
    images, truth = made_up_digits(300, 8, 9)
    found = RECIPE(images) @ weights[:, :-1].T + weights[:, -1]
    assert (found.argmax(dim=1) == truth).float().mean() > 0.85


def test_images_without_classes_begin_no_head():
    with pytest.raises(ConfigError, match="leaves"):
        begun_head(Recipe(made_up="leaves", directions=5, scales=1, made=100), 8)


def test_the_same_features_give_the_same_head():
    generator = torch.Generator().manual_seed(1)
    features, labels = torch.randn(50, 4, generator=generator), torch.arange(50) % 3
    once = regression(features, labels, 3)
    torch.manual_seed(5)
    assert torch.equal(once, regression(features, labels, 3))
