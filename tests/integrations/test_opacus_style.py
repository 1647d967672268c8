"""A loop written for Opacus 1.6 runs with Opacus's engine and with ours, at the same ε."""

import opacus
import pytest
import torch
from opacus.utils.batch_memory_manager import BatchMemoryManager as TheirManager
from opacus_loops import DELTA, EPOCHS, pieces, problem, trained
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import dpsgd_torch
from dpsgd_torch import TrainingError
from dpsgd_torch.integrations import BatchMemoryManager, PrivacyEngine

pytestmark = [
    pytest.mark.filterwarnings("ignore:Secure RNG turned off"),
    pytest.mark.filterwarnings("ignore:.*non-full backward hook"),
    pytest.mark.filterwarnings("ignore:Optimal order is the"),
    pytest.mark.filterwarnings("ignore:.*how long to train is decided"),
    pytest.mark.filterwarnings("ignore:Full backward hook is firing"),
]


def accuracy(model):
    inputs, targets = problem(1000, seed=9)
    with torch.no_grad():
        return float((model(inputs).argmax(1) == targets).double().mean())


def test_the_same_loop_gives_opacus_epsilon_to_a_millionth_and_a_like_accuracy():
    found = {}
    for kind, seed in ((opacus.PrivacyEngine, {}), (PrivacyEngine, {"seed": 3})):
        engine = kind(accountant="rdp")
        torch.manual_seed(3)
        made = engine.make_private(**pieces(noise_multiplier=0.6), **seed)
        model = trained(*made)
        found[kind] = engine.get_epsilon(delta=DELTA), accuracy(model)
    (theirs, their_accuracy), (ours, our_accuracy) = found.values()
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert min(their_accuracy, our_accuracy) > 0.65
    assert abs(their_accuracy - our_accuracy) < 0.15


def test_a_target_epsilon_is_kept_with_less_noise_than_by_renyi_accounting():
    asked = {"target_epsilon": 3.0, "target_delta": DELTA, "epochs": EPOCHS}
    engines = opacus.PrivacyEngine(accountant="rdp"), PrivacyEngine()
    theirs, ours = (
        engine.make_private_with_epsilon(**pieces(), **asked, **seed)
        for engine, seed in zip(engines, ({}, {"seed": 1}), strict=True)
    )
    assert ours[1].noise_multiplier < theirs[1].noise_multiplier
    assert accuracy(trained(*ours)) > 0.6
    assert 2.999 < engines[1].get_epsilon(DELTA) <= 3
    with pytest.raises(TrainingError, match="leaves none for more"):
        trained(*ours, epochs=1)


def test_the_exact_epsilon_is_below_the_renyi_one_at_any_delta():
    engine, twin = PrivacyEngine(), PrivacyEngine(accountant="rdp")
    assert engine.get_epsilon(DELTA) == 0
    for each in (engine, twin):
        trained(*each.make_private(**pieces(noise_multiplier=1.0), seed=1, target_delta=DELTA))
    assert engine.get_epsilon(DELTA) == engine.privacy_spent().epsilon
    for delta in (1e-2, 1e-3, 1e-5):
        assert 0 < engine.get_epsilon(delta) < twin.get_epsilon(delta)


def test_sums_are_divided_by_the_declared_batch_size_whoever_was_drawn():
    """Opacus's loader declares 1 / len(loader), which rounds; here batch_size / n is what runs."""
    rows = DataLoader(TensorDataset(*problem(250)), batch_size=100)
    engine = PrivacyEngine()
    made = engine.make_private(**pieces(loader=rows, noise_multiplier=1.0))
    loader, optimizer = made[3], made[1]
    assert (len(loader), loader.batch_size, loader.sample_rate) == (3, 100, 100 / 250)
    sizes = []
    for x, y in loader:
        if not loader.batch.rehearsal:
            sizes.append(len(x))
        optimizer.zero_grad()
        made[2](made[0](x), y).backward()
        optimizer.step()
    assert len(sizes) == 3
    assert len(set(sizes)) > 1  # Poisson samples
    assert engine.privacy_spent().sampling_rate == 0.4
    assert optimizer.expected_batch_size == 100
    theirs = opacus.PrivacyEngine().make_private(**pieces(loader=rows, noise_multiplier=1.0))
    assert theirs[3].sample_rate == 1 / 3


def test_further_passes_add_to_the_plan_and_to_epsilon():
    engine = PrivacyEngine()
    made = engine.make_private(**pieces(noise_multiplier=1.0), target_delta=DELTA)
    trained(*made, epochs=1)
    one = engine.privacy_spent()
    trained(*made, epochs=1)
    two = engine.privacy_spent()
    assert (one.steps, two.steps, one.extended, two.extended) == (8, 16, False, True)
    assert one.epsilon < two.epsilon
    planned = PrivacyEngine()
    trained(*planned.make_private(**pieces(noise_multiplier=1.0), epochs=2, target_delta=DELTA), 2)
    assert planned.privacy_spent().epsilon == two.epsilon
    assert not planned.privacy_spent().extended


def test_rehearsal_batches_come_once_and_step_nothing():
    engine = PrivacyEngine()
    model, optimizer, criterion, loader = engine.make_private(
        **pieces(noise_multiplier=1.0), epochs=2
    )
    rehearsals, steps = [], 0
    for epoch in range(2):
        for x, y in loader:
            before = [p.detach().clone() for p in model.parameters()]
            criterion(model(x), y).backward()
            optimizer.step()
            same = all(map(torch.equal, before, model.parameters()))
            assert loader.batch.rehearsal or same == (not optimizer.stepped)
            steps += optimizer.stepped
            if loader.batch.rehearsal:
                rehearsals.append(epoch)
                assert optimizer.stepped == loader.batch.is_last
    assert steps == 16 == engine.private.done
    assert rehearsals.count(0) > 10  # and around the first step of each epoch
    assert rehearsals.count(1) == 2


def test_a_batch_in_parts_is_stepped_once_as_opacus_memory_manager_has_it():
    for kind, manager in (
        (opacus.PrivacyEngine, TheirManager),
        (PrivacyEngine, BatchMemoryManager),
    ):
        engine = kind(accountant="rdp")
        model, optimizer, criterion, loader = engine.make_private(**pieces(noise_multiplier=1.0))
        with manager(data_loader=loader, max_physical_batch_size=5, optimizer=optimizer) as smaller:
            sizes = []
            for x, y in smaller:
                sizes.append(len(x))
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
        assert max(sizes) <= 5
        assert len(sizes) > 20
        if kind is PrivacyEngine:
            assert engine.private.done == 8
            with pytest.raises(TrainingError, match="keep to one"):
                manager(
                    data_loader=loader, max_physical_batch_size=9, optimizer=optimizer
                ).__enter__()


def test_the_rate_is_steered_under_a_step_or_between_passes():
    engine = PrivacyEngine()
    model, optimizer, criterion, loader = engine.make_private(
        **pieces(noise_multiplier=1.0), epochs=2
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4, gamma=0.5)
    for _ in range(2):
        for x, y in loader:
            criterion(model(x), y).backward()
            optimizer.step()
            if optimizer.stepped:
                scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.5**4
    other = PrivacyEngine()
    model, optimizer, criterion, loader = other.make_private(**pieces(noise_multiplier=1.0))
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)

    def stepping_each_time():
        for x, y in loader:
            criterion(model(x), y).backward()
            optimizer.step()
            scheduler.step()

    with pytest.raises(TrainingError, match=r"put it under: if optimizer\.stepped"):
        stepping_each_time()
    assert other.get_epsilon(DELTA) == 0


def test_losses_add_and_scale_as_numbers_do():
    engine = PrivacyEngine()
    model, optimizer, criterion, loader = engine.make_private(**pieces(noise_multiplier=1.0))
    for x, y in loader:
        loss = criterion(model(x), y)
        twice = (loss + 2 * loss - loss) / 1.0
        assert twice.item() == pytest.approx(2 * loss.item()) == float(twice)
        twice.backward()
        optimizer.step()
    assert engine.private.done == 8


class Texts(Dataset):
    """Words and the next ones, by name."""

    def __len__(self):
        return 64

    def __getitem__(self, row):
        words = (torch.arange(6) + row) % 7
        return {"words": words[:-1], "labels": words[1:]}


def test_dicts_and_flattened_tokens_are_handed_over_as_the_loader_gave_them():
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 7))
    engine = PrivacyEngine()
    made = engine.make_private(
        **pieces(model, DataLoader(Texts(), batch_size=16), noise_multiplier=1.0)
    )
    for batch in made[3]:
        logits = made[0](batch["words"])
        loss = made[2](logits.view(-1, 7), batch["labels"].view(-1), shape=logits.shape)
        assert loss.values.shape == (len(batch["words"]),)
        loss.backward()
        made[1].step()
    assert engine.private.done == 4


def test_a_step_that_failed_after_its_charge_counts():
    engine = PrivacyEngine()
    model, optimizer, criterion, loader = engine.make_private(**pieces(noise_multiplier=1.0))

    def failing():
        for x, y in loader:
            if not loader.batch.rehearsal:
                raise KeyError("of the user's own")
            criterion(model(x), y).backward()
            optimizer.step()

    with pytest.raises(KeyError):
        failing()
    assert engine.private.done == 0
    one = engine.get_epsilon(DELTA)
    assert one > 0
    trained(model, optimizer, criterion, loader, epochs=1)
    assert engine.privacy_spent().charges == 9
    assert engine.get_epsilon(DELTA) > one


def test_a_pass_that_is_left_goes_on_where_it_was():
    engine = PrivacyEngine()
    model, optimizer, criterion, loader = engine.make_private(**pieces(noise_multiplier=1.0))
    for x, y in loader:
        criterion(model(x), y).backward()
        optimizer.step()
        if engine.private.done == 3:
            break
    trained(model, optimizer, criterion, loader, epochs=1)
    assert engine.private.done == 8 == len(loader)
    assert isinstance(engine.private, dpsgd_torch.Private)
