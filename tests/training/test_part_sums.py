"""Clipped sums in float32 are off by no more than is told, or are taken in float64 instead."""

import pytest
import torch

from dpsgd_torch.gradients.parts import Outer, Written, outer_sums, pieces

WITHIN = 1 / 2048


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clipped(part):
    squared, error = part.squared_norms()
    return 1 / (squared + error).sqrt()


def summed(part, factors, within):
    total = torch.zeros(part.shape, dtype=torch.float64)
    bound = part.add_to(total, factors, within)
    written = part.written().double() if isinstance(part, Written) else None
    truth = torch.zeros_like(total)
    for i, factor in enumerate(factors):
        row = part.a[i].double().mT @ part.b[i].double() if written is None else written[i]
        truth += factor * row
    return bound, float((total - truth).norm()), float(truth.norm())


def large(rows=300, steps=2, p=400, d=400):
    return Outer(drawn(rows, steps, p), drawn(rows, steps, d, seed=1))


def test_a_large_product_is_in_float32_and_off_by_less_than_is_told():
    part = large()
    bound, off, _ = summed(part, clipped(part), WITHIN)
    assert 0 < off <= bound**0.5 <= WITHIN
    assert bound**0.5 <= 20 * off  # ten times, and the probes' own chance


def test_nothing_allowed_is_float64_throughout():
    part = large()
    bound, off, size = summed(part, clipped(part), 0.0)
    assert bound == 0
    assert off <= 1e-13 * size


def test_many_rows_are_added_up_in_float64():
    part = large(rows=9000, steps=1, p=300, d=200)
    bound, off, _ = summed(part, clipped(part), WITHIN)
    assert 0 < off <= bound**0.5 <= WITHIN


def test_large_equal_and_opposite_terms_are_summed_in_float64():
    a, b = drawn(150, 2, 400), drawn(150, 2, 400, seed=1)
    part = Outer(torch.cat([a, -a, drawn(2, 2, 400, seed=2) * 1e-6]), torch.cat([b, b, b[:2]]))
    factors = torch.full((302,), 1000.0, dtype=torch.float64)
    for within in (1e-3, 1e-1):
        bound, off, _ = summed(part, factors, within)
        assert bound == 0
        assert off <= 1e-6


@pytest.mark.parametrize("wrong", [1e-2, float("nan"), float("inf")])
def test_a_float32_product_that_is_wrong_in_one_entry_is_caught(monkeypatch, wrong):
    part = large()
    honest = torch.Tensor.flatten

    def faulty(tensor, *args):
        flat = honest(tensor, *args)
        if flat.dtype == torch.float32 and flat.ndim == 2:
            flat = flat.clone()
            flat[7, 5] += wrong
        return flat

    monkeypatch.setattr(torch.Tensor, "flatten", faulty)
    total = torch.zeros(part.shape, dtype=torch.float64)
    factors = clipped(part)
    assert part.add_to(total, factors, WITHIN) == 0
    monkeypatch.undo()
    truth = torch.zeros_like(total)
    part.add_to(truth, factors, 0.0)
    torch.testing.assert_close(total, truth, rtol=1e-12, atol=1e-12)


def test_products_in_bfloat16_are_caught(monkeypatch):
    part = large()
    factors, truth = clipped(part), torch.zeros(part.shape, dtype=torch.float64)
    part.add_to(truth, factors, 0.0)
    total = torch.zeros_like(truth)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert part.add_to(total, factors, WITHIN) == 0
        inside = part.squared_norms()[0]
    torch.testing.assert_close(total, truth, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(inside, part.squared_norms()[0], rtol=1e-12, atol=0)


def test_norms_of_lower_settings_are_taken_in_float64(monkeypatch):
    part = Outer(drawn(5, 20, 16), drawn(5, 20, 12))
    exact = part.widened(torch.arange(5)).squared_norms()[0]
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    assert not pieces.exact_float32(torch.device("cpu"))
    torch.testing.assert_close(part.squared_norms()[0], exact, rtol=1e-13, atol=0)
    torch.testing.assert_close(part.written(), part.widened(torch.arange(5)).written().float())
    written = Written(drawn(100, 5000))
    assert summed(written, clipped(written), WITHIN)[0] == 0


def test_probes_measure_the_frobenius_norm_of_an_error_and_do_not_change():
    part = large(rows=3, steps=1, p=64, d=128)
    error = drawn(64, 128, seed=8).double() * 1e-3
    found = (part.a.double().flatten(0, 1).T @ part.b.double().flatten(0, 1)) + error
    ones = torch.ones(3, dtype=torch.float64)
    measured = outer_sums._measured(found, part.a, part.b, ones)
    assert measured == pytest.approx(float(error.square().sum()), rel=0.3)
    assert measured == outer_sums._measured(found, part.a, part.b, ones)


def test_an_error_of_rank_one_is_not_missed():
    """Directions a rounding error could favour: one column, all columns, neighbours opposed."""
    part = large(rows=3, steps=1, p=64, d=128)
    truth = part.a.double().flatten(0, 1).T @ part.b.double().flatten(0, 1)
    ones = torch.ones(3, dtype=torch.float64)
    alternate = 1 - 2 * (torch.arange(128) % 2).double()
    for right in (*torch.eye(128, dtype=torch.float64), torch.ones(128).double(), alternate):
        error = torch.outer(drawn(64, seed=8).double(), right)
        measured = outer_sums._measured(truth + error, part.a, part.b, ones)
        assert outer_sums._SAFETY * measured >= float(error.square().sum())


@pytest.mark.parametrize("rows", [32, 120])
def test_written_rows_are_in_float32_where_the_bound_allows(rows):
    part = Written(drawn(rows, 3000))
    bound, off, _ = summed(part, clipped(part), WITHIN)
    assert 0 < off <= bound**0.5 <= WITHIN


def test_written_rows_are_in_float64_where_it_does_not():
    part = Written(drawn(2000, 3000))
    bound, off, size = summed(part, clipped(part), WITHIN)
    assert bound == 0
    assert off <= 1e-13 * size
    small = Written(torch.cat([drawn(40, 3000), torch.full((1, 3000), 1e36)]))
    factors = clipped(small) * 1e-3
    assert summed(small, factors, WITHIN)[0] == 0  # a factor that float32 cannot hold
