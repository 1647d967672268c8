"""``python -m accountant risk``, and noise for a bound on an attacker."""

import json
import re

import pytest

RUN = ["--n", "60000", "--batch-size", "250", "--delta", "1e-5"]
NOISE = ["noise", *RUN, "--epochs", "15", "--epsilon", "1"]
RISK = ["risk", *RUN[:4], "--steps", "10", "--noise-multiplier", "1.3"]


def test_risk_of_a_run_and_of_what_was_written_down_are_the_same(shell, tmp_path):
    status, out, err = shell(*RISK, "--json", "--prior", "0.2", "--fpr", "0.01", "--chance", "0.25")
    run = json.loads(out)
    assert (status, err) == (0, "")
    assert (
        run["membership"][0]["false_positive_rate"]
        == 0.01
        < (run["membership"][0]["true_positive_rate"])
    )
    assert run["guesses"][0]["before"] == 0.25 < run["guesses"][0]["after"]
    step = {"type": "gaussian", "noise_multiplier": 1.3}
    event = {"type": "poisson_sampled", "sampling_rate": 250 / 60000, "event": step, "count": 10}
    (tmp_path / "events.json").write_text(json.dumps([event]))
    written = str(tmp_path / "events.json")
    again = shell("risk", written, "--json", "--prior", "0.2", "--fpr", "0.01", "--chance", "0.25")
    assert json.loads(again[1]) == run
    of_three = json.loads(shell("risk", written, "--json", "--group-size", "3")[1])
    assert of_three["advantage"] > 2 * run["advantage"]
    assert "3 records" in of_three["between"]


def test_risk_in_words_says_between_whom_and_rounds_up(shell):
    status, out, err = shell(*RISK[:5], "--epochs", "15", "--noise-multiplier", "1.3")
    assert (status, err) == (0, "")
    assert out.startswith("Telling data sets that differ by adding or removing one record apart")
    assert "8.912 %  true less false positives" in out  # 0.0891190… of the exact δ(0)
    assert "1.797 %  true positives at 1 % false: they are members with probability 0.643" in out


def test_noise_for_a_bound_on_an_attacker_keeps_it(shell):
    flags = ["noise", *RUN[:4], "--steps", "100"]
    found = json.loads(shell(*flags, "--advantage", "0.02", "--json")[1])
    assert 0.02 * (1 - 1e-5) < found["advantage"] <= 0.02
    assert "epsilon" not in found
    status, out, err = shell(*flags, "--tpr-at-fpr", "0.02@0.005", "--delta", "1e-5")
    assert (status, err) == (0, "")
    assert "2.000 %  true positives at 0.5 % false" in out
    printed = re.match(r"noise_multiplier = (\S+)\nε = (\S+) at δ = 1e-05", out)
    cost = json.loads(shell("epsilon", *RUN, "--steps", "100", "--json", "--noise-multiplier",
                            printed[1])[1])  # fmt: skip
    assert cost["epsilon"] == pytest.approx(float(printed[2]), rel=1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["risk"], "n = None: must be given; or name a ledger's FILE"),
        (RISK[:5] + RISK[7:], "steps = None: must be given, or epochs; or name a ledger's FILE"),
        (["risk", "x.json", "--n", "3"], "n = 3: is what FILE tells; leave it"),
        ([*RISK, "--fpr", "0"], "false_positive_rate = 0.0: must lie in (0, 1)"),
        ([*NOISE[:5], "--steps", "9", "--epsilon", "1"], "delta = None: must be given with --eps"),
        (
            [*NOISE[:5], "--steps", "9", "--tpr-at-fpr", "3"],
            "argument --tpr-at-fpr: '3' is not TPR",
        ),
        ([*NOISE[:5], "--steps", "9", "--tpr-at-fpr", "a@b"], "argument --tpr-at-fpr: 'a@b' is no"),
        ([*NOISE[:5], "--steps", "9", "--advantage", "2"], "advantage = 2.0: must lie strictly"),
        ([*NOISE, "--advantage", "0.1"], "argument --advantage: not allowed with argument --epsi"),
        (
            [*NOISE[:5], "--steps", "9", "--advantage", "0.1", "--method", "rdp"],
            "method = rdp: has no trade-off curve; leave it",
        ),
    ],
)
def test_a_risk_that_cannot_be_told_is_refused_in_one_line(shell, words, said):
    status, out, err = shell(*words)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1
