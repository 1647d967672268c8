"""Tokenizers that learn nothing from private texts: words hashed, bytes, or a model's own.

A vocabulary made from the texts would tell which words are in them, before any noise. So a word
goes to a number that is computed from it alone, and several words may share one.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from dpsgd_torch.errors import DataError, told

PAD, START, SPECIAL = 0, 1, 2  # SPECIAL: how many numbers mean no text
BYTES = 256 + SPECIAL
WORDS = 1024
_WORD = re.compile(r"\w+|[^\w\s]")

Encoded = dict[str, torch.Tensor]
Tokenizer = Callable[[Sequence[str]], Encoded]


def tokenizer_of(tokens: str, max_length: int, vocabulary: int, folder: Path | None) -> Tokenizer:
    """texts → input_ids and attention_mask, each (n, max_length).

    Args:
        tokens: "words", "bytes", or "model" for the tokenizer in ``folder``.
        vocabulary: how many tokens the model knows.

    Raises:
        DataError: a tokenizer that cannot be read.
    """
    if tokens == "model":
        assert folder
        return _own(folder, max_length)
    if tokens == "bytes":
        return lambda texts: padded([_bytes(text, max_length) for text in texts], max_length)
    return lambda texts: padded([_words(t, max_length, vocabulary) for t in texts], max_length)


def padded(rows: Sequence[Sequence[int]], length: int, pad: int = PAD) -> Encoded:
    """Rows of tokens at one length; what is padding is not attended to.

    >>> padded([[1, 7], [1]], 3)["attention_mask"]
    tensor([[1, 1, 0],
            [1, 0, 0]])
    """
    ids = torch.full((len(rows), length), pad)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _bytes(text: str, length: int) -> list[int]:
    """UTF-8.

    >>> _bytes("no", 9)
    [1, 112, 113]
    """
    encoded = text[:length].encode("utf-8", "surrogatepass")
    return [START, *(SPECIAL + byte for byte in encoded[: length - 1])]


def _words(text: str, length: int, vocabulary: int) -> list[int]:
    """Words and signs without case, each by its CRC-32.

    >>> _words("No, no!", 9, 1024)[1] == _words("no", 9, 1024)[1]
    True
    """
    found = _WORD.findall(text.lower(), 0, 40 * length)[: length - 1]
    numbers = vocabulary - SPECIAL
    return [START, *(SPECIAL + zlib.crc32(w.encode(errors="replace")) % numbers for w in found)]


def _own(folder: Path, length: int) -> Tokenizer:
    import transformers

    if not any(folder.glob("tokenizer*")) and not any(folder.glob("vocab*")):
        # where there is none, transformers makes one up that knows no word
        raise DataError(
            f"model = {folder}: has no tokenizer; save one beside it, or pass --tokens bytes"
        )
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # whatever a damaged folder makes it raise
        raise DataError(
            f"model = {folder}: its tokenizer cannot be read ({told(error)}); save it anew, or "
            "pass --tokens bytes"
        ) from error
    pad = next((n for n in (tokenizer.pad_token_id, tokenizer.eos_token_id) if n is not None), 0)

    def encode(texts: Sequence[str]) -> Encoded:
        rows = tokenizer(list(texts), truncation=True, max_length=length)["input_ids"]
        return padded(rows, length, pad)

    return encode
