"""A run from the command line to the folder it leaves, on the digits."""

import contextlib
import html.parser
import io
import json
import shutil
import sqlite3
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from accountant import RdpAccountant, dpsgd_event
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.tasks.digits.task import digits_task
from dpsgd_torch.tasks.task import accuracy
from dpsgd_torch.train import main

SEED = 918273645  # long enough to be found wherever it leaks
PUBLISHED = {"config.json", "ledger.sqlite", "metrics.jsonl", "model.safetensors",
             "privacy.json", "report.html", "statement.txt", "task.json"}  # fmt: skip
FIGURES = {
    "epsilon", "epsilon_lower", "delta", "epsilon_rdp", "epsilon_rdp_classic", "optimal_order",
    "epsilon_opacus_rdp", "agreement", "relation", "sampler", "sampling_rate", "steps",
    "noise_multiplier", "effective_noise_multiplier", "clip_norm", "microbatch_size",
}  # fmt: skip


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """Flags → the folder of a run of the digits and what it printed."""

    def run(*flags, epochs=2, seed=SEED):
        out = tmp_path_factory.mktemp("runs") / "run"
        words = ["--preset", "digits", "--epochs", str(epochs), "--out", str(out), *flags]
        words += [] if seed is None else ["--seed", str(seed)]
        return out, command(words)

    return run


def command(words):
    hook, printed = warnings.showwarning, io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            assert main(words) == 0
    finally:
        warnings.showwarning = hook
    return printed.getvalue()


@pytest.fixture(scope="module")
def finished(train):
    return train()


@pytest.fixture(scope="module")
def with_twin(train):
    return train("--twin", "--json")


@pytest.fixture(scope="module")
def without_privacy(train):
    return train("--no-dp")


def figures(folder):
    return json.loads((folder / "privacy.json").read_text())


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def published(folder):
    return [p for p in folder.rglob("*") if p.is_file() and "private" not in p.parts]


def test_a_run_leaves_these_files_and_keeps_the_rest_in_private(finished):
    folder, _ = finished
    assert {path.relative_to(folder).as_posix() for path in published(folder)} == PUBLISHED
    kept = {path.name for path in (folder / "private").iterdir()}
    assert kept >= {"streams.json", "metrics.jsonl", "checkpoints", "gradient-norms.svg"}


def test_privacy_json_holds_every_figure_and_they_hold_together(finished):
    spent = figures(finished[0])
    assert set(spent) >= FIGURES
    assert spent["relation"] == "add_or_remove_one"
    assert spent["sampler"] == "poisson"
    assert spent["sampling_rate"] == 128 / 1437
    assert spent["steps"] == 23  # ⌈2 × 1437 / 128⌉
    assert 3.0 * (1 - 1e-6) <= spent["epsilon_lower"] <= spent["epsilon"] <= 3.0
    assert spent["epsilon"] <= spent["epsilon_rdp"] <= spent["epsilon_rdp_classic"]
    assert spent["epsilon_opacus_rdp"] == pytest.approx(spent["epsilon_rdp"], rel=1e-6)
    assert spent["agreement"] <= 1e-6
    assert spent["noise_multiplier"] == spent["effective_noise_multiplier"]
    assert (spent["clip_norm"], spent["microbatch_size"], spent["delta"]) == (1.0, 1, 1e-5)


def test_the_ledger_is_let_go_of_and_holds_one_charge_a_step(finished):
    path = finished[0] / "ledger.sqlite"
    with contextlib.closing(sqlite3.connect(path, timeout=0)) as ledger:
        steps = [step for (step,) in ledger.execute("SELECT step FROM charge ORDER BY id")]
    assert steps == list(range(23))


def test_published_metrics_are_test_figures_and_epsilon_only(finished):
    rows = lines(finished[0] / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == [1, 2]
    for row in rows:
        assert set(row) == {"epoch", "step", "epsilon", "test_loss", "test_accuracy"}
    assert rows[0]["epsilon"] < rows[1]["epsilon"] == figures(finished[0])["epsilon"]


def test_the_seed_is_nowhere_outside_private_nor_on_the_screen(finished):
    folder, printed = finished
    written = [str(SEED).encode(), f"{SEED:x}".encode(), SEED.to_bytes(4, "big")]
    assert any(key in (folder / "private" / "streams.json").read_bytes() for key in written)
    for path in published(folder):
        assert not any(key in path.read_bytes() for key in written), path
    assert not any(key in printed.encode() for key in written)


def test_without_a_seed_the_stream_key_is_secret_long_and_new_each_time(train):
    keys, models = [], []
    for _ in range(2):
        folder, _ = train(epochs=1, seed=None)
        models.append(weights(folder))
        keys.append(json.loads((folder / "private" / "streams.json").read_text())["root"])
        root = int(keys[-1], 16)
        written = [keys[-1].encode(), str(root).encode(), (root % 2**256).to_bytes(32, "big")]
        for path in published(folder):
            assert not any(key in path.read_bytes() for key in written), path
    assert keys[0] != keys[1]
    assert models[0] != models[1]
    assert all(int(key, 16).bit_length() > 200 for key in keys)


def test_the_statement_says_what_holds_and_what_does_not(finished):
    words = " ".join((finished[0] / "statement.txt").read_text().split())
    assert "ε = 3.0000 and δ = 1e-05" in words
    assert "adding or removing one record" in words
    assert "Poisson" in words
    covered, exceptions = words.split("Not covered by ε:")
    assert "model.safetensors" in covered.split("Covered by ε:")[1]
    for exception in ("private/", "hyper-parameters", "seed", "resolution of 2^-52"):
        assert exception in exceptions


class Loads(html.parser.HTMLParser):
    """Whatever a page would fetch or run."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.found = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            fetches = name in ("src", "srcset", "href", "xlink:href", "data", "poster", "action")
            if fetches and not (value or "").startswith(("#", "data:")):
                self.found.append((tag, name, value))


def test_the_report_is_one_page_that_loads_nothing(finished, with_twin):
    for folder, _ in (finished, with_twin):
        page = (folder / "report.html").read_text()
        loads = Loads(page)
        assert loads.found == []
        assert loads.tags.count("svg") >= 3
        assert not {"script", "link", "iframe", "object", "embed", "img"} & set(loads.tags)
        assert "@import" not in page
        assert "url(" not in page.replace("url(#", "")


def test_json_prints_one_event_a_line(with_twin):
    folder, printed = with_twin
    events = [json.loads(line) for line in printed.splitlines()]
    assert [event["event"] for event in events] == ["start", *["epoch"] * 4, "end"]
    assert [e["model"] for e in events[1:-1]] == ["private"] * 2 + ["non-private baseline"] * 2
    assert events[0]["run"] == events[-1]["run"] == str(folder)
    assert events[0]["config"]["epochs"] == 2
    assert events[-1]["privacy"] == figures(folder)
    assert str(SEED) not in printed


def test_the_twin_is_the_run_without_privacy(with_twin, without_privacy):
    twin = lines(with_twin[0] / "private" / "twin-metrics.jsonl")
    assert twin == lines(without_privacy[0] / "metrics.jsonl")


def test_the_same_seed_gives_the_same_weights_with_a_twin_beside_or_not(
    with_twin, finished, without_privacy
):
    assert weights(with_twin[0]) == weights(finished[0])
    assert weights(without_privacy[0]) != weights(finished[0])


def test_without_dp_nothing_is_promised(without_privacy):
    folder, printed = without_privacy
    assert figures(folder) == {"epsilon": None, "delta": None, "private": False}
    assert "No privacy is promised" in (folder / "statement.txt").read_text()
    assert not (folder / "ledger.sqlite").exists()
    assert all(row["epsilon"] is None for row in lines(folder / "metrics.jsonl"))
    assert "ε" not in printed + (folder / "report.html").read_text()


def test_a_run_stops_before_its_budget_is_passed_and_says_so(train):
    folder, printed = train("--noise-multiplier", "1.0", "--epsilon", "2.5")
    spent = figures(folder)
    assert 0 < spent["steps"] < spent["planned_steps"] == 23
    assert spent["noise_multiplier"] == 1.0
    event = dpsgd_event(dataset_size=1437, batch_size=128, noise_multiplier=1.0)
    one_more = RdpAccountant().compose(event, spent["steps"] + 1).epsilon(1e-5).upper
    assert spent["epsilon"] <= 2.5 < one_more
    assert f"step {spent['steps']} would reach" in printed
    assert "Training ended early" in (folder / "statement.txt").read_text()
    assert lines(folder / "metrics.jsonl")[-1]["step"] == spent["steps"]


def test_a_budget_too_small_for_one_step_trains_nothing_and_names_no_missing_file(train):
    folder, printed = train("--noise-multiplier", "1.0", "--epsilon", "0.5")
    assert (figures(folder)["steps"], figures(folder)["epsilon"]) == (0, 0.0)
    assert ("report.html" in printed) == (folder / "report.html").exists()


def test_the_saved_weights_are_the_model_that_was_measured(finished):
    task = digits_task(dropout=0.0)
    model = task.make_model(torch.Generator()).eval()
    model.load_state_dict(load_file(finished[0] / "model.safetensors"))
    images, labels = task.test
    reached = accuracy(model(images), labels).mean().item()
    last = lines(finished[0] / "metrics.jsonl")[-1]
    assert reached == pytest.approx(last["test_accuracy"], abs=1e-6)


def test_resuming_a_finished_run_trains_and_charges_nothing_more(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    printed = command(["--resume", str(folder)])
    assert "resumed after step 23" in printed
    for name in PUBLISHED - {"ledger.sqlite"}:
        assert (folder / name).read_bytes() == (finished[0] / name).read_bytes(), name


def test_the_run_folder_of_a_run_without_out_is_named_after_its_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command(["--preset", "digits", "--epochs", "1", "--no-dp"])
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("digits-")
    assert {path.name for path in published(folder)} == PUBLISHED - {"ledger.sqlite"}


# epochs, batch, microbatch size, clip norm, noise multiplier, learning rate, dropout, twin
NOTEBOOKS = {
    "mnist-tutorial": (3, 250, 1, 1.5, 1.3, 0.25, 0.0, False),
    "mnist-long": (15, 250, 1, 1.5, 1.3, 0.25, 0.5, False),
    "mnist-microbatch": (10, 50, 5, 1.0, 1.2, 0.01, 0.0, True),
    "mnist-lab": (2, 250, 1, 1.0, 0.1, 0.15, 0.0, False),
}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_presets_are_what_the_notebooks_published(name):
    config = PRESETS[name]().config
    assert (
        config.epochs,
        config.batch_size,
        config.microbatch_size,
        config.clip_norm,
        config.noise_multiplier,
        config.learning_rate,
        config.task.dropout,
        config.twin,
    ) == NOTEBOOKS[name]
    assert (config.preset, config.dataset, config.dataset_size) == (name, "mnist", 60000)
    assert (config.delta, config.dp, config.epsilon, config.seed) == (1e-5, True, None, None)
    assert {config.clip_schedule, config.noise_schedule, config.rate_schedule} == {"constant"}
