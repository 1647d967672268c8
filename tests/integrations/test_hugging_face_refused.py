"""What of transformers' Trainer a private run cannot keep is refused by name, before a charge."""

import subprocess
import sys

import pytest
from hugging_faces import PRIVACY, arguments, classifier, language_model, rows, trainer, with_lora
from torch import nn

from dpsgd_torch import TrainingError
from dpsgd_torch.integrations import PrivateTrainer
from dpsgd_torch.integrations.hugging_face_arguments import loss_of
from dpsgd_torch.losses import causal_lm

PADDED = (
    {**row, "attention_mask": [1] * 6, "input_ids": row["input_ids"][:6]} if i == 9 else row
    for i, row in enumerate(rows(24))
)

REFUSED = [
    ({"max_grad_norm": 0.5}, "max_grad_norm = 0.5: .*clip_norm"),
    ({"label_smoothing_factor": 0.1}, "label_smoothing_factor = 0.1: .*loss="),
    (
        {"load_best_model_at_end": True, "save_strategy": "epoch", "eval_strategy": "epoch"},
        "load_best_model_at_end = True: scores would steer",
    ),
    ({"metric_for_best_model": "loss"}, "metric_for_best_model = loss: scores would steer"),
    ({"auto_find_batch_size": True}, "auto_find_batch_size = True: would change the plan"),
    ({"train_sampling_strategy": "group_by_length"}, "train_sampling_strategy = group_by_length"),
    ({"dataloader_drop_last": True}, "dataloader_drop_last"),
    ({"torch_compile": True}, "torch_compile = True: hides"),
    ({"neftune_noise_alpha": 5.0}, "neftune_noise_alpha"),
    ({"include_num_input_tokens_seen": "all"}, "include_num_input_tokens_seen = all: counts who"),
    ({"optim": "adafactor"}, "optim = adafactor: .*optimizers="),
    ({"optim": "lomo"}, "optim = lomo: may step by gradients without noise"),
    ({"lr_scheduler_type": "greedy", "eval_strategy": "epoch"}, "scores would steer"),
    (
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
        "use_reentrant",
    ),
]


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize(("changes", "told"), REFUSED, ids=[next(iter(c)) for c, _ in REFUSED])
def test_an_argument_that_a_private_run_cannot_keep_is_refused_by_name(changes, told, tmp_path):
    args = arguments(tmp_path, **{"eval_strategy": "no", **changes})
    with pytest.raises(TrainingError, match=told):
        trainer(tmp_path, args=args, eval_dataset=rows(20, seed=1))


@pytest.mark.parametrize(
    ("name", "value"), [("n_gpu", 2), ("world_size", 2), ("fp16", True), ("deepspeed", {"a": 1})]
)
def test_more_than_one_device_and_a_scaler_are_refused(name, value, tmp_path):
    args = arguments(tmp_path)
    kind = type("Args", (type(args),), {name: value})
    args.__class__ = kind
    args.__dict__.pop(name, None)
    with pytest.raises(TrainingError, match=f"^{name} = "):
        trainer(tmp_path, args=args)


def test_what_would_mix_examples_or_search_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="compute_loss_func: is given a whole batch"):
        trainer(tmp_path, compute_loss_func=lambda outputs, labels, **more: outputs.loss)
    with pytest.raises(TrainingError, match="model_init: makes a model for each trial"):
        trainer(tmp_path, model_init=classifier)
    made = trainer(tmp_path)
    with pytest.raises(TrainingError, match="hyperparameter_search: no ε"):
        made.hyperparameter_search()
    with pytest.raises(TrainingError, match="get_train_dataloader: batches are Poisson"):
        made.get_train_dataloader()
    with pytest.raises(TrainingError, match="nothing was charged"):
        made.epsilon()

    class Other(PrivateTrainer):
        def compute_loss(self, *given, **more):
            return 0

    with pytest.raises(TrainingError, match=r"Other\.compute_loss: is never called"):
        Other(classifier(), arguments(tmp_path), train_dataset=rows(), privacy=PRIVACY)


def test_rows_of_unequal_length_are_refused_before_a_charge(tmp_path):
    kept = trainer(tmp_path, train_dataset=[*PADDED], run_dir=tmp_path / "run")
    with pytest.raises(TrainingError, match=r"row 9: .*pad to one length in collate_fn"):
        kept.train()
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")  # of peft's
def test_a_model_whose_task_nobody_knows_asks_for_a_loss():
    with pytest.raises(TrainingError, match=r"model = Linear: which loss .*pass loss="):
        loss_of(nn.Linear(2, 2))
    with pytest.raises(TrainingError, match=r"multi_label_classification\): which loss"):
        loss_of(classifier(problem_type="multi_label_classification"))
    assert loss_of(with_lora(language_model())) is causal_lm


def test_a_missing_package_is_named_with_its_extra():
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "from dpsgd_torch.integrations import TensorBoardLogger\n"
        "from dpsgd_torch.errors import TrainingError\n"
        "try:\n    from dpsgd_torch.integrations import PrivateTrainer\n"
        "except TrainingError as error:\n    print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout == (
        "transformers: is missing (transformers); pip install 'dpsgd_torch[integrations]'\n"
    ), ended.stderr
