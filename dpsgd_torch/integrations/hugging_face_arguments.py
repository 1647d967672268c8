"""What of Hugging Face's ``TrainingArguments`` a private run cannot keep, refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dpsgd_torch.errors import ConfigError, ModelError
from dpsgd_torch.gradients.losses import Loss
from dpsgd_torch.losses import causal_lm, classification, token_classification

_MEAN = "a clip of each example is Privacy(clip_norm=…); leave it at 1.0"
_BEST = (
    "scores would steer training, outside ε where their rows are private; leave it out, and look "
    "at the checkpoints yourself, or use dpsgd_torch.Trainer(validation=…, early_stopping=…)"
)
_LENGTHS = (
    "a batch is a Poisson sample, in which length has no say; leave it 'random', and pad every row "
    "to one length"
)
# argument: (what it may be, why it can be nothing else)
_KEPT: dict[str, tuple[Any, str]] = {
    "max_grad_norm": (1.0, f"would clip the average of a batch, after its noise; {_MEAN}"),
    "label_smoothing_factor": (0.0, "goes to the loss; pass loss= with it"),
    "fp16": (False, "scales losses by what their batch gave; pass bf16=True, or neither"),
    "n_gpu": ((0, 1), "a batch is drawn in one process; set CUDA_VISIBLE_DEVICES to one device"),
    "world_size": (1, "a batch is drawn in one process; start one, without torchrun"),
    "deepspeed": (None, "shards what is clipped as a whole; leave it out"),
    "fsdp": ((None, False, "", []), "shards what is clipped as a whole; leave it out"),
    "load_best_model_at_end": (False, _BEST),
    "metric_for_best_model": (None, _BEST),
    "auto_find_batch_size": (False, "would change the plan as it runs; set the sizes yourself"),
    "train_sampling_strategy": ("random", _LENGTHS),
    "dataloader_drop_last": (False, "no batch of a Poisson sample is the last; leave it out"),
    "torch_compile": (False, "hides the layers whose examples are told apart; leave it out"),
    "use_liger_kernel": (False, "puts kernels in place whose graph no rule reads; leave it out"),
    "neftune_noise_alpha": (None, "hooks noise of its own into the model; leave it out"),
    "include_num_input_tokens_seen": (
        ("no", False),
        "counts who was drawn, which ε does not cover; leave it out",
    ),
}
_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop")
_SCHEDULERS_BY_SCORE = ("reduce_lr_on_plateau", "greedy")
_MAKERS = {
    "model_init": "makes a model for each trial of a search, and no ε covers it; pass model",
    "compute_loss_func": "is given a whole batch; pass loss=(outputs, targets) → one an example",
}
_LOOP = ("compute_loss", "training_step", "get_batch_samples", "_get_train_sampler")
_LOSSES: tuple[tuple[tuple[str, ...], Loss], ...] = (  # by how names of transformers' models end
    (
        ("ForSequenceClassification", "ForImageClassification", "ForAudioClassification"),
        classification,
    ),
    (("ForTokenClassification", "ForMaskedLM"), token_classification),
    (("ForCausalLM", "LMHeadModel"), causal_lm),
)


def refuse_arguments(args: Any) -> None:
    """Refuse what Poisson batches, the clip or ε have no place for.

    Raises:
        ConfigError: naming it, and what to do.
    """
    for name, (kept, why) in _KEPT.items():
        found = getattr(args, name, None)
        if found is not None and found not in (kept if isinstance(kept, tuple) else (kept,)):
            raise ConfigError(f"{name} = {found}: {why}")
    if (optimizer := _plain(args.optim)) not in _OPTIMIZERS:
        raise ConfigError(
            f"optim = {optimizer}: may step by gradients without noise; choose one of "
            f"{', '.join(_OPTIMIZERS)}, or pass optimizers=(optimizer, None)"
        )
    if _plain(args.lr_scheduler_type).startswith(_SCHEDULERS_BY_SCORE):
        raise ConfigError(f"lr_scheduler_type = {_plain(args.lr_scheduler_type)}: {_BEST}")
    if _plain(args.save_strategy) == "best":
        raise ConfigError(f"save_strategy = best: {_BEST}")
    for name in ("activation_checkpointing", "gradient_checkpointing"):
        how = getattr(args, f"{name}_kwargs", None) or {}
        if getattr(args, name, None) and isinstance(how, Mapping) and how.get("use_reentrant"):
            raise ConfigError(
                f"{name}_kwargs = {{'use_reentrant': True}}: runs backward within backward; pass "
                "False"
            )


def refuse_makers(given: Mapping[str, Any]) -> None:
    """Refuse ways to make a model or a loss that a private run cannot keep.

    Raises:
        ConfigError: naming it.
    """
    for name, why in _MAKERS.items():
        if given.get(name) is not None:
            raise ConfigError(f"{name}: {why}")


def refuse_overridden(kind: type, base: type) -> None:
    """Refuse a subclass's own part of a loop that never runs.

    Raises:
        ConfigError: naming the method.
    """
    for name in _LOOP:
        if getattr(kind, name) is not getattr(base, name):
            raise ConfigError(
                f"{kind.__name__}.{name}: is never called, since batches are Poisson samples and "
                "losses one an example; pass loss=(outputs, targets) → one an example"
            )


def epochs_of(args: Any, units: int) -> float:
    """Passes over so many records or units: ``num_train_epochs``, or of ``max_steps``.

    >>> from types import SimpleNamespace
    >>> epochs_of(SimpleNamespace(max_steps=10, num_train_epochs=3.0, train_batch_size=8,
    ...                           gradient_accumulation_steps=2), 48)
    3.333333333
    """
    if args.max_steps <= 0:
        return float(args.num_train_epochs)
    # not above: a step that is begun counts as one
    return math.floor(args.max_steps * batch_size_of(args) / units * 1e9) / 1e9


def batch_size_of(args: Any) -> int:
    """Expected batch size: per device × accumulation steps, as the optimizer's step is meant."""
    return int(args.train_batch_size * args.gradient_accumulation_steps)


def loss_of(model: Any) -> Loss:
    """The loss of a model of transformers', one value an example; of what adapters are on.

    Raises:
        ModelError: of another kind, whose loss nobody can tell.
    """
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    name, config = type(bare).__name__, getattr(bare, "config", None)
    kind = getattr(config, "problem_type", None)
    ends = next((loss for names, loss in _LOSSES if name.endswith(names)), None)
    whole = getattr(config, "num_labels", 2) == 1
    if ends is None or (ends is classification and (whole or kind not in (None, _SINGLE))):
        raise ModelError(
            f"model = {name}{f' ({kind})' if kind else ''}: which loss it is trained by is not "
            "told; pass loss=(outputs, targets) → one value an example, on outputs.logits"
        )
    return ends


_SINGLE = "single_label_classification"


def _plain(choice: Any) -> str:
    """An enum's value, or the text itself."""
    return str(getattr(choice, "value", choice))
