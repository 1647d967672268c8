"""Lengths of FFTs, against scipy's; the sums themselves are held by the doctest and by every ε."""

from scipy import fft

from accountant.pld.fourier import fast_length


def test_lengths_are_the_least_that_a_real_fft_takes_in_few_steps():
    lengths = [*range(1, 3000), *range(60_000, 60_300), 2**20, 2**20 + 1]
    assert [fast_length(n) for n in lengths] == [fft.next_fast_len(n, real=True) for n in lengths]
