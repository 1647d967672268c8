"""A run on what a frozen model says (``--features-from``): told, sealed, resumed and refused."""

import hashlib
import json

import pytest
import torch
from frozen_files import exported, onnx_net, saved, small_net

from dpsgd_torch.app.flags import parse
from dpsgd_torch.errors import ConfigError, ExportError
from dpsgd_torch.tasks.registry import architecture, public_inputs
from dpsgd_torch.train import main

SHORT = ["--preset", "digits", "--epochs", "1", "--whitened-by", "none"]


def flat(path):
    return " ".join(path.read_text().split())


@pytest.fixture
def model(monkeypatch, tmp_path):
    """A file in the working directory, and a cache of one's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return saved(tmp_path / "net.onnx", onnx_net()[0])


def test_a_run_says_what_file_it_rests_on_and_goes_on_with_that_alone(model, tmp_path, capsys):
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert main([*SHORT, "--features-from", "net.onnx", "--seed", "1", "--out", "run"]) == 0
    words = flat(tmp_path / "run" / "statement.txt")
    assert "Prior, not covered by ε: OF UNKNOWN class knowledge: what net.onnx learnt" in words
    assert "what the frozen model net.onnx says of it. net.onnx is" in words
    assert f"net.onnx is the file of SHA-256 {digest}. ε does not cover what it was" in words
    assert "WITHOUT class" not in words
    assert "No private row went into that" not in words
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["task"]["features_from"] == f"net.onnx@sha256:{digest}"
    assert json.loads((tmp_path / "run" / "task.json").read_text())["input_shape"] == [6]
    weights = (tmp_path / "run" / "model.safetensors").read_bytes()

    whole = model.read_bytes()
    capsys.readouterr()
    for content, told in ((whole + b"\0", "is another file than was named"), (None, "there is no")):
        model.unlink()
        if content:
            model.write_bytes(content)
        assert main(["--resume", "run"]) == 2
        told_all = capsys.readouterr().err
        assert f"error: features_from = net.onnx: {told}" in told_all.replace("'", "")
        assert len(told_all.splitlines()) == 1
        model.write_bytes(whole)
    assert main(["--resume", "run"]) == 0
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights


def test_a_prior_with_class_knowledge_is_told_beside_a_model(model):
    from dpsgd_torch.tasks.image_features import prior_of, recipe_of

    config = parse(["--preset", "digits", "--features-from", "net.onnx"]).preset.config
    recipe = recipe_of(config.task)
    told = prior_of(recipe.prior, "an image", knows_classes=True, model=recipe.model)
    assert told.startswith("WITH class knowledge")
    assert recipe.model.sha256 in told


def test_a_head_on_a_models_values_is_not_exported_without_it(model):
    config = parse(["--preset", "digits", "--features-from", "net.onnx"]).preset.config
    for asked in (lambda: architecture(config, tuple("0123456789")), lambda: public_inputs(config)):
        with pytest.raises(ExportError, match=r"features_from = net.onnx@sha256:.* is a head on"):
            asked()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--features-from", "gone.pt2"], "features_from = 'gone.pt2': there is no such file"),
        (["--features-from", "net.onnx", "--dropout", "0.5"], "dropout = 0.5: is for the CNN"),
        (["--features-from", "net.onnx", "--views", "2"], "views = 2: digits has no augmentation"),
        (["--features-from", "wide.pt2"], "features_from = wide.pt2: takes rows of shape"),
        (["--features-from", "pickle.pt"], "features_from = pickle.pt: is a pickle"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line_before_anything_is_written(
    flags, words, model, tmp_path, capsys
):
    torch.save(small_net(), tmp_path / "pickle.pt")
    wide = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 4))
    program = torch.export.export(wide, (torch.rand(2, 1, 28, 28),))
    torch.export.save(program, tmp_path / "wide.pt2")
    assert main([*SHORT, *flags, "--out", "run"]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_other_tasks_say_whom_the_flag_is_for(model):
    with pytest.raises(ConfigError, match=r"features_from = net.onnx: is for .*not gestures"):
        parse(["--preset", "gesture", "--features-from", "net.onnx"])


def test_scattering_and_a_model_go_together(model, tmp_path):
    exported(tmp_path / "net.pt2", small_net())
    flags = ["--transform", "scattering", "--scales", "1", "--features-from", "net.pt2"]
    assert main([*SHORT, *flags, "--seed", "1", "--out", "run"]) == 0
    values = json.loads((tmp_path / "run" / "task.json").read_text())["input_shape"]
    assert values == [9 * 16 + 6]  # nine paths, and the model
    words = flat(tmp_path / "run" / "statement.txt")
    assert "a fixed scattering transform; and what the frozen model net.pt2 says of it" in words
