"""dpsgd advise: what it suggests costs no more than was asked, and is better than what is not."""

import dataclasses
import itertools
import json

import pytest
import torch
from torch import nn

from dpsgd_torch import Privacy, Trainer, schedules
from dpsgd_torch import advise as door
from dpsgd_torch.advice.law import Law, mu_of, noise_of_run
from dpsgd_torch.advice.model import linear_head, made_up_rows
from dpsgd_torch.advice.settings import Asked, expected_kept, suggest

WORDS = "--n 2000 --epsilon 3 --features 60"
HEAD = Asked(n=2000, epsilon=3.0, delta=1e-5, kind="head", parameters=610)
NET = """
from torch import nn
from beside import WIDTH

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 10))

def no_module():
    return 3

def broken():
    raise ValueError("no weights here")
"""


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "beside.py").write_text("WIDTH = 16\n")
    return tmp_path / "net.py"


@pytest.mark.parametrize("kind", ["head", "network"])
@pytest.mark.parametrize(("n", "epsilon"), [(100, 0.3), (1437, 8.0), (60_000, 1.0)])
def test_a_suggestion_costs_at_most_epsilon_by_its_upper_end_and_nearly_all_of_it(kind, n, epsilon):
    asked = dataclasses.replace(HEAD, n=n, epsilon=epsilon, kind=kind)
    found = suggest(asked)
    lower, upper = found.epsilon
    assert 0.999 * epsilon < lower <= upper <= epsilon
    assert 1 <= found.batch_size <= n


def test_a_trainer_takes_as_many_steps_with_as_much_noise_as_was_suggested():
    found = suggest(HEAD)
    trainer = trained(found, learning_rate=1.0)
    plan = trainer.privacy_spent()
    assert plan.steps == found.steps
    assert plan.epsilon <= HEAD.epsilon
    noise = schedules.schedule_from_json(plan.noise_multiplier_schedule).at(9)
    assert noise == pytest.approx(found.noise_multiplier, rel=1e-5)


def trained(found, learning_rate):
    head = linear_head(60, 10)
    trainer = Trainer(
        head,
        nn.CrossEntropyLoss(),
        rows(),
        privacy=Privacy(epsilon=HEAD.epsilon, delta=HEAD.delta, clip_norm=found.clip_norm),
        batch_size=found.batch_size,
        epochs=found.epochs,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=learning_rate),
        rate_schedule=schedules.Linear(1.0, 0.0, found.steps),
        seed=1,
    )
    return trainer.fit()


def rows(count=2000, seed=0):
    """Ten blobs that lie near each other, of which no law was fitted."""
    drawn = torch.Generator().manual_seed(seed)
    centres = torch.randn(10, 60, generator=torch.Generator().manual_seed(9)) * 0.35
    labels = torch.randint(10, (count,), generator=drawn)
    inputs = centres[labels] + torch.randn(count, 60, generator=drawn)
    return inputs * (4 / inputs.norm(dim=1, keepdim=True)), labels


def accuracy(trainer):
    inputs, labels = rows(4000, seed=1)
    with torch.no_grad():
        return float((trainer.model(inputs).argmax(1) == labels).float().mean())


def test_a_suggested_learning_rate_beats_those_eight_times_off():
    found = suggest(HEAD)
    scores = {
        times: accuracy(trained(found, times * found.learning_rate)) for times in (1 / 8, 1, 8)
    }
    assert scores[1] > scores[8] + 0.01, scores
    assert scores[1] > scores[1 / 8] + 0.01, scores


@pytest.mark.parametrize("kind", ["head", "network"])
@pytest.mark.parametrize("seconds", [None, 0.5])
def test_more_records_or_more_epsilon_never_keep_less(kind, seconds):
    sizes, budgets = (50, 500, 501, 7000, 60_000, 10**6), (0.1, 0.5, 1.0, 1.01, 3.0, 20.0)

    def kept(n, epsilon):
        return expected_kept(
            dataclasses.replace(HEAD, kind=kind, n=n, epsilon=epsilon, seconds=seconds,
                                example_seconds=1e-5)
        )  # fmt: skip

    for n, epsilon in itertools.product(sizes, budgets):
        for more in [m for m in sizes if m > n]:
            assert kept(more, epsilon) >= kept(n, epsilon) - 0.003, (n, more, epsilon)
        for more in [b for b in budgets if b > epsilon]:
            assert kept(n, more) >= kept(n, epsilon) - 0.003, (n, epsilon, more)


def test_the_noise_of_a_run_that_is_chosen_by_is_within_a_quarter_of_the_exact_one():
    for epsilon, n in [(1.0, 2000), (3.0, 60_000)]:
        found = suggest(dataclasses.replace(HEAD, n=n, epsilon=epsilon))
        exactly = found.noise_multiplier / (found.batch_size * found.steps**0.5)
        assert found.kappa == pytest.approx(exactly, rel=0.25)


def test_time_bounds_the_gradients_that_are_taken_and_is_told_where_it_hurts():
    small = dataclasses.replace(HEAD, n=500, epsilon=1.0)
    short = dataclasses.replace(small, seconds=0.0005, example_seconds=1e-5)
    found, free = suggest(short), suggest(small)
    assert found.batch_size * found.steps <= 50 < free.batch_size * free.steps
    assert (found.limit, free.limit) == ("time", "noise")
    assert found.kept < free.kept


def test_what_half_the_loss_takes_does_halve_it():
    found = suggest(HEAD)
    n, epsilon = found.half
    goal = (1 + found.kept) / 2
    for more in ({"n": n}, {"epsilon": epsilon}):
        assert expected_kept(dataclasses.replace(HEAD, **more)) == pytest.approx(goal, abs=0.004)


def test_as_large_a_batch_as_n_leaves_the_least_noise():
    mu = mu_of(1.0, 1e-5)
    noises = [noise_of_run(1000, batch, 60, mu) for batch in (10, 100, 1000)]
    assert noises == sorted(noises, reverse=True)


def test_the_laws_say_where_they_are_from_and_how_far_they_were_off():
    for kind in ("head", "network"):
        law = Law.of(kind)
        assert max(law.kept[1], law.rate[1]) < 0, "more noise: less is kept, at smaller steps"
        assert law.errors["fitted_cells"] >= 20
        assert 0 < law.errors["kept_rms"] < 0.5


def test_the_page_tells_settings_signal_time_and_where_the_rules_are_from(capsys):
    assert door.main(WORDS.split()) == 0
    told = capsys.readouterr().out
    for words in ("batch size", "exact: ε lies between", "half the loss", "on 512 made-up rows",
                  "signal to noise", "an example takes", "benchmarks/advice.py", "left out",
                  "trainer = Trainer("):  # fmt: skip
        assert words in told


def test_json_holds_what_was_asked_and_is_the_same_suggestion(capsys):
    assert door.main([*WORDS.split(), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    again = suggest(Asked(**told["asked"]))
    assert json.loads(json.dumps(again.to_json())) == told["suggested"]
    assert told["first_steps"]["signal_to_noise"] > 0


def test_a_model_of_ones_own_is_looked_at_with_what_lies_beside_its_file(capsys, net):
    words = f"--n 2000 --epsilon 3 --model {net}:make --input-shape 1 8 8 --json".split()
    assert door.main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["first_steps"]["parameters"] == 16 * 65 + 10 * 17
    assert told["rules"]["kind"] == "network"
    assert 0 < told["first_steps"]["signal"] <= 1


def test_the_signal_is_that_of_gradients_taken_one_by_one():
    from dpsgd_torch.advice.first_steps import first_steps

    torch.manual_seed(0)
    model, (inputs, labels) = nn.Linear(6, 3), made_up_rows(40, (6,), 3)
    found = first_steps(model, (inputs, labels), clip_norm=0.7)
    vectors = []
    for x, y in zip(inputs, labels, strict=True):
        loss = nn.functional.cross_entropy(model(x[None]), y[None])
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.parameters())])
        vectors.append(gradient * min(1.0, 0.7 / float(gradient.norm())))
    dots = torch.stack(vectors) @ torch.stack(vectors).T
    pairs = (dots.sum() - dots.trace()) / (40 * 39)
    assert found.signal == pytest.approx(float(pairs.sqrt()) / 0.7, rel=1e-4)


def test_the_picture_is_written(tmp_path, capsys):
    out = tmp_path / "trade-off.png"
    assert door.main([*WORDS.split(), "--plot", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--n 0 --epsilon 3", "argument --n: '0' is no whole number"),
        ("--n 100", "the following arguments are required: --epsilon"),
        ("--n 100 --epsilon -1", "epsilon = -1.0: must lie above 0"),
        ("--n 100 --epsilon nan", "epsilon = nan: must lie above 0"),
        ("--n 1 --epsilon 1", "n = 1: must be at least 2"),
        ("--n 100 --epsilon 1 --delta 2", "delta = 2.0"),
        ("--n 100 --epsilon 1 --classes 1", "classes = 1: must be at least 2"),
        ("--n 100 --epsilon 1 --minutes 0", "minutes = 0: must be a number > 0"),
        ("--n 100 --epsilon 1 --minutes 1e-9", "minutes = "),
        ("--n 100 --epsilon 1 --parameters 9 --minutes 1", "minutes = 1: how long an example"),
        ("--n 100 --epsilon 1 --input-shape 3", "input_shape: is of a --model"),
        ("--n 100 --epsilon 1 --features 3 --parameters 9", "argument --parameters: not allowed"),
        ("--n 100 --epsilon 1 --model net.py", "model = 'net.py': must be FILE.py:function"),
        ("--n 100 --epsilon 1 --model nowhere.py:make", "model = nowhere.py:make: there is no"),
        ("--n 100 --epsilon 1 --plot nowhere/a.png", "plot = nowhere/a.png: cannot be written"),
        ("--n 100 --epsilon 1 --model NET:nothing", "model = NET:nothing: NET has no function"),
        ("--n 100 --epsilon 1 --model NET:no_module", "model = NET:no_module: gives int"),
        ("--n 100 --epsilon 1 --model NET:broken", "model = NET:broken: raises ValueError"),
        ("--n 100 --epsilon 1 --model NET:make", "model over 2 made-up examples"),
    ],
)
def test_what_is_refused_is_one_line_and_status_2(capsys, net, words, line):
    assert door.main(words.replace("NET", str(net)).split()) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"error: {line.replace('NET', str(net))}")
    assert told.err.count("\n") == 1
    assert not told.out
