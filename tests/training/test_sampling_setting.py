"""How batches are drawn is asked for by one setting, KIND or KIND:NUMBER, checked beforehand."""

from __future__ import annotations

import pytest

from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.errors import ConfigError
from dpsgd_torch.samplers.poisson import PoissonSampler
from dpsgd_torch.samplers.registry import KINDS, sampler_from_json, sampler_kind

SIZES = {"dataset_size": 1000, "batch_size": 50, "steps": 2000}


def test_an_unchanged_configuration_draws_poisson_samples():
    assert sampler_kind(RunConfig().sampler()) is PoissonSampler


@pytest.mark.parametrize(
    ("asked", "next_move"),
    [("bernoulli", "choose one"), ("poisson:3", "drop :3"), ("poisson:", "drop :"), ("", "choose")],
)
def test_what_is_no_kind_is_refused_when_the_configuration_is_built(asked, next_move):
    with pytest.raises(ConfigError, match=next_move):
        RunConfig(sampling=asked)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_can_be_made_again_from_what_it_wrote(name):
    number = {"truncated": ":100", "allocation": ":100", "cyclic": ":20"}.get(name, "")
    sampler = sampler_kind(name + number)(**SIZES)
    assert sampler_from_json(sampler.to_json()) == sampler
