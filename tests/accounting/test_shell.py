"""``python -m accountant``: answers on stdout, warnings and one-line refusals on stderr."""

import json
import re
import subprocess
import sys

import pytest

RUN = ["--n", "60000", "--batch-size", "250", "--delta", "1e-5"]
EPSILON = ["epsilon", *RUN, "--epochs", "15", "--noise-multiplier", "1.3"]
NOISE = ["noise", *RUN, "--epochs", "15", "--epsilon", "1"]


def test_epsilon_as_json_is_an_interval_that_holds_the_truth(shell):
    status, out, err = shell(*EPSILON, "--json")
    answer = json.loads(out)
    assert (status, err) == (0, "")
    assert set(answer) == {"epsilon", "delta", "method", "lower", "upper"}
    assert answer["lower"] <= 0.852979522269909 <= answer["upper"] == answer["epsilon"]
    assert answer["upper"] - answer["lower"] <= 1e-6
    assert (answer["delta"], answer["method"]) == (1e-5, "exact")


def test_epsilon_by_renyi_divergences_comes_with_its_order(shell):
    answer = json.loads(shell(*EPSILON, "--json", "--method", "rdp")[1])
    assert set(answer) == {"epsilon", "delta", "method", "order"}
    assert answer["epsilon"] == pytest.approx(0.9422002, abs=5e-8)
    assert (answer["method"], answer["order"]) == ("rdp", 17)


def test_epsilon_in_words_rounds_up_and_states_the_guarantee(shell):
    status, out, err = shell(*EPSILON)
    assert (status, err) == (0, "")
    assert re.match(r"ε = 0.85297\d\d, proven to lie above 0.85297\d\d \(exact\)\n", out)
    assert "ε = 0.8530 and δ = 1e-05" in out
    assert shell(*EPSILON, "--method", "rdp")[1].startswith("ε = 0.9422003 at Rényi order 17 (rdp)")


def test_an_estimate_is_called_one(shell):
    status, out, err = shell(*EPSILON, "--method", "gdp", "--json")
    assert status == 0
    assert json.loads(out)["epsilon"] == pytest.approx(0.823696132370524, rel=1e-12)
    assert err == ("warning: gdp is an estimate and often below the truth; report --method exact\n")


def test_a_full_statement_has_words_an_attacker_and_the_run_otherwise(shell):
    out = shell(*EPSILON, "--statement")[1]
    for expected in ("Not covered:", "1.0% false positives", "ε =     4.3", "shuffled batches"):
        assert expected in out
    full = json.loads(shell(*EPSILON, "--statement", "--json")[1])
    assert full["statement"]["unit"] == "one record"
    assert full["statement"]["relation"] == "add_or_remove_one"
    powers = [row["true_positive_rate"] for row in full["attacker"]]
    assert [0.001, 0.01, 0.1] < powers < [0.003, 0.03, 0.2]
    assert [row["epsilon"] for row in full["side_by_side"]] == sorted(
        row["epsilon"] for row in full["side_by_side"]
    )


def test_delta_and_epsilon_are_each_others_inverse(shell):
    flags = [*RUN[:4], "--epochs", "15", "--noise-multiplier", "1.3"]
    for method in ("exact", "rdp", "rdp-classic"):
        epsilon = json.loads(shell(*EPSILON, "--json", "--method", method)[1])["epsilon"]
        out = shell("delta", *flags, "--epsilon", str(epsilon), "--json", "--method", method)[1]
        assert json.loads(out)["delta"] == pytest.approx(1e-5, rel=2e-4)


def test_the_most_steps_are_found(shell):
    status, out, _ = shell(
        "steps", "--n", "1000", "--batch-size", "100", "--noise-multiplier", "3", "--epsilon", "2",
        "--delta", "1e-6", "--json",
    )  # fmt: skip
    assert status == 0
    assert json.loads(out)["steps"] == 155
    assert json.loads(out)["epochs"] == 15.5


def test_samplers_relations_and_groups_are_heard(shell):
    def epsilon(*flags):
        return json.loads(shell(*EPSILON, "--json", *flags)[1])["epsilon"]

    fixed, shuffled = epsilon("--sampler", "fixed"), epsilon("--sampler", "shuffled")
    assert fixed == pytest.approx(epsilon("--relation", "replace_one"))
    assert epsilon() < fixed < shuffled
    assert epsilon("--group-size", "4") > 4 * epsilon()
    assert "adding or removing one person's 4 records" in shell(*EPSILON, "--group-size", "4")[1]
    status, _, err = shell(*EPSILON, "--sampler", "fixed", "--relation", "add_or_remove_one")
    assert status == 2
    assert "fixed batches have no analysis for it" in err


def test_a_plot_is_a_picture(shell, tmp_path):
    out = tmp_path / "curve.png"
    flags = ["--n", "600", "--batch-size", "100", "--steps", "20", "--delta", "1e-3"]
    status, printed, _ = shell("plot", *flags, "--noise-multiplier", "2", "--out", str(out))
    assert (status, printed.strip()) == (0, str(out))
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "command", ["epsilon", "delta", "noise", "steps", "risk", "compare", "plot"]
)
def test_every_command_explains_itself(shell, command):
    status, out, _ = shell(command, "--help")
    assert status == 0
    assert "--batch-size" in out


def test_the_method_steps_and_microbatch_size_are_heard(shell):
    def epsilon(*flags):
        return json.loads(shell(*EPSILON, "--json", *flags)[1])["epsilon"]

    assert epsilon("--method", "rdp-classic") == pytest.approx(1.1799007, abs=5e-8)
    assert epsilon("--microbatch-size", "5") == epsilon("--noise-multiplier", "0.65")
    by_steps = json.loads(shell(*EPSILON[:7], "--steps", "3600", *EPSILON[9:], "--json")[1])
    assert by_steps["epsilon"] == epsilon()


def test_noise_as_json_says_what_noise_and_what_it_costs(shell):
    status, out, err = shell(*NOISE, "--json")
    answer = json.loads(out)
    assert (status, err) == (0, "")
    assert set(answer) == {"noise_multiplier", "epsilon", "delta", "method", "lower", "upper"}
    assert answer["noise_multiplier"] == pytest.approx(1.1753087616983602, rel=1e-6)
    assert 1 - 1e-6 <= answer["epsilon"] <= 1


def test_the_noise_it_prints_keeps_the_target(shell):
    out = shell(*NOISE)[1]
    name, printed = out.splitlines()[0].split(" = ")
    assert name == "noise_multiplier"
    again = json.loads(shell(*EPSILON, "--noise-multiplier", printed, "--json")[1])
    assert 1 - 1e-5 <= again["epsilon"] <= 1


def test_zero_noise_is_null_in_json(shell):
    status, out, _ = shell(*EPSILON, "--noise-multiplier", "0", "--json")
    assert status == 0
    assert json.loads(out)["epsilon"] is None
    assert json.loads(out)["upper"] is None


def test_zero_noise_is_infinite_in_words(shell):
    status, out, _ = shell(*EPSILON, "--noise-multiplier", "0")
    assert status == 0
    assert out.startswith("ε = ∞")
    assert "nan" not in out


def test_no_steps_cost_nothing_in_plain_decimals(shell):
    out = shell(*EPSILON[:7], "--steps", "0", "--noise-multiplier", "1")[1]
    assert out.startswith("ε = 0.0000000, proven to lie above 0.0000000 ")


@pytest.mark.parametrize("delta", ["0.1", "2e-5", str(1 / 60_000)])
def test_a_delta_of_one_record_or_more_is_warned_about(shell, delta):
    status, out, err = shell(*EPSILON, "--delta", delta, "--json")
    assert status == 0
    assert "epsilon" in json.loads(out)
    assert err.startswith("warning: delta = ")
    assert "is not below 1/n" in err


def test_a_best_order_at_the_edge_of_the_grid_is_warned_about(shell):
    status, out, err = shell(
        *EPSILON, "--noise-multiplier", "0.1", "--epochs", "2", "--json", "--method", "rdp"
    )
    assert status == 0
    assert json.loads(out)["epsilon"] < 549
    assert err.startswith("warning: the best order on the common grid 1.1…63 is its edge 1.1")
    assert "2321.9371923" in err
    assert err.count("\n") == 1


BAD = [
    [],
    ["guess"],
    ["epsilon"],
    [*EPSILON, "extra"],
    [*EPSILON, "--steps", "5"],
    [*EPSILON, "--method", "prv"],
    [*NOISE, "--method", "gdp"],
    [*EPSILON, "--width", "0"],
    [*EPSILON, "--width", "nan"],
    [*EPSILON, "--group-size", "0"],
    [*EPSILON, "--sampler", "fixed", "--group-size", "2"],
    [*EPSILON, "--sampler", "shuffled", "--relation", "add_or_remove_one"],
    ["delta", *EPSILON[1:5], "--steps", "1", "--noise-multiplier", "1", "--epsilon", "-1"],
    [*EPSILON, "--n", "0"],
    [*EPSILON, "--n", "-1"],
    [*EPSILON, "--n", "1.5"],
    [*EPSILON, "--n", "many"],
    [*EPSILON, "--batch-size", "0"],
    [*EPSILON, "--batch-size", "60001"],
    [*EPSILON, "--microbatch-size", "0"],
    [*EPSILON, "--microbatch-size", "7"],
    [*EPSILON, "--epochs", "-1"],
    [*EPSILON, "--epochs", "nan"],
    [*EPSILON, "--epochs", "inf"],
    [*EPSILON, "--epochs", "1e308"],
    [*EPSILON[:7], "--noise-multiplier", "1"],
    [*EPSILON[:7], "--noise-multiplier", "1", "--steps", "-1"],
    [*EPSILON[:7], "--noise-multiplier", "1", "--steps", "1.5"],
    [*EPSILON[:7], "--noise-multiplier", "1", "--steps", "1" + "0" * 400],
    [*EPSILON, "--delta", "0"],
    [*EPSILON, "--delta", "1"],
    [*EPSILON, "--delta", "nan"],
    [*EPSILON, "--noise-multiplier", "-1"],
    [*EPSILON, "--noise-multiplier", "nan"],
    [*EPSILON, "--noise-multiplier", ""],
    [*NOISE, "--epsilon", "0"],
    [*NOISE, "--epsilon", "-1"],
    [*NOISE, "--epsilon", "nan"],
    [*NOISE, "--epsilon", "inf"],
    [*NOISE, "--epsilon", "1\n2"],
    [*NOISE, "--epsilon", "1e-6", "--method", "rdp-classic"],
]


@pytest.mark.parametrize("arguments", BAD, ids=lambda arguments: " ".join(arguments[-2:])[:30])
def test_bad_input_is_one_line_on_stderr_and_status_two(shell, arguments):
    status, out, err = shell(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "accountant", *EPSILON, "--json"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["lower"] <= 0.852979522269909


def test_as_a_module_it_exits_with_two_on_bad_input():
    done = subprocess.run(
        [sys.executable, "-m", "accountant", *EPSILON, "--delta", "7"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: delta = 7.0: must lie strictly between 0 and 1; 1e-5 is customary\n"
    )


def test_the_accountant_stands_on_numpy_and_scipy_alone():
    code = """
import sys
import accountant.__main__
print(*sorted({"torch", "opacus", "dpsgd_torch", "dp_accounting", "sklearn"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "")


@pytest.mark.parametrize("delta", ["1e-300", "5e-324", "1e-100"])
@pytest.mark.parametrize("command", ["epsilon", "delta"])
def test_a_delta_of_any_size_is_answered(shell, delta, command):
    """ZeroDivisionError, before: logarithms do not underflow."""
    run = ["--n", "60000", "--batch-size", "256", "--epochs", "60", "--noise-multiplier", "1.1"]
    status, out, err = shell("epsilon", *run, "--delta", delta, "--json")
    answer = json.loads(out)
    assert (status, err) == (0, "")
    assert 20 < answer["lower"] <= answer["upper"] < answer["lower"] * (1 + 1e-6)
    if command == "delta":
        status, out, err = shell("delta", *run, "--epsilon", str(answer["upper"] * 1.5), "--json")
        assert (status, err) == (0, "")
        assert 0 <= json.loads(out)["lower"] <= json.loads(out)["delta"] <= 1e-99


def test_a_budget_beyond_what_is_searched_is_told_on_stderr(shell):
    run = ["noise", *RUN, "--steps", "10", "--epsilon", "100000"]
    status, out, err = shell(*run)
    assert status == 0
    assert out.startswith("noise_multiplier = 0.02")
    assert err.startswith("warning: epsilon = 100000: is not reached: the search for a noise")
    assert all(line.startswith("warning: ") for line in err.splitlines())


def test_an_interval_wider_than_asked_for_is_told_on_stderr(shell):
    run = ["--n", "1000", "--batch-size", "10", "--noise-multiplier", "2", "--steps", "100"]
    asked = ["--delta", "1e-5", "--relation", "replace_one"]
    status, _, err = shell("epsilon", *run, *asked)
    assert status == 0
    assert err.startswith("warning: width = 5e-07: not reached; the interval holds ε all the same")
