"""Adam corrected for the noise: an unbiased second moment, by the deviation that the plan says."""

import pytest
import torch
from small_problem import make_trainer, sgd, weights
from torch import nn
from torch.optim.lr_scheduler import StepLR

from accountant import InvalidValue
from dpsgd_torch import Privacy
from dpsgd_torch.noise.independent import IndependentGaussian
from dpsgd_torch.optim import AdamBC
from dpsgd_torch.schedules import Linear

SIZE = 20_000


def second_moment(deviations, told, *, gradient=0.0, beta2=0.99) -> float:
    """The mean of v̂ − Φ̂ over many coordinates, noise of one deviation drawn and another told."""
    p = nn.Parameter(torch.zeros(SIZE))
    optimizer = AdamBC([p], lr=1e-3, betas=(0.9, beta2))
    generator = torch.Generator().manual_seed(3)
    for deviation, said in zip(deviations, told, strict=True):
        p.grad = gradient + deviation * torch.randn(SIZE, generator=generator)
        optimizer.noise_deviation = said
        optimizer.step()
    return float(optimizer.second_moment(p).double().mean())


FALLING = [2.0 - 0.03 * step for step in range(40)]


@pytest.mark.parametrize("deviations", [[0.5] * 40, FALLING], ids=["constant", "a schedule"])
def test_the_second_moment_is_unbiased_by_the_steps_own_deviations(deviations):
    assert second_moment(deviations, deviations, gradient=0.3) == pytest.approx(0.09, abs=0.02)


@pytest.mark.parametrize("factor", [2 / 3, 3 / 2])
def test_another_deviation_than_the_noises_is_told_by_the_second_moment(factor):
    told = [factor * deviation for deviation in FALLING]
    assert second_moment(FALLING, told, gradient=0.3) != pytest.approx(0.09, abs=0.2)


def test_the_last_deviation_alone_would_not_do_under_a_schedule():
    assert second_moment(FALLING, [FALLING[-1]] * 40) > 0.3


@pytest.mark.parametrize("decoupled", [False, True])
def test_without_noise_it_is_torchs(decoupled):
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    a, b = (nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(2))
    ours = AdamBC([a], lr=0.1, weight_decay=0.05, decoupled=decoupled)
    theirs = kind([b], lr=0.1, weight_decay=0.05)
    for step in range(20):
        a.grad, b.grad = ((each.detach() - step / 9).sin() for each in (a, b))
        ours.step()
        theirs.step()
    assert torch.allclose(a, b, atol=1e-6)


def test_a_denominator_is_never_below_the_floor():
    p = nn.Parameter(torch.zeros(3))
    optimizer = AdamBC([p], lr=1.0, floor=0.04, eps=0.0)
    optimizer.noise_deviation = 0.5
    p.grad = torch.tensor(
        [0.1, 0.0, 1e-30]
    )  # squares far below Φ, and one that float32 rounds to 0
    optimizer.step()
    assert torch.allclose(-p.detach(), p.grad / (0.2 * 0.5))


def heard(**changes) -> list[float]:
    """The deviation that each step of a run tells its optimizer."""
    trainer = make_trainer(epochs=1, **changes)
    found = []
    for _ in trainer.run():
        found.append(trainer.optimizer.noise_deviation)
    return found


def test_a_run_tells_the_deviation_of_each_step_as_planned():
    noise, clip = Linear(2.0, 1.0, 10), Linear(0.5, 0.3, 10)
    privacy = Privacy(noise_multiplier=noise, delta=1e-3, clip_norm=clip)
    told = heard(privacy=privacy, optimizer=lambda p: AdamBC(p, lr=0.01))
    assert told == pytest.approx([noise.at(k) * clip.at(k) / 12 for k in range(10)])


def test_a_runs_own_noise_has_the_deviation_that_is_told():
    """On a parameter that no example reaches, the gradient is noise alone."""

    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = nn.Linear(36, 3)
            self.idle = nn.Parameter(torch.zeros(SIZE))

        def forward(self, x):
            return self.used(x.flatten(1)) + 0 * self.idle.sum()

    trainer = make_trainer(model=Beside(), epochs=1, optimizer=lambda p: AdamBC(p, lr=0.01))
    moments = []
    for _ in trainer.run():
        moments.append(trainer.optimizer.second_moment(trainer.model.idle).double().mean())
    noise = (1.0 * 0.5 / 12) ** 2
    assert abs(float(moments[-1])) < 0.02 * noise


@pytest.mark.parametrize("schedule", [None, lambda optimizer: StepLR(optimizer, 4)])
def test_it_resumes_bit_for_bit_also_under_a_scheduler(schedule, tmp_path):
    settings = {
        "optimizer": lambda p: AdamBC(p, lr=0.01, weight_decay=0.1, decoupled=True),
        "lr_scheduler": schedule,
        "epochs": 1,
        "privacy": Privacy(noise_multiplier=Linear(2.0, 1.0, 10), delta=1e-3, clip_norm=0.5),
    }
    whole = make_trainer(**settings).fit()
    part = make_trainer(run_dir=tmp_path / "run", **settings)
    for at in part.run():
        if at.step == 8:
            break
    part.close()
    resumed = make_trainer(run_dir=tmp_path / "run", **settings).resume().fit()
    assert torch.equal(weights(whole.model), weights(resumed.model))


class Untold(IndependentGaussian):
    """A kind of noise that does not say its deviation."""

    name = "untold"

    def deviation(self, plan, state=None):
        return None


def test_noise_that_does_not_say_its_deviation_is_refused_and_only_there():
    privacy = Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5, noise=Untold())
    with pytest.raises(InvalidValue, match="does not say its deviation"):
        make_trainer(privacy=privacy, optimizer=lambda p: AdamBC(p, lr=0.01))
    make_trainer(privacy=privacy, optimizer=sgd)


@pytest.mark.parametrize(
    "given", [{"lr": -1}, {"betas": (0.9, 1.0)}, {"floor": 0.0}, {"eps": -1}, {"weight_decay": -1}]
)
def test_settings_without_a_meaning_are_refused(given):
    with pytest.raises(InvalidValue):
        AdamBC([nn.Parameter(torch.zeros(1))], **given)
