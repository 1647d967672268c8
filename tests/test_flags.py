"""What the flags mean together."""

import pytest

from dpsgd_torch import ConfigError
from dpsgd_torch.app.flags import parse


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


def test_a_schedule_is_a_shape_that_calibration_scales():
    asked = config("--epsilon", "3", "--noise-schedule", "linear:0.5")
    assert asked.noise_multiplier is None
    assert asked.privacy(100).noise_shape.at(99) == 0.5


def test_a_schedule_can_come_from_a_file(tmp_path):
    (tmp_path / "clip.csv").write_text("step,factor\n0,1\n\n100,0.5\n")
    asked = config("--clip-schedule", f"@{tmp_path / 'clip.csv'}")
    assert asked.clip_schedule == "table:0=1.0,100=0.5"
    assert asked.privacy(300).clip_norm.at(100) == asked.clip_norm / 2


@pytest.mark.parametrize(
    "text", ["nonsense", "linear", "linear:x", "step:0.5", "table:5=1", "table:0=1,0=2", "@none"]
)
def test_a_schedule_that_is_none_is_refused_with_what_one_looks_like(text):
    with pytest.raises(ConfigError, match=r"schedule = .*(linear:0.5|must rise|step,factor)"):
        config("--noise-schedule", text)


@pytest.mark.parametrize("flag", [["--epsilon", "3"], ["--noise-multiplier", "1"], ["--twin"]])
def test_a_flag_without_effect_is_refused(flag):
    with pytest.raises(ConfigError, match="without effect"):
        config("--no-dp", *flag)


def test_a_preset_with_a_twin_can_still_be_run_without_privacy():
    assert not config("--preset", "mnist-microbatch", "--no-dp").dp
