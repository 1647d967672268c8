"""The node rule of convolutions against float64 autograd, one example at a time."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsgd_torch.gradients.graph.rows import Rows
from dpsgd_torch.gradients.graph.rules import convolution as rule
from dpsgd_torch.gradients.graph.rules.base import NoRule, rule_for
from dpsgd_torch.gradients.parts import Written
from dpsgd_torch.gradients.parts.convolution import Convolution
from dpsgd_torch.gradients.parts.patches import Geometry

SETTINGS = [
    # dims, transposed, channels, outputs, groups, kernel, stride, padding, dilation
    (1, False, 3, 4, 1, 3, 1, 0, 1),
    (1, True, 4, 6, 2, 3, 2, 1, 1),
    (2, False, 1, 16, 1, 8, 2, 3, 1),
    (2, False, 16, 32, 1, 4, 2, 0, 1),
    (2, False, 3, 8, 1, 4, 4, 0, 1),
    (2, False, 6, 6, 6, 3, 1, 1, 1),
    (2, False, 6, 12, 6, 3, 2, 1, 1),
    (2, False, 6, 6, 6, 5, 1, 4, 2),
    (2, False, 8, 12, 1, 1, 1, 0, 1),
    (2, False, 8, 12, 1, 1, 2, 0, 1),
    (2, False, 8, 12, 4, 3, 1, 2, 2),
    (2, False, 24, 24, 1, 3, 1, 1, 1),
    (2, False, 24, 24, 1, 3, 9, 1, 1),
    (2, False, 90, 90, 1, 3, 5, 1, 1),
    (2, False, 80, 8, 1, 13, 9, 6, 1),
    (2, False, 80, 8, 2, 3, 1, 11, 1),
    (2, True, 8, 80, 1, 3, 2, 1, 1),
    (2, True, 4, 6, 2, 3, 2, 1, 1),
    (2, True, 6, 6, 6, 4, 2, 0, 1),
    (3, False, 2, 4, 1, 3, 2, 1, 1),
    (3, True, 2, 4, 2, 2, 2, 0, 1),
]
WIDE = [setting for setting in SETTINGS if max(setting[2:4]) > 64]
EXAMPLES = 3


@dataclasses.dataclass
class Case:
    """A convolution, data, and where the examples are in it."""

    dims: int
    transposed: bool
    channels: int
    outputs: int
    groups: int
    kernel: int | tuple[int, ...]
    stride: int | tuple[int, ...]
    padding: int | tuple[int, ...]
    dilation: int | tuple[int, ...]
    output_padding: int = 0
    size: int = 9
    outer: int = 1
    inner: int = 1
    few: bool = False
    layout: str = "contiguous"
    dtype: torch.dtype = torch.float64

    def __post_init__(self):
        generator = torch.Generator().manual_seed(1)

        def random(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        kernel = self.kernel if isinstance(self.kernel, tuple) else (self.kernel,) * self.dims
        ends = (self.outputs, self.channels)
        first, second = ends[::-1] if self.transposed else ends
        batch = self.outer * EXAMPLES * self.inner
        self.weight = random(first, second // self.groups, *kernel)
        self.bias = random(self.outputs)
        self.x = random(batch, self.channels, *(self.size + d for d in range(self.dims)))
        self.delta = random(*self.y(self.x).shape)
        self.rows = Rows(EXAMPLES, 0, self.outer)

    def y(self, x, weight=None, bias=None):
        weight = self.weight.to(x.dtype) if weight is None else weight
        settings = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        if self.transposed:
            settings["output_padding"] = self.output_padding
        name = f"conv{'_transpose' if self.transposed else ''}{self.dims}d"
        return getattr(F, name)(x, weight, bias, groups=self.groups, **settings)

    def parts(self, wanted=(1, 2)):
        """What the rule says of a pass in ``dtype``."""
        x = laid_out(self.x.to(self.dtype), self.layout)
        weight, bias = (v.to(self.dtype).requires_grad_() for v in (self.weight, self.bias))
        node = self.y(x, weight, bias).grad_fn
        delta = laid_out(self.delta.to(self.dtype), self.layout)
        return rule_for(node.name())(node, delta, wanted, self.rows)

    def alone(self):
        """(examples, *weight), (examples, outputs): autograd of one example after another."""
        found = []
        number = torch.arange(len(self.x)).view(self.outer, EXAMPLES, self.inner)
        for i in range(EXAMPLES):
            own = number[:, i].flatten()
            weight, bias = (v.clone().requires_grad_() for v in (self.weight, self.bias))
            y = self.y(self.x[own], weight, bias)
            found.append(torch.autograd.grad(y, (weight, bias), self.delta[own]))
        return tuple(torch.stack(values) for values in zip(*found, strict=True))

    def sizes(self):
        """What rounding is measured by: the sums of the terms' sizes, however they cancel."""
        sizes = dataclasses.replace(self)
        sizes.x, sizes.delta = self.x.abs(), self.delta.abs()
        return sizes.alone()


def laid_out(values, layout):
    """The same values in other memory."""
    if layout == "channels last":
        return values.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "strided":
        return values.repeat_interleave(2, -1)[..., ::2]
    return values


def assert_right(part, truth, tolerance, sizes=None):
    """Within ``tolerance`` of the largest of ``sizes``, by default the truth's own."""
    factors = torch.tensor([0.3, 0.0, 1.7], dtype=torch.float64)
    sizes = truth.abs() if sizes is None else sizes
    scale = sizes.max() * math.sqrt(truth[0].numel()) + 1e-300
    close = {"rtol": 0, "atol": float(tolerance * scale)}
    of_three = {"rtol": 0, "atol": 3 * close["atol"]}  # rows in a slot, by their weights
    total = torch.ones(truth.shape[1:], dtype=torch.float64)
    error = part.add_to(total, factors, 0.0)
    weighted = torch.einsum("n,n...->...", factors, truth)
    slots, weights = torch.tensor([0, 0, 1]), torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    summed = torch.stack([2 * truth[0] - truth[1], truth[2] / 2])
    together = part.grouped(slots, weights.to(part.written().dtype), 2)
    squared, below = part.squared_norms()

    assert part.count == EXAMPLES
    assert part.shape == truth.shape[1:]
    assert error == 0
    torch.testing.assert_close(part.written().double(), truth, **close)
    torch.testing.assert_close(total - 1, weighted, **close)
    torch.testing.assert_close(together.written().double(), summed, **of_three)
    norms = truth.flatten(1).norm(dim=1)
    assert ((squared.double().sqrt() - norms).abs() <= close["atol"]).all()
    assert (below >= 0).all()
    torch.testing.assert_close(
        together.squared_norms()[0].double().sqrt(), summed.flatten(1).norm(dim=1), **of_three
    )
    wide = part.widened(torch.tensor([2, 0]))
    assert wide.written().dtype == torch.float64
    torch.testing.assert_close(wide.written(), truth[[2, 0]], **close)
    silent = part.silenced(torch.tensor([False, True, False])).written()
    assert not silent[1].any()
    torch.testing.assert_close(silent[0].double(), truth[0], **close)
    twice = part.joined(part).written().double()
    torch.testing.assert_close(twice, 2 * truth, rtol=0, atol=2 * close["atol"])
    flat = part.viewed(torch.Size((truth[0].numel(),)))
    torch.testing.assert_close(flat.written().double(), truth.flatten(1), **close)
    assert part.nbytes() > 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-6)])
@pytest.mark.parametrize("few", [True, False], ids=["written", "held"])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_each_example_as_autograd_has_it_alone(setting, dtype, tolerance, monkeypatch, few):
    monkeypatch.setattr(Convolution, "few", lambda part: few)
    case = Case(*setting, dtype=dtype)

    found = case.parts()

    for part, truth in zip((found[1], found[2]), case.alone(), strict=True):
        assert_right(part, truth, tolerance)


@st.composite
def cases(draw):
    dims, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    several = st.tuples(*[st.integers(1, 3)] * dims)
    stride, dilation, kernel = draw(several), draw(several), draw(several)
    padding = draw(st.tuples(*[st.integers(0, 2)] * dims))
    channels, outputs = (groups * draw(st.integers(1, 3)) for _ in range(2))
    return Case(
        *(dims, draw(st.booleans()), channels, outputs, groups),
        *(kernel, stride, padding, dilation),
        output_padding=min(max(s, d) - 1 for s, d in zip(stride, dilation, strict=True)),
        size=draw(st.integers(7, 9 if dims < 3 else 7)),
        outer=draw(st.integers(1, 2)),
        inner=draw(st.integers(1, 2)),
        few=draw(st.booleans()),
        layout=draw(st.sampled_from(["contiguous", "channels last", "strided"])),
        dtype=draw(st.sampled_from([torch.float64, torch.float32])),
    )


@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_any_convolution_in_any_memory(case):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Convolution, "few", lambda part: case.few)
        found = case.parts()

    tolerance = 1e-9 if case.dtype == torch.float64 else 1e-6
    for part, truth, sizes in zip((found[1], found[2]), case.alone(), case.sizes(), strict=True):
        assert_right(part, truth, tolerance, sizes)


def test_an_expanded_input_is_read_as_it_is():
    case = Case(*SETTINGS[11])
    case.x = case.x[:1, :1].expand(EXAMPLES, 24, -1, -1)

    assert_right(case.parts()[1], case.alone()[0], 1e-9)


def test_a_wrong_stride_is_caught(monkeypatch):
    def wrong(**given):
        return right(**given | {"stride": (1, 1)})

    right = rule.Geometry
    monkeypatch.setattr(rule, "Geometry", wrong)
    case = Case(*SETTINGS[3])

    with pytest.raises(AssertionError):
        assert_right(case.parts()[1], case.alone()[0], 1e-9)


@pytest.mark.parametrize("setting", WIDE, ids=str)
def test_a_sum_in_float32_says_what_rounding_it_made(setting, monkeypatch):
    monkeypatch.setattr(Convolution, "few", lambda part: False)
    case = Case(*setting, size=60, dtype=torch.float32)
    part, factors = case.parts()[1], torch.tensor([0.3, 0.0, 1.7], dtype=torch.float64)
    exact, rounded = (torch.zeros(part.shape, dtype=torch.float64) for _ in range(2))

    assert part.add_to(exact, factors, 0.0) == 0
    said = part.add_to(rounded, factors, 1.0)

    off = (rounded - exact).square().sum()
    assert 0 < off <= said <= 400 * off


def test_a_sum_that_may_not_be_rounded_is_in_float64():
    case = Case(*WIDE[0], size=60, dtype=torch.float32)
    part, factors = case.parts()[1], torch.ones(EXAMPLES, dtype=torch.float64)
    exact, held = (torch.zeros(part.shape, dtype=torch.float64) for _ in range(2))
    part.add_to(exact, factors, 0.0)

    assert part.add_to(held, factors, 1e-9) == 0
    assert torch.equal(held, exact)


def test_norms_are_never_told_too_small_where_terms_cancel():
    case = Case(*SETTINGS[9][:5], 3, 1, 1, 1, size=16, dtype=torch.float32)
    case.x[:, 0] += 1e4
    case.delta -= case.delta.mean((2, 3), keepdim=True)

    squared, below = Convolution(*as_held(case)).squared_norms()
    assert (squared.double() + below.double() >= case.alone()[0].flatten(1).square().sum(1)).all()


def as_held(case):
    geometry = Geometry((3, 3), (1, 1), (1, 1), (1, 1), 1)
    return case.x.float()[:, None], case.delta.float()[:, None], geometry


def test_a_traced_convolution_has_the_same_rule():
    assert rule_for("ConvolutionBackward1") is rule_for("ConvolutionBackward0")
    x, weight = torch.zeros(3, 2, 5), torch.zeros(4, 2, 3, requires_grad=True)
    traced = torch._convolution(x, weight, None, (1,), (0,), (1,), False, (0,), 1, *[False] * 4)

    part = rule_for(traced.grad_fn.name())(traced.grad_fn, traced.detach(), {1}, Rows(3))[1]

    assert part.shape == weight.shape


def test_only_what_is_asked_for():
    case = Case(*SETTINGS[0])

    assert set(case.parts({1})) == {1}
    bias = case.parts({2})
    assert set(bias) == {2}
    assert isinstance(bias[2], Written)


def test_a_parameter_as_input_has_no_rule():
    case = Case(*SETTINGS[0])

    with pytest.raises(NoRule, match="convolves a parameter"):
        case.parts({0})


def test_examples_among_channels_have_no_rule():
    case = Case(*SETTINGS[0])
    case.rows = Rows(EXAMPLES, 1)

    with pytest.raises(NoRule, match="examples in dimension 1"):
        case.parts()
