"""The Rényi curve against its defining integral, by mpmath's quadrature at 45 digits.

At such a precision (1 + x)^α − 1 − αx is simply evaluated: nothing here is shared with the code
under test, neither the lattice nor the series nor the logarithms.
"""

import mpmath
import numpy as np
import pytest

from accountant import rdp_poisson_sampled_gaussian

POINTS = [  # q, σ, α, all off the golden grid
    (1e-8, 1.0, 1.001),
    (1e-8, 0.05, 3.3),
    (1e-8, 200.0, 2000.0),
    (1e-5, 0.2, 1.5),
    (1e-4, 0.9, 2.7),
    (0.001, 0.05, 1.001),
    (0.004, 1.3, 700.5),
    (0.01, 0.5, 23.25),  # q exp((α − 1)/(2σ²)) just below e⁴⁰, and
    (0.01, 0.5, 23.35),  # just above, where a closed form takes over
    (0.02, 3.3, 700.5),
    (0.25, 0.07, 1.001),
    (0.25, 17.0, 5.5),
    (0.3, 200.0, 2000.0),
    (0.999, 0.05, 2000.0),
    (0.999, 200.0, 1.001),
    (0.999, 0.6, 40.25),
]


def divergence(q, sigma, alpha):
    """log(E[(1 + x)^α]) / (α − 1), x = q (exp(z/σ − 1/(2σ²)) − 1), as 1 + E[(1 + x)^α − 1 − αx]."""
    points, log_scale = where_it_matters(q, sigma, alpha)
    with mpmath.workdps(45):
        exact_q, exact_sigma, exact_alpha = map(mpmath.mpf, (q, sigma, alpha))

        def integrand(z):
            x = exact_q * mpmath.expm1(z / exact_sigma - 1 / (2 * exact_sigma**2))
            excess = (1 + x) ** exact_alpha - 1 - exact_alpha * x
            return mpmath.exp(-z * z / 2 - log_scale) * excess

        integral = mpmath.quad(integrand, points, method="gauss-legendre")
        moment = 1 + integral * mpmath.exp(log_scale) / mpmath.sqrt(2 * mpmath.pi)
        return mpmath.log(moment) / (exact_alpha - 1)


def where_it_matters(q, sigma, alpha):
    """Break points around where the integrand is not negligible, and roughly its maximum's log."""
    step = min(1.0, 8 * sigma)
    z = np.arange(-14.0, alpha / sigma + 14.0, step)
    w = (z - 0.5 / sigma) / sigma
    log_ratio = np.log1p(q * np.expm1(np.minimum(w, 700.0))) + np.maximum(w - 700.0, 0.0)
    small = 2 * np.log(alpha * np.abs(log_ratio) + 1e-300)
    size = np.where(alpha * log_ratio > 1, alpha * log_ratio, np.minimum(small, 0.0)) - z * z / 2
    kept = z[size > size.max() - 70]
    return [kept[0] - step, *kept[::2], kept[-1] + step], float(size.max())


@pytest.mark.parametrize(("q", "sigma", "alpha"), POINTS)
def test_the_curve_is_the_defining_integral(q, sigma, alpha):
    truth = divergence(q, sigma, alpha)
    alone = rdp_poisson_sampled_gaussian(q, sigma, alpha)
    among_others = rdp_poisson_sampled_gaussian(q, sigma, [1.001, alpha, 2000.0])[1]
    for value in (alone, among_others):
        assert -1e-15 <= mpmath.mpf(float(value)) / truth - 1 <= 1e-12


@pytest.mark.parametrize(("q", "sigma"), [(0.01, 1.0), (1e-6, 0.3), (0.9, 50.0)])
def test_the_oracle_is_the_binomial_sum_at_a_whole_order(q, sigma):
    alpha = 7
    with mpmath.workdps(45):
        exact_q, exact_sigma = mpmath.mpf(q), mpmath.mpf(sigma)
        terms = (
            mpmath.binomial(alpha, k)
            * (1 - exact_q) ** (alpha - k)
            * exact_q**k
            * mpmath.exp(k * (k - 1) / (2 * exact_sigma**2))
            for k in range(alpha + 1)
        )
        closed_form = mpmath.log(mpmath.fsum(terms)) / (alpha - 1)
        assert abs(divergence(q, sigma, alpha) / closed_form - 1) < 1e-25
