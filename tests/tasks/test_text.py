"""The text task: its default, tokens that learn nothing, models and adapters, whole runs."""

import csv
import json
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.errors import ConfigError, DataError, ModelError
from dpsgd_torch.export.__main__ import main as export
from dpsgd_torch.tasks.mnist.torchvision_import import torchvision_datasets
from dpsgd_torch.tasks.registry import TASKS
from dpsgd_torch.tasks.text.docstrings import docstring_texts
from dpsgd_torch.tasks.text.knobs import TextKnobs
from dpsgd_torch.tasks.text.model import text_model
from dpsgd_torch.tasks.text.task import text_task
from dpsgd_torch.tasks.text.tokens import BYTES, tokenizer_of
from dpsgd_torch.train import main

torchvision_datasets()  # before transformers imports torchvision, for whichever torch
import transformers  # noqa: E402

TINY = ["--max-length", "8", "--epochs", "2", "--batch-size", "8", "--delta", "1e-2", "--seed", "1"]


@pytest.fixture(autouse=True)
def _hook(monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)


@pytest.fixture
def without_promises(monkeypatch):
    """What the page says of rows and units is priced elsewhere, and takes seconds."""
    monkeypatch.setattr("dpsgd_torch.app.run._promises", lambda *_: None)


@pytest.fixture
def messages(tmp_path):
    """120 messages of 30 authors in a CSV file: a word tells the label."""
    rng = np.random.default_rng(0)
    path = tmp_path / "messages.csv"
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label", "author"])
        for i in range(120):
            good = int(rng.integers(2))
            rows.writerow([f"it is {('bad', 'good')[good]} {i}", ("no", "yes")[good], f"a{i % 30}"])
    return path


def saved_model(folder, kind="BertForSequenceClassification", **more):
    """A folder as save_pretrained leaves it, its weights random."""
    torch.manual_seed(5)
    if kind.startswith("Bert"):
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        shape |= {"intermediate_size": 16, "max_position_embeddings": 16, "vocab_size": 300}
        made = getattr(transformers, kind)(transformers.BertConfig(**shape, **more))
    else:
        shape = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16, "vocab_size": 300}
        ends = {"bos_token_id": 1, "eos_token_id": 1}
        made = getattr(transformers, kind)(transformers.GPT2Config(**shape, **ends, **more))
    made.save_pretrained(folder)
    return made.state_dict()


def test_the_default_is_text_of_the_packages_that_are_there():
    texts = docstring_texts()
    assert len(texts) > 10_000
    assert len(set(texts.texts)) == len(texts)
    assert len(set(texts.labels)) == 7
    assert max(texts.labels.count(name) for name in set(texts.labels)) < 0.3 * len(texts)
    assert 200 < len(set(texts.authors)) < 1000
    assert texts == docstring_texts()


def test_a_word_goes_to_a_number_of_its_own_whatever_the_other_texts_are():
    encode = tokenizer_of("words", 6, 1024, None)
    alone, beside = encode(["No, never"]), encode(["no , NEVER", "some other text"])
    assert torch.equal(alone["input_ids"][0], beside["input_ids"][0])
    assert alone["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0]]
    assert int(beside["input_ids"].max()) < 1024


def test_bytes_are_those_of_the_text_and_are_cut_at_the_length():
    encode = tokenizer_of("bytes", 4, BYTES, None)
    ids = encode(["né", "never", ""])["input_ids"]
    assert bytes(int(i) - 2 for i in ids[0, 1:]).decode() == "né"
    assert ids[1].tolist() == [1, *(2 + byte for byte in b"nev")]
    assert ids[2].tolist() == [1, 0, 0, 0]


def test_initial_weights_are_drawn_from_the_generator_alone():
    knobs, state = TextKnobs(), torch.get_rng_state()
    first, again, other = (
        torch.nn.utils.parameters_to_vector(
            text_model(knobs, 3, torch.Generator().manual_seed(seed)).parameters()
        )
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_run_learns_the_messages_and_its_epsilon_is_for_authors(messages, tmp_path, capsys):
    run = tmp_path / "run"
    unit = ["--privacy-unit", "author", "--epsilon", "100", "--rows-per-unit", "4"]
    more = ["--epochs", "20", "--learning-rate", "2", "--seed", "1"]
    words = ["--preset", "text", "--data-dir", str(messages), "--out", str(run)]
    assert main([*words, *TINY, *unit, *more]) == 0
    config, spent = (json.loads((run / f"{n}.json").read_text()) for n in ("config", "privacy"))
    assert config["dataset_size"] == 24  # of 30 authors: one in five is tested on
    assert (spent["unit"], spent["rows_per_unit"], spent["dataset_size"]) == ("author", 4, 24)
    assert spent["epsilon"] <= 100
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["test_accuracy"] > 0.8
    statement = " ".join((run / "statement.txt").read_text().split())
    assert "the unit of privacy is one author" in statement
    assert "One author in five, chosen without looking at the texts" in statement
    assert "first 8 tokens" in statement
    assert "test accuracy" in (run / "report.html").read_text()
    assert json.loads((run / "task.json").read_text())["input_shape"] == {
        "input_ids": [8], "attention_mask": [8],
    }  # fmt: skip
    assert main(["--resume", str(run), "--data-dir", str(messages)]) == 0
    capsys.readouterr()
    assert export([str(run), "--to", "c"]) == 2
    assert "a transformer cannot be carried to a microcontroller" in capsys.readouterr().err


@pytest.mark.usefixtures("without_promises")
def test_what_was_trained_is_loaded_again_with_the_same_answers(
    messages, tmp_path, without_promises
):
    assert main(["--preset", "text", "--data-dir", str(messages), *TINY, "--out",
                 str(tmp_path / "run"), "--epsilon", "3"]) == 0  # fmt: skip
    knobs = TextKnobs(max_length=8)
    model = TASKS["text"].architecture(knobs, ("no", "yes")).eval()
    model.load_state_dict(load_file(tmp_path / "run" / "model.safetensors"))
    test = text_task(knobs, messages).test
    with torch.no_grad():
        right = (model(**test[0]).logits.argmax(1) == test[1]).double().mean()
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert float(right) == pytest.approx(last["test_accuracy"])


@pytest.mark.usefixtures("without_promises")
def test_a_language_model_tells_its_perplexity_and_folds_work_with_dicts(
    messages, tmp_path, without_promises
):
    run = tmp_path / "run"
    words = ["--preset", "text", "--objective", "language-model", "--data-dir", str(messages)]
    more = ["--epsilon", "3", "--folds", "2", "--out", str(run)]
    assert main([*words, *TINY, *more]) == 0
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 <= last["test_token_accuracy"] <= 1
    page = (run / "report.html").read_text()
    assert f"<b>{np.exp(last['test_loss']):.2f}</b><span>perplexity by token" in page
    assert json.loads((run / "config.json").read_text())["dataset_size"] == 96


def test_labels_alone_can_be_protected(messages, tmp_path):
    words = ["--preset", "text", "--data-dir", str(messages), *TINY, "--out", str(tmp_path / "r")]
    assert main([*words, "--no-dp", "--label-epsilon", "2"]) == 0
    assert json.loads((tmp_path / "r" / "privacy.json").read_text())["unit"] == "one label"


@pytest.mark.usefixtures("without_promises")
@pytest.mark.parametrize("objective", ["classify", "language-model"])
def test_adapters_alone_are_trained_on_a_model_from_a_folder(
    objective, messages, tmp_path, without_promises
):
    classify = objective == "classify"
    kind = "BertForSequenceClassification" if classify else "GPT2LMHeadModel"
    before = saved_model(tmp_path / "model", kind)
    words = ["--preset", "text", "--data-dir", str(messages), "--objective", objective]
    words += ["--model", str(tmp_path / "model"), "--tokens", "bytes", "--lora-rank", "2"]
    assert main([*words, *TINY, "--epsilon", "3", "--out", str(tmp_path / "run")]) == 0
    after = load_file(tmp_path / "run" / "model.safetensors")
    moved = {name for name, tensor in after.items() if "lora_B" in name and tensor.any()}
    assert moved
    kept = [n for n in before if n.endswith(("query.weight", "c_attn.weight"))]
    for name in kept:
        (found,) = [n for n in after if n.endswith(name.replace(".weight", ".base_layer.weight"))]
        assert torch.equal(after[found], before[name])
    assert kept


def test_a_folder_keeps_its_weights_and_only_a_new_head_is_drawn(tmp_path):
    before = saved_model(tmp_path / "model", num_labels=2)
    knobs = TextKnobs(model=str(tmp_path / "model"), tokens="bytes")
    first, again, other = (
        text_model(knobs, 3, torch.Generator().manual_seed(seed)).state_dict() for seed in (1, 1, 2)
    )
    head = {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(first[name], before[name]) for name in before if name not in head)
    assert first["classifier.weight"].shape == (3, 16)
    assert torch.equal(first["classifier.weight"], again["classifier.weight"])
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_the_tokenizer_of_a_folder_is_its_own(tmp_path, messages):
    from tokenizers import Tokenizer, models, pre_tokenizers

    saved_model(tmp_path / "model")
    words = {"[PAD]": 0, "[UNK]": 1, "it": 2, "is": 3, "good": 4, "bad": 5}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(tmp_path / "model")
    task = text_task(TextKnobs(model=str(tmp_path / "model"), max_length=6), messages)
    assert task.train[0]["input_ids"][0, :2].tolist() == [2, 3]
    assert set(task.train[0]["input_ids"][:, 2].tolist()) == {4, 5}
    assert task.train[0]["input_ids"][:, 4:].unique().tolist() == [0]


def test_what_does_not_fit_the_model_in_a_folder_is_refused(tmp_path, messages):
    saved_model(tmp_path / "model")
    model = str(tmp_path / "model")
    for knobs, error, line in (
        (TextKnobs(model=str(tmp_path)), ConfigError, "has no config.json; name a folder that"),
        (TextKnobs(model=model, max_length=40), ConfigError, "max_length = 40: the model takes 16"),
        (TextKnobs(model=model, max_length=8), DataError, "has no tokenizer; save one"),
    ):
        with pytest.raises(error, match=line):
            text_task(knobs, messages)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"nothing")
    knobs = TextKnobs(model=model, max_length=8, tokens="bytes")
    with pytest.raises(ModelError, match="cannot be loaded for classify"):
        text_model(knobs, 2, torch.Generator())
    saved_model(tmp_path / "model")
    knobs = TextKnobs(model=model, lora_rank=2, lora_targets="nowhere")
    with pytest.raises(ConfigError, match="lora_targets = nowhere: fit no layer of the model"):
        text_model(knobs, 2, torch.Generator())


@pytest.mark.parametrize(
    ("knobs", "line"),
    [
        ({"lora_rank": 4}, "lora_rank = 4: adapts a trained model, and a new one has random"),
        ({"lora_targets": "query"}, "lora_targets = query: is for adapters; pass --lora-rank too"),
        ({"hidden_size": 20}, "hidden_size = 20: must be a multiple of 16"),
        ({"max_length": 1}, "max_length = 1: must be > 1"),
        ({"objective": "language-model", "tokens": "words"}, "tokens = words: cannot be turned"),
        ({"select_features": 3}, "select_features = 3: is for tabular data"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(knobs, line):
    with pytest.raises(ConfigError, match=line):
        PRESETS["text"]().config.changed(**knobs)


def test_texts_of_one_label_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\n" + "x,a\n" * 9)
    with pytest.raises(DataError, match="label = a: is the label of every text"):
        text_task(TextKnobs(), tmp_path / "t.csv")
    assert text_task(TextKnobs(objective="language-model"), tmp_path / "t.csv").labels == ()


def test_an_author_in_every_row_and_an_unknown_unit_are_refused(messages, capsys):
    words = ["--preset", "text", "--data-dir", str(messages), *TINY]
    assert main([*words, "--privacy-unit", "person"]) == 2
    assert "choose among record, author" in capsys.readouterr().err
    words += ["--author-column", "text", "--privacy-unit", "author"]
    assert main(words) == 2
    assert "differs in every row, so that each is a unit" in capsys.readouterr().err
