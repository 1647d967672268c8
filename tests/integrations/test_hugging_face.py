"""transformers' own Trainer, made private: weights and ε are those of ``dpsgd_torch.Trainer``."""

import json

import datasets
import pytest
import torch
import transformers
from hugging_faces import (
    LENGTH,
    PRIVACY,
    N,
    arguments,
    classifier,
    language_model,
    masked_model,
    next_word,
    rows,
    trainer,
    with_lora,
)
from transformers import default_data_collator

from dpsgd_torch import Privacy, Trainer, TrainingError
from dpsgd_torch.data.dataset import FromDataset
from dpsgd_torch.integrations.hugging_face_rows import PaddedTo
from dpsgd_torch.losses import causal_lm, classification

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*noise that protects nobody.*"),
]

QUIET = Privacy(noise_multiplier=1e-4, delta=1e-3, clip_norm=0.5)


def ours(model, loss, collate, theirs):
    """``dpsgd_torch.Trainer`` over the same rows, with the settings of a PrivateTrainer."""
    kept = rows().remove_columns("number")
    names = {id(p): name for name, p in theirs.model.named_parameters()}
    own = dict(model.named_parameters())
    groups = [  # with weight decay and without, as transformers parts them
        {"params": [own[names[id(p)]] for p in group["params"]], "weight_decay": 0.0}
        for group in theirs.optimizer.param_groups
    ]
    return Trainer(
        model,
        loss,
        FromDataset(kept, collate, targets="labels"),
        privacy=PRIVACY,
        batch_size=16,
        epochs=2,
        physical_batch_size=8,
        optimizer=torch.optim.SGD(groups, lr=0.1),
        lr_scheduler=lambda o: transformers.get_scheduler("linear", o, 0, 12),
        seed=5,
    )


def state(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def accuracy(model, data):
    with torch.no_grad():
        given = {key: torch.tensor(data[key]) for key in ("input_ids", "attention_mask")}
        return (model(**given).logits.argmax(1) == torch.tensor(data["label"])).double().mean()


class Recorder(transformers.TrainerCallback):
    """What a callback was told of, in order."""

    def __init__(self, stop_at=None):
        self.told, self.stop_at = [], stop_at

    def __getattribute__(self, name):
        if name.startswith("on_") and name not in ("on_step_end", "on_init_end"):
            return lambda *_, **__: self.told.append(name)
        return super().__getattribute__(name)

    def on_step_end(self, args, state, control, **more):
        self.told.append("on_step_end")
        control.should_training_stop = state.global_step == self.stop_at
        return control


def test_a_classifier_has_the_weights_epsilon_and_accuracy_that_trainer_gives(tmp_path):
    theirs = trainer(tmp_path)
    result = theirs.train()
    plain = ours(classifier(), classification, default_data_collator, theirs).fit()
    assert result.global_step == theirs.state.global_step == 12
    assert theirs.epsilon() == plain.privacy_spent().epsilon == result.metrics["epsilon"]
    expected = state(plain.model)
    assert all(torch.equal(p, expected[name]) for name, p in state(theirs.model).items())
    assert accuracy(theirs.model, rows()) == accuracy(plain.model, rows())


def test_a_language_model_with_adapters_trains_them_alone_as_trainer_does(tmp_path):
    theirs = trainer(tmp_path, with_lora(language_model()), data_collator=next_word)
    before = state(theirs.model)
    theirs.train()
    after, bare = state(theirs.model), with_lora(language_model())
    moved = {name for name, p in after.items() if not torch.equal(p, before[name])}
    assert moved == {name for name in after if "lora_" in name}
    plain = ours(bare, causal_lm, next_word, theirs).fit()
    expected = state(plain.model)
    assert all(torch.equal(p, expected[name]) for name, p in after.items())
    assert theirs.epsilon() == plain.privacy_spent().epsilon


def test_a_model_learns_what_its_rows_say(tmp_path):
    args = arguments(tmp_path, num_train_epochs=16, learning_rate=1e-2, optim="adamw_torch")
    quiet = Privacy(noise_multiplier=0.3, delta=1e-3, clip_norm=1.0)
    model = trainer(tmp_path, args=args, privacy=quiet)
    model.train()
    assert accuracy(model.model.eval(), rows(200, seed=3)) > 0.9


def test_logs_hold_rate_and_epsilon_and_the_loss_where_it_was_asked_for(tmp_path):
    public = trainer(tmp_path / "a", eval_dataset=rows(20, seed=1))
    public.train()
    told = [row for row in public.state.log_history if "learning_rate" in row]
    assert [row["step"] for row in told] == [3, 6, 9, 12]
    assert all(row.keys() == {"learning_rate", "epsilon", "epoch", "step"} for row in told)
    assert [row["epsilon"] for row in told] == sorted(row["epsilon"] for row in told)
    assert told[-1]["epsilon"] == public.epsilon()
    assert told[0]["learning_rate"] == pytest.approx(0.1 * 10 / 12)
    private = trainer(tmp_path / "b", log_train_loss=True)
    private.train()
    losses = [row["not_covered_by_ε/loss"] for row in private.state.log_history[:-1]]
    assert len(losses) == 4
    assert all(0.3 < loss < 1.5 for loss in losses)


def test_callbacks_are_told_of_every_step_and_epoch(tmp_path):
    recorder = Recorder()
    args = arguments(tmp_path, eval_strategy="epoch")
    trainer(tmp_path, args=args, callbacks=[recorder], eval_dataset=rows(20, seed=1)).train()
    told = recorder.told
    assert told[0] == "on_train_begin"
    assert told[-1] == "on_train_end"
    counts = {name: told.count(f"on_{name}") for name in ("step_begin", "step_end", "evaluate")}
    assert counts == {"step_begin": 12, "step_end": 12, "evaluate": 2}
    assert told.count("on_epoch_begin") == told.count("on_epoch_end") == 2
    assert told.count("on_pre_optimizer_step") == told.count("on_optimizer_step") == 12
    assert told.count("on_log") == 4 + 2 + 1
    assert told.count("on_substep_end") > 0  # more were drawn than fit in one part


def test_evaluation_gives_public_rows_a_loss_and_metrics(tmp_path):
    def right(outputs):
        return {"right": float((outputs.predictions.argmax(1) == outputs.label_ids).mean())}

    data = rows(40, seed=1)
    made = trainer(tmp_path, eval_dataset=data, compute_metrics=right)
    made.train()
    found = made.evaluate()
    assert found["eval_right"] == pytest.approx(float(accuracy(made.model, data)))
    assert made.predict(data).predictions.shape == (40, 2)


def test_a_callback_that_stops_training_pays_for_all_that_was_planned(tmp_path):
    made = trainer(tmp_path, callbacks=[Recorder(stop_at=5)])
    assert made.train().global_step == 5
    assert len(made.private.ledger) == 5
    assert made.privacy_spent().watched
    stopped = made.epsilon()
    made.train()
    assert made.private.done == 12
    assert made.epsilon() == stopped


def test_a_budget_ends_training_before_the_step_that_would_pass_it(tmp_path):
    small = Privacy(noise_multiplier=1.0, epsilon=2.0, delta=1e-3, clip_norm=0.5)
    made = trainer(tmp_path, privacy=small)
    made.train()
    assert 0 < made.private.done < 12
    assert "2" in made.private.stopped
    assert made.epsilon() <= 2


@pytest.mark.parametrize(("steps", "n"), [(7, 90), (12, 96), (1, 96)])
def test_max_steps_are_the_steps_of_the_plan(steps, n, tmp_path):
    made = trainer(tmp_path, args=arguments(tmp_path, max_steps=steps), train_dataset=rows(n))
    assert made.train().global_step == steps
    assert made.privacy_spent().planned_steps == steps
    assert made.privacy_spent().sampling_rate == 16 / n


def test_an_interrupted_run_resumes_to_the_same_weights_at_the_same_cost(tmp_path):
    whole = trainer(tmp_path / "w")
    whole.train()
    settings = {"run_dir": tmp_path / "run", "checkpoint_every": 2}
    half = trainer(tmp_path / "h", callbacks=[Recorder(stop_at=7)], **settings)
    half.train()
    half.private.close()
    rest = trainer(tmp_path / "h", **settings)
    assert rest.train(resume_from_checkpoint=True).global_step == 12
    expected = state(whole.model)
    assert all(torch.equal(p, expected[name]) for name, p in state(rest.model).items())
    assert rest.epsilon() == whole.epsilon()
    rest.private.close()
    other = trainer(tmp_path / "h", train_dataset=rows(seed=8), **settings)
    with pytest.raises(TrainingError, match="data"):
        other.train(resume_from_checkpoint=str(tmp_path / "run"))


def test_checkpoints_without_a_ledger_are_not_resumed_from(tmp_path):
    made = trainer(tmp_path)
    for place in (True, str(tmp_path / "checkpoint-6")):
        with pytest.raises(TrainingError, match="holds no ledger"):
            made.train(resume_from_checkpoint=place)
    kept = trainer(tmp_path, run_dir=tmp_path / "run")
    with pytest.raises(TrainingError, match="holds no ledger"):
        kept.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert not (tmp_path / "run").exists()


def test_what_is_saved_is_the_model_with_its_guarantee_beside_it(tmp_path):
    made = trainer(tmp_path, args=arguments(tmp_path, save_strategy="epoch"))
    made.train()
    made.save_model()
    found = transformers.BertForSequenceClassification.from_pretrained(tmp_path)
    expected = state(made.model)
    assert all(torch.equal(p, expected[name]) for name, p in state(found).items())
    told = json.loads((tmp_path / "privacy.json").read_text())
    half = json.loads((tmp_path / "checkpoint-6" / "privacy.json").read_text())
    assert told["epsilon"] == made.epsilon() > half["epsilon"]
    assert half["steps"] == 6


def test_adapters_are_saved_with_their_guarantee(tmp_path):
    made = trainer(tmp_path, with_lora(language_model()), data_collator=next_word)
    made.train()
    made.save_model()
    assert (tmp_path / "adapter_model.safetensors").exists()
    assert json.loads((tmp_path / "privacy.json").read_text())["epsilon"] == made.epsilon()


def test_units_protect_authors(tmp_path):
    authors = [f"author {i % 48}" for i in range(N)]
    by_author = Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5, unit="author")
    made = trainer(tmp_path, privacy=by_author, units=authors, rows_per_unit=1)
    made.train()
    spent = made.privacy_spent()
    assert (spent.unit, spent.dataset_size, spent.planned_steps) == ("author", 48, 6)


def test_bfloat16_trains_without_a_scaler(tmp_path):
    whole, half = (
        trainer(
            tmp_path,
            with_lora(language_model()),
            data_collator=next_word,
            args=arguments(tmp_path, bf16=bf16),
            eval_dataset=rows(20, seed=1),
        )
        for bf16 in (False, True)
    )
    assert whole.train().global_step == half.train().global_step == 12
    assert whole.epsilon() == half.epsilon()
    assert half.evaluate()["eval_loss"] == pytest.approx(whole.evaluate()["eval_loss"], abs=0.5)
    assert all(p.dtype is torch.float32 for p in half.model.parameters())


def test_a_loss_of_ones_own_is_taken(tmp_path):
    def squared(outputs, targets):
        return (outputs.logits.softmax(1)[:, 1] - targets).square()

    made = trainer(tmp_path, classifier(problem_type="regression"), loss=squared)
    assert made.train().global_step == 12


def unequal(longest=LENGTH):
    """Rows that end where their mask does."""
    cut = []
    for row in rows():
        end = min(sum(row["attention_mask"]), longest)
        parts = {key: row[key][:end] for key in ("input_ids", "attention_mask")}
        cut.append({**parts, "label": row["label"]})
    return cut


def test_rows_of_unequal_length_are_padded_to_a_declared_one(tmp_path):
    """Padding that the mask hides teaches what the whole rows under that mask teach."""
    whole = trainer(tmp_path / "a", privacy=QUIET)
    cut = trainer(tmp_path / "b", privacy=QUIET, train_dataset=unequal(), pad_to=LENGTH)
    whole.train()
    cut.train()
    for name, p in state(whole.model).items():
        assert torch.allclose(p, state(cut.model)[name], atol=1e-4), name
    data = unequal()
    masked = PaddedTo(transformers.default_data_collator, LENGTH, 3)(data[:1])
    end = len(data[0]["input_ids"])
    assert end < LENGTH
    assert masked["input_ids"][0].tolist() == data[0]["input_ids"] + [3] * (LENGTH - end)
    assert masked["attention_mask"][0].tolist() == [1] * end + [0] * (LENGTH - end)


@pytest.mark.parametrize("mlm", [True, False])
def test_tokens_of_a_tokenizer_are_collated_masked_and_padded(mlm, tmp_path):
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqr"]
    (tmp_path / "vocab.txt").write_text("\n".join(names))
    tokenizer = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=mlm)
    texts = [tokenizer(" ".join("abcdefg"[: 2 + i % 5])) for i in range(N)]
    data = datasets.Dataset.from_list([dict(text) for text in texts])
    model = masked_model() if mlm else language_model()
    made = trainer(
        tmp_path, model, train_dataset=data, data_collator=collator,
        processing_class=tokenizer, pad_to=LENGTH,
    )  # fmt: skip
    assert made.train().global_step == 12
    with pytest.raises(TrainingError, match=r"row 4: .*has 8 tokens: must be ≤ pad_to = 7"):
        trainer(
            tmp_path, language_model(), train_dataset=data, data_collator=collator, pad_to=7
        ).train()
