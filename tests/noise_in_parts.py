"""Trainings of so many values that each rank draws the noise of its part; and planted faults."""

import contextlib
import dataclasses

import torch
from torch import nn
from torch.utils.data import TensorDataset

from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.data.dataset import FromDataset
from dpsgd_torch.noise.blocks import BLOCKS, BlockGaussian
from dpsgd_torch.training import noise_by_parts
from dpsgd_torch.training.private_optimizer import PrivateOptimizer

PLANTED = {  # what it is refused as
    "σ/√2 on one rank": "GuaranteeBroken",
    "⅔σ on one rank": "GuaranteeBroken",
    "3⁄2σ on one rank": "GuaranteeBroken",
    "σ/√2 on one rank, which does not check": "GuaranteeBroken",
    "a second draw of one rank": "GuaranteeBroken",
    "one part drawn twice, another by nobody": "GuaranteeBroken",
    "a rank that cannot draw": "RunError",
}
FACTORS = {"σ": 0.5**0.5, "⅔": 2 / 3, "3": 3 / 2}


def _nothing(outputs, targets):
    return (outputs * 0).sum(1)


def _noise_alone(world):
    torch.manual_seed(0)
    return Trainer(
        nn.Linear(40_000, 2),
        _nothing,
        (torch.zeros(40, 40_000), torch.zeros(40, 2)),
        privacy=Privacy(noise_multiplier=2.0, delta=1e-3, clip_norm=0.5, noise=BLOCKS),
        batch_size=10,
        epochs=0.25,
        physical_batch_size=8,
        optimizer=lambda p: torch.optim.SGD(p, lr=10.0),
        seed=3,
        world=world,
    )


def drawn(world) -> torch.Tensor:
    """By how much one step of noise alone moved the weights: of deviation 1."""
    trainer = _noise_alone(world)
    before = trainer.model.weight.detach().clone()
    trainer.fit()
    return (before - trainer.model.weight.detach()).flatten().double()


def fitted(world, *, keyed: bool = False):
    """A training with a gradient, after five steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(60, 1100), nn.ReLU(), nn.Linear(1100, 3))
    generator = torch.Generator().manual_seed(1)
    data = torch.rand(120, 60, generator=generator), torch.randint(3, (120,), generator=generator)
    return Trainer(
        model,
        nn.CrossEntropyLoss(),
        FromDataset(TensorDataset(*data), fingerprint="v1") if keyed else data,
        privacy=Privacy(noise_multiplier=0.5, delta=1e-3, clip_norm=0.5, noise=BLOCKS),
        batch_size=24,
        epochs=1,
        physical_batch_size=9,
        optimizer=lambda p: torch.optim.SGD(p, lr=0.2, momentum=0.5),
        seed=11,
        world=world,
    ).fit()


def weights_of(trained) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trained.model.parameters()])


@contextlib.contextmanager
def replaced(owner, name, other):
    before = getattr(owner, name)
    setattr(owner, name, other)
    try:
        yield
    finally:
        setattr(owner, name, before)


def parts(world) -> list[int]:
    """How many values this rank draws the noise of, a number a step."""
    found, released = [], BlockGaussian.released

    def noted(self, sums, places, *others):
        found.append(sum(place.stop - place.start for place in places))
        return released(self, sums, places, *others)

    with replaced(BlockGaussian, "released", noted):
        drawn(world)
    return found


def keys(world) -> list[list[str]]:
    """Generators keyed by sums, a step each: of one training, again, and with others on rank 1."""
    keyed_by, begin = noise_by_parts.keyed_by_parts, PrivateOptimizer.begin
    found = []

    def noted(*given):
        rng = keyed_by(*given)
        found[-1].append(str(rng.bit_generator.state["state"]["state"]))
        return rng

    def narrower(self, plan, rng):
        begin(self, plan, rng)
        self.clip_norm *= 0.5 if world.rank else 1.0

    with replaced(noise_by_parts, "keyed_by_parts", noted):
        for other in (begin, begin, narrower):
            found.append([])
            with replaced(PrivateOptimizer, "begin", other):
                fitted(world, keyed=True)
    return found


def caught(name, world) -> list:
    """How a training with that fault ends on this rank: kind, words, largest move, charges."""
    trainer = _noise_alone(world)
    before = trainer.model.weight.detach().clone()
    kind, message = "", ""
    with contextlib.ExitStack() as planted:
        for fault in _faults(name, world):
            planted.enter_context(replaced(*fault))
        try:
            trainer.fit()
        except Exception as error:
            kind, message = type(error).__name__, str(error)
    moved = float((before - trainer.model.weight.detach()).abs().max())
    return [kind, message, moved, len(trainer.ledger.rows()["charge"])]


def _faults(name, world):
    released, refuse = BlockGaussian.released, BlockGaussian.refuse
    add_noise, exchange = PrivateOptimizer.add_noise, world.exchange

    def less(self, sums, places, params, release, coordinates):
        multiplier = release.plan.noise_multiplier * FACTORS[name[0]]
        plan = dataclasses.replace(release.plan, noise_multiplier=multiplier)
        release = dataclasses.replace(release, plan=plan)
        return released(self, sums, places, params, release, coordinates)

    def of_all(self, found, count, release, coordinates):
        if count == coordinates:
            refuse(self, found, count, release, coordinates)

    def twice(self):
        for total in self.sums:
            total += torch.randn_like(total)
        add_noise(self)

    def elsewhere(what, value=None):
        return exchange(what, [0, 40_001, *value[2:]] if what == "the noise of a step" else value)

    def fails(*given):
        raise MemoryError("no room")

    if "does not check" in name:
        yield BlockGaussian, "refuse", of_all
    if not world.rank:
        return
    if name[0] in FACTORS:
        yield BlockGaussian, "released", less
    elif "second" in name:
        yield PrivateOptimizer, "add_noise", twice
    elif "nobody" in name:
        yield world, "exchange", elsewhere
    else:
        yield BlockGaussian, "released", fails
