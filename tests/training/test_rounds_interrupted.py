"""Rounds of allocation, stopped at any moment: what was drawn from is paid, however it goes on."""

import itertools
from functools import partial

import numpy as np
import pytest
from small_problem import make_trainer, small_data

from accountant import Gaussian, RandomAllocation
from accountant.dominating_pairs import allocation
from accountant.dominating_pairs.allocation import allocation_laws
from dpsgd_torch import Privacy
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.app.search.flags import parse
from dpsgd_torch.audit.draws import batch_checks
from dpsgd_torch.audit.replayed import replay
from dpsgd_torch.errors import ConfigError
from dpsgd_torch.samplers.allocation import AllocationSampler
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.training import session
from dpsgd_torch.training.charges import Charges
from dpsgd_torch.training.feed import Feed
from dpsgd_torch.training.streams import Streams
from dpsgd_torch.training.validation import Validation

PRIVACY = Privacy(noise_multiplier=2.0, delta=1e-3, clip_norm=0.5)


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """A price of few points: what is paid for is asked here, not how much it is."""
    monkeypatch.setattr(allocation, "POINTS", 120)
    allocation_laws.cache_clear()
    yield
    allocation_laws.cache_clear()


class Killed(BaseException):
    pass


def rounds(folder, **changes):
    return make_trainer(
        **{"sampler": "balls", "privacy": PRIVACY, "epochs": 2, "run_dir": folder,
           "checkpoint_every": 4, **changes}
    )  # fmt: skip


def paid(ledger):
    return sum(n for event, n in ledger.events() if isinstance(event, RandomAllocation))


@pytest.mark.parametrize(
    ("moment", "at"), [("reserve", 10), ("reserve", 13), ("settle", 5), ("settle", 10)]
)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_every_round_that_was_drawn_from_is_paid_by_each_attempt(
    tmp_path, monkeypatch, moment, at, elsewhere
):
    drawn = set()
    draw, step_of = Feed.draw, getattr(Charges, moment)

    def seen(feed, step):
        drawn.add((feed._run.attempt, step))
        return draw(feed, step)

    def killed(charges, step, *rest):
        if moment == "settle" and step == at:
            raise Killed
        told = step_of(charges, step, *rest)
        if moment == "reserve" and step == at:
            raise Killed
        return told

    monkeypatch.setattr(Feed, "draw", seen)
    with monkeypatch.context() as patch:
        patch.setattr(Charges, moment, killed)
        cut = rounds(tmp_path / "run")
        with pytest.raises(Killed):
            cut.fit()
        cut.close()
    if elsewhere:
        monkeypatch.setattr(session, "environment", lambda *_: "another machine")
    again = rounds(tmp_path / "run").resume().fit()
    from_rounds = {(attempt, step // 10) for attempt, step in drawn}
    assert paid(again.ledger) >= len(from_rounds)
    assert len(again.ledger) >= len(drawn)
    assert paid(again.ledger) == (3 if elsewhere else 2)
    assert again.privacy_spent().epsilon > 0
    again.close()


def test_a_run_whose_last_step_begins_a_round_may_draw_one_anew_and_states_what_it_cost(
    tmp_path, monkeypatch
):
    cut = rounds(tmp_path / "run", epochs=2.05, checkpoint_every=2)
    for _ in itertools.islice(cut.run(), 14):
        pass
    cut.close()
    monkeypatch.setattr(session, "environment", lambda *_: "another machine")
    again = rounds(tmp_path / "run", epochs=2.05, checkpoint_every=2).resume().fit()
    assert again.done == 21
    assert paid(again.ledger) == 4  # rounds of 10, 10 and 1, and the second of them again
    assert again.plan.paid_together
    assert again.privacy_spent().charges == len(again.ledger)  # which was refused before


def test_private_validation_is_paid_beside_the_rounds_and_replay_finds_no_fault_in_it(tmp_path):
    """Between two batches of a round: what is held out is looked at by a mechanism of its own."""
    validation = Validation(tensors=small_data(30, seed=4), noise_multiplier=20.0)
    trainer = rounds(tmp_path / "run", sampler="allocation:2", validation=validation).fit()
    events = trainer.ledger.events()
    assert [(type(event).__name__, count) for event, count in events] == [
        ("RandomAllocation", 1), ("NoCost", 9), ("Gaussian", 1), ("NoCost", 10), ("Gaussian", 1),
    ]  # fmt: skip
    trainer.close()
    report = replay(RunFolder(tmp_path / "run"))
    assert not report.faults
    assert any("2 charges of other parts" in told for told in report.not_checked)


def test_audits_see_a_round_that_repeats_the_one_before():
    class Repeated(AllocationSampler):
        def draw(self, stream, step, records, units):
            place = step - self.begin(step)
            return super().draw(lambda name, step=0: stream(name, step=0), place, records, units)

    sizes = {"dataset_size": 400, "batch_size": 40, "steps": 40}
    drawn = [(0, step) for step in range(40)]
    honest = batch_checks(AllocationSampler(**sizes), Streams(5), drawn)
    assert all(check.p_value > 1e-6 for check in honest)
    planted = batch_checks(Repeated(**sizes), Streams(5), drawn)
    assert min(check.p_value for check in planted) < 1e-6
    one_round = batch_checks(AllocationSampler(**sizes), Streams(5), drawn[:10])
    assert all(check.p_value > 1e-6 for check in one_round)


@pytest.mark.parametrize("selected", [1, 2])
def test_who_is_where_depends_neither_on_the_others_nor_on_how_many_there_are(selected):
    """Over seeds the last record is in each place as often, alone, among few and among many."""
    sampler = AllocationSampler(dataset_size=60, batch_size=12, steps=10, selected=selected)
    for there in (1, 7, 60):
        counts = np.zeros(sampler.round)
        for seed in range(400):
            for step in range(sampler.round):
                stream = partial(Streams(seed).numpy, attempt=0, step=step)
                counts[step] += there - 1 in sampler.draw(stream, step, there, None).rows
        assert counts.sum() == 400 * selected
        expected = counts.mean()
        assert ((counts - expected) ** 2).sum() / expected < 40


def test_truncated_samples_of_rows_that_a_coin_holds_out_are_refused():
    """A fold's size is drawn: beyond what was declared the run was refused, for one record more."""
    config = PRESETS["digits"]().config
    assert config.changed(sampling="truncated:400").sampling == "truncated:400"
    for held in ({"validation": "private"}, {"validation": "public", "folds": 2}):
        with pytest.raises(ConfigError, match="sampling = truncated:400: counts on a declared"):
            config.changed(sampling="truncated:400", **held)


def test_a_search_over_truncated_samples_is_refused_before_it_begins():
    with pytest.raises(ConfigError, match="sampling = truncated:400: a search is priced by"):
        parse(["--preset", "digits", "--epsilon", "3", "--set", "sampling=truncated:400"])


def test_the_event_of_a_round_is_the_same_whoever_asks_and_costs_nothing_later():
    sampler = AllocationSampler(dataset_size=120, batch_size=12, steps=25)
    whole = RandomAllocation(steps=10, event=Gaussian(noise_multiplier=2.0))
    for first in range(25):
        charged = [sampler.charges(step, 2.0, first) for step in range(first, 25)]
        assert charged[0] == whole
        assert charged.count(whole) == 1 + sum(s in (10, 20) for s in range(first + 1, 25))
