"""wake-words begins from made-up shapes: learnt without records, kept, told, frozen if asked."""

import pytest
import torch
from torch import nn

from dpsgd_torch.errors import ConfigError
from dpsgd_torch.tasks.wake_words import begun
from dpsgd_torch.tasks.wake_words.kind import WakeWords
from dpsgd_torch.tasks.wake_words.knobs import WakeWordsKnobs
from dpsgd_torch.tasks.wake_words.model import mobilenet

FEW = 32


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def begun_mobilenet(*, frozen, seed=0):
    model = mobilenet(torch.Generator().manual_seed(seed), 2, "none")
    begun.begun_(model, "none", frozen=frozen, pictures=FEW)
    return model


def body(model):
    return nn.utils.parameters_to_vector(model[:-1].parameters()).detach()


def test_all_layers_but_the_last_are_what_shapes_taught_whatever_the_seed(monkeypatch):
    first = begun_mobilenet(frozen=False)
    monkeypatch.setattr(begun, "_learn", lambda *_: pytest.fail("learnt again"))
    again = begun_mobilenet(frozen=False, seed=1)
    assert torch.equal(body(first), body(again))
    assert not torch.equal(body(first), body(mobilenet(torch.Generator(), 2, "none")))
    assert not any(parameter.any() for parameter in first[-1].parameters())
    assert all(parameter.requires_grad for parameter in first.parameters())


def test_other_pictures_or_norms_are_learnt_anew(monkeypatch):
    begun_mobilenet(frozen=False)
    learnt = []
    monkeypatch.setattr(begun, "_learn", lambda _, pictures: learnt.append(pictures))
    begun.begun_(mobilenet(torch.Generator(), 2, "none"), "none", frozen=False, pictures=40)
    begun.begun_(mobilenet(torch.Generator(), 2, "group"), "group", frozen=False, pictures=FEW)
    monkeypatch.setattr(begun, "_RATE", 0.1)
    begun_mobilenet(frozen=False)
    assert learnt == [40, FEW, FEW]


@pytest.mark.parametrize("frozen", [True, False])
def test_a_task_says_what_it_begins_from_and_trains_the_last_layer_alone_if_asked(frozen):
    knobs = WakeWordsKnobs(norm="none", pretraining=FEW, frozen=frozen)
    task = WakeWords().made_up(knobs, 4, 4)
    model = task.make_model(torch.Generator().manual_seed(3))
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    assert (trained == {"61.weight", "61.bias"}) is frozen
    assert frozen or len(trained) == len(list(model.parameters()))
    assert task.prior.startswith("WITHOUT class knowledge")
    assert "one of ten coloured shapes among clutter" in task.prior
    assert ("all layers but the last stay as they are" in task.prior) is frozen
    untaught = WakeWords().made_up(WakeWordsKnobs(norm="none"), 4, 4)
    assert untaught.prior == ""


def test_random_layers_are_not_frozen_and_a_batch_of_pictures_is_the_least():
    with pytest.raises(ConfigError, match="frozen = True: leaves random layers as they are"):
        WakeWordsKnobs(frozen=True)
    with pytest.raises(ConfigError, match="pretraining = 31: must be a whole number ≥ 32"):
        WakeWordsKnobs(pretraining=31)
    assert WakeWordsKnobs().pretraining == 0  # what older runs had
