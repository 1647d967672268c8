"""Gaussian noise: the law in its body and far out, and the grid it is told on."""

import math

import numpy as np
import pytest
from scipy import stats

from dpsgd_torch.mechanisms import gaussian
from dpsgd_torch.mechanisms.gaussian import fill_normal, grid, to_grid

_ALARM = 1e-6


def drawn(count: int, far: float = 6.0, seed: int = 0) -> np.ndarray:
    out = np.empty(count)
    fill_normal(np.random.default_rng(seed), out, far)
    return out


@pytest.mark.parametrize("far", [0.5, 1.5, 3.0, 6.0])
def test_numbers_are_normal_wherever_the_tail_is_drawn_anew(far):
    assert stats.kstest(drawn(200_000, far), "norm").pvalue > _ALARM


@pytest.mark.parametrize("far", [2.0, 3.0])
def test_the_tail_has_its_own_law_on_both_sides(far):
    values = drawn(400_000, far, seed=1)
    for side in (values[values > far], -values[values < -far]):
        expected = len(values) * stats.norm.sf(far)
        assert abs(len(side) - expected) < 5 * math.sqrt(expected)
        law = stats.norm.sf(side) / stats.norm.sf(far)  # uniform, given that it is beyond
        assert stats.kstest(law, "uniform").pvalue > _ALARM


def test_the_same_test_rejects_a_tail_of_another_law():
    rng = np.random.default_rng(2)
    side = 2.0 + rng.exponential(1 / 2.0, size=18_000)  # without Marsaglia's correction
    law = stats.norm.sf(side) / stats.norm.sf(2.0)
    assert stats.kstest(law, "uniform").pvalue < _ALARM


def test_there_is_no_largest_number():
    """Beyond 12 deviations numpy's ziggurat has nothing; what is drawn anew has its due share."""
    rng = np.random.default_rng(3)
    beyond = np.array([gaussian.beyond(rng, 12.0) for _ in range(20_000)])
    assert stats.kstest(stats.norm.sf(beyond) / stats.norm.sf(12.0), "uniform").pvalue > _ALARM
    for threshold in (12.2, 12.4, 12.6):
        share = stats.norm.sf(threshold) / stats.norm.sf(12.0)
        expected = share * len(beyond)
        assert abs((beyond > threshold).sum() - expected) < 5 * math.sqrt(expected) + 1


def test_the_noise_of_a_run_draws_its_far_numbers_anew():
    class Far:
        """A generator of the same large number, and then an honest one."""

        def __init__(self):
            self.rest = np.random.default_rng(5)

        def standard_normal(self, out):
            out[:] = [7.25, -7.25, 5.0]

        def __getattr__(self, name):
            return getattr(self.rest, name)

    out = np.empty(3)
    fill_normal(Far(), out)
    assert out[2] == 5.0
    assert out[0] > 6.0
    assert out[1] < -6.0
    assert abs(out[0]) != 7.25 != abs(out[1])


def test_an_exponential_halves_without_end():
    class Tails:
        """A generator whose coin shows tails 200 times before its first head."""

        def __init__(self):
            self.words = [0] * 6 + [1 << 23]

        def integers(self, bound):
            return self.words.pop(0)

        def random(self):
            return 0.5

    value = gaussian._exponential(Tails())
    assert value == pytest.approx(200 * math.log(2) - math.log1p(-0.25))
    assert value > 53 * math.log(2)  # where 53-bit uniforms end


def test_exponential_numbers_have_their_law():
    rng = np.random.default_rng(4)
    values = [gaussian._exponential(rng) for _ in range(50_000)]
    assert stats.kstest(values, "expon").pvalue > _ALARM


@pytest.mark.parametrize("coordinates", [1, 26_010, 4_200_000])
@pytest.mark.parametrize("scale", [1e-6, 0.5, 1.0, 3.7])
def test_the_grid_moves_a_vector_by_less_than_a_millionth_of_its_scale(scale, coordinates):
    step = grid(scale, coordinates)
    assert math.log2(step) % 1 == 0
    assert 0.25e-6 * scale < step * math.sqrt(coordinates) <= 1e-6 * scale
    assert to_grid(3.3 * step, step) == 3 * step


def test_a_grid_point_has_many_of_the_generators_numbers():
    """The widest layer of the ziggurat is a lattice of 3.65 × 2⁻⁵²: the grid is far coarser."""
    assert grid(1.0, 4_200_000) / (3.6541528853610088 * 2.0**-52) > 2**17


@pytest.mark.parametrize("coordinates", [1, 10**6, 10**9])
@pytest.mark.parametrize("noise", [1e-12, 1.0, 1e3, 1e6, 1e12])
def test_so_it_is_under_noise_of_any_deviation(noise, coordinates):
    """At a noise multiplier of 10⁶ a million coordinates had two numbers a grid point."""
    step = grid(min(noise, 1.0), coordinates, deviation=noise)
    assert step / (3.6541528853610088 * 2.0**-52 * noise) > 1e5
    assert step < 1e-9 * max(noise, 1e3 * min(noise, 1.0))
