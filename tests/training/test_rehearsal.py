"""What would fail in a step is refused before anything is charged, in one line."""

import copy

import pytest
import torch
from refused import Made, Words, refused, some_words
from small_problem import make_trainer, small_data, small_model
from torch import nn

from dpsgd_torch import DataError, ModelError, RunError, Validation
from dpsgd_torch.gradients.blame import within_charged_step


@pytest.mark.parametrize("place", [0, 60, 119])
def test_targets_that_count_from_one_are_refused_wherever_they_are(place):
    inputs, targets = small_data()
    targets[place] = 3
    message = refused(
        f"train_tensors: row {place} has a class out of range for CrossEntropyLoss: must be ≥ 0 "
        "and < 3",
        model=small_model(),
        data=(inputs, targets),
        kind=DataError,
    )
    assert "classes count from 0" in message
    assert "nothing was charged" in message


@pytest.mark.parametrize("place", [0, 60, 119])
def test_so_they_are_where_nothing_is_known_of_the_loss(place):
    inputs, targets = small_data()
    targets[place] = 3
    message = refused(
        "loss own: fails .*IndexError",
        model=small_model(),
        data=(inputs, targets),
        loss=own,
    )
    assert "nothing was charged" in message


def own(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def test_a_word_beyond_the_vocabulary_is_refused_wherever_it_is():
    x, y = some_words()
    x[57, 3] = 4
    message = refused(
        r"train_tensors: row 57: has an id outside 0 … 3 in layer words = Embedding",
        model=Words(),
        data=(x, y),
        kind=DataError,
    )
    assert "nothing was charged" in message


class OneHot(nn.Module):
    """Takes a code from a column of floats."""

    def __init__(self):
        super().__init__()
        self.codes, self.layer = nn.Embedding(3, 4), nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(torch.cat([self.codes(x[:, 0].long()), x[:, 1:]], 1))


def test_codes_in_a_column_of_floats_stay_within_their_range():
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(80, 3, generator=generator)
    x[:, 0] = torch.randint(3, (80,), generator=generator).float()
    y = torch.randint(3, (80,), generator=generator)
    assert make_trainer(model=OneHot(), data=(x, y)).fit().done == 20
    x[41, 0] = 3.0
    outside = "row 41: has an id outside 0 … 2 in layer codes = Embedding"
    refused(outside, model=OneHot(), data=(x, y), kind=DataError)


def test_a_batch_of_one_is_tried():
    def squeezed(self, x):
        return self.layer(x).squeeze(0)

    refused("keep the first dimension", squeezed)


@pytest.mark.parametrize(
    ("metric", "match"),
    [
        (lambda outputs, targets: outputs[:, 7], "metric mine over .*IndexError"),
    ],
)
def test_a_metric_that_would_fail_at_an_epochs_end_is_refused(metric, match):
    refused(match, model=small_model(), metrics={"mine": metric}, test_tensors=small_data(30))


def test_test_and_validation_rows_are_tried_with_all_their_targets():
    inputs, targets = small_data(30)
    targets[29] = 5
    refused("loss over .* test rows", model=small_model(), loss=own, test_tensors=(inputs, targets))
    held_out = Validation(tensors=(inputs, targets), noise_multiplier=20.0, score=own)
    refused("score over .* validation rows", model=small_model(), validation=held_out)
    narrow = small_data(30)[0][..., :3, :3], targets % 3
    refused("model over .* test rows", model=small_model(), test_tensors=narrow)


def test_an_optimizer_whose_step_fails_is_refused():
    refused(
        "optimizer SparseAdam: a step on copies",
        model=small_model(),
        optimizer=lambda p: torch.optim.SparseAdam(p),
    )


class Decaying(torch.optim.SGD):
    """Keeps a number of its own beside torch's state."""

    def __init__(self, params):
        super().__init__(params, lr=0.1)
        self.decay, self.steps = 0.9, 0

    def step(self, closure=None):
        self.steps += 1
        for group in self.param_groups:
            group["lr"] *= self.decay
        return super().step(closure)


def test_trying_the_optimizer_changes_neither_it_nor_the_weights():
    model = small_model()
    before = copy.deepcopy(model.state_dict())
    optimizer = Decaying(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    make_trainer(model=model, optimizer=optimizer)
    assert optimizer.steps == 0
    assert not optimizer.state
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert scheduler.get_last_lr() == [0.1]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_physical_batch_size_is_a_bound_and_not_a_size():
    seen = []

    def watching(self, x):
        seen.append(len(x))
        return self.layer(x)

    make_trainer(model=Made(watching), physical_batch_size=20_000)
    assert max(seen) <= 12 + 4 * 4


def test_an_error_inside_a_step_says_that_the_step_is_charged():
    model = Made(lambda self, x: self.layer(x[:, :7]))

    def charged():
        return "its charge stands"

    match = r"step 3: .*in layer layer = Linear .*its charge stands"
    with pytest.raises(RunError, match=match), within_charged_step(model, 3, charged):
        model(torch.zeros(2, 36))
    match = "step 4: layer a: saw 3 rows; its charge stands"
    with pytest.raises(ModelError, match=match), within_charged_step(model, 4, charged):
        raise ModelError("layer a: saw 3 rows")


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("gradients", ["opacus", "graph"])
def test_the_hook_form_of_weight_norm_is_refused_in_one_line_without_weights(gradients):
    model = nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(36, 3)))
    with pytest.raises(ModelError, match=r"layer 1 = Linear: .*parametrizations\.weight_norm") as e:
        make_trainer(model=model, gradients=gradients)
    assert "tensor" not in str(e.value)
    assert "\n" not in str(e.value)
    assert e.value.__cause__ is None


@pytest.mark.parametrize("hooked", [nn.utils.spectral_norm, lambda m: prune(m)])
def test_other_hooks_that_compute_a_weight_are_refused_too(hooked):
    model = nn.Sequential(nn.Flatten(), hooked(nn.Linear(36, 3)))
    with pytest.raises(ModelError, match=r"layer 1 = Linear: .*anew in a hook"):
        make_trainer(model=model)


def prune(layer):
    from torch.nn.utils import prune as pruning

    return pruning.random_unstructured(layer, "weight", 0.3)


def test_an_error_in_the_models_code_is_told_with_the_modules_path():
    class Broken(nn.Module):
        def forward(self, x):
            raise KeyError(x)

    inner = nn.Sequential(nn.Linear(36, 3), Broken())
    model = nn.Sequential(nn.Flatten(), inner)
    with pytest.raises(ModelError, match=r"in layer 1\.1 = Broken \(KeyError: …\)") as caught:
        make_trainer(model=model)
    assert "tensor" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_recurrent_layers_are_advised_against_only_where_there_is_one():
    def wrong_shape(self, x):
        return self.layer(x[:, :9])

    assert "opacus.layers" not in refused("in layer layer = Linear", wrong_shape)
    recurrent = Made(lambda self, x: self.cell(x), cell=nn.GRUCell(36, 3))
    recurrent.layer = nn.Identity()
    told = "layer cell = GRUCell: has no per-example"
    assert "opacus.layers" in refused(told, model=recurrent, gradients="opacus")
    assert make_trainer(model=recurrent).fit().done == 30


@pytest.mark.parametrize("gradients", ["opacus", "graph"])
def test_half_precision_inside_a_model_is_taken_and_clipped_exactly(gradients):
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(36, 20), nn.ReLU(), nn.Linear(20, 3))

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return self.inner(x.flatten(1)).float()

    assert make_trainer(model=Half(), gradients=gradients).fit().done == 30


def test_layers_that_a_pass_leaves_out_at_random_are_taken():
    class Dropped(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(36, 36), nn.Linear(36, 3)

        def forward(self, x):
            x = x.flatten(1)
            return self.last(x + self.first(x) if torch.rand(()) < 0.6 else x)

    for gradients in ("opacus", "graph"):
        assert make_trainer(model=Dropped(), gradients=gradients).fit().done == 30


def test_outputs_that_are_no_tensor_are_told_so():
    refused("loss that takes its outputs apart", lambda self, x: (self.layer(x), x))
    refused("model returned str", lambda self, x: "nothing")
    refused("model returned shape", lambda self, x: (x[:0], x.sum()))
