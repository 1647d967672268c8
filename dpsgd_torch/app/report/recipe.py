"""What a run made of its released gradients and weights, in words for the statement."""

from __future__ import annotations

from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.optim.averages import average_of
from dpsgd_torch.optim.disk import filter_of


def recipe(config: RunConfig) -> list[str]:
    """Sentences on views, rounding, filter, correction for noise and averaged weights, if any."""
    words: list[str] = []
    if config.views > 1:
        words.append(
            f"Views: of a record that was drawn, the gradients of {config.views} augmented views "
            "were averaged before the clip, so it moved the sum by one clip norm as ever."
        )
    if config.qat:
        words.append(
            "Quantisation-aware: passes rounded weights and activations as int8 does. Ranges come "
            "from the weights, which ε covers, and from inputs made up without the data: no cost."
        )
    if filters := filter_of(config.filter):
        words.append(
            f"Filter: the noisy gradient was {filters.describe()}. It saw what was released and "
            "nothing else: no cost."
        )
    if config.optimizer.endswith("-bc"):
        words.append(
            f"Optimizer: {config.optimizer} took the noise's variance, as planned, off its second "
            "moment; that number is public."
        )
    if average := average_of(config.average):
        words.append(
            f"Weights: model.safetensors, all scores and what is exported are "
            f"{average.describe()} (privacy.json says so, or that training ended before the first "
            "of those steps, and the last iterate stands). Checkpoints hold the last iterate too."
        )
    return words
