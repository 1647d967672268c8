"""Texts as a task: tokens in, a label or the next token out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dpsgd_torch.errors import DataError
from dpsgd_torch.losses import causal_lm, classification
from dpsgd_torch.tasks.task import Pair, Task, accuracy
from dpsgd_torch.tasks.text.docstrings import NOTE, docstring_texts
from dpsgd_torch.tasks.text.files import read_texts
from dpsgd_torch.tasks.text.knobs import TextKnobs
from dpsgd_torch.tasks.text.model import refuse_unfit, text_model, vocabulary_of
from dpsgd_torch.tasks.text.records import Columns, Texts, codes_of
from dpsgd_torch.tasks.text.tokens import Tokenizer, tokenizer_of

_IGNORED = -100  # no target, for the losses
_FIVE = "one {} in five, chosen without looking at the texts, is not trained on: it is tested on"


def text_task(knobs: TextKnobs, data_dir: Path | None) -> Task:
    """Training and test texts at one length; docstrings without a file.

    Raises:
        DataError: texts that cannot be read, by file, row and column.
        ConfigError, ModelError: a model's folder that does not fit.
    """
    folder = Path(knobs.model) if knobs.model else None
    vocabulary = vocabulary_of(knobs)
    refuse_unfit(knobs, vocabulary)
    encode = tokenizer_of(knobs.tokens_meant, knobs.max_length, vocabulary, folder)
    train, test = read_texts(data_dir, _columns(knobs)) if data_dir else (docstring_texts(), None)
    notes = [_note(knobs, train, data_dir, split=test is None)]
    if test is None:
        train, test = train.split()
    labels = _label_names(train, test, knobs)
    text_model(knobs, len(labels), torch.Generator())  # refused, if at all, before a run is begun
    return Task(
        train=_pair(train, labels, encode),
        test=_pair(test, labels, encode),
        make_model=lambda generator: text_model(knobs, len(labels), generator),
        loss=classification if knobs.class_labels else causal_lm,
        metrics={"accuracy": label_accuracy}
        if knobs.class_labels
        else {"token_accuracy": token_accuracy},
        labels=labels,
        input_range=(0.0, float(vocabulary - 1)),
        note=" ".join(notes),
        units={}
        if train.authors is None
        else {"author": torch.from_numpy(codes_of(train.authors))},
    )


def label_accuracy(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
    """1 where the largest of outputs.logits is the target's, else 0."""
    return accuracy(outputs.logits, targets)


def token_accuracy(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
    """How many of an example's next tokens are the likeliest ones, of 1; 0 where there are none.

    >>> class Outputs: logits = torch.eye(3)[None, [1, 0, 2]]
    >>> token_accuracy(Outputs, torch.tensor([[0, 1, 2]]))
    tensor([0.5000])
    """
    wanted = targets[:, 1:]
    counted = wanted != _IGNORED
    right = (outputs.logits[:, :-1].argmax(dim=2) == wanted) & counted
    return right.sum(1) / counted.sum(1).clamp(min=1)


def _columns(knobs: TextKnobs) -> Columns:
    return Columns(
        text=knobs.text_column,
        label=knobs.label_column if knobs.class_labels else None,
        author=knobs.author_column,
        author_required=knobs.author_column != type(knobs).author_column,
    )


def _label_names(train: Texts, test: Texts, knobs: TextKnobs) -> tuple[str, ...]:
    """Numbers in their order, else the alphabet's."""
    if not knobs.class_labels:
        return ()
    names = {*(train.labels or ()), *(test.labels or ())}
    if len(names) < 2:
        raise DataError(
            f"{knobs.label_column} = {min(names)}: is the label of every text; needs two at "
            "least, or --objective language-model"
        )
    numbers = all(name.isdecimal() for name in names)
    return tuple(sorted(names, key=int) if numbers else sorted(names))


def _pair(texts: Texts, labels: tuple[str, ...], encode: Tokenizer) -> Pair:
    inputs = encode(texts.texts)
    if not labels:
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        return inputs, torch.where(mask == 1, ids, _IGNORED)
    assert texts.labels is not None
    number = {name: i for i, name in enumerate(labels)}
    return inputs, torch.tensor([number[label] for label in texts.labels])


def _note(knobs: TextKnobs, texts: Texts, data_dir: Path | None, *, split: bool) -> str:
    notes = [] if data_dir else [NOTE]
    if knobs.class_labels and data_dir:
        notes.append("The labels' names are published as they are.")
    if split:
        who = "text" if texts.authors is None else "author"
        notes.append(f"{_FIVE.format(who).capitalize()}, and its test scores are published.")
    notes.append(f"Of each text the first {knobs.max_length} tokens are read.")
    if knobs.model:
        notes.append("ε does not cover what the model learned before this run.")
    return " ".join(notes)
