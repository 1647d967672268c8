"""What others raise, in messages of ours: one line, without weights or records."""

import re
import traceback

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_problem import make_trainer, small_model
from torch import nn

from dpsgd_torch import ModelError, RunError
from dpsgd_torch.errors import told
from dpsgd_torch.storage.run_folder import RunFolder

SECRET = torch.tensor([[0.123457, -9.87654e-05], [31.4159, 2.71828e10]])
DIGITS = ("123457", "87654", "31.4159", "314159", "71828")
WAYS_TO_PRINT = {
    "a tensor": str(SECRET),
    "a parameter": str(nn.Parameter(SECRET)),
    "a buffer": str(nn.Buffer(SECRET)),
    "a flat tensor": str(SECRET.flatten()),
    "a list": str(SECRET.tolist()),
    "a flat list": str(SECRET.flatten().tolist()),
    "an array": str(SECRET.numpy()),
    "an array's repr": repr(SECRET.flatten().numpy()),
    "numbers of numpy": str([*map(np.float32, SECRET.flatten().tolist())]),
    "a dictionary": str({"weight": SECRET}),
    "one number": f"the scale is {SECRET[0, 0]:.6f}.",
    "one tiny number": f"{SECRET[0, 1]:.5e}",
    "rows of numbers": " 0.123457 31.4159\n 0.123457 31.4159",
}


@pytest.mark.parametrize("way", WAYS_TO_PRINT)
@pytest.mark.parametrize("around", ["{}", "bad weights {} in layer 3", "first\n{}", "\n {}"])
def test_no_way_to_print_weights_reaches_a_message(way, around):
    message = told(ValueError(around.format(WAYS_TO_PRINT[way])))
    assert message.startswith("ValueError")
    assert "\n" not in message
    assert not [digits for digits in DIGITS if digits in message]


@given(
    st.lists(st.integers(0, 255), min_size=8, max_size=300),
    st.sampled_from(["{}", "{}\n", "row {}"]),
)
def test_a_record_of_whole_numbers_does_not_either(record, around):
    for printed in (str(record), str(tuple(record)), str(np.array(record)), str([record, record])):
        message = told(RuntimeError(around.format(printed)))
        assert ", ".join(map(str, record[:2])) not in message
        assert " ".join(map(str, record[:2])) not in message


@pytest.mark.parametrize("records", [[[17, 21], [3, 40]], [[17]], torch.tensor([17]).numpy()[None]])
def test_a_few_short_records_are_no_shape(records):
    assert told(RuntimeError(f"cannot take {records}")) == "RuntimeError: cannot take …"


@pytest.mark.parametrize("key", [SECRET, nn.Parameter(SECRET), (SECRET, 1)])
def test_a_key_that_is_a_tensor_is_not_printed(key):
    assert told(KeyError(key)) in ("KeyError: …", "KeyError: (…")


@pytest.mark.parametrize(
    "text",
    [
        "mat1 and mat2 shapes cannot be multiplied (2x36 and 64x3)",
        "weight of size [4, 1, 3, 3], expected input[2, 3, 6, 6] to have 1 channels",
        "Target 3 is out of bounds.",
        "expected scalar type Long but found Int",
        "argument 'input' (position 1) must be Tensor, not tuple",
        "torch 2.13.0 has no such operator",
        "[Errno 2] No such file or directory: 'a/b.json'",
    ],
)
def test_shapes_names_and_versions_stay(text):
    assert told(RuntimeError(text)) == f"RuntimeError: {text}"


def test_a_message_is_one_line_of_bounded_length():
    assert told(RuntimeError("a " * 10_000)).endswith("a…")
    assert len(told(RuntimeError("a " * 10_000))) < 200
    assert told(RuntimeError("\n\n first\nsecond")) == "RuntimeError: first"
    assert told(RuntimeError()) == "RuntimeError"


def test_an_exception_that_cannot_be_formatted_is_still_named():
    class Unprintable(Exception):
        def __str__(self):
            raise ZeroDivisionError

    assert told(Unprintable()) == "Unprintable"


class Telling(nn.Module):
    """A model whose forward raises with its weights, or its records, in the exception."""

    def __init__(self, raise_):
        super().__init__()
        self.inner, self.raise_ = nn.Linear(36, 3), raise_

    def forward(self, x):
        self.raise_(self.inner.weight, x)


def by_key(weight, x):
    return {}[weight]


def by_value(weight, x):
    raise ValueError(f"{weight.tolist()} is wrong")


def by_cause(weight, x):
    try:
        by_key(weight, x)
    except KeyError as error:
        raise RuntimeError("no such layer") from error


def by_record(weight, x):
    raise RuntimeError(f"cannot take {x[0]}")


def by_several(weight, x):
    raise ExceptionGroup("several", [ValueError(str(weight)), ValueError(str(x))])


@pytest.mark.parametrize("raise_", [by_key, by_value, by_cause, by_record, by_several])
@pytest.mark.parametrize("where", ["model", "loss"])
def test_a_model_or_loss_that_raises_with_its_weights_does_not_print_them(raise_, where):
    weight = small_model()[4].weight
    told_with = {
        "model": {"model": Telling(raise_)},
        "loss": {"loss": lambda outputs, targets: raise_(weight, outputs)},
    }[where]
    with pytest.raises(ModelError, match=r"Error|Group") as refusal:
        make_trainer(**told_with)
    printed = "".join(traceback.format_exception(refusal.value))
    for text in (str(refusal.value), printed):
        assert not re.search(r"\d\.\d{3}", text)
        assert "tensor([" not in text
        assert "Parameter containing" not in text
    assert f"in {raise_.__name__}" in printed  # where it happened is still shown


def test_a_key_of_random_streams_is_not_printed_where_it_is_damaged(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "private").mkdir()
    for root in ("7f3a9c55q", "7f3a9c55" * 8 + "\n-", ["7f3a9c55"], None):
        folder.write_sealed("private/streams.json", {"root": root})
        with pytest.raises(RunError, match="holds no stream key") as refusal:
            folder.read_root()
        assert "7f3a9c55" not in "".join(traceback.format_exception(refusal.value))
