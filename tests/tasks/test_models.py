"""The tasks' models and the digits: what the published notebooks built, drawn from one stream."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from dpsgd_torch.tasks.digits import task as digits_module
from dpsgd_torch.tasks.digits.task import TRAIN_SIZE, digits_cnn, digits_task
from dpsgd_torch.tasks.mnist.task import mnist_cnn

MODELS = {"mnist": (mnist_cnn, 28), "digits": (digits_cnn, 8)}


@pytest.fixture(params=MODELS)
def make(request):
    """(seed, dropout) → the model, and the side of its images."""
    build, side = MODELS[request.param]
    return lambda seed=0, **dropout: build(torch.Generator().manual_seed(seed), **dropout), side


@pytest.fixture(scope="module")
def digits():
    return digits_task(dropout=0.0)


def layers(model):
    return [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def test_the_mnist_cnn_has_the_tutorials_26010_parameters():
    sizes = [p.numel() for p in mnist_cnn(torch.Generator()).parameters()]
    assert sizes == [16 * 8 * 8, 16, 32 * 16 * 4 * 4, 32, 512 * 32, 32, 32 * 10, 10]
    assert sum(sizes) == 26010


def test_a_batch_of_images_gives_ten_scores_each(make):
    model, side = make[0](), make[1]
    for batch in (1, 7):
        assert model(torch.rand(batch, 1, side, side)).shape == (batch, 10)


def test_biases_start_at_zero(make):
    assert all(not layer.bias.any() for layer in layers(make[0]()))


def test_weights_fill_glorots_interval_and_never_leave_it(make):
    for layer in layers(make[0]()):
        weight = layer.weight.detach()
        receptive = weight[0, 0].numel()
        fan_in, fan_out = weight.shape[1] * receptive, weight.shape[0] * receptive
        bound = math.sqrt(6 / (fan_in + fan_out))
        assert weight.abs().max() <= bound
        # Of n ≥ 144 uniform draws, one in the outer 10 % is missing with probability 0.9ⁿ < 3e-7.
        assert weight.abs().max() > 0.9 * bound


def test_the_same_generator_gives_the_same_weights_and_another_gives_others(make):
    first, again, other = (make[0](seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if "weight" in name)


def test_weights_ignore_the_global_generator(make):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = make[0]().state_dict()
        torch.manual_seed(2)
        second = make[0]().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_first_convolution_pads_as_same_does_in_tensorflow():
    first = mnist_cnn(torch.Generator().manual_seed(0))[0]
    images = torch.rand(2, 1, 28, 28)
    size, kernel, stride = 28, 8, 2
    out = math.ceil(size / stride)
    total = max((out - 1) * stride + kernel - size, 0)  # TensorFlow's rule for 'same'
    before, after = total // 2, total - total // 2
    padded = functional.pad(images, (before, after, before, after))
    expected = functional.conv2d(padded, first.weight, first.bias, stride=stride)
    assert first(images).shape == (2, 16, out, out)
    torch.testing.assert_close(first(images), expected)


def test_dropout_stands_right_before_the_last_layer(make):
    *body, last = make[0](dropout=0.5)
    assert isinstance(last, nn.Linear)
    assert isinstance(body[-1], nn.Dropout)
    assert body[-1].p == 0.5
    assert not any(isinstance(layer, nn.Dropout) for layer in body[:-1])


def test_dropout_changes_training_only(make):
    plain, dropping, images = make[0](), make[0](dropout=0.5), torch.rand(4, 1, make[1], make[1])
    assert torch.equal(dropping.eval()(images), plain.eval()(images))
    assert torch.equal(plain.train()(images), plain.eval()(images))
    assert not torch.equal(dropping.train()(images), dropping.eval()(images))


def test_digits_come_as_1437_training_and_360_test_images(digits):
    for (images, labels), size in ((digits.train, TRAIN_SIZE), (digits.test, 360)):
        assert images.shape == (size, 1, 8, 8)
        assert labels.shape == (size,)
        assert set(labels.tolist()) == set(range(10))
        assert (images.min(), images.max()) == (0.0, 1.0)
    assert TRAIN_SIZE == 1437


def test_train_and_test_share_no_digit_and_lose_none(digits):
    bunch = load_digits()
    known = {(image / 16).astype("float32").tobytes(): int(label)
             for image, label in zip(bunch.images, bunch.target, strict=True)}  # fmt: skip
    parts = [
        {image.numpy().tobytes(): int(label) for image, label in zip(*split, strict=True)}
        for split in (digits.train, digits.test)
    ]
    assert not set(parts[0]) & set(parts[1])
    assert parts[0] | parts[1] == known


def test_the_digits_split_is_the_same_each_time(digits):
    again = digits_task(dropout=0.0)
    assert torch.equal(again.train[0], digits.train[0])
    assert torch.equal(again.test[1], digits.test[1])


def test_the_digits_are_scikit_learns_wherever_its_file_lies(monkeypatch):
    read = digits_module._bundled()
    monkeypatch.setattr(digits_module, "find_spec", lambda name: None)
    assert np.array_equal(digits_module._bundled(), read)
