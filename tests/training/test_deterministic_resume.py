"""An interrupted run repeats its steps bit for bit, and pays once, whatever draws its noise."""

import contextlib

import pytest
import torch
from small_problem import make_trainer, weights

from dpsgd_torch import Privacy
from dpsgd_torch.noise.blocks import BLOCKS
from dpsgd_torch.noise.independent import INDEPENDENT
from dpsgd_torch.noise.on_device import ON_DEVICE

NOISES = {each.name: each for each in (INDEPENDENT, BLOCKS, ON_DEVICE)}
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture
def deterministic(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


def trainer(noise, device, folder=None):
    asked = Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5, noise=NOISES[noise])
    return make_trainer(privacy=asked, device=device, run_dir=folder, checkpoint_every=2)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.usefixtures("deterministic")
def test_a_resumed_run_is_bit_for_bit_the_one_that_was_not_left(noise, device, tmp_path):
    whole = trainer(noise, device).fit()
    with contextlib.closing(trainer(noise, device, tmp_path / "left")) as left:
        for at in left.run():
            if at.step == 3:  # one after the last checkpoint
                break
    with contextlib.closing(trainer(noise, device, tmp_path / "left")) as again:
        again.resume().fit()
        assert torch.equal(weights(again.model), weights(whole.model))
        assert again.privacy_spent().steps_charged_again == 0
        assert again.privacy_spent().epsilon == whole.privacy_spent().epsilon


def test_each_kind_of_noise_draws_numbers_of_its_own():
    found = [weights(trainer(noise, "cpu").fit().model) for noise in NOISES]
    for i, one in enumerate(found):
        assert all(not torch.equal(one, other) for other in found[:i])
