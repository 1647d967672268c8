"""What Opacus takes and no guarantee covers is refused by name, before a charge."""

import pytest
import torch
from opacus_loops import DELTA, N, pieces, problem, trained
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from dpsgd_torch import TrainingError
from dpsgd_torch.integrations import PrivacyEngine
from dpsgd_torch.schedules import Step


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"grad_sample_mode": "hooks"}, "grad_sample_mode = hooks: .*pass criterion"),
        ({"criterion": None}, "pass criterion=…, grad_sample_mode='ghost'"),
        ({"poisson_sampling": False}, "poisson_sampling = False: no analysis"),
        ({"clipping": "per_layer"}, "clipping = per_layer: one norm over all"),
        ({"clipping": "adaptive"}, "clipping = adaptive: .*must be paid for"),
        ({"max_grad_norm": [1.0, 2.0]}, r"max_grad_norm = \[1.0, 2.0\]: one norm"),
        ({"noise_generator": torch.Generator()}, "noise_generator = .*pass seed="),
        ({"loss_reduction": "sum"}, "loss_reduction = sum: sums are divided"),
        ({"criterion": nn.CrossEntropyLoss(reduction="sum")}, "reduction = sum: sums are divided"),
        ({"batch_first": False}, "batch_first = False: rows are the first"),
        ({"rand_on_empty": True}, "rand_on_empty = True: an empty batch"),
        ({"target_unclipped_quantile": 0.5}, "target_unclipped_quantile: is none of"),
        ({"module": nn.BatchNorm1d(6)}, "BatchNorm"),
    ],
)
def test_what_has_no_guarantee_is_refused_by_name(changes, told):
    if "module" in changes:
        model = nn.Sequential(nn.Linear(6, 6), changes["module"])
        changes = pieces(model)
    engine = PrivacyEngine()
    with pytest.raises(TrainingError, match=told):
        engine.make_private(**{**pieces(noise_multiplier=1.0), **changes, "noise_multiplier": 1.0})
    assert engine.get_epsilon(DELTA) == 0


def test_streams_samplers_and_loaders_without_a_batch_size_are_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([])

    rows = TensorDataset(*problem())
    weighted = torch.utils.data.WeightedRandomSampler([1.0] * N, N)
    for loader, told in (
        (DataLoader(Stream(), batch_size=4), "IterableDataset|stream"),
        (DataLoader(rows, batch_size=4, sampler=weighted), "Poisson sampling"),
        (DataLoader(rows, batch_size=None), "has no batch_size"),
    ):
        with pytest.raises(TrainingError, match=told):
            PrivacyEngine().make_private(**pieces(loader=loader, noise_multiplier=1.0))


def test_misuse_of_the_engine_is_told():
    with pytest.raises(TrainingError, match=r"accountant = gdp: .*below the truth"):
        PrivacyEngine(accountant="gdp")
    engine = PrivacyEngine(secure_mode=True)
    with pytest.raises(TrainingError, match="call make_private first"):
        engine.privacy_spent()
    made = engine.make_private(**pieces(noise_multiplier=Step(1.0, factor=0.9, every=4)))
    with pytest.raises(TrainingError, match="one engine a run"):
        engine.make_private(**pieces(noise_multiplier=1.0))
    with pytest.raises(TrainingError, match="forgets what was paid"):
        engine.save_checkpoint(path="x", module=made[0])
    with pytest.raises(TrainingError, match="would take a batch twice"):
        made[1].step(lambda: None)
    assert engine.get_epsilon(DELTA) == 0


def test_what_a_loop_may_not_do_is_refused_before_a_charge():
    engine = PrivacyEngine()
    made = engine.make_private(**pieces(noise_multiplier=1.0))
    model, optimizer, criterion, loader = made

    def twice():
        for _ in loader:
            next(iter(loader))

    def bare():
        for x, y in loader:
            criterion(model(x), y).backward()
            optimizer.original_optimizer.step()

    def skipping():
        for _ in loader:
            pass

    def mixing():
        trained(lambda x: model(x - x.mean(0)), optimizer, criterion, loader)

    def reduced():
        for x, y in loader:
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    for loop, told in (
        (twice, "another loop over it is open"),
        (bare, "no noise was added"),
        (skipping, "this batch was skipped"),
        (mixing, "changes with another example"),
        (reduced, "comes after backward"),
    ):
        with pytest.raises(TrainingError, match=told):
            loop()
        model.zero_grad()
    assert engine.get_epsilon(DELTA) == 0
    trained(*made, epochs=1)
    assert engine.private.done == 8
