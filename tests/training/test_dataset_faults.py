"""Faults of a Dataset: one line that names the row, no worker left behind, and the run goes on."""

import multiprocessing
import signal
import time

import numpy as np
import pytest
import torch
from pictures import Armed, Held, Pictures, dies, fails, shrinks, widens
from small_problem import make_trainer, weights

from dpsgd_torch import DataError, ModelError, Validation
from dpsgd_torch.data import FromDataset
from dpsgd_torch.data.base import Wanted
from dpsgd_torch.data.checked import data_on

HARM = {
    "fails": (fails, r"row 37: cannot be had \(OSError: truncated file of row 37, …\); mend what"),
    "shape": (
        shrinks,
        r"row 37: inputs = torch.float32 of shape \(1, 5, 6\): must be .* \(1, 6, 6",
    ),
    "dtype": (widens, r"row 37: inputs = torch.float64 .* must be torch.float32 of shape"),
    "death": (dies, r"row 37: the worker process that took it died .* pass workers=0 to see why"),
}
CASES = [(name, workers) for name in HARM for workers in (0, 2) if workers or name != "death"]


@pytest.fixture(autouse=True)
def _no_hang():
    def end(*_):
        raise TimeoutError("a minute has passed")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    assert multiprocessing.active_children() == []


@pytest.fixture(scope="module")
def undisturbed():
    return weights(make_trainer(data=Held(FromDataset(Pictures()))).fit().model)


def armed(path, harm, rows=(37,), workers=0):
    return FromDataset(Pictures(change=Armed(path, rows, harm)), workers=workers)


@pytest.mark.parametrize(("name", "workers"), CASES)
def test_what_is_met_in_the_first_pass_is_refused_before_a_charge(tmp_path, name, workers):
    (tmp_path / "armed").touch()
    harm, rule = HARM[name]
    data = armed(tmp_path / "armed", harm, workers=workers)
    with pytest.raises(DataError, match=f"train_tensors = FromDataset: {rule}") as refused:
        make_trainer(data=data, run_dir=tmp_path / "run")
    assert "\n" not in str(refused.value)
    assert "tensor(" not in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "workers"), CASES)
def test_a_later_fault_names_the_row_and_the_run_resumes_to_the_same_weights(
    tmp_path, undisturbed, name, workers
):
    harm, rule = HARM[name]
    data = armed(tmp_path / "armed", harm, workers=workers)
    trainer = make_trainer(data=data, run_dir=tmp_path / "run")
    for at in (steps := trainer.run()):
        if at.step == 9:
            break
    (tmp_path / "armed").touch()
    with pytest.raises(DataError, match=rf"step \d+: train_tensors = FromDataset: {rule}") as ended:
        for _ in steps:
            pass
    assert multiprocessing.active_children() == []
    stands = "the step's charge stands" in str(ended.value)
    assert stands or "nothing was charged for it" in str(ended.value)
    assert len(trainer.ledger) == trainer.done + stands
    trainer.close()
    mended = make_trainer(data=FromDataset(Pictures()), run_dir=tmp_path / "run")
    assert torch.equal(weights(mended.resume().fit().model), undisturbed)
    mended.close()


def waits(row, x):
    time.sleep(7)
    return x


def hangs(row, x):
    time.sleep(300)


def test_a_worker_that_hangs_is_given_up_once_its_time_is_over(tmp_path):
    data = armed(tmp_path / "armed", hangs, workers=2)
    data.timeout = 2.0
    trainer = make_trainer(data=data)
    for at in (steps := trainer.run()):
        if at.step == 9:
            break
    (tmp_path / "armed").touch()
    began = time.monotonic()
    rule = r"row 37: the worker process that takes it handed over nothing for 2 s; mend what"
    with pytest.raises(DataError, match=rule):
        for _ in steps:
            pass
    assert time.monotonic() - began < 30
    assert multiprocessing.active_children() == []


def test_a_worker_that_is_slow_is_waited_for(tmp_path):
    pictures = Pictures(change=Armed(tmp_path / "armed", (37,), waits))
    (tmp_path / "armed").touch()
    data = FromDataset(pictures, workers=1, timeout=60)
    wanted = iter([Wanted(np.array([37])), Wanted(np.array([5]))])
    assert len(list(data.ahead(wanted))) == 2  # looked round meanwhile


def test_a_fault_before_the_charge_lets_the_same_trainer_go_on(tmp_path, undisturbed):
    trainer = make_trainer(data=armed(tmp_path / "armed", fails, rows=range(120)))
    for at in (steps := trainer.run()):
        if at.step == 9:
            break
    (tmp_path / "armed").touch()
    with pytest.raises(DataError, match=r"step 9: .*nothing was charged for it"):
        next(steps)
    assert len(trainer.ledger) == 9
    (tmp_path / "armed").unlink()
    assert torch.equal(weights(trainer.fit().model), undisturbed)
    assert len(trainer.ledger) == 30


def test_a_set_that_changes_its_length_ends_the_run(tmp_path):
    pictures = Pictures()
    trainer = make_trainer(data=FromDataset(pictures, workers=1))
    steps = trainer.run()
    next(steps)
    pictures.inputs = pictures.inputs[:119]
    with pytest.raises(DataError, match=r"len = 119: was 120; a data set keeps its rows"):
        for _ in steps:
            pass


@pytest.mark.parametrize("which", ["test_tensors", "validation"])
def test_the_rows_of_other_sets_are_named_too(tmp_path, which):
    (tmp_path / "armed").touch()
    data = armed(tmp_path / "armed", fails, workers=1)
    given = {"test_tensors": data} if which == "test_tensors" else {}
    given = given or {"validation": Validation(tensors=data)}
    with pytest.raises(DataError, match=f"{which} = FromDataset: row 37: cannot be had"):
        make_trainer(**given)


def test_a_score_that_fails_half_way_leaves_no_worker_behind():
    calls = []

    def fails_later(outputs, targets):
        calls.append(len(targets))
        if len(calls) > 30:
            raise ArithmeticError("half way")
        return targets.double()

    data = FromDataset(Pictures(2500), workers=1)
    trainer = make_trainer(test_tensors=data, metrics={"late": fails_later}, epochs=40)
    with pytest.raises(ModelError, match="half way") as ended:
        trainer.fit()
    assert multiprocessing.active_children() == []
    assert ended.tb is not None, "which holds on to all that was going on"


def test_a_death_is_told_where_rows_are_asked_for_and_nowhere_else(tmp_path):
    """Torch's own handler of signals raises wherever the process is: in the middle of a charge."""
    (tmp_path / "armed").touch()
    data = armed(tmp_path / "armed", dies, rows=(90,), workers=1)
    batches = data_on("cpu", data, "rows").ahead(
        Wanted(np.arange(s, s + 30)) for s in (0, 30, 60, 90)
    )
    for _ in range(2):
        next(batches)
    until = time.monotonic() + 20
    while multiprocessing.active_children():
        assert time.monotonic() < until
    with pytest.raises(DataError, match="rows = FromDataset: row 90: the worker process that took"):
        next(batches)


def test_a_run_that_is_left_in_the_middle_leaves_no_worker_behind():
    trainer = make_trainer(data=FromDataset(Pictures(), workers=2))
    steps = trainer.run()
    next(steps)
    assert len(multiprocessing.active_children()) == 2
    steps.close()
    assert multiprocessing.active_children() == []


def test_units_may_be_drawn_so_rarely_that_a_step_has_no_rows():
    data = FromDataset(Pictures(), workers=2)
    settings = {"batch_size": 1, "epochs": 0.5, "physical_batch_size": 1}
    sizes = []
    trainer = make_trainer(data=data, **settings)
    trainer.open()
    for step in range(trainer.sampling.steps):
        stream = {name: trainer.streams.numpy(name, step=step) for name in ("sampling",)}
        sizes.append(len(trainer.sampling.draw(stream.__getitem__, step, 120, None).rows))
    assert 0 in sizes
    assert max(sizes) > 1
    held = make_trainer(data=Held(data), **settings).fit()
    assert torch.equal(weights(trainer.fit().model), weights(held.model))
    assert len(trainer.ledger) == len(sizes) == np.size(sizes)
