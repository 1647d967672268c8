"""ε of what was written down: a ledger, also while it is open, and lists of events."""

import json

import pytest
import torch

from accountant import (
    ExponentialMechanism,
    Gaussian,
    Laplace,
    Ledger,
    LedgerError,
    PoissonSampled,
    PrivacyError,
    Relation,
    exact,
)
from accountant.__main__ import main
from accountant.ledger.recorded import drawn_in_float32, read_events

ADD = Relation.ADD_OR_REMOVE_ONE
EVENTS = [
    (Laplace(noise_multiplier=40.0), 30),
    (ExponentialMechanism(epsilon=0.05, relation=ADD), 10),
    (PoissonSampled(sampling_rate=0.05, event=Gaussian(noise_multiplier=1.5)), 40),
    (Gaussian(noise_multiplier=30.0), 5),
]


@pytest.fixture
def ledger(tmp_path):
    """A run with private statistics, selection, training and noisy validation, still open."""
    made = Ledger(tmp_path / "ledger.sqlite", delta=1e-5)
    for number, (event, count) in enumerate(EVENTS):
        part = made.part(f"part-{number}")
        part.begin(first_step=0, environment="cpu")
        part.reserve(0, event, count)
    yield made
    made.close()


def shell(capsys, *words):
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_ledger_adds_up_to_what_the_shell_says_while_it_is_open(ledger, tmp_path, capsys):
    told = shell(capsys, "ledger", tmp_path / "ledger.sqlite", "--delta", "1e-5")
    assert told["epsilon"] == pytest.approx(exact_epsilon(EVENTS), rel=1e-9)
    assert told["lower"] <= ledger.epsilon() <= told["epsilon"] * (1 + 1e-6)


def exact_epsilon(events):
    priced = exact()
    priced.compose_all(events)
    return priced.epsilon(1e-5).upper


def test_events_written_as_json_are_priced_alike(ledger, tmp_path, capsys):
    written = [{**event.to_json(), "count": count} for event, count in EVENTS]
    (tmp_path / "list.json").write_text(json.dumps(written))
    (tmp_path / "object.json").write_text(json.dumps({"events": written, "other": 1}))
    answers = {
        shell(capsys, "ledger", tmp_path / name, "--delta", "1e-5")["epsilon"]
        for name in ("list.json", "object.json", "ledger.sqlite")
    }
    assert len(answers) == 1


def test_counts_of_one_event_add_up(tmp_path):
    row = {"type": "laplace", "noise_multiplier": 10.0}
    (tmp_path / "a.json").write_text(json.dumps([row, {**row, "count": 2}]))
    assert read_events(tmp_path / "a.json") == [(Laplace(noise_multiplier=10.0), 3)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read"),
        ("[]", "holds no event"),
        ("{}", "cannot be read"),
        ('[{"type": "magic"}]', "not one this version can price"),
        ('[{"type": "laplace", "noise_multiplier": -1}]', "noise_multiplier = -1"),
        ('[{"type": "laplace", "noise_multiplier": 1, "count": 0}]', "count = 0"),
        ('[{"type": "laplace", "noise_multiplier": 1, "count": 1.5}]', "count = 1.5"),
        (
            '[{"type": "laplace", "noise_multiplier": 1}, {"type": "randomized_response",'
            ' "noise_parameter": 0.5}]',
            "two relations",
        ),
    ],
)
def test_what_holds_no_events_is_refused_in_one_line(tmp_path, capsys, content, message):
    path = tmp_path / "events.json"
    path.write_text(content)
    with pytest.raises(PrivacyError, match=message):
        read_events(path)
    assert main(["ledger", str(path), "--delta", "1e-5"]) == 2
    assert message in capsys.readouterr().err


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(LedgerError, match="cannot be read"):
        read_events(tmp_path / "none.sqlite")


NOW = "cpu, x86_64, AVX2, 2 threads, torch 2.13.0, numpy 2.4.6, opacus 1.6.0"


@pytest.mark.parametrize(
    ("environment", "warned"),
    [(NOW, True), (f"{NOW}, float64 noise", False), ("operating system", False), ("cpu", False)],
)
def test_a_ledger_of_float32_noise_says_that_its_epsilon_does_not_hold(
    tmp_path, capsys, environment, warned
):
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path, delta=1e-5)
    ledger.begin(first_step=0, environment=environment)
    ledger.reserve(0, Gaussian(noise_multiplier=2.0))
    ledger.close()
    assert main(["ledger", str(path), "--delta", "1e-5"]) == 0
    assert ("float32" in capsys.readouterr().err) == warned


def test_a_run_of_today_is_not_taken_for_one_of_float32_noise(tmp_path):
    from dpsgd_torch.training.fingerprint import environment

    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path, delta=1e-5)
    ledger.begin(first_step=0, environment=environment(torch.device("cpu")))
    ledger.close()
    assert not drawn_in_float32(path)
