"""A search from the command line to the folder it leaves, on the digits."""

import dataclasses
import json

import pytest

from accountant import Gaussian, RdpAccountant, dpsgd_event
from accountant.ledger.recorded import read_events
from accountant.selection import TruncatedNegativeBinomial, best_of_all, best_of_random
from dpsgd_torch import search as module
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.app.search.allowance import Rule, allowance, noise_within
from dpsgd_torch.app.search.space import Dimension, proposal
from dpsgd_torch.app.search.trials import Silent, events_of
from dpsgd_torch.mechanisms.exponential import choice_event
from dpsgd_torch.search import main
from dpsgd_torch.tasks.drug_responses.files import write_responses
from dpsgd_torch.tasks.drug_responses.synthetic import synthetic_responses
from dpsgd_torch.tasks.registry import load_task

RANDOM = ["--trials", "4", "--seed", "7", "--vary", "batch_size=64,256", "--vary",
          "learning_rate=0.1:2:log"]  # fmt: skip
QUICK = ["--preset", "digits", "--epsilon", "3", "--set", "epochs=2"]


def rows(folder):
    path = folder / "private" / "trials" / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def searched(folder, *flags):
    assert main([*QUICK, "--out", str(folder), *flags]) == 0
    return rows(folder)


@pytest.fixture(scope="module")
def random_search(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searches") / "random"
    return folder, searched(folder, *RANDOM)


def test_the_best_trial_is_released_and_its_price_is_that_of_the_whole_search(random_search):
    folder, found = random_search
    assert len(found) == 3
    told = json.loads((folder / "privacy.json").read_text())
    assert 2.999 < told["epsilon"] <= 3.0
    law = TruncatedNegativeBinomial(**told["law"])
    assert law.mean == pytest.approx(4.0)
    for row in found:  # no trial of its own would have cost more
        trial = folder / "private" / "trials" / f"{row['trial']:04d}"
        events = read_events(trial / "ledger.sqlite")
        bound = told["a trial may spend"]
        spent = RdpAccountant()
        spent.compose_all(events)
        at = spent.rdp([bound["order"], bound["other"]])
        assert at[0] <= bound["at_order"] * (1 + 1e-9)
        assert at[1] <= bound["at_other"] * (1 + 1e-9)
        assert best_of_random(events, law, 1e-5).epsilon <= 3.0 * (1 + 1e-9)
    best = min(found, key=lambda row: row["score"])
    words = " ".join((folder / "statement.txt").read_text().split())
    for exception in ("another search on the same data", "knows the seed", "private/"):
        assert exception in words.split("Not covered by ε:")[1]
    config = json.loads((folder / "best" / "config.json").read_text())
    assert {name: config[name] for name in best["values"]} == best["values"]
    assert "the search included" in (folder / "best" / "statement.txt").read_text().replace(
        "\n", " "
    )
    assert "Prior" not in words  # a CNN on the digits themselves


def test_what_epsilon_does_not_cover_lies_in_private(random_search):
    folder, _ = random_search
    outside = {p.name for p in folder.rglob("*") if "private" not in p.relative_to(folder).parts}
    assert outside == {
        "best", "config.json", "metrics.jsonl", "model.safetensors", "privacy.json",
        "statement.txt", "task.json",
    }  # fmt: skip
    assert (folder / "private" / "trials.svg").exists()


def interrupt_at(monkeypatch, trial, step):
    """Ctrl-C once, in the middle of a trial."""
    follow, begun = Silent.follow, []

    def stopped(self, name, progress):
        begun.append(name)
        if len(begun) != trial:
            return follow(self, name, progress)
        for at in progress:
            if at.step == step:
                raise KeyboardInterrupt

    monkeypatch.setattr(Silent, "follow", stopped)
    return begun


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "private" not in path.relative_to(folder).parts
    }


def test_a_search_interrupted_within_a_trial_ends_as_an_uninterrupted_one(
    random_search, tmp_path, monkeypatch, capsys
):
    whole, found = random_search
    begun = interrupt_at(monkeypatch, trial=2, step=15)
    folder = tmp_path / "part"
    assert main([*QUICK, "--out", str(folder), *RANDOM]) == 130
    assert f"--resume {folder}" in capsys.readouterr().err
    assert [row["trial"] for row in rows(folder)] == [1]
    assert main(["--resume", str(folder)]) == 0
    assert rows(folder) == found
    assert len(begun) == len(found) + 1  # no trial that was done is run again
    assert contents(folder) == contents(whole)


def test_a_trial_that_stopped_before_it_could_draw_anything_begins_anew(tmp_path, monkeypatch):
    folder = tmp_path / "part"
    flags = ["--trials", "1", "--stopping", "fixed", "--set", "epochs=1"]

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dpsgd_torch.app.assembly.Ledger", interrupt)  # before there is one
        assert main([*QUICK, "--out", str(folder), *flags]) == 130
    first = folder / "private" / "trials" / "0001"
    assert (first / "config.json").exists()
    assert main(["--resume", str(folder)]) == 0
    assert sum(count for _, count in read_events(first / "ledger.sqlite")) == 12
    assert (folder / "best" / "model.safetensors").exists()


@pytest.mark.parametrize("flag", [["--epsilon", "9"], ["--trials", "50"], ["--set", "epochs=9"]])
def test_a_search_goes_on_as_it_began(random_search, flag, capsys):
    folder, _ = random_search
    before = contents(folder)
    assert main(["--resume", str(folder), *flag]) == 2
    assert f"a search goes on as it began; drop {flag[0]}\n" in capsys.readouterr().err
    assert contents(folder) == before


def test_the_epochs_of_the_best_run_are_shown_at_the_price_of_the_search(random_search):
    folder, _ = random_search
    told = json.loads((folder / "privacy.json").read_text())["epsilon"]
    lines = (folder / "best" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epsilon"] for line in lines] == [told, told]


def test_published_values_do_not_tell_which_trial_they_came_from():
    """Optuna's 32-bit key can be found from its draws: it must depend on all of the secret root."""
    space = [Dimension.parse("learning_rate=0.1:2:log")]
    roots = [7 + 2**power for power in (31, 32, 64, 128, 255)]
    drawn = {proposal(space, "random", root, 0, [])["learning_rate"] for root in (7, *roots)}
    assert len(drawn) == 6
    assert proposal(space, "random", 7, 0, []) == proposal(space, "random", 7, 0, [({}, 1.0)])


def test_what_a_trial_spends_is_never_above_its_allowance_by_any_rounding():
    def events(noise):
        return [(dpsgd_event(dataset_size=1437, batch_size=128, noise_multiplier=noise), 23)]

    law = TruncatedNegativeBinomial.with_mean(4.0)
    bound = allowance(Rule(law=law, trials=4), events, 3.0, 1e-5)
    assert best_of_random(events(noise_within(bound, events)), law, 1e-5).epsilon < bound.epsilon
    assert 2.999 < bound.epsilon <= 3.0


def test_a_fixed_number_of_trials_may_learn_from_each_other_and_pays_for_all(tmp_path):
    folder = tmp_path / "fixed"
    flags = ["--trials", "3", "--stopping", "fixed", "--sampler", "tpe", "--seed", "1"]
    found = searched(folder, *flags)
    assert len(found) == 3
    told = json.loads((folder / "privacy.json").read_text())
    trial = folder / "private" / "trials" / "0001" / "ledger.sqlite"
    assert best_of_all(read_events(trial), 3, 1e-5, []).epsilon <= 3.0 * (1 + 1e-9)
    assert 2.9 < told["epsilon"] <= 3.0


def test_the_exponential_mechanism_chooses_on_held_out_rows_and_is_paid_for(tmp_path):
    folder = tmp_path / "chosen"
    flags = ["--trials", "2", "--stopping", "fixed", "--select", "exponential"]
    searched(folder, *flags)
    once = [(choice_event(0.5), 1)]
    trial = folder / "private" / "trials" / "0001"
    events = read_events(trial / "ledger.sqlite")
    assert best_of_all(events, 2, 1e-5, once).epsilon <= 3.0 * (1 + 1e-9)
    assert best_of_all(events, 2, 1e-5, []).epsilon < 3.0
    score = json.loads((trial / "private" / "selection.json").read_text())
    assert 0 < score["sum"] <= score["bound"] * 1437
    kept = json.loads((folder / "private" / "search.json").read_text())
    assert kept["chosen"] in (0, 1)


def test_a_candidate_that_spends_more_gets_more_noise(random_search):
    folder, found = random_search
    noises = {}
    for row in found:
        config = json.loads(
            (folder / "private" / "trials" / f"{row['trial']:04d}" / "config.json").read_text()
        )
        noises.setdefault(config["batch_size"], set()).add(round(config["noise_multiplier"], 4))
    assert all(len(group) == 1 for group in noises.values())
    assert max(noises[64]) < max(noises[256])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epsilon", "3"], "name both"),
        (["--preset", "digits"], "name both"),
        (["--preset", "nothing", "--epsilon", "3"], "invalid choice"),
        ([*QUICK, "--trials", "0"], "trials = 0"),
        ([*QUICK, "--trials", "1"], "trials = 1"),
        ([*QUICK, "--sampler", "tpe"], "learns from earlier trials"),
        ([*QUICK, "--select", "exponential"], "--stopping fixed"),
        ([*QUICK, "--vary", "nonsense=1:2"], "cannot be set or varied"),
        ([*QUICK, "--vary", "noise_multiplier=1:2"], "cannot be set or varied"),
        ([*QUICK, "--vary", "learning_rate=2:1"], "low < high"),
        ([*QUICK, "--vary", "learning_rate=nan:1"], "low < high"),
        ([*QUICK, "--vary", "epochs=1,2", "--vary", "epochs=3"], "names a field twice"),
        ([*QUICK, "--vary", "batch_size=64,128", "--vary", "microbatches=64,128"], "must divide"),
        ([*QUICK, "--vary", "validation_bound=1:9"], "cannot be set or varied"),
        ([*QUICK, "--eta", "-0.99"], "eta = -0.99"),
        ([*QUICK, "--eta", "nan"], "eta = nan"),
        ([*QUICK, "--selection-epsilon", "0"], "selection_epsilon = 0"),
        ([*QUICK, "--selection-epsilon", "inf"], "selection_epsilon = inf"),
        ([*QUICK, "--vary", "epochs=1:2"], "low < high"),
        ([*QUICK, "--vary", "batch_size="], "name=a,b,c"),
        ([*QUICK, "--vary", "batch_size=64,5000"], "batch_size = 5000"),
        ([*QUICK, "--set", "epochs=many"], "vary = epochs=many"),
        (["--preset", "digits", "--epsilon", "0.001"], "epsilon = 0.001"),
        (["--preset", "digits", "--epsilon", "nan"], "epsilon = nan"),
        (["--resume", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_refused_in_one_line_and_nothing_is_spent(
    flags, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(flags) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.rglob("ledger.sqlite"))


def test_an_occupied_folder_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main([*QUICK, "--out", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_help_is_worth_reading(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    for word in ("--stopping", "--vary", "Papernot", "--resume", "pays for the whole search"):
        assert word in told
    assert module.__doc__
    assert noise_within.__doc__


def test_drug_responses_are_searched_with_their_statistics_inside(tmp_path, capsys):
    train, test = synthetic_responses(600, 150, 12)
    data = tmp_path / "lish-moa"
    write_responses(data, train, test)
    words = ["--preset", "moa", "--epsilon", "3", "--trials", "2", "--stopping", "fixed"]
    for name in ("batch_size=64", "epochs=1", "validation=private", "hidden=8"):
        words += ["--set", name]
    folder = tmp_path / "search"
    assert main([*words, "--data-dir", str(data), "--out", str(folder)]) == 0
    assert "the search included" in capsys.readouterr().out
    kinds = {
        type(event).__name__
        for event, _ in read_events(folder / "private" / "trials" / "0001" / "ledger.sqlite")
    }
    assert kinds == {"Laplace", "PoissonSampled", "Gaussian"}
    assert (folder / "best" / "predictions.csv").exists()


def test_a_candidates_own_validation_noise_is_priced():
    """It may be varied; the planted bug was to price the preset's for all."""
    config = dataclasses.replace(
        PRESETS["digits"]().config, epsilon=None, noise_multiplier=1.0, validation="private"
    )
    events_at = events_of(config, load_task(config, None))
    louder = dataclasses.replace(config, validation_noise=15.0)
    assert (Gaussian(noise_multiplier=15.0), 30) in events_at(louder, 2.0)
    assert (Gaussian(noise_multiplier=50.0), 30) in events_at(config, 2.0)
