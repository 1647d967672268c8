"""A survey of rows, in pieces: ranges, extremes and what is not finite; and what losses take."""

import math
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as f

from dpsgd_torch import losses
from dpsgd_torch.data.in_memory import InMemory
from dpsgd_torch.data.survey import Survey
from dpsgd_torch.gradients.target_ranges import TargetRange

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8,
          torch.uint8, torch.bool, torch.uint16, torch.complex64]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(50,), (50, 4), (50, 2, 3), (50, 0)])
@pytest.mark.parametrize("piece", [1, 7, 50])
def test_a_survey_in_pieces_says_what_all_rows_at_once_say(dtype, shape, piece):
    drawn = (torch.randn(shape, generator=torch.Generator().manual_seed(0)).abs() * 9).to(dtype)
    if drawn.ndim > 1 and drawn.shape[1] > 1:
        drawn[:, 1] = 1
    odd = dtype.is_floating_point and drawn.numel() > 0
    if odd:
        drawn[13], drawn[20].reshape(-1)[0] = math.nan, -math.inf
    survey = Survey()
    for rows in drawn.split(piece):
        survey.add((rows, torch.zeros(len(rows))))
    column = survey.columns["inputs"]
    flat = torch.view_as_real(drawn) if dtype.is_complex else drawn
    table = flat.double().reshape(50, -1).numpy()
    finite = np.isfinite(table)
    assert column.spoilt == (~finite).any(1).sum() == (2 if odd else 0)
    assert survey.finite == finite.all(1).sum()
    if table.size:
        assert column.first_spoilt == (13 if odd else -1)
        kept = np.where(finite, table, np.nan)
        assert np.array_equal(column.low.double().numpy(), np.nanmin(kept, 0))
        assert np.array_equal(column.high.double().numpy(), np.nanmax(kept, 0))
        for value, row, place in (
            (*column.least, np.nanargmin(kept)),
            (*column.most, np.nanargmax(kept)),
        ):
            assert value == kept.reshape(-1)[place]
            assert row == np.nonzero((kept == value).any(1))[0][0]


LOSSES = [
    (nn.CrossEntropyLoss(), True, -100),
    (nn.CrossEntropyLoss(ignore_index=0), True, 0),
    (nn.NLLLoss(), True, -100),
    (f.cross_entropy, True, -100),
    (losses.causal_lm, True, -100),
    (nn.BCELoss(), False, None),
    (f.binary_cross_entropy, False, None),
]


@pytest.mark.parametrize(("loss", "classes", "ignored"), LOSSES)
def test_losses_that_are_known_say_what_they_take(loss, classes, ignored):
    found = TargetRange.of(loss)
    assert (found.classes, found.ignored) == (classes, ignored)


class Own(nn.CrossEntropyLoss):
    """A kind of its own: what it takes is its own business."""


@pytest.mark.parametrize("loss", [nn.MSELoss(), Own(), lambda o, t: (o - t) ** 2, "nothing"])
def test_of_others_nothing_is_known(loss):
    assert TargetRange.of(loss) is None


def test_a_big_set_is_surveyed_in_no_time_and_in_little_memory():
    data = InMemory(torch.rand(60_000, 784), torch.zeros(60_000, dtype=torch.int64))
    started = time.process_time()
    survey = Survey.of(data)
    assert time.process_time() - started < 1.0
    assert survey.rows == survey.finite == 60_000
