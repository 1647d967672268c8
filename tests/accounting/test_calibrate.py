"""Target ε → noise: on the safe side, close to the target, and refused when out of reach."""

import math

import pytest

from accountant import (
    BudgetNotReached,
    DiscreteGaussian,
    ExponentialMechanism,
    Gaussian,
    InvalidValue,
    Laplace,
    PldAccountant,
    PoissonSampled,
    RdpAccountant,
    Unreachable,
    calibrate_noise,
    calibrate_sampling_rate,
)

RATE, STEPS = 250 / 60_000, 3600


def constant(rate=RATE, steps=STEPS):
    def events_at(noise):
        event = Gaussian(noise_multiplier=noise)
        return [(PoissonSampled(sampling_rate=rate, event=event), steps)]

    return events_at


def falling_by_half(rate=0.01, steps=20):
    """A linear schedule from scale to scale / 2."""

    def events_at(scale):
        noises = [scale * (1 - 0.5 * step / (steps - 1)) for step in range(steps)]
        return [
            (PoissonSampled(sampling_rate=rate, event=Gaussian(noise_multiplier=noise)), 1)
            for noise in noises
        ]

    return events_at


def rdp(method="rdp"):
    return lambda: RdpAccountant(method=method)


def spent(events, delta, method="rdp"):
    accountant = RdpAccountant()
    accountant.compose_all(events)
    return accountant.epsilon(delta, method).upper


def assert_met(target, delta, events_at, method="rdp"):
    noise = calibrate_noise(target, delta, events_at, accountant=rdp(method))
    reached = spent(events_at(noise), delta, method)
    assert target * (1 - 1e-6) <= reached <= target


@pytest.mark.parametrize("method", ["rdp", "rdp-classic"])
@pytest.mark.parametrize("target", [0.3, 0.9422002, 3.0, 8.0, 50.0, 500.0])
def test_the_answer_costs_the_target_and_never_more(target, method):
    assert_met(target, 1e-5, constant(), method)


@pytest.mark.parametrize(
    ("rate", "steps"), [(1e-6, 10), (1e-4, 1000), (0.1, 512), (0.5, 100), (1.0, 1), (0.01, 10**7)]
)
@pytest.mark.parametrize("target", [0.1, 2.0])
def test_it_does_so_at_every_sampling_rate(rate, steps, target):
    assert_met(target, 1e-6, constant(rate, steps))


@pytest.mark.parametrize("target", [0.02, 0.5, 4.0])
def test_a_linear_schedule_is_scaled_as_a_whole(target):
    assert_met(target, 1e-5, falling_by_half())


def test_the_noise_of_a_known_run_is_found_again():
    noise = calibrate_noise(1.1799006739827, 1e-5, constant(), accountant=rdp("rdp-classic"))
    assert noise == pytest.approx(1.3, rel=1e-6)


def test_an_easy_target_takes_the_least_noise_the_search_allows_and_says_so():
    ends = (
        r"^epsilon = 1e\+09: is not reached: the search for a noise multiplier ends at 0.02, which"
    )
    with pytest.warns(BudgetNotReached, match=ends):
        noise = calibrate_noise(1e9, 1e-5, constant(steps=1))
    assert noise == 0.02


def test_what_a_budget_beyond_reach_costs_is_told_and_then_reached_in_silence():
    with pytest.warns(BudgetNotReached, match=r"costs [\d.]+ at δ = 1e-05; lower") as warned:
        noise = calibrate_noise(1e5, 1e-5, constant())
    told = float(str(warned[0].message).split("costs ")[1].split(" ")[0])
    costs = PldAccountant().compose(*constant()(noise)[0]).epsilon(1e-5).upper
    assert told == pytest.approx(costs, rel=1e-5)
    assert calibrate_noise(told * 0.999, 1e-5, constant()) > noise


def test_a_sampling_rate_that_cannot_be_higher_is_told():
    def run(rate):
        return [(PoissonSampled(sampling_rate=rate, event=Gaussian(noise_multiplier=5.0)), 1)]

    with pytest.warns(BudgetNotReached, match=r"search for a sampling rate ends at 1, which"):
        assert calibrate_sampling_rate(50.0, 1e-5, run) == 1


@pytest.mark.parametrize(
    "release",
    [
        lambda noise: DiscreteGaussian(noise_multiplier=noise),
        lambda noise: Laplace(noise_multiplier=noise),
        lambda noise: ExponentialMechanism(epsilon=1 / noise),
        lambda noise: PoissonSampled(sampling_rate=0.1, event=Laplace(noise_multiplier=noise)),
    ],
)
@pytest.mark.parametrize("target", [1.0, 10.0])
def test_one_release_of_bounded_or_lattice_loss_is_calibrated_at_once(release, target, monkeypatch):
    """It took up to a minute: as many contours as trials, where sums of few terms do."""
    monkeypatch.setattr("accountant.pld.certify.Inversion", None)
    noise = calibrate_noise(target, 1e-5, lambda noise: [(release(noise), 1)])
    reached = PldAccountant().compose(release(noise)).epsilon(1e-5)
    assert target * (1 - 1e-6) <= reached.lower <= reached.upper <= target * (1 + 1e-12)


@pytest.mark.parametrize(
    ("rate", "steps", "target", "delta", "exact"),
    [  # exact: the noise at which the true ε is the target, by contour inversion
        (0.04, 2000, 8.0, 1e-5, 1.2899678072761762),
        (RATE, STEPS, 1.0, 1e-5, 1.1753087616983602),
        (RATE, STEPS, 3.0, 1e-5, 0.7250633778254952),
        (0.1, 512, 1.0, 1e-6, 9.661757281950932),
        (0.01, 1000, 1.0, 1e-6, 1.5626656014483145),
        (0.5, 100, 2.0, 1e-6, 11.262628587112513),
    ],
)
def test_the_noise_is_no_less_than_the_truth_needs_and_not_much_more(
    rate, steps, target, delta, exact
):
    events_at = constant(rate, steps)
    assert exact * (1 - 1e-12) <= calibrate_noise(target, delta, events_at) <= exact * (1 + 1e-6)
    assert exact <= calibrate_noise(target, delta, events_at, accountant=rdp()) <= 1.25 * exact


def test_more_is_asked_of_a_longer_run():
    noises = [calibrate_noise(2.0, 1e-5, constant(0.01, steps)) for steps in (10, 100, 1000)]
    assert noises == sorted(noises)
    assert noises[0] < noises[-1]


def test_a_target_no_noise_reaches_is_refused_with_what_it_would_cost():
    with pytest.raises(Unreachable, match=r"epsilon = 0.001: .* still costs .*; raise epsilon"):
        calibrate_noise(1e-3, 1e-5, constant(1.0, 10**12))


def test_noise_up_to_the_stated_bound_is_found():
    """The docstring promises scales up to 1e5; this run needs one between 65536 and that."""
    noise = calibrate_noise(5.5, 1e-5, constant(1.0, 10**10))
    assert 65_536 < noise < 1e5


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_an_epsilon_outside_its_domain_is_refused(epsilon):
    with pytest.raises(InvalidValue, match=f"epsilon = {epsilon}: must be a number > 0"):
        calibrate_noise(epsilon, 1e-5, constant())


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_a_delta_outside_its_domain_is_refused(delta):
    with pytest.raises(InvalidValue, match=f"delta = {delta}"):
        calibrate_noise(1.0, delta, constant())
