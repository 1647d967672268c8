"""Losses on a Hugging Face model's outputs: each example's is what it has alone."""

import pytest
import torch
from small_problem import make_trainer
from torch import nn

from dpsgd_torch import ModelError
from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.losses import causal_lm, classification, token_classification
from dpsgd_torch.tasks.mnist.torchvision_import import torchvision_datasets

torchvision_datasets()  # transformers takes torchvision along, which may fit another torch
transformers = pytest.importorskip("transformers")
N, TOKENS = 6, 7


def small(kind, **changes):
    shape = {
        "vocab_size": 31,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 12,
        "max_position_embeddings": 16,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "num_labels": 3,
        "attn_implementation": "eager",
    }
    torch.manual_seed(0)
    return getattr(transformers, kind)(transformers.BertConfig(**shape, **changes)).double().train()


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=31,
        n_positions=16,
        n_embd=8,
        n_layer=1,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        attn_implementation="eager",
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(config).double().train()


def batch():
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(2, TOKENS + 1, (N, 1), generator=generator)
    inputs = {
        "input_ids": torch.randint(31, (N, TOKENS), generator=generator),
        "attention_mask": (torch.arange(TOKENS) < words).long(),
    }
    labels = torch.randint(3, (N,), generator=generator)
    return inputs, labels, inputs["input_ids"].where(inputs["attention_mask"] > 0, -100)


CASES = {
    "classification": (
        lambda: small("BertForSequenceClassification"),
        classification,
        lambda labels, _: labels,
    ),
    "of each token": (
        lambda: small("BertForTokenClassification"),
        token_classification,
        lambda _, tokens: tokens.where(tokens < 0, tokens % 3),
    ),
    "of masked tokens": (
        lambda: small("BertForMaskedLM"),
        token_classification,
        lambda _, tokens: tokens,
    ),
    "of the next token": (gpt2, causal_lm, lambda _, tokens: tokens),
}


@pytest.mark.parametrize("case", CASES)
def test_each_example_s_loss_and_gradient_are_what_the_model_s_own_are_for_it_alone(case):
    made, loss, wanted = CASES[case]
    model, (inputs, labels, tokens) = made(), batch()
    params, targets = [*model.parameters()], wanted(labels, tokens)
    values = per_example(loss)(model(**inputs), targets)
    assert values.shape == (N,)
    for i in range(N):
        alone = {name: tensor[i : i + 1] for name, tensor in inputs.items()}
        own = model(**alone, labels=targets[i : i + 1]).loss
        assert values[i].item() == pytest.approx(own.item(), rel=1e-6)  # of float32 logits
        found = torch.autograd.grad(values[i], params, retain_graph=True, allow_unused=True)
        true = torch.autograd.grad(own, params, allow_unused=True)
        for a, b in zip(found, true, strict=True):
            assert (a is None) == (b is None)
            assert a is None or torch.allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", [causal_lm, token_classification])
def test_an_example_of_which_no_token_counts_adds_nothing(loss):
    logits = torch.randn(2, 3, 5, requires_grad=True)
    targets = torch.tensor([[-100, -100, -100], [1, 2, 3]])
    values = per_example(loss)({"logits": logits}, targets)
    assert values[0] == 0 < values[1]
    values.sum().backward()
    assert (logits.grad[0] == 0).all()
    assert torch.isfinite(logits.grad).all()


def test_a_model_s_own_mean_over_the_batch_is_refused_with_what_to_use():
    model, (inputs, labels, _) = small("BertForSequenceClassification"), batch()
    outputs = model(**inputs, labels=labels)
    with pytest.raises(ModelError, match=r"one value per example, .* mixes examples") as refusal:
        per_example(lambda given, targets: given.loss)(outputs, labels)
    assert "dpsgd_torch.losses" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_trainer_refuses_it_before_anything_is_charged():
    inputs, labels, _ = batch()
    model = small("BertForSequenceClassification").float()
    with pytest.raises(ModelError, match=r"in place of a model's own outputs\.loss"):
        make_trainer(
            model=model,
            data=({**inputs, "labels": labels}, labels),
            loss=lambda outputs, targets: outputs.loss,
            batch_size=3,
        )


def test_a_torch_loss_on_such_outputs_is_told_which_ones_there_are():
    model, (inputs, labels, _) = small("BertForSequenceClassification"), batch()
    with pytest.raises(ModelError, match=r"SequenceClassifierOutput.*dpsgd_torch\.losses"):
        per_example(nn.CrossEntropyLoss())(model(**inputs), labels)


def test_logits_and_targets_of_other_dimensions_are_refused_by_name():
    for loss, logits, targets in [
        (classification, torch.zeros(2, 3, 4), torch.zeros(2, dtype=torch.int64)),
        (classification, torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64)),
        (causal_lm, torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)),
    ]:
        with pytest.raises(ModelError, match=r"logits of shape .* dpsgd_torch\.losses has"):
            per_example(loss)({"logits": logits}, targets)
    with pytest.raises(ModelError, match="returned dict without logits"):
        per_example(classification)({"scores": torch.zeros(2, 3)}, torch.tensor([0, 1]))


def test_it_trains_from_dicts_without_privacy():
    inputs, labels, _ = batch()
    trainer = make_trainer(
        model=small("BertForSequenceClassification").float(),
        data=(inputs, labels),
        test_tensors=(inputs, labels),
        loss=classification,
        privacy=None,
        batch_size=3,
    ).fit()
    assert trainer.done == trainer.sampling.steps
    assert trainer.history.to_json()["epochs"][-1]["test_loss"] > 0
