"""``--noise correlated:KIND:BANDS`` and ``--sampling``: what goes together, and what is refused."""

import pytest

from accountant import InvalidValue
from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.app.search.flags import parse
from dpsgd_torch.errors import ConfigError
from dpsgd_torch.noise.correlated import KINDS, Correlated
from dpsgd_torch.samplers.passes import Passes
from dpsgd_torch.samplers.poisson import PoissonSampler
from dpsgd_torch.samplers.registry import sampler_kind

MFG = "correlated:bandmf:8"


def test_every_factor_that_training_takes_is_a_flag():
    for kind in KINDS:
        config = RunConfig(dataset="digits", noise=f"correlated:{kind}:8", sampling="passes")
        assert config.privacy(100).noise == Correlated(kind, 8)
        assert sampler_kind(config.sampler()) is Passes


def test_correlated_noise_comes_with_as_many_parts_as_bands():
    sampler = sampler_kind(RunConfig(dataset="digits", noise=MFG).sampler())
    assert sampler(dataset_size=1437, batch_size=64, steps=100).cycle == 8
    assert sampler_kind(RunConfig(dataset="digits").sampler()) is PoissonSampler


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"noise": MFG, "sampling": "poisson"}, "sampling = poisson: must be cyclic or passes"),
        ({"sampling": "cyclic"}, "sampling = cyclic: must be cyclic:NUMBER"),
        ({"noise": "correlated:tree:8"}, "must be independent, or correlated:KIND:BANDS"),
        ({"noise": "correlated:bandmf"}, "must be independent, or correlated:KIND:BANDS"),
        ({"noise": "bandmf:8"}, "must be independent, or correlated:KIND:BANDS"),
        ({"noise": MFG, "clip_schedule": "linear:0.5"}, "pays for several steps at once"),
        ({"sampling": "passes", "noise_schedule": "linear:0.5"}, "pays for several steps at once"),
        ({"noise": MFG, "noise_generator": "philox"}, "drop --noise-generator and --secure"),
        ({"noise": MFG, "secure": True}, "drop --noise-generator and --secure"),
        ({"sampling": "passes", "secure": True}, "is not for exact noise"),
        ({"noise": MFG, "shard": True}, "shard"),
        ({"noise": MFG, "audit": 100}, "scores independent noise on Poisson samples"),
    ],
)
def test_what_has_no_analysis_is_refused_in_one_line(settings, words):
    with pytest.raises((ConfigError, InvalidValue), match=words) as refused:
        RunConfig(dataset="digits", **settings)
    assert "\n" not in str(refused.value)


def test_a_search_over_passes_is_refused():
    with pytest.raises(ConfigError, match="sampling = passes: is priced for records replaced"):
        parse(["--preset", "digits", "--epsilon", "3", "--set", "sampling=passes"])
