"""A quantisation-aware model, trained, saved and loaded: it goes to a board as it was rounded."""

import hashlib
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from saved_models import refused, resealed
from small_problem import make_trainer, small_model, weights

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export import export_model
from dpsgd_torch.export.__main__ import main as export
from dpsgd_torch.quantization import quantization_aware

SHAPE, RANGE, LABELS = (1, 6, 6), (0.0, 1.0), ("a", "b", "c")
NAME = "made_up_inputs.safetensors"


def aware():
    """Of made-up inputs of its own, not those that an export would make."""
    made_up = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(3)) * 0.7
    return quantization_aware(small_model(), SHAPE, RANGE, made_up)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    trainer = make_trainer(model=aware(), epochs=1).fit()
    folder = tmp_path_factory.mktemp("saved") / "mine"
    return trainer, trainer.save(folder, input_range=RANGE, labels=LABELS)


@pytest.fixture
def mine(saved, tmp_path):
    return Path(shutil.copytree(saved[1], tmp_path / "box" / "mine"))


def code(folder):
    """The C without the lines that say where it is from."""
    return re.sub(r"/\*.*?\*/", "", (folder / "model.c").read_text(), flags=re.DOTALL)


def test_its_export_rounds_as_it_was_trained_to(saved, tmp_path):
    """The planted fault, and what was done before: ranges of other made-up inputs."""
    trainer, folder = saved
    assert export([str(folder), "--to", "c", "--out", str(tmp_path / "c")]) == 0
    given = {"input_shape": SHAPE, "input_range": RANGE, "labels": LABELS}
    export_model(trainer.model, out=tmp_path / "at_once", **given)
    export_model(trainer.model.plain, out=tmp_path / "other", **given)
    assert code(tmp_path / "c") == code(tmp_path / "at_once") != code(tmp_path / "other")
    assert "inputs that were given as public" in (tmp_path / "c" / "model.h").read_text()
    assert "epsilon: at most 1.57" in (tmp_path / "c" / "model.h").read_text()


def test_its_weights_are_loaded_into_the_plain_model_and_a_twin_alike(saved):
    trainer, folder = saved
    plain, inputs = small_model().eval(), torch.rand(7, *SHAPE)
    plain.load_state_dict(load_file(folder / "model.safetensors"))
    twin = quantization_aware(plain, SHAPE, RANGE, trainer.model.made_up_inputs)
    with torch.no_grad():
        assert torch.equal(twin(inputs), trainer.model.eval()(inputs))
        assert not torch.equal(plain(inputs), twin(inputs))


def test_a_run_in_a_folder_resumes_to_the_same_weights_and_exports_from_there(tmp_path):
    whole = make_trainer(model=aware(), epochs=1).fit()
    cut = make_trainer(model=aware(), epochs=1, run_dir=tmp_path / "run")
    for at in cut.run():
        if at.step == 8:
            break
    cut.close()
    again = make_trainer(model=aware(), epochs=1, run_dir=tmp_path / "run").resume().fit()
    assert torch.equal(weights(again.model), weights(whole.model))
    again.save(tmp_path / "run", input_range=RANGE)
    again.close()
    assert export([str(tmp_path / "run"), "--to", "c"]) == 0


def test_another_range_than_it_was_trained_in_is_refused_and_loses_no_weights(tmp_path):
    trainer = make_trainer(model=aware(), epochs=0.1).fit()
    with pytest.raises(ExportError, match=r"trained to be rounded in \(0\.0, 1\.0\).*weights and"):
        trainer.save(tmp_path / "mine", input_range=(-1, 1))
    assert (tmp_path / "mine" / "model.safetensors").exists()


@pytest.mark.parametrize("damage", ["lost", "cut in half", "linked"])
def test_inputs_that_are_damaged_are_refused_by_their_name(mine, capsys, damage):
    content = (mine / NAME).read_bytes()
    (mine / NAME).unlink()
    if damage == "linked":
        (mine.parent / NAME).write_bytes(content)
        (mine / NAME).symlink_to(mine.parent / NAME)
    elif damage != "lost":
        (mine / NAME).write_bytes(content[: len(content) // 2])
    assert NAME in refused(capsys, mine)


@pytest.mark.parametrize(
    "tensors",
    [{"inputs": torch.zeros(0, *SHAPE)}, {"inputs": torch.zeros(4, 36)}, {"other": torch.zeros(1)},
     {"inputs": torch.zeros(4, *SHAPE, dtype=torch.int64)},
     {"inputs": torch.full((4, *SHAPE), torch.nan)}],
    ids=["none", "shape", "name", "type", "nan"],
)  # fmt: skip
def test_inputs_that_no_model_was_trained_with_are_refused(mine, capsys, tensors):
    save_file(tensors, mine / NAME)
    digest = hashlib.sha256((mine / NAME).read_bytes()).hexdigest()
    resealed(mine, ranged_by_sha256=digest)
    assert NAME in refused(capsys, mine)
