"""A rule that is wrong in the engine for all models is caught before a charge, in few passes."""

import weakref

import pytest
import torch
from refused import Made, refused
from small_problem import make_trainer, small_data, small_model
from torch import nn

from dpsgd_torch.gradients.parts.clipped import PartVectors
from dpsgd_torch.gradients.parts.outer import Outer
from dpsgd_torch.gradients.rehearsal.oracle import Oracle


def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.Tanh(), nn.Linear(20, 3))


def planted(monkeypatch, name, wrong):
    honest = getattr(Outer, name)
    monkeypatch.setattr(Outer, name, lambda self, *given: wrong(honest, self, *given))


def test_a_sum_that_is_not_autograds_is_refused_by_name(monkeypatch):
    def wrong(honest, self, total, factors, within):
        return honest(self, total, 1.1 * factors, within)

    planted(monkeypatch, "add_to", wrong)
    refused(r"parameter 1\.weight: .*do not add up", model=flat())


def test_a_sum_that_is_wrong_in_larger_batches_only_is_refused(monkeypatch):
    def without_the_last(honest, self, total, factors, within):
        kept = torch.cat([factors[:-1], 0 * factors[-1:]]) if len(factors) > 9 else factors
        return honest(self, total, kept, within)

    planted(monkeypatch, "add_to", without_the_last)
    refused(r"parameter 1\.weight: .*do not add up", model=flat(), physical_batch_size=64)


def test_a_vector_that_is_not_its_examples_is_refused(monkeypatch):
    planted(monkeypatch, "written", lambda honest, self: 1.1 * honest(self))
    refused(r"parameter 1\.weight: .*(is not the one it has alone|add up)", model=flat())


@pytest.mark.parametrize("shared", [False, True])
def test_a_norm_that_is_too_small_is_refused(monkeypatch, shared):
    grouped = []
    honest = Outer.grouped
    monkeypatch.setattr(
        Outer, "grouped", lambda self, *given: grouped.append(1) or honest(self, *given)
    )

    def short(honest, self):
        squares, error = honest(self)
        return (squares / 4, error) if bool(grouped) == shared else (squares, error)

    planted(monkeypatch, "squared_norms", short)
    refused(r"a norm is 0\.\d+ of its vector's", model=flat())


def larger(trick):
    return lambda self, x: trick(self, x) if len(x) > 8 else self.layer(x)


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: self.layer(x) * len(x),
        lambda self, x: self.layer(x) * torch.arange(1.0, len(x) + 1)[:, None],
        lambda self, x: self.layer(x - 0.3 * x.mean(0)),
        lambda self, x: self.layer(x) - self.layer(x).mean(0),
    ],
)
def test_what_shows_in_a_whole_batch_only_is_refused(forward):
    refused("alone|another example|rows are not", larger(forward), physical_batch_size=64)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_rehearsal_takes_few_passes_and_one_whole_batch(monkeypatch, dropout):
    seen = []

    def watched(self, x):
        seen.append(len(x))
        return self.layer(nn.functional.dropout(x, dropout))

    make_trainer(model=Made(watched), data=small_data(400), batch_size=80, physical_batch_size=100)
    assert seen.count(100) == 1
    assert sum(seen) <= 100 + 72 + 90  # the second: rows of extreme inputs
    assert len(seen) <= 30


def test_a_rehearsal_holds_two_gradients_at_a_time(monkeypatch):
    """It held thirteen, in float64: 3.3 GiB for a model of 30 million parameters."""
    made, most = [], [0]

    def counted(kind, name):
        honest = getattr(kind, name)

        def counting(*given, **more):
            found = honest(*given, **more)
            made.append(weakref.ref(found[0]))
            most[0] = max(most[0], sum(ref() is not None for ref in made))
            return found

        monkeypatch.setattr(kind, name, counting)

    counted(Oracle, "gradient")
    counted(PartVectors, "vector")
    make_trainer(model=small_model(), physical_batch_size=64)
    assert len(made) > 5
    assert most[0] == 2
