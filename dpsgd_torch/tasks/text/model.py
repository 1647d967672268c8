"""Transformers of texts: a small one with random weights, or one from a folder; LoRA on it."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dpsgd_torch.errors import ConfigError, ModelError, told
from dpsgd_torch.tasks.text.knobs import HEAD, TextKnobs
from dpsgd_torch.tasks.text.tokens import BYTES, PAD, START, WORDS


def text_model(knobs: TextKnobs, labels: int, generator: torch.Generator) -> nn.Module:
    """A Hugging Face model whose outputs have ``logits``, its new weights drawn from ``generator``.

    Raises:
        ConfigError, ModelError: a folder that holds no model of that kind, or adapters for layers
            that it lacks.
    """
    with torch.random.fork_rng(devices=[]), _quiet():  # theirs draw from the global generator
        if knobs.model:
            model, new = _from_folder(Path(knobs.model), knobs, labels)
        else:
            model = _small(knobs, labels)
            new = dict(model.named_parameters())
        _draw(new, generator)
        if knobs.lora_rank is None:
            return model
        return _adapted(model, knobs.lora_rank, knobs, generator)


def vocabulary_of(knobs: TextKnobs) -> int:
    """How many tokens the model knows."""
    if not knobs.model:
        return BYTES if knobs.tokens_meant == "bytes" else WORDS
    size = getattr(_config(Path(knobs.model)), "vocab_size", None)
    if not isinstance(size, int):
        raise ModelError(f"model = {knobs.model}: is no model of texts (it has no vocab_size)")
    return size


def refuse_unfit(knobs: TextKnobs, vocabulary: int) -> None:
    """Refuse texts longer, or bytes more, than the model in a folder can take."""
    if not knobs.model:
        return
    longest = getattr(_config(Path(knobs.model)), "max_position_embeddings", None)
    if isinstance(longest, int) and knobs.max_length > longest:
        raise ConfigError(
            f"max_length = {knobs.max_length}: the model takes {longest} tokens at most; lower "
            "--max-length"
        )
    if knobs.tokens_meant == "bytes" and vocabulary < BYTES:
        raise ConfigError(
            f"tokens = bytes: needs a model of {BYTES} tokens, not {vocabulary}; pass another "
            "--model or --tokens words"
        )


def _small(knobs: TextKnobs, labels: int) -> Any:
    import transformers

    width, heads = knobs.hidden_size, knobs.hidden_size // HEAD
    vocabulary = vocabulary_of(knobs)
    if knobs.class_labels:
        shape: dict[str, Any] = {
            "hidden_size": width,
            "intermediate_size": width,
            "num_hidden_layers": knobs.layers,
            "num_attention_heads": heads,
            "max_position_embeddings": knobs.max_length,
            "global_attn_every_n_layers": 1,
            "classifier_pooling": "mean",  # all tokens speak: one of its own learns late of others
            "num_labels": labels,
            "pad_token_id": PAD,
        }
        marks = dict.fromkeys(("bos", "cls", "eos", "sep"), START)
        shape |= {f"{name}_token_id": token for name, token in marks.items()}
        config = transformers.ModernBertConfig(vocab_size=vocabulary, **shape)
        return transformers.ModernBertForSequenceClassification(config)
    shape = {"n_embd": width, "n_inner": 2 * width, "n_layer": knobs.layers, "n_head": heads}
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=vocabulary,
            n_positions=knobs.max_length,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=START,
            eos_token_id=START,
            use_cache=False,
            **shape,
        )
    )


def _from_folder(
    folder: Path, knobs: TextKnobs, labels: int
) -> tuple[Any, dict[str, nn.Parameter]]:
    """The model, and what of it the folder has no weights for: a head for these labels."""
    import transformers

    _config(folder)
    kind: Any = transformers.AutoModelForCausalLM
    more: dict[str, Any] = {}
    if knobs.class_labels:
        kind, more = transformers.AutoModelForSequenceClassification, {"num_labels": labels}
    try:
        model, found = kind.from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **more,
        )
    except Exception as error:  # whatever a damaged folder makes it raise
        raise ModelError(
            f"model = {folder}: cannot be loaded for {knobs.objective} ({told(error)}); name a "
            "folder that save_pretrained wrote"
        ) from error
    if model.config.pad_token_id is None:
        ends = model.config.eos_token_id
        model.config.pad_token_id = ends if isinstance(ends, int) else PAD
    model.config.use_cache = False
    names = {*found["missing_keys"], *(each[0] for each in found["mismatched_keys"])}
    return model, {name: p for name, p in model.named_parameters() if name in names}


def _config(folder: Path) -> Any:
    import transformers

    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"model = {folder}: has no config.json; name a folder that save_pretrained wrote "
            "(nothing is downloaded)"
        )
    try:
        return transformers.AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # whatever a damaged file makes it raise
        raise ModelError(
            f"model = {folder}: its config.json cannot be read ({told(error)}); save it anew"
        ) from error


def _draw(parameters: dict[str, nn.Parameter], generator: torch.Generator) -> None:
    """Normal weights of deviation 1/√(width), zero biases, unit scales of norms, in place."""
    for name, parameter in parameters.items():
        with torch.no_grad():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter.shape[-1] ** -0.5, generator=generator)
            else:
                parameter.fill_(float(name.endswith("weight")))


def _adapted(model: Any, rank: int, knobs: TextKnobs, generator: torch.Generator) -> nn.Module:
    """Low-rank adapters [Hu et al. 2022] on layers of ``model``, whose own weights rest.

    A head for new labels is trained whole.
    """
    import peft
    from transformers.pytorch_utils import Conv1D

    targets = [name.strip() for name in knobs.lora_targets.split(",") if name.strip()]
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules=targets or "all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        task_type="SEQ_CLS" if knobs.class_labels else "CAUSAL_LM",
    )
    try:
        adapted: nn.Module = peft.get_peft_model(model, config)
    except ValueError as error:
        raise ConfigError(
            f"lora_targets = {knobs.lora_targets}: fit no layer of the model ({told(error)}); "
            "leave it empty for all linear ones"
        ) from error
    for name, parameter in adapted.named_parameters():
        if "lora_A" in name:
            nn.init.kaiming_uniform_(parameter, a=math.sqrt(5), generator=generator)
    return adapted


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without their bars and their advice to train what is about to be trained."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # peft asks transformers by names that it deprecates
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
