"""The clipped sum of every layer and trick, against float64 autograd one example at a time."""

import pytest
import torch
from gradient_oracle import engine_sum, error_of_the_clipped_sum
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from dpsgd_torch.layers import WeightNormLinear

EXACT = 5e-6  # in float32, whose rounding is added to norms


def seeded(make, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def images(channels: int = 3, size: int = 8, dims: int = 2, rows: int = 6):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, channels, *(size,) * dims, generator=generator)
    return x, torch.randint(4, (rows,), generator=generator)


def rows_of(width: int = 12, rows: int = 6):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, width, generator=generator)
    return x, torch.randint(4, (rows,), generator=generator)


def words(rows: int = 6, length: int = 5, vocabulary: int = 7):
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(vocabulary, (rows, length), generator=generator)
    return x, torch.randint(4, (rows,), generator=generator)


IN_PLACE = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky": lambda: nn.LeakyReLU(0.1, inplace=True),
    "dropout": lambda: nn.Dropout(0.0, inplace=True),
    "hardtanh": lambda: nn.Hardtanh(-0.1, 0.1, inplace=True),
    "function": lambda: Function(lambda x: x.mul_(torch.sigmoid(x.detach()))),
    "masked": lambda: Function(lambda x: x.masked_fill_(x < 0, 0.0)),
}


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize("kind", ["graph", "opacus"])
@pytest.mark.parametrize("first", ["linear", "layer_norm", "weight_norm"])
@pytest.mark.parametrize("in_place", IN_PLACE)
def test_an_operation_in_place_after_a_layer_changes_no_gradient(first, in_place, kind):
    layers = {
        "linear": lambda: nn.Linear(12, 12),
        "layer_norm": lambda: nn.LayerNorm(12),
        "weight_norm": lambda: WeightNormLinear(12, 12),
    }
    model = seeded(
        lambda: nn.Sequential(
            nn.Linear(12, 12),
            nn.Tanh(),
            layers[first](),
            IN_PLACE[in_place](),
            nn.Linear(12, 4),
        )
    )
    assert error_of_the_clipped_sum(model, rows_of(), kind) < EXACT


class InPlaceShortcut(nn.Module):
    """A residual block as torchvision's ResNet writes it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.norms = nn.ModuleList([nn.GroupNorm(1, 3), nn.GroupNorm(3, 3)])
        self.last = nn.Linear(3 * 64, 4)

    def forward(self, x):
        x = self.norms[0](self.first(x)).relu_()
        out = self.norms[1](self.second(x))
        out += x
        return self.last(out.relu_().flatten(1))


def test_a_residual_block_in_place_is_right():
    assert error_of_the_clipped_sum(seeded(InPlaceShortcut), images()) < EXACT


def head(width: int) -> list[nn.Module]:
    return [nn.Flatten(), nn.LazyLinear(4)] if width == 0 else [nn.Flatten(), nn.Linear(width, 4)]


def convolution(make, data) -> nn.Module:
    model = seeded(lambda: nn.Sequential(make(), nn.Tanh(), *head(0)))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model(data[0])
    return model


PADDING = ["zeros", "reflect", "replicate", "circular"]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("mode", PADDING)
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("kernel", [3, 2])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"padding": 1},
        {"padding": "same"},
        {"padding": "same", "dilation": 2},
        {"padding": 1, "stride": 2},
        {"padding": "valid", "groups": 2},
        {"padding": 1, "dilation": 2, "groups": 4, "bias": False},
    ],
)
def test_every_convolution_is_right(mode, dims, kernel, more):
    kinds = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    data = images(channels=4, size=6, dims=dims, rows=5)
    model = convolution(lambda: kinds[dims](4, 8, kernel, padding_mode=mode, **more), data)
    assert error_of_the_clipped_sum(model, data) < EXACT


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_every_transposed_convolution_is_right(dims):
    kinds = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
    data = images(channels=4, size=4, dims=dims, rows=5)
    model = convolution(lambda: kinds[dims](4, 8, 3, stride=2, padding=1, groups=2), data)
    assert error_of_the_clipped_sum(model, data) < EXACT


@pytest.mark.parametrize("where", ["input", "model", "inside", "slices"])
def test_no_layout_in_memory_changes_a_gradient(where):
    x, y = images()
    inner = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    rearranged = {
        "inside": Function(lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)),
        "slices": Function(lambda x: x.repeat_interleave(2, -1)[..., ::2]),
    }
    model = seeded(
        lambda: nn.Sequential(
            rearranged.get(where, nn.Identity()),
            inner,
            nn.GroupNorm(2, 8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3),
            *head(32),
        )
    )
    if where == "input":
        x = x.to(memory_format=torch.channels_last)
    if where == "model":
        model = model.to(memory_format=torch.channels_last)
    assert error_of_the_clipped_sum(model, (x, y)) < EXACT


def test_an_expanded_input_is_right():
    x, y = images(channels=1)
    model = seeded(
        lambda: nn.Sequential(
            Function(lambda x: x.expand(-1, 3, 8, 8)), nn.Conv2d(3, 4, 3), *head(144)
        )
    )
    assert error_of_the_clipped_sum(model, (x, y)) < EXACT


@pytest.mark.parametrize("more", [{}, {"padding_idx": 0}, {"padding_idx": -1}, {"sparse": True}])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_embeddings_are_right(more, dtype):
    model = seeded(lambda: nn.Sequential(nn.Embedding(7, 6, **more), *head(30)))
    x, y = words()
    assert error_of_the_clipped_sum(model, (x.to(dtype), y)) < EXACT


@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.GroupNorm(2, 4),
        lambda: nn.InstanceNorm2d(4, affine=True),
        lambda: nn.LayerNorm([4, 6, 6]),
        lambda: nn.LayerNorm(6, bias=False),
        lambda: nn.RMSNorm(6),
        lambda: nn.PReLU(),
        lambda: nn.PReLU(4),
        lambda: weight_norm(nn.Conv2d(4, 4, 1, bias=False)),
        lambda: weight_norm(nn.Linear(6, 6)),
    ],
)
def test_layers_with_few_parameters_are_right(norm):
    data = images(channels=4, size=6)
    model = convolution(lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), norm()), data)
    assert error_of_the_clipped_sum(model, data) < EXACT


class Bilinear(nn.Module):
    """Raw parameters, and two tensors that come in: by place or by name."""

    def __init__(self, by_name: bool):
        super().__init__()
        self.left, self.right = nn.Linear(12, 5), nn.Linear(12, 5)
        self.inner, self.by_name = Inner(), by_name

    def forward(self, x):
        a, b = self.left(x).tanh(), self.right(x).tanh()
        return self.inner(a, other=b) if self.by_name else self.inner(a, b)


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 4))
        self.gate = nn.Parameter(torch.randn(5))

    def forward(self, x, other=None):
        return (x * self.gate + (0 if other is None else other.square())) @ self.weight


@pytest.mark.parametrize("by_name", [False, True])
def test_a_second_tensor_argument_counts(by_name):
    assert error_of_the_clipped_sum(seeded(lambda: Bilinear(by_name)), rows_of()) < EXACT


class Lists(nn.Module):
    """Parameters in a list and a dict beside layers."""

    def __init__(self):
        super().__init__()
        self.scales = nn.ParameterList([torch.randn(12), torch.randn(12)])
        self.shifts = nn.ParameterDict({"last": torch.randn(4)})
        self.layer = nn.Linear(12, 4)

    def forward(self, x):
        return self.layer(x * self.scales[0] + self.scales[1]) + self.shifts["last"]


def test_parameters_in_lists_and_dicts_are_right():
    assert error_of_the_clipped_sum(seeded(Lists), rows_of()) < EXACT


class SharedTwice(nn.Module):
    """One layer under two names and used twice, and one weight in two layers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(12, 12)
        self.again = self.first
        self.tied = nn.Linear(12, 12)
        self.tied.weight = self.first.weight
        self.last = nn.Linear(12, 4)

    def forward(self, x):
        return self.last(self.tied(self.again(self.first(x).tanh()).tanh()).tanh())


def test_shared_layers_and_tied_weights_add_up():
    assert error_of_the_clipped_sum(seeded(SharedTwice), rows_of()) < EXACT


class KeywordOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 4)

    def forward(self, x):
        return self.layer(input=x)


@pytest.mark.parametrize("kind", ["graph", "opacus"])
def test_a_layer_called_by_name_is_right(kind):
    assert error_of_the_clipped_sum(seeded(KeywordOnly), rows_of(), kind) < EXACT


@pytest.mark.parametrize("kind", ["graph", "opacus"])
def test_a_layer_that_a_pass_leaves_out_counts_as_zero(kind):
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.always, self.extra, self.on = nn.Linear(12, 4), nn.Linear(12, 4), True

        def forward(self, x):
            return self.always(x) + (self.extra(x) if self.on else 0)

    model = seeded(Sometimes)
    whole = engine_vector(model, kind)
    model.on = False
    assert float(whole[-52:].norm()) > 0
    assert float(engine_vector(model, kind)[-52:].norm()) == 0


def engine_vector(model, kind):
    return engine_sum(model, rows_of(), kind, 1e9)
