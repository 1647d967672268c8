"""What the flags mean together."""

import pytest

from dpsgd_torch import ConfigError
from dpsgd_torch.flags import parse


def config(*flags):
    return parse(flags).preset.config


def test_epsilon_alone_leaves_the_noise_to_calibration():
    assert config("--epsilon", "1.18").noise_multiplier is None


def test_noise_alone_is_no_budget_also_where_the_preset_has_one():
    asked = config("--preset", "digits", "--noise-multiplier", "2")
    assert (asked.noise_multiplier, asked.epsilon) == (2.0, None)


def test_both_are_a_hard_stop():
    asked = config("--epsilon", "3", "--noise-multiplier", "2")
    assert (asked.noise_multiplier, asked.epsilon) == (2.0, 3.0)


def test_a_schedule_needs_a_start():
    with pytest.raises(ConfigError, match="final_noise_multiplier"):
        config("--epsilon", "3", "--final-noise-multiplier", "2")


@pytest.mark.parametrize("flag", [["--epsilon", "3"], ["--noise-multiplier", "1"], ["--twin"]])
def test_a_flag_without_effect_is_refused(flag):
    with pytest.raises(ConfigError, match="without effect"):
        config("--no-dp", *flag)


def test_a_preset_with_a_twin_can_still_be_run_without_privacy():
    assert not config("--preset", "mnist-microbatch", "--no-dp").dp
