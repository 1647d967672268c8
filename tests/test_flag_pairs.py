"""Settings two by two: a run whose ledger is the plan's, or one line before anything is charged."""

import json

import pytest

from accountant import DiscreteGaussian, Gaussian, PoissonSampled, dpsgd_steps
from accountant.ledger.recorded import read_events
from dpsgd_torch.tasks.drug_responses.files import write_responses
from dpsgd_torch.tasks.drug_responses.synthetic import synthetic_responses
from dpsgd_torch.train import main

pytestmark = pytest.mark.filterwarnings("ignore:local, not covered by ε", "ignore:precision = ")

BATCH = 300
FLAGS = {
    "adaptive": ["--clipping", "adaptive:0.5"],
    "automatic": ["--clipping", "automatic"],
    "per layer": ["--clipping", "per-layer"],
    "audit": ["--audit", "50"],
    "bf16": ["--precision", "bf16"],
    "compile": ["--compile"],
    "folds": ["--folds", "2"],
    "microbatches": ["--microbatches", "100"],
    "no dp": ["--no-dp"],
    "philox": ["--noise-generator", "philox"],
    "secure": ["--secure"],
    "shard": ["--shard"],
    "validation": ["--validation", "private"],
}
GOES = [
    ("adaptive", "microbatches"),
    ("adaptive", "audit"),
    ("automatic", "audit"),
    ("per layer", "folds"),
    ("audit", "bf16"),
    ("audit", "philox"),
    ("audit", "secure"),
    ("audit", "validation"),
    ("bf16", "philox"),
    ("bf16", "folds"),
    ("bf16", "microbatches"),
    ("secure", "validation"),
]
REFUSED = [
    ("adaptive", "secure"),
    ("adaptive", "shard"),
    ("automatic", "secure"),
    ("per layer", "audit"),
    ("per layer", "compile"),
    ("per layer", "secure"),
    ("audit", "folds"),
    ("audit", "microbatches"),
    ("audit", "no dp"),
    ("secure", "bf16"),
    ("secure", "compile"),
    ("secure", "philox"),
    ("secure", "no dp"),
    ("secure", "shard"),
    ("shard", "no dp"),
    ("shard", "philox"),
]


def asked(pair, out) -> list[str]:
    words = ["--preset", "digits", "--epochs", "1", "--batch-size", str(BATCH), "--out", str(out)]
    return [*words, *(word for name in pair for word in FLAGS[name])]


@pytest.mark.parametrize("pair", GOES, ids=" and ".join)
def test_what_goes_together_is_charged_as_planned(pair, tmp_path, capsys):
    assert main(asked(pair, tmp_path / "run")) == 0, capsys.readouterr().err
    events = dict(read_events(tmp_path / "run" / "ledger.sqlite"))
    steps = {event: n for event, n in events.items() if isinstance(event, PoissonSampled)}
    assert steps
    for event, count in steps.items():
        n = round(BATCH / event.sampling_rate)
        models = 2 if "folds" in pair else 1
        assert count == models * dpsgd_steps(dataset_size=n, batch_size=BATCH, epochs=1)
        kind = DiscreteGaussian if "secure" in pair else Gaussian
        assert isinstance(event.event, kind)
    others = [event for event in events if event not in steps]
    assert bool(others) == bool({"validation", "folds"} & set(pair))


def test_an_adaptive_run_says_what_its_count_cost_and_where_the_clip_norm_ended(tmp_path):
    assert main(asked(["adaptive"], tmp_path / "run")) == 0
    told = " ".join((tmp_path / "run" / "statement.txt").read_text().split())
    spent = json.loads((tmp_path / "run" / "privacy.json").read_text())
    assert "followed the 0.5 quantile" in told
    assert (
        f"charged as Gaussian noise of {spent['noise_multiplier']:.6g} times the clip norm" in told
    )
    assert spent["clip_norm_at_end"] != spent["clip_norm"]


@pytest.mark.parametrize("pair", REFUSED, ids=" and ".join)
def test_what_does_not_is_refused_in_one_line_before_there_is_a_folder(pair, tmp_path, capsys):
    assert main(asked(pair, tmp_path / "run")) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags", [["--precision", "bf16"], ["--compile"]])
def test_no_statistic_is_released_by_a_run_that_is_refused(flags, tmp_path, capsys):
    """Secure mode refused these once means and scales were charged and written down."""
    train, test = synthetic_responses(600, 150, 12)
    write_responses(tmp_path, train, test)
    words = ["--preset", "moa", "--data-dir", str(tmp_path), "--out", str(tmp_path / "run")]
    words += ["--epochs", "1", "--batch-size", "64", "--hidden", "16"]
    assert main([*words, "--secure", "--statistics-epsilon", "0.5", *flags]) == 2
    assert "secure" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
