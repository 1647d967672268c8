"""A CNN that learnt made-up images: of its seed alone, kept, refused where nothing is learnt."""

import pytest
import torch

from dpsgd_torch import ConfigError
from dpsgd_torch.features.made_up.digits import made_up_digits
from dpsgd_torch.features.pretrained import WIDTH, Pretrained, bent

SMALL = Pretrained(made_up="digits", side=8, images=1280, epochs=2)


@pytest.fixture(scope="module")
def net():
    return SMALL()


def test_other_made_up_digits_are_told_apart_by_what_it_says_of_them(net):
    """By the nearest class mean of 500 others; chance is 10 %."""
    (known, classes), (images, truth) = made_up_digits(500, 8, 3), made_up_digits(300, 8, 4)
    with torch.no_grad():
        means = torch.stack([net(known[classes == digit]).mean(dim=0) for digit in range(10)])
        found = torch.cdist(net(images), means).argmin(dim=1)
    assert (found == truth).float().mean() > 0.65


def test_it_is_of_its_seed_alone_and_no_global_one(net):
    torch.manual_seed(7)
    images = torch.rand(5, 1, 8, 8)
    assert torch.equal(SMALL()(images), net(images))


def test_what_is_kept_is_read_again_bit_for_bit(tmp_path, net, capsys):
    kept = Pretrained(made_up="digits", side=8, images=1280, epochs=2, folder=tmp_path)
    images = torch.rand(5, 1, 8, 8)
    assert torch.equal(kept()(images), net(images))
    assert "pass 2 of 2" in capsys.readouterr().err
    assert torch.equal(kept()(images), net(images))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("side", [8, 16, 28])
def test_any_side_gives_as_many_values(side):
    net = Pretrained(made_up="signs", side=side, images=128, epochs=1)()
    assert net(torch.rand(3, 1, side, side)).shape == (3, WIDTH)
    assert not any(p.requires_grad for p in net.parameters())


def test_images_are_moved_a_little_and_not_alike():
    image = torch.zeros(1, 1, 28, 28)
    image[..., 8:20, 8:20] = 1
    moved = bent(image.repeat(50, 1, 1, 1), torch.Generator().manual_seed(1))
    assert (moved[0] - moved[1]).abs().max() > 0.5
    assert 0.6 < (moved.sum(dim=(1, 2, 3)) / 144).min() < 1.6


def test_images_without_classes_are_refused_by_name():
    with pytest.raises(ConfigError, match="pretrained_on = leaves: has no classes to learn"):
        Pretrained(made_up="leaves", side=8)()
