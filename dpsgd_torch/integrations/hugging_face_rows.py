"""Rows of a Hugging Face data set as a private run takes them: each collated by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from dpsgd_torch.data.dataset import FromDataset
from dpsgd_torch.errors import DataError

_PADDING = {"attention_mask": 0, "token_type_ids": 0, "special_tokens_mask": 1, "labels": -100}


def rows_of(trainer: Any, pad_to: int | None) -> FromDataset:
    """Training rows, each made by the trainer's collator by itself, from the columns it keeps.

    Raises:
        DataError: there are none, or what is predicted is not told.
    """
    rows, collate = trainer.train_dataset, trainer.data_collator
    if rows is None:
        raise DataError("train_dataset = None: is what is trained on; pass one")
    names = list(trainer.label_names)
    if not names:
        raise DataError(
            "label_names: the model's forward names none; pass TrainingArguments(label_names=[…]), "
            "the keys of what is predicted"
        )
    if hasattr(rows, "column_names") and hasattr(rows, "set_format"):
        rows = trainer._remove_unused_columns(rows, description="training")
    else:
        collate = trainer._get_collator_with_removed_columns(collate, description="training")
    if pad_to is not None:
        config = getattr(trainer.model, "config", None)
        pad = getattr(trainer.processing_class, "pad_token_id", None)
        pad = getattr(config, "pad_token_id", None) if pad is None else pad
        collate = PaddedTo(collate, pad_to, pad or 0)
    return FromDataset(
        rows,
        collate,
        workers=trainer.args.dataloader_num_workers,
        targets=names[0] if len(names) == 1 else names,
    )


@dataclass(frozen=True)
class PaddedTo:
    """A collator whose rows of tokens are padded on the right to one declared length.

    >>> one = PaddedTo(lambda rows: {"input_ids": torch.tensor([rows[0]])}, 4, 7)
    >>> one([[5, 6]])
    {'input_ids': tensor([[5, 6, 7, 7]])}
    """

    collate: Callable[[list[Any]], Any]
    length: int
    pad_token: int

    def __call__(self, items: list[Any]) -> dict[str, Any]:
        """What the collator makes of them, longer; other columns as they are.

        Raises:
            DataError: a row has more tokens.
        """
        made = dict(self.collate(items))
        for name in ("input_ids", *_PADDING):
            tokens = made.get(name)
            if not isinstance(tokens, torch.Tensor) or tokens.ndim != 2:
                continue
            if tokens.shape[1] > self.length:
                raise DataError(
                    f"{name} has {tokens.shape[1]} tokens: must be ≤ pad_to = {self.length}; cut "
                    "texts short before (truncation=True), or raise pad_to"
                )
            value = _PADDING.get(name, self.pad_token)
            made[name] = functional.pad(tokens, (0, self.length - tokens.shape[1]), value=value)
        return made
