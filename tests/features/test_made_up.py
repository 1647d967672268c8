"""Made-up images: of one seed the same, in [0, 1], and digits that can be told apart."""

import pytest
import torch

from dpsgd_torch import ConfigError
from dpsgd_torch.features.made_up.kinds import MADE_UP, made_up
from dpsgd_torch.features.made_up.things import made_up_things


@pytest.mark.parametrize("side", [8, 28])
@pytest.mark.parametrize("name", MADE_UP)
def test_images_are_of_their_seed_alone_and_in_range(name, side):
    images, classes = MADE_UP[name].make(30, side, 1)
    again, other = MADE_UP[name].make(30, side, 1)[0], MADE_UP[name].make(30, side, 2)[0]
    assert images.shape == (30, 1, side, side)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1
    assert torch.equal(images, again)
    assert not torch.equal(images, other)
    assert (classes is None) == (not MADE_UP[name].classes)


def test_no_two_made_up_digits_are_alike_and_every_digit_is_drawn():
    images, digits = MADE_UP["digits"].make(300, 28, 3)
    assert digits.bincount(minlength=10).min() > 10
    assert (torch.cdist(images.flatten(1), images.flatten(1)) + torch.eye(300)).min() > 0.5


def test_digits_are_centred_by_mass_within_a_pixel():
    images, _ = MADE_UP["digits"].make(50, 28, 4)
    place = torch.arange(28) - 13.5
    mass = images.sum(dim=(1, 2, 3))
    for axis in (2, 3):
        centre = (images.sum(dim=(1, axis)) * place).sum(dim=1) / mass
        assert centre.abs().max() < 1


def test_what_the_statement_says_of_class_knowledge_is_what_the_images_have():
    for each in MADE_UP.values():
        assert ("no class knowledge" in each.prior) == (not each.knows_classes)


def test_things_that_are_built_very_loosely_are_images_too_and_nothing_is_warned_of():
    """Far from a thin part a power of the distance is no float32; here warnings are errors."""
    images, _ = made_up_things(500, 8, 0, classes=10, plans=7, loose=4.0)
    assert images.isfinite().all()
    assert 0 <= images.min() < images.max() <= 1


def test_unknown_made_up_images_are_refused_by_name():
    with pytest.raises(ConfigError, match="made_up = clouds: must be one of digits, signs"):
        made_up("clouds")
