"""Data of one's own as nobody should hand it over: tensors, arrays, frames, mappings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.shell import in_one_line

_ROWS = 30


def story(rng: np.random.Generator) -> Callable[[], int]:
    """A trainer made and fitted with odd inputs or odd targets."""
    odd = rng.random() < 0.6
    inputs: Any = _odd(rng) if odd else torch.rand(_ROWS, 4)
    targets: Any = torch.randint(2, (_ROWS,)) if odd or rng.random() < 0.2 else _odd(rng)
    pair: Any = (inputs, targets)
    if rng.random() < 0.1:
        pair = [(inputs,), inputs, (inputs, targets, targets), None, "digits", 7, {}][
            int(rng.integers(7))
        ]

    def work() -> None:
        trainer = Trainer(
            nn.Sequential(nn.Flatten(), nn.Linear(4, 2)),
            nn.CrossEntropyLoss(),
            pair,
            privacy=Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=1.0),
            batch_size=6,
            epochs=0.4,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
            seed=1,
        )
        trainer.fit()

    def told() -> int:
        return in_one_line(work)

    told.given = f"{_brief(inputs)} → {_brief(targets)}"  # type: ignore[attr-defined]
    return told


def _brief(value: Any) -> str:
    return f"{type(value).__name__} {getattr(value, 'dtype', '')} {' '.join(repr(value).split())}"[
        :150
    ]


def _odd(rng: np.random.Generator) -> Any:
    import pandas as pd

    values = rng.normal(size=(_ROWS, 4))
    at = int(rng.integers(_ROWS)), int(rng.integers(4))
    bad = [np.nan, np.inf, -np.inf, 1e308, 0.0, -1.0][int(rng.integers(6))]
    one = values.copy()
    one[at] = bad
    frame = pd.DataFrame(values, columns=list("abcd"))
    words = frame.astype(object)
    words.iat[at] = ["x", None, "", [1], {}, pd.NaT, b"x", 10**400][int(rng.integers(8))]
    kinds: list[Callable[[], Any]] = [
        lambda: one,
        lambda: torch.tensor(one),
        lambda: torch.tensor(one).to(torch.float16),
        lambda: torch.tensor(one).float(),
        lambda: values[: int(rng.integers(_ROWS))],
        lambda: values[:, : int(rng.integers(4))],
        lambda: values.astype(np.complex64),
        lambda: values.astype(str),
        lambda: values.astype(object),
        lambda: values.tolist(),
        lambda: [row[: int(rng.integers(5))] for row in values.tolist()],
        lambda: frame,
        lambda: words,
        lambda: frame.assign(a=pd.Categorical(["x", "y"] * (_ROWS // 2))),
        lambda: frame.assign(a=pd.date_range("2020", periods=_ROWS)),
        lambda: frame.set_index("a"),
        lambda: frame.iloc[::-1],
        lambda: frame.iloc[:0],
        lambda: pd.concat([frame, frame]),
        lambda: pd.concat([frame, frame], axis=1),
        lambda: frame["a"].where(frame["a"] > 0),
        lambda: pd.Series(rng.integers(-1, 3, _ROWS)),
        lambda: pd.Series(["a", "b", None] * (_ROWS // 3)),
        lambda: frame["a"].astype("Int64", errors="ignore"),
        lambda: {"x": values, "y": values[:3]},
        lambda: {"x": values},
        lambda: {},
        lambda: [],
        lambda: None,
        lambda: "digits",
        lambda: 7,
        lambda: torch.tensor(3.0),
        lambda: torch.zeros(0, 4),
        lambda: torch.zeros(_ROWS, 0),
        lambda: torch.zeros(_ROWS, 4, dtype=torch.bool),
        lambda: torch.zeros(_ROWS, 4, dtype=torch.complex64),
        lambda: torch.zeros(_ROWS, 4, dtype=torch.bfloat16),
        lambda: torch.zeros(_ROWS, 4).to_sparse(),
        lambda: torch.zeros(_ROWS, 4, requires_grad=True),
        lambda: torch.zeros(_ROWS, 4, device="meta"),
        lambda: torch.randint(-1, 3, (_ROWS,)),
        lambda: torch.randint(0, 99, (_ROWS,)),
        lambda: torch.randint(0, 2, (_ROWS,), dtype=torch.int32),
        lambda: torch.randint(0, 2, (_ROWS,), dtype=torch.uint8),
        lambda: torch.rand(_ROWS),
        lambda: torch.rand(_ROWS, 2),
        lambda: torch.rand(_ROWS, 2, 3),
        lambda: iter(values),
        lambda: (value for value in values),
        lambda: set(range(_ROWS)),
        lambda: np.ma.masked_invalid(one),
        lambda: memoryview(values),
        lambda: b"digits",
        lambda: np.zeros(_ROWS, [("a", float)]),
    ]
    return kinds[int(rng.integers(len(kinds)))]()
