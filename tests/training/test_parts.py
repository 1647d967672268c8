"""Parts know each example's norm and weighted sums as float64 written out by hand does."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsgd_torch.gradients.parts import (
    Joint,
    Outer,
    Projected,
    Tokens,
    Transposed,
    Written,
    outer,
    outer_norms,
    pieces,
)

SIZES = st.integers(1, 9)
KINDS = ["outer", "written", "tokens", "joint", "turned", "projected"]


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def words(rows, steps, entries, seed=0):
    """Indices of few words, so that some are repeated, and −1 among them."""
    generator = torch.Generator().manual_seed(seed + 99)
    return torch.randint(-1, entries, (rows, steps), generator=generator)


def looked_up(indices, delta, entries):
    table = torch.zeros(len(indices), entries, delta.shape[2], dtype=torch.float64)
    for i, row in enumerate(indices.tolist()):
        for t, word in enumerate(row):
            if word >= 0:
                table[i, word] += delta[i, t].double()
    return table


def multiplied(a, b):
    return torch.einsum("itp,itd->ipd", a.double(), b.double())


def made(kind, rows=5, steps=3, p=6, d=4, seed=0, dtype=torch.float32):
    """A part and what it is, written out in float64."""
    a, b = (
        drawn(rows, steps, p, seed=seed, dtype=dtype),
        drawn(rows, steps, d, seed=seed + 1).to(dtype),
    )
    indices, delta = (
        words(rows, steps + 1, p, seed),
        drawn(rows, steps + 1, d, seed=seed + 2).to(dtype),
    )
    if kind == "outer":
        return Outer(a, b), multiplied(a, b)
    if kind == "projected":
        direction = torch.nn.functional.normalize(drawn(p, d, seed=seed + 3).to(dtype))
        u = b @ direction.T
        along = (a.double() * u.double()).sum(1)
        truth = multiplied(a, b) - along[:, :, None] * direction.double()
        return Projected(Outer(a, b), u, direction), truth
    if kind == "written":
        gradients = drawn(rows, p, d, seed=seed, dtype=dtype)
        return Written(gradients), gradients.double()
    if kind == "tokens":
        return Tokens(indices, delta, p), looked_up(indices, delta, p)
    both = multiplied(a, b) + looked_up(indices, delta, p)
    joint = Joint(Outer(a, b), Tokens(indices, delta, p))
    return (joint, both) if kind == "joint" else (Transposed(joint), both.mT)


def norms(values):
    return values.reshape(len(values), values.shape[1:].numel()).norm(dim=1)


def agrees(part, truth, within=0.0):
    """Norm never below the truth and hardly above; the sum off by no more than is told.

    What was written out is what is clipped and summed: rounding before that is no error of either.
    """
    torch.testing.assert_close(part.written().double(), truth, rtol=1e-5, atol=1e-5)
    truth = part.written().double() if isinstance(part, Written) else truth
    squared, error = part.squared_norms()
    assert part.count == len(truth)
    assert part.shape == truth.shape[1:]
    assert squared.dtype == torch.float64
    told = (squared + error).sqrt()
    assert (told >= norms(truth) * (1 - 1e-7)).all()
    assert (told <= norms(truth) * (1 + 1e-4) + 1e-6).all()
    factors = torch.rand(
        len(truth), dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    factors[::3] = 0
    total = torch.ones(part.shape, dtype=torch.float64)
    bound = part.add_to(total, factors, within)
    off = float((total - 1 - torch.einsum("i,i...->...", factors, truth)).norm())
    assert off <= bound**0.5 + 1e-12 * (1 + float(norms(truth).sum()))
    assert bound**0.5 <= within


@pytest.mark.parametrize("kind", KINDS)
@given(rows=st.integers(0, 6), steps=st.integers(0, 6), p=SIZES, d=SIZES, seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_norms_and_sums_are_those_of_gradients_written_out(kind, rows, steps, p, d, seed):
    for dtype in (torch.float32, torch.float64):
        agrees(*made(kind, rows, steps, p, d, seed, dtype))
        agrees(*made(kind, rows, steps, p, d, seed, dtype), within=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 7, 30])
def test_nothing_depends_on_how_much_is_worked_on_at_once(monkeypatch, kind, size):
    part, truth = made(kind)
    slots = torch.tensor([0, 1, 1, 1, 2])
    grouped = part.grouped(slots, None, 3).written()
    monkeypatch.setattr(pieces, "_IN_CACHE", size)
    agrees(part, truth)
    torch.testing.assert_close(part.grouped(slots, None, 3).written(), grouped)


@pytest.mark.parametrize("steps", [2, 95, 97, 130])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_long_sequences_of_wide_layers_go_by_their_gram_matrices(monkeypatch, steps, dtype):
    a, b = drawn(2, steps, 540).to(dtype), drawn(2, steps, 520, seed=1).to(dtype)
    monkeypatch.setattr(outer_norms, "_by_products", None)
    agrees(Outer(a, b), multiplied(a, b))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 0.5, 2.0, 1.0, -1.0])])
def test_rows_of_one_person_are_added_up_first(kind, weights):
    part, truth = made(kind)
    slots, scale = torch.tensor([0, 1, 1, 1, 2]), torch.ones(5) if weights is None else weights
    expected = torch.zeros(3, *truth.shape[1:], dtype=torch.float64)
    for row, slot in enumerate(slots.tolist()):
        expected[slot] += float(scale[row]) * truth[row]
    # steps differ in number once grouped; float32 sums are what is clipped
    grouped = part.grouped(slots, weights, 3)
    squared, error = grouped.squared_norms()
    assert ((squared + error).sqrt() >= norms(expected) * (1 - 1e-6)).all()
    torch.testing.assert_close((squared + error).sqrt(), norms(expected), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(grouped.written().double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_silenced_row_is_zero_whatever_it_held(kind):
    part, truth = made(kind)
    mask = torch.tensor([False, True, False, False, True])
    agrees(part.silenced(mask), truth.masked_fill(mask[:, None, None], 0.0))
    bad, _ = made("outer")
    spoilt = bad.a.clone()
    spoilt[1] = float("nan")
    assert not torch.isfinite(Outer(spoilt, bad.b).squared_norms()[0][1])
    agrees(
        Outer(spoilt, bad.b).silenced(mask), made("outer")[1].masked_fill(mask[:, None, None], 0)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_some_rows_in_float64_another_shape_and_the_transpose(kind):
    part, truth = made(kind)
    rows = torch.tensor([3, 0])
    wide = part.widened(rows)
    assert wide.written().dtype == torch.float64
    agrees(wide, truth[rows])
    agrees(part.viewed(torch.Size((3, 8))), truth.reshape(5, 3, 8))
    agrees(part.transposed(), truth.mT)
    agrees(part.transposed().transposed(), truth)
    shape = torch.Size(truth.shape[:0:-1])
    agrees(part.viewed(shape).transposed(), truth.reshape(5, *shape).mT)
    assert part.nbytes() > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_parts_of_one_tensor_join(kind, other):
    part, truth = made(kind)
    second, more = made(other, seed=7)
    if "turned" in (kind, other) and kind != other:
        second, more = second.transposed(), more.mT
    agrees(part.joined(second), truth + more)
    agrees(second.transposed().joined(part.transposed()), (truth + more).mT)
    # of one shape, but not of the same factors
    shape, turned = torch.Size(truth.shape[:0:-1]), second.transposed()
    agrees(part.viewed(shape).joined(turned), truth.reshape(5, *shape) + more.mT)
    agrees(turned.joined(part.viewed(shape)), truth.reshape(5, *shape) + more.mT)


def test_a_large_tied_table_is_never_written_out(monkeypatch):
    entries, d = 5000, 16
    a, b, indices, delta = drawn(3, 4, entries), drawn(3, 4, d), words(3, 4, 50), drawn(3, 4, d)
    truth = multiplied(a, b) + looked_up(indices, delta, entries)
    head, table = Outer(a, b), Tokens(indices, delta, entries)
    stored_turned = Outer(b, a).joined(table.transposed())
    monkeypatch.setattr(Outer, "written", None)
    monkeypatch.setattr(Tokens, "written", None)
    for part in (head.joined(table), table.joined(head), stored_turned.transposed()):
        assert isinstance(part, Joint)
        squared, error = part.squared_norms()
        torch.testing.assert_close((squared + error).sqrt(), norms(truth), rtol=1e-5, atol=0)
        total = torch.zeros(entries, d, dtype=torch.float64)
        part.add_to(total, torch.ones(3, dtype=torch.float64), 0.0)
        torch.testing.assert_close(total, truth.sum(0), rtol=1e-9, atol=1e-9)


def test_a_table_that_cancels_its_head_has_a_norm_near_zero():
    a, b = torch.zeros(1, 2, 500), drawn(1, 2, 8)
    a[0, 0, 3] = a[0, 1, 4] = 1
    part = Joint(Outer(a, b), Tokens(torch.tensor([[3, 4]]), -b, 500))
    squared, error = part.squared_norms()
    assert 0 <= float(squared + error) <= 1e-11


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_and_measured_as_float32(dtype):
    a, b, delta = (
        drawn(3, 4, 60, dtype=dtype),
        drawn(3, 4, 50, dtype=dtype),
        drawn(3, 4, 50, dtype=dtype),
    )
    indices = words(3, 4, 60)
    agrees(Outer(a, b), multiplied(a, b))
    agrees(Tokens(indices, delta, 60), looked_up(indices, delta, 60))
    agrees(Written(a), a.double())


def test_expanded_and_permuted_factors():
    a, b = drawn(1, 3, 1).expand(4, 3, 5), drawn(6, 3, 4).permute(2, 1, 0)
    agrees(Outer(a, b), multiplied(a, b), within=1e-3)
    agrees(outer(a, b), multiplied(a, b), within=1e-3)
    agrees(Written(b), b.double(), within=1e-3)


def test_what_is_smaller_written_out_is_written_out():
    assert isinstance(outer(drawn(2, 9, 3), drawn(2, 9, 4)), Written)
    assert isinstance(outer(drawn(2, 2, 30), drawn(2, 2, 40)), Outer)
    grouped = Outer(drawn(9, 1, 3), drawn(9, 1, 4)).grouped(torch.zeros(9).long(), None, 1)
    assert isinstance(grouped, Written)


def test_parameters_of_no_dimension_and_rows_that_are_not_there():
    agrees(Written(drawn(4)), drawn(4).double())
    agrees(Written(drawn(0, 3)), drawn(0, 3).double())
    for kind in KINDS:
        part, truth = made(kind, rows=0)
        agrees(part.grouped(torch.zeros(0, dtype=torch.long), None, 0), truth)


def test_gradients_of_saved_tensors_are_not_tracked():
    part = Outer(drawn(2, 3, 4).requires_grad_(), drawn(2, 3, 5).requires_grad_())
    assert not part.squared_norms()[0].requires_grad


@pytest.mark.parametrize("p", [8, 200])
def test_steps_that_cancel_leave_what_they_leave(p):
    """Opposite terms 1e4 times as large as their sum, by either way to the norm."""
    a, b = drawn(3, 10, p), drawn(3, 10, 150)
    a = torch.cat([a * 1e4, a * -1e4, drawn(3, 1, p, seed=5)], 1)
    b = torch.cat([b, b, drawn(3, 1, 150, seed=6)], 1)
    truth = norms(multiplied(a[:, -1:], b[:, -1:]))
    squared, error = Outer(a, b).squared_norms()
    assert ((squared + error).sqrt() >= truth * (1 - 1e-7)).all()
    assert ((squared + error).sqrt() <= truth * (1 + 1e-3)).all()


@pytest.mark.parametrize("steps", [2, 40, 150])
@pytest.mark.parametrize("value", [0.1, 1e-3, 1e18])
def test_equal_positive_steps_whose_rounding_all_goes_one_way(steps, value):
    a, b = torch.full((2, steps, 100), value), torch.full((2, steps, 30), 0.7)
    squared, error = Outer(a, b).squared_norms()
    truth = norms(multiplied(a, b))
    assert ((squared + error).sqrt() >= truth * (1 - 1e-7)).all()
    assert ((squared + error).sqrt() <= truth * (1 + 1e-4)).all()


def test_a_norm_told_without_its_error_would_be_too_small():
    """The control: float32 products alone do fall short of the norm."""
    a, b = torch.full((1, 150, 100), 0.1), torch.full((1, 150, 30), 0.7)
    short = norms((a.mT @ b).double()) - norms(multiplied(a, b))
    squared, error = outer_norms._by_products(a, b, torch.float32)
    assert abs(float(short)) > 1e-7 * float(squared.sqrt())
    assert float((squared + error).sqrt() - norms(multiplied(a, b))) > 0


def gram_bound(a, b):
    """(what float32 Gram matrices tell, the truth) of squared norms."""
    squared, error = outer_norms._by_grams32(a, b)
    return squared, error, norms(multiplied(a, b)).square()


@given(
    steps=st.integers(1, 9),
    p=st.integers(1, 300),
    d=st.integers(1, 300),
    kind=st.sampled_from(["any", "equal", "opposed", "tiny", "huge"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_gram_matrices_in_float32_are_off_by_no_more_than_they_tell(steps, p, d, kind, seed):
    a, b = drawn(2, steps, p, seed=seed), drawn(2, steps, d, seed=seed + 1)
    if kind == "equal":
        a, b = torch.full_like(a, 0.1), torch.full_like(b, 0.7)
    if kind == "opposed":
        a = torch.cat([a, -a], 1)
        b = torch.cat([b, b + 1e-3], 1)
    if kind in ("tiny", "huge"):
        a = a * {"tiny": 1e-19, "huge": 1e15}[kind]
    squared, error, truth = gram_bound(a, b)
    assert (squared + error >= truth * (1 - 1e-12)).all()
    assert (squared - error <= truth * (1 + 1e-12)).all()
    agrees(Outer(a, b), multiplied(a, b)) if kind != "huge" else None


def test_gram_matrices_in_float32_without_their_bound_would_tell_too_little():
    """The control: equal terms all round one way."""
    a, b = torch.full((1, 3, 128), 0.1), torch.full((1, 3, 128), 0.7)
    squared, error, truth = gram_bound(a, b)
    assert abs(float(squared - truth)) > 1e-8 * float(truth)
    assert float(error) < 1e-3 * float(truth)


@pytest.mark.parametrize("values", [1e-25, 1e-12, 1.0, 1e18, 1e30])
@pytest.mark.parametrize("width", [1, 127, 128, 129, 1000])
def test_squares_in_float32_are_told_with_what_they_lack(values, width):
    rows = drawn(4, width) * values
    rows[3] = 0
    squared, error = pieces.squares(rows)
    truth = rows.double().square().sum(1)
    assert (squared + error >= truth).all()
    torch.testing.assert_close(squared + error, truth, rtol=3e-5, atol=0)
    rows[1, 0] = float("nan")
    assert pieces.squares(rows)[0].isfinite().tolist() == [True, False, True, True]
