"""What a frozen model of the user's says of rows, each row by itself.

* Rows pass in batches of one size, the last one filled up with zeros; nothing is learnt from them.
* Before any, made-up rows pass in several companies: a model whose answer on a row changes with the
  others, or with what passed before (batch statistics, ranges taken over a batch, dropout, state),
  is refused.
* ε does not cover what the model was trained on.
"""

from __future__ import annotations

import functools

import torch

from dpsgd_torch.errors import told
from dpsgd_torch.features.model_files.kinds import read_program
from dpsgd_torch.features.model_files.named import ModelFile
from dpsgd_torch.features.model_files.program import Program, refused

MOST = 8192
"""Values a row: their covariance is as many squared."""

_ROWS = 32  # in a pass, where the file does not say
_SAME = 1e-4  # of a row's norm: rounding, as kernels differ by where a row lies
_LOUD = 1e3  # a row that sets any range taken over a batch


@functools.lru_cache(maxsize=2)
def opened(file: ModelFile, shape: tuple[int, ...]) -> Frozen:
    """The model in a file, for rows of that shape.

    Raises:
        ConfigError: a file that cannot be run, or a model that does not take such rows.
    """
    return Frozen(file.name, read_program(file), shape)


class Frozen:
    """(rows, …) → (rows, values) float32, by a program that has only rows for an input.

    >>> program = Program(lambda rows: rows.mean(dim=(2, 3)))
    >>> Frozen("means", program, (3, 8, 8))(torch.ones(50, 3, 8, 8)).shape
    torch.Size([50, 3])
    """

    def __init__(self, name: str, program: Program, shape: tuple[int, ...]) -> None:
        self.name, self._program = name, program
        takes = program.takes
        if takes is not None:
            fits = len(takes) == 1 + len(shape) and all(
                there in (None, asked) for there, asked in zip(takes[1:], shape, strict=True)
            )
            if not fits:
                there = ", ".join("any" if each is None else str(each) for each in takes[1:])
                raise refused(
                    name,
                    f"takes rows of shape ({there}), and these have {shape}; put what resizes "
                    "them in front of it and export both",
                )
        self._rows = (takes and takes[0]) or _ROWS

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.cat([self._some(each) for each in rows.split(self._rows)])

    def probe(self, rows: torch.Tensor) -> None:
        """Refuse a model that does not take each of (rows, …) made-up rows by itself.

        Raises:
            ConfigError: values that are no numbers, or that hang on other rows.
        """
        own, others = rows[:2], rows[2:]
        alone = torch.cat([self(each[None]) for each in own])
        if not alone.isfinite().all():
            raise refused(self.name, "gives values that are no numbers of a made-up row; see to it")
        loud = _LOUD * (others - others.mean())
        for company in (others, loud, torch.zeros_like(others), 1 - others.flip(0)):
            among = self._among(own, company)
            off = (among - alone).norm(dim=1) / alone.norm(dim=1).clamp_min(1e-12)
            if not (off <= _SAME).all():
                raise refused(
                    self.name,
                    f"what it says of a row changes with the other rows (by {float(off.max()):.2g} "
                    "of its norm), so that one record would move another's features; export it in "
                    "eval mode, or for one row at a time (a batch of 1)",
                )

    def _among(self, own: torch.Tensor, company: torch.Tensor) -> torch.Tensor:
        """Two rows' values, one first and one last of a batch of such company."""
        count = self._rows - 2
        if count < 0:  # one row at a time: only what passed before may matter
            self(company)
            return self(own)
        between = company.repeat(-(-count // len(company)), *[1] * (own.dim() - 1))[:count]
        return self(torch.cat([own[:1], between, own[1:]]))[[0, -1]]

    def _some(self, rows: torch.Tensor) -> torch.Tensor:
        full = torch.zeros(self._rows, *rows.shape[1:])
        full[: len(rows)] = rows
        try:
            with torch.no_grad():
                found = self._program.run(full)
        except Exception as error:  # the model's own, or its runtime's
            raise refused(
                self.name, f"cannot take rows of {tuple(rows.shape[1:])} ({told(error)})"
            ) from None
        if isinstance(found, tuple | list) and len(found) == 1:
            found = found[0]
        if not isinstance(found, torch.Tensor) or found.shape[:1] != full.shape[:1]:
            given = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise refused(self.name, f"gives {given} for {self._rows} rows; export it to give a "
                          "tensor with a row for each")  # fmt: skip
        values = found.detach().flatten(1).float()[: len(rows)]
        if not 1 <= values.shape[1] <= MOST:
            raise refused(
                self.name,
                f"gives {values.shape[1]} values a row; between 1 and {MOST} are taken: add a "
                "pooling layer and export both",
            )
        return values
