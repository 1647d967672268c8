"""The settings of the text task."""

from __future__ import annotations

from dataclasses import dataclass

from dpsgd_torch.tasks.base import Knobs, knob, require

OBJECTIVES = ("classify", "language-model")
TOKENS = ("auto", "words", "bytes")
HEAD = 16  # width of an attention head of the small ones


@dataclass(frozen=True, kw_only=True)
class TextKnobs(Knobs):
    objective: str = knob("classify", "tell a text's label, or its next token", choices=OBJECTIVES)
    text_column: str = knob("text", "column of the texts")
    label_column: str = knob("label", "column of their labels")
    author_column: str = knob(
        "author", "column of their authors, whom --privacy-unit author protects"
    )
    model: str = knob(
        "", "folder of a trained Hugging Face model to go on with; empty: a small new one"
    )
    tokens: str = knob(
        "auto",
        "hashed words, or bytes; auto: the tokenizer in the model's folder, else words to classify "
        "by and bytes to go on with",
        choices=TOKENS,
    )
    max_length: int = knob(24, "tokens of a text that are read, at most", rule="count")
    hidden_size: int = knob(16, "width of the new model, a multiple of 16", rule="count")
    layers: int = knob(1, "of the new model", rule="count")
    lora_rank: int | None = knob(
        None, "train adapters of this rank and a new head alone; none: all weights", rule="count"
    )
    lora_targets: str = knob("", "layers with adapters, as in query,value; empty: all linear ones")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_length > 1, "max_length", self.max_length, "must be > 1")
        require(
            self.hidden_size % HEAD == 0,
            "hidden_size",
            self.hidden_size,
            f"must be a multiple of {HEAD}",
        )
        require(
            self.class_labels or self.tokens != "words",
            "tokens",
            self.tokens,
            "cannot be turned back into text; pass --tokens bytes",
        )
        require(
            self.lora_rank is None or bool(self.model),
            "lora_rank",
            self.lora_rank,
            "adapts a trained model, and a new one has random weights; pass --model FOLDER too",
        )
        require(
            not self.lora_targets or self.lora_rank is not None,
            "lora_targets",
            self.lora_targets,
            "is for adapters; pass --lora-rank too",
        )

    @property
    def class_labels(self) -> bool:
        return self.objective == "classify"

    @property
    def tokens_meant(self) -> str:
        """ "words", "bytes", or "model" for the tokenizer in the model's folder."""
        if self.tokens != "auto":
            return self.tokens
        return "model" if self.model else "words" if self.class_labels else "bytes"
