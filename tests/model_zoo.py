"""Models as their libraries make them: tiny, with random weights, no dropout and no download.

``made(name, rows)`` gives the model, a batch of made-up rows as the model is called with, and a
loss of one value per example. What an extra brings is loaded when it is asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from zoo_layers import (
    CLASSES,
    Attending,
    Bag,
    Raw,
    Recurrent,
    Tied,
    conv1d,
    conv3d,
    encoder,
    mlp,
    shaped,
    transposed,
)

from dpsgd_torch import replace_batchnorm
from dpsgd_torch.tasks.drug_responses.model import log_loss, response_mlp
from dpsgd_torch.tasks.mnist.task import mnist_cnn
from dpsgd_torch.tasks.mnist.torchvision_import import torchvision_datasets

WORDS, LENGTH, WIDTH = 1000, 32, 128
LIBRARIES = {"timm": "timm", "hf": "transformers", "lora": "peft"}  # by a name's beginning

Batch = tuple[Any, torch.Tensor]
Loss = Callable[[Any, torch.Tensor], torch.Tensor]
Case = tuple[nn.Module, Any, torch.Tensor, Loss]

cross_entropy: Loss = nn.CrossEntropyLoss()


def made(name: str, rows: int) -> Case:
    """(model, inputs, targets, loss): the same at every call, and without a weight that is 0."""
    make_model, make_batch, loss = ZOO[name]
    torchvision_datasets()  # before timm or transformers import torchvision, for whichever torch
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make_model()
        for p in model.parameters():
            if p.requires_grad and not p.any():  # biases, and adapters that start as nothing
                nn.init.normal_(p, std=0.05)
        inputs, targets = make_batch(rows)
    return model, inputs, targets, loss


def library_of(name: str) -> str | None:
    """The package that a model needs beyond torch and torchvision."""
    return LIBRARIES.get(name.partition("_")[0])


# Batches: inputs and targets of so many rows.


def images(*shape: int, classes: int = CLASSES) -> Callable[[int], Batch]:
    return lambda rows: (torch.randn(rows, *shape), torch.randint(classes, (rows,)))


def pixel_values(rows: int) -> Batch:
    x, y = images(3, 32, 32)(rows)
    return {"pixel_values": x}, y


def words(entries: int = WORDS, length: int = LENGTH) -> Callable[[int], Batch]:
    return lambda rows: (
        torch.randint(entries, (rows, length)),
        torch.randint(CLASSES, (rows,)),
    )


def sentences(rows: int) -> Batch:
    """Of several lengths, padded to the right, as a tokenizer gives them."""
    ids, y = words()(rows)
    lengths = LENGTH - torch.arange(rows) % (LENGTH // 2)
    mask = (torch.arange(LENGTH) < lengths[:, None]).long()
    return {"input_ids": ids.clamp(min=2) * mask + (1 - mask), "attention_mask": mask}, y


def texts(rows: int) -> Batch:
    """To be continued; padding is not counted."""
    inputs, _ = sentences(rows)
    return inputs, inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)


def table(rows: int) -> Batch:
    return torch.randn(rows, 875), (torch.rand(rows, 206) < 0.1).float()


# Losses over what Hugging Face's models return.


def of_logits(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs.logits, targets, reduction="none")


def of_next_words(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
    logits, wanted = outputs.logits[:, :-1], targets[:, 1:]
    each = functional.cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
    return each.sum(1) / (wanted != -100).sum(1)


# Models.


def resnet18(**more: Any) -> nn.Module:
    import torchvision

    return torchvision.models.resnet18(num_classes=CLASSES, **more)


def frozen_resnet18() -> nn.Module:
    """What a fine-tuner does: statistics as they were learnt, and a new head."""
    model = resnet18().requires_grad_(False)
    for module in model.modules():
        module.train(not isinstance(module, nn.BatchNorm2d))
    return model.fc.requires_grad_(True) and model


def mobilenet_v2() -> nn.Module:
    import torchvision

    return replace_batchnorm(torchvision.models.mobilenet_v2(num_classes=CLASSES, dropout=0.0))


def torchvision_convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    blocks = [CNBlockConfig(32, 64, 1), CNBlockConfig(64, None, 1)]
    return ConvNeXt(blocks, num_classes=CLASSES)


def torchvision_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 4, 2, 4, WIDTH, 2 * WIDTH, num_classes=CLASSES)


def timm_model(name: str, **more: Any) -> nn.Module:
    import timm

    return timm.create_model(name, num_classes=CLASSES, **more)


def timm_vit() -> nn.Module:
    more = {"img_size": 32, "patch_size": 4, "embed_dim": WIDTH, "depth": 2, "num_heads": 4}
    return timm_model("vit_tiny_patch16_224", **more)


def hugging_face(config: str, model: str, **more: Any) -> nn.Module:
    import transformers

    made = getattr(transformers, config)(**more)
    return getattr(transformers, model)(made)


ENCODER = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 2 * WIDTH,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "num_labels": CLASSES,
}
READER = {**ENCODER, "vocab_size": WORDS, "max_position_embeddings": 2 * LENGTH}
DECODER = {
    "vocab_size": WORDS,
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2 * LENGTH,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


def hf_vit() -> nn.Module:
    more = {**ENCODER, "image_size": 32, "patch_size": 4}
    return hugging_face("ViTConfig", "ViTForImageClassification", **more)


def hf_bert() -> nn.Module:
    return hugging_face("BertConfig", "BertForSequenceClassification", **READER)


def hf_roberta() -> nn.Module:
    return hugging_face("RobertaConfig", "RobertaForSequenceClassification", **READER)


def hf_gpt2() -> nn.Module:
    shape = {"vocab_size": WORDS, "n_positions": 2 * LENGTH, "n_embd": WIDTH, "n_layer": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return hugging_face("GPT2Config", "GPT2LMHeadModel", n_head=4, **shape, **NO_DROPOUT, **ends)


def hf_llama() -> nn.Module:
    return hugging_face("LlamaConfig", "LlamaForCausalLM", **DECODER)


def hf_qwen2() -> nn.Module:
    return hugging_face("Qwen2Config", "Qwen2ForCausalLM", tie_word_embeddings=True, **DECODER)


def hf_qwen3() -> nn.Module:
    return hugging_face("Qwen3Config", "Qwen3ForCausalLM", head_dim=32, **DECODER)


def lora(make: Callable[[], nn.Module], *layers: str, **more: Any) -> Callable[[], nn.Module]:
    def adapted() -> nn.Module:
        import peft

        config = peft.LoraConfig(r=8, lora_dropout=0.0, target_modules=[*layers], **more)
        with warnings.catch_warnings():  # peft asks transformers by names that it deprecates
            warnings.simplefilter("ignore", FutureWarning)
            return peft.get_peft_model(make(), config)

    return adapted


def group_norms(channels: int) -> nn.Module:
    return nn.GroupNorm(channels // 16, channels)


photos, series = images(3, 32, 32), images(20, 32)
ZOO: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Batch], Loss]] = {
    "mnist_cnn": (lambda: mnist_cnn(torch.Generator()), images(1, 28, 28), cross_entropy),
    "resnet18_replaced": (lambda: replace_batchnorm(resnet18()), photos, cross_entropy),
    "resnet18": (lambda: resnet18(norm_layer=group_norms), photos, cross_entropy),
    "resnet18_frozen": (frozen_resnet18, photos, cross_entropy),
    "mobilenet_v2": (mobilenet_v2, photos, cross_entropy),
    "convnext": (torchvision_convnext, photos, cross_entropy),
    "vit": (torchvision_vit, photos, cross_entropy),
    "timm_convnext_atto": (lambda: timm_model("convnext_atto"), photos, cross_entropy),
    "timm_resnet10t": (lambda: replace_batchnorm(timm_model("resnet10t")), photos, cross_entropy),
    "timm_vit": (timm_vit, photos, cross_entropy),
    "hf_vit": (hf_vit, pixel_values, of_logits),
    "hf_bert": (hf_bert, sentences, of_logits),
    "hf_roberta": (hf_roberta, sentences, of_logits),
    "hf_gpt2": (hf_gpt2, texts, of_next_words),
    "hf_llama": (hf_llama, texts, of_next_words),
    "hf_qwen2": (hf_qwen2, texts, of_next_words),
    "hf_qwen3": (hf_qwen3, texts, of_next_words),
    "lora_hf_vit": (lora(hf_vit, "q_proj", "v_proj"), pixel_values, of_logits),
    "lora_bert": (lora(hf_bert, "query", "value"), sentences, of_logits),
    "lora_gpt2": (lora(hf_gpt2, "c_attn", fan_in_fan_out=True), texts, of_next_words),
    "lora_llama": (lora(hf_llama, "q_proj", "v_proj"), texts, of_next_words),
    "lstm": (lambda: Recurrent(nn.LSTM), series, cross_entropy),
    "lstm_deep": (
        lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True),
        series,
        cross_entropy,
    ),
    "gru": (lambda: Recurrent(nn.GRU), series, cross_entropy),
    "attention": (
        lambda: Attending(nn.MultiheadAttention(32, 4, batch_first=True)),
        series,
        cross_entropy,
    ),
    "transformer": (lambda: encoder(batch_first=True), series, cross_entropy),
    "transformer_batch_second": (lambda: encoder(batch_first=False), series, cross_entropy),
    "embedding_20k": (lambda: Bag(nn.Embedding(20_000, 64)), words(20_000), cross_entropy),
    "embedding_bag": (lambda: Bag(nn.EmbeddingBag(WORDS, 64)), words(), cross_entropy),
    "mlp_4m": (mlp, table, log_loss),
    "moa": (lambda: response_mlp(torch.Generator(), 875, 206, dropout=0.0), table, log_loss),
    "conv1d": (shaped(conv1d, 4, 32), images(4, 32), cross_entropy),
    "conv3d": (shaped(conv3d, 2, 8, 8, 8), images(2, 8, 8, 8), cross_entropy),
    "conv_transposed": (shaped(transposed, 1, 15, 15), images(1, 15, 15), cross_entropy),
    "tied": (Tied, images(24), cross_entropy),
    "raw": (Raw, images(24), cross_entropy),
}
