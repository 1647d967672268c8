"""Kinds of per-example gradients: their names, old and new, and which one a resumed run takes."""

import pytest
import torch
from small_problem import make_trainer, weights

from accountant import InvalidValue
from dpsgd_torch import RunError


@pytest.mark.parametrize(("given", "taken"), [("auto", "graph"), ("opacus", "opacus")])
def test_auto_is_the_graph_and_opacus_can_be_asked_for(given, taken):
    assert make_trainer(gradients=given).gradients == taken


@pytest.mark.parametrize(("old", "now"), [("hooks", "opacus"), ("ghost", "graph")])
def test_an_old_name_works_and_says_what_it_is_called_now(old, now):
    match = rf"gradients='{old}': is called '{now}' now; the old name goes with the next release"
    with pytest.warns(DeprecationWarning, match=match) as caught:
        trainer = make_trainer(gradients=old)
    assert trainer.gradients == now
    assert caught[0].filename.endswith("small_problem.py")


def test_a_kind_that_there_is_not_is_refused():
    with pytest.raises(InvalidValue, match="gradients = vmap: must be auto, graph or opacus"):
        make_trainer(gradients="vmap")


def begun(folder, kind, *, told=None):
    """A run of this kind, interrupted; its contract then tells another kind."""
    trainer = make_trainer(gradients=kind, run_dir=folder)
    for progress in trainer.run():
        if progress.step == 17:
            break
    trainer.close()
    if told:
        kept = trainer.folder.read_sealed("private/contract.json")
        kept["contract"]["gradients"] = told
        (folder / "private" / "contract.json").unlink()
        trainer.folder.write_sealed("private/contract.json", kept)


@pytest.mark.parametrize(
    ("kind", "told"),
    [("opacus", None), ("opacus", "hooks"), ("graph", None), ("graph", "ghost")],
)
def test_a_resumed_run_takes_the_kind_it_began_with_by_any_name(tmp_path, kind, told):
    whole = make_trainer(gradients=kind, run_dir=tmp_path / "whole").fit()
    begun(tmp_path / "run", kind, told=told)
    again = make_trainer(run_dir=tmp_path / "run").resume()
    assert again.gradients == kind
    assert torch.equal(weights(again.fit().model), weights(whole.model))
    assert again.privacy_spent().epsilon == whole.privacy_spent().epsilon


@pytest.mark.parametrize(("kind", "asked"), [("opacus", "graph"), ("graph", "opacus")])
def test_a_run_resumed_by_another_kind_that_is_asked_for_is_refused(tmp_path, kind, asked):
    begun(tmp_path / "run", kind)
    with pytest.raises(RunError, match=rf"its gradients changed \({kind} → {asked}\)"):
        make_trainer(gradients=asked, run_dir=tmp_path / "run").resume()
