"""Tiny transformers, rows for them, and the trainers that train them."""

import datasets
import peft
import torch
import transformers

from dpsgd_torch import Privacy
from dpsgd_torch.integrations import PrivateTrainer

WORDS, LENGTH, N = 23, 8, 96
PRIVACY = Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5)
SHAPE = {"vocab_size": WORDS, "num_attention_heads": 2, "num_hidden_layers": 1}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def rows(n=N, seed=0):
    """Texts whose label says whether the first word stands in the lower half."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(WORDS, (n, LENGTH), generator=generator)
    words[:, 1:] = (words[:, :1] + torch.arange(1, LENGTH)) % WORDS
    lengths = torch.randint(LENGTH // 2, LENGTH + 1, (n, 1), generator=generator)
    return datasets.Dataset.from_dict(
        {
            "input_ids": words.tolist(),
            "attention_mask": (torch.arange(LENGTH) < lengths).long().tolist(),
            "label": (words[:, 0] < WORDS // 2).long().tolist(),
            "number": list(range(n)),  # of which no model knows
        }
    )


def classifier(**changes):
    config = transformers.BertConfig(
        hidden_size=16,
        intermediate_size=16,
        max_position_embeddings=16,
        num_labels=2,
        **{**SHAPE, **NO_DROPOUT, **changes},
    )
    return seeded(transformers.BertForSequenceClassification, config)


def language_model():
    config = transformers.GPT2Config(
        vocab_size=WORDS, n_positions=16, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, use_cache=False,
    )  # fmt: skip
    return seeded(transformers.GPT2LMHeadModel, config)


def masked_model():
    config = transformers.BertConfig(
        hidden_size=16, intermediate_size=16, max_position_embeddings=16, **SHAPE, **NO_DROPOUT
    )
    return seeded(transformers.BertForMaskedLM, config)


def with_lora(model):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        adapters = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
        return peft.get_peft_model(model, adapters)


def seeded(kind, config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(config)


def next_word(items):
    """A collator for language models: what is predicted are the words themselves."""
    words, mask = (torch.tensor([i[k] for i in items]) for k in ("input_ids", "attention_mask"))
    labels = torch.where(mask == 1, words, -100)
    return {"input_ids": words, "attention_mask": mask, "labels": labels}


def arguments(folder, **changes):
    settings = {
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 2,
        "learning_rate": 0.1,
        "optim": "sgd",
        "lr_scheduler_type": "linear",
        "logging_steps": 3,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        **changes,
    }
    return transformers.TrainingArguments(output_dir=str(folder), **settings)


def trainer(folder, model=None, **changes):
    args = changes.pop("args", None) or arguments(folder)
    settings = {"train_dataset": rows(), "privacy": PRIVACY, "seed": 5, **changes}
    return PrivateTrainer(model=model or classifier(), args=args, **settings)
