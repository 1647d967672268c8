"""``python -m accountant``: answers on stdout, warnings and one-line refusals on stderr."""

import json
import subprocess
import sys

import pytest

from accountant.__main__ import main

RUN = ["--n", "60000", "--batch-size", "250", "--delta", "1e-5"]
EPSILON = ["epsilon", *RUN, "--epochs", "15", "--noise-multiplier", "1.3"]
NOISE = ["noise", *RUN, "--epochs", "15", "--epsilon", "1"]


@pytest.fixture
def shell(capsys):
    def run(*arguments):
        try:
            status = main(arguments)
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_epsilon_as_json_has_exactly_four_fields(shell):
    status, out, err = shell(*EPSILON, "--json")
    answer = json.loads(out)
    assert (status, err) == (0, "")
    assert set(answer) == {"epsilon", "delta", "method", "order"}
    assert answer["epsilon"] == pytest.approx(0.9422002, abs=5e-8)
    assert (answer["delta"], answer["method"], answer["order"]) == (1e-5, "rdp", 17)


def test_epsilon_in_words_rounds_up_and_states_the_guarantee(shell):
    status, out, err = shell(*EPSILON)
    assert (status, err) == (0, "")
    assert out.startswith("ε = 0.9422003 at Rényi order 17 (rdp)\n")
    assert "ε = 0.9423 and δ = 1e-05" in out


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
    assert set(answer) == {"noise_multiplier", "epsilon", "delta", "method", "order"}
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
    assert json.loads(out)["order"] is None


def test_zero_noise_is_infinite_in_words(shell):
    status, out, _ = shell(*EPSILON, "--noise-multiplier", "0")
    assert status == 0
    assert out.startswith("ε = ∞")
    assert "nan" not in out


def test_no_steps_cost_nothing_in_plain_decimals(shell):
    out = shell(*EPSILON[:7], "--steps", "0", "--noise-multiplier", "1")[1]
    assert out.startswith("ε = 0.0000000 ")


@pytest.mark.parametrize("delta", ["0.1", "2e-5", str(1 / 60_000)])
def test_a_delta_of_one_record_or_more_is_warned_about(shell, delta):
    status, out, err = shell(*EPSILON, "--delta", delta, "--json")
    assert status == 0
    assert "epsilon" in json.loads(out)
    assert err.startswith("warning: delta = ")
    assert "is not below 1/n" in err


def test_a_best_order_at_the_edge_of_the_grid_is_warned_about(shell):
    status, out, err = shell(*EPSILON, "--noise-multiplier", "0.1", "--epochs", "2", "--json")
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
    [*EPSILON, "--method", "gdp"],
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
    assert json.loads(done.stdout)["order"] == 17


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
