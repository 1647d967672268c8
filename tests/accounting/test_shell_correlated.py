"""``python -m accountant correlated``."""

import json

import pytest

RUN = ["correlated", "--n", "6000", "--batch-size", "60", "--delta", "1e-5", "--steps", "400"]


def test_cyclic_sampling_is_told_with_its_interval_error_and_ground(shell):
    status, out, err = shell(*RUN, "--epsilon", "8", "--bands", "4", "--width", "1e-5")
    assert (status, err) == (0, "")
    assert "proven to lie above" in out
    assert "100 × Gaussian noise" in out
    assert "each record joins with probability 0.04" in out
    assert "3 vectors kept" in out
    assert "each record is in one of 4 parts, drawn for it or hashed from its key" in out


def test_noise_and_epsilon_are_each_others_inverse(shell):
    found = json.loads(shell(*RUN, "--epsilon", "2", "--bands", "8", "--json")[1])
    noise = str(found["noise_multiplier"])
    again = json.loads(shell(*RUN, "--noise-multiplier", noise, "--bands", "8", "--json")[1])
    assert again["epsilon"] == pytest.approx(2, rel=1e-5)
    assert again["epsilon"] <= 2
    assert again["upper"] - again["lower"] <= 1e-3
    assert again["events"][0]["count"] == 50


def test_without_sampling_the_noise_counts_for_half_unless_places_are_public(shell):
    asked = [*RUN, "--sampling", "none", "--noise-multiplier", "4", "--json"]
    replaced = json.loads(shell(*asked)[1])
    missing = json.loads(shell(*asked, "--relation", "add_or_remove_one")[1])
    assert replaced["relation"] == "replace_one"
    assert replaced["epsilon"] > 1.8 * missing["epsilon"]
    assert replaced["sensitivity"] == missing["sensitivity"]
    assert replaced["of_independent_noise"] < 0.6
    assert "leaves a hole" in missing["rests_on"][1]


def test_shuffling_afresh_is_dearer_in_error_not_in_epsilon(shell):
    asked = [*RUN, "--sampling", "none", "--noise-multiplier", "4", "--json"]
    fixed, fresh = (json.loads(shell(*asked, "--passes", p)[1]) for p in ("fixed", "reshuffled"))
    assert fresh["epsilon"] == fixed["epsilon"]
    assert fresh["sensitivity"] > fixed["sensitivity"]


def test_buffers_are_kept_instead_of_bands(shell):
    asked = [*RUN, "--sampling", "none", "--noise-multiplier", "4", "--kind", "blt", "--json"]
    usual, one = (json.loads(shell(*asked, *more)[1]) for more in ([], ["--bands", "1"]))
    assert (usual["vectors_kept"], one["vectors_kept"]) == (3, 1)
    assert usual["sensitivity_is_exact"]
    assert usual["of_independent_noise"] < one["of_independent_noise"] < 0.4
    assert len(usual["factor"]["buffers"]["decays"]) == 3


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--bands", "101"], "at most 100 parts"),
        (["--bands", "0"], "must be"),
        (["--kind", "bandinvmf"], "bands = 400: must be at most parts = 16"),
        (["--kind", "blt"], "bands = 400: must be at most parts = 3"),
        (["--passes", "fixed"], "is of runs without sampling"),
    ],
)
def test_what_is_refused_takes_one_line(shell, flags, words):
    status, out, err = shell(*RUN, "--noise-multiplier", "1", *flags)
    assert (status, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1
