"""Mixed precision in Trainer, in a loop of one's own, and from the command line."""

import json

import pytest
import torch
from own_loops import make_private, trained
from small_problem import make_trainer, small_data, small_model, weights
from torch import nn
from torch.nn.functional import cross_entropy

from accountant import InvalidValue
from dpsgd_torch import Privacy, Private, TrainingError
from dpsgd_torch.precision import Precision
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.train import main as train

HALF = torch.bfloat16
LITTLE_NOISE = Privacy(noise_multiplier=1e-3, delta=1e-3, clip_norm=0.5)


@pytest.fixture(autouse=True)
def no_word_of_slowness(monkeypatch):
    monkeypatch.setattr(Precision, "slowness", lambda self, device: "")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_mixed_run_ends_near_the_run_in_float32(precision):
    start = weights(small_model())
    whole = weights(make_trainer(privacy=LITTLE_NOISE).fit().model)
    mixed = make_trainer(privacy=LITTLE_NOISE, precision=precision).fit()
    assert mixed.precision == Precision.of(precision)
    assert all(p.dtype == torch.float32 for p in mixed.model.parameters())
    assert 0 < float((weights(mixed.model) - whole).norm()) < 0.1 * float((whole - start).norm())


def test_the_default_draws_and_ends_as_ever():
    assert torch.equal(
        weights(make_trainer().fit().model), weights(make_trainer(precision="float32").fit().model)
    )


def test_a_run_without_privacy_is_mixed_as_well():
    whole = weights(make_trainer(privacy=None).fit().model)
    for precision in ("bf16", "fp16"):
        mixed = weights(make_trainer(privacy=None, precision=precision).fit().model)
        assert 0 < float((mixed - whole).norm()) < 0.1 * float(whole.norm())


@pytest.mark.parametrize("precision", ["bf16", "fp16:4096"])
def test_a_loop_of_ones_own_is_the_trainer_in_the_same_precision(precision):
    told = trained(make_private(precision=precision))
    assert torch.equal(weights(told.model), weights(make_trainer(precision=precision).fit().model))
    assert not told.model._forward_hooks


def test_a_mixed_run_resumes_bit_for_bit_and_in_no_other_precision(tmp_path):
    whole = make_trainer(precision="bf16").fit()
    first = make_trainer(precision="bf16", run_dir=tmp_path / "run")
    for at in first.run():
        if at.step == 17:
            break
    first.close()
    for other in ("float32", "fp16"):
        with pytest.raises(TrainingError, match="its precision changed"):
            make_trainer(precision=other, run_dir=tmp_path / "run").resume()
    again = make_trainer(precision="bf16", run_dir=tmp_path / "run").resume().fit()
    assert len(again.ledger) == len(whole.ledger)  # what was torn is paid once
    assert torch.equal(weights(again.model), weights(whole.model))
    again.close()


def test_a_run_in_float32_resumes_in_no_other(tmp_path):
    first = make_trainer(run_dir=tmp_path / "run").fit()
    first.close()
    with pytest.raises(TrainingError, match=r"its precision changed \(float32 → bf16\)"):
        make_trainer(precision="bf16", run_dir=tmp_path / "run").resume()


@pytest.mark.parametrize(
    ("precision", "why"),
    [
        ("bfloat16", "must be float32, bf16, fp16"),
        ("bf16:1024", "must be float32, bf16, fp16"),
        ("fp16:dynamic", "follows the records"),
        ("fp16:1000", "must be a power of 2"),
        ("fp16:much", "must be a power of 2"),
        ("fp16:nan", "must be a power of 2"),
    ],
)
def test_what_is_no_precision_is_refused(precision, why, tmp_path, capsys):
    with pytest.raises(InvalidValue, match=why):
        make_trainer(precision=precision)
    asked = ["--preset", "digits", "--precision", precision, "--out", str(tmp_path / "run")]
    assert train(asked) == 2
    told = capsys.readouterr().err
    assert why in told
    assert told.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_device_that_cannot_is_refused_and_one_that_is_slow_says_so(monkeypatch):
    def cannot(*arguments, **options):
        raise RuntimeError("no kernel for BFloat16")

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "conv2d", cannot)
        with pytest.raises(InvalidValue, match=r"device cpu cannot \(no kernel.*pass fp16"):
            make_trainer(precision="bf16")
    monkeypatch.undo()
    monkeypatch.setattr("dpsgd_torch.precision.cpu_flags", set)
    with pytest.warns(UserWarning, match="has no instructions for it"):
        make_trainer(precision="bf16")
    monkeypatch.setattr("dpsgd_torch.precision.cpu_flags", lambda: {"amx_bf16"})
    make_trainer(precision="bf16")


def test_hooks_of_opacus_are_refused_in_half():
    with pytest.raises(InvalidValue, match="cannot run in precision bf16"):
        make_trainer(precision="bf16", gradients="opacus")


def test_autocast_around_a_trainer_is_refused_and_nothing_is_charged():
    trainer = make_trainer()
    with torch.autocast("cpu", HALF):
        with pytest.raises(InvalidValue, match="open around training"):
            make_trainer()
        with pytest.raises(InvalidValue, match="open around training"):
            trainer.fit()
    assert not trainer.state.charges.are_open
    assert trainer.fit().done == 30


def test_autocast_around_a_whole_loop_trains_the_weights_and_not_a_cast_of_old_ones():
    def losses(model, batch):
        return cross_entropy(model(batch.inputs).float(), batch.targets, reduction="none")

    def inside(model, batch):
        with torch.autocast("cpu", HALF):
            outputs = model(batch.inputs)
        return cross_entropy(outputs.float(), batch.targets, reduction="none")

    with torch.autocast("cpu", HALF):
        around = trained(make_private(loss=None, privacy=LITTLE_NOISE), losses=losses)
    within = trained(make_private(loss=None, privacy=LITTLE_NOISE), losses=inside)
    start = weights(small_model())
    moved = float((weights(within.model) - start).norm())
    assert float((weights(around.model) - weights(within.model)).norm()) < 0.1 * moved


def test_autocast_to_float16_in_a_loop_is_refused_for_its_loss_scale():
    private = make_private(loss=None)

    def losses(model, batch):
        with torch.autocast("cpu", torch.float16):
            outputs = model(batch.inputs)
        return cross_entropy(outputs.float(), batch.targets, reduction="none")

    with pytest.raises(TrainingError, match="pass precision='fp16'"):
        trained(private, losses=losses)
    assert not private.state.charges.are_open


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    config = BertConfig(**sizes, vocab_size=60, num_attention_heads=2, max_position_embeddings=64)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = BertForSequenceClassification(config).train()
        return model, (torch.randint(1, 60, (16, 12)), torch.randint(2, (16,)))


def test_gradients_that_cancel_do_not_refuse_a_classifier_under_autocast():
    """Two classes: its bias' gradients are ± ½, whose weighted sum is what bfloat16 rounded."""
    model, data = bert()
    private = Private(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        data,
        privacy=LITTLE_NOISE,
        batch_size=16,
        epochs=2,
        seed=1,
    )

    def losses(model, batch):
        with torch.autocast("cpu", HALF):
            outputs = model(input_ids=batch.inputs).logits
            return cross_entropy(outputs, batch.targets, reduction="none")

    assert trained(private, losses=losses).done == 2


class SharedScale(nn.Module):
    """Rounds to half by a scale that is the batch's: in float32 nothing would be mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(36, 16), nn.Linear(16, 3)

    def forward(self, x):
        x = self.first(x.flatten(1))
        scale = x.detach().abs().amax() / 3
        return self.last((x / scale).to(HALF).float() * scale)


class CountsRows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(36, 3)

    def forward(self, x):
        with torch.autocast("cpu", HALF):
            return (self.layer(x.flatten(1)) / (1 + 0.1 * len(x))).float()


@pytest.mark.parametrize(
    ("model", "why"),
    [(SharedScale, "changes with another"), (CountsRows, "not the one it has alone")],
)
def test_what_mixes_in_half_alone_is_found_and_what_mixes_in_both_too(model, why):
    with pytest.raises(TrainingError, match=why):
        make_trainer(model=model(), data=small_data(24))


def test_a_run_says_its_precision_in_all_that_it_leaves(tmp_path):
    words = ["--preset", "digits", "--epochs", "1", "--seed", "1", "--precision", "bf16"]
    assert train([*words, "--out", str(tmp_path / "run")]) == 0
    folder = RunFolder(tmp_path / "run")
    assert folder.read_json("config.json")["precision"] == "bf16"
    assert json.loads((folder.path / "privacy.json").read_text())["precision"] == "bf16"
    assert "backward passes ran in bf16" in " ".join(
        (folder.path / "statement.txt").read_text().split()
    )
    assert train(["--resume", str(folder.path)]) == 0
