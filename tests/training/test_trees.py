"""Inputs, outputs and targets as they are: tuples and dicts of tensors, through whole runs."""

import numpy as np
import pytest
import torch
from small_problem import make_trainer, weights
from torch import nn
from torch.nn import functional as f

from dpsgd_torch import ModelError, Privacy, RunError, Validation
from dpsgd_torch.data.base import Data, Schema
from dpsgd_torch.data.in_memory import InMemory
from dpsgd_torch.data.trees import mapped
from dpsgd_torch.errors import ExportError
from dpsgd_torch.gradients.methods import per_example_gradients
from dpsgd_torch.gradients.rehearsal.synthetic import MadeUp


class Reader(nn.Module):
    """Words and numbers in by name, two kinds of answers out."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.words, self.read = nn.Embedding(11, 4), nn.Linear(4, 6)
            self.label, self.size = nn.Linear(8, 3), nn.Linear(8, 1)

    def forward(self, *, ids, mask, extra):
        kept = mask.unsqueeze(2) * f.gelu(self.read(self.words(ids)))
        found = torch.cat([kept.sum(1) / mask.sum(1, keepdim=True), extra[0]], 1)
        return self.label(found), {"size": self.size(found)}


def loss(outputs, targets):
    label, more = outputs
    wrong = f.cross_entropy(label, targets["label"], reduction="none")
    return wrong + (more["size"].squeeze(1) - targets["size"]) ** 2


def right(outputs, targets):
    return outputs[0].argmax(1) == targets["label"]


def rows(count=120, seed=1):
    """(inputs, targets), with from one to five words in each record."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(1, 6, (count, 1), generator=generator)
    inputs = {
        "ids": torch.randint(11, (count, 5), generator=generator),
        "mask": (torch.arange(5) < words).long(),
        "extra": (torch.rand(count, 2, generator=generator),),
    }
    label = torch.randint(3, (count,), generator=generator)
    return inputs, {"label": label, "size": torch.rand(count, generator=generator)}


class Lazy(Data):
    """Rows that are cut from a tree as they are drawn."""

    schema = None

    def __init__(self, batch):
        self.batch, self.schema = batch, Schema.of(batch)

    def __len__(self):
        return len(self.batch[0]["ids"])

    def take(self, indices):
        at = torch.from_numpy(indices)
        return mapped(lambda tensor: tensor[at], self.batch)


def tree_trainer(kind=tuple, **changes):
    sets = [kind(rows(count, seed=count)) for count in (120, 50, 40)]
    given = {
        "data": sets[0],
        "test_tensors": sets[1],
        "validation": Validation(tensors=sets[2], noise_multiplier=5.0, bound=2.0),
        "metrics": {"accuracy": right},
        **changes,
    }
    return make_trainer(model=given.pop("model", None) or Reader(), loss=loss, **given)


@pytest.mark.parametrize("gradients", ["opacus", "graph"])
def test_a_model_of_named_inputs_trains_and_is_scored(gradients):
    trainer = tree_trainer(gradients=gradients).fit()
    assert not torch.equal(weights(trainer.model), weights(Reader()))
    last, (inputs, targets) = trainer.history.to_json()["epochs"][-1], rows(50, seed=50)
    with torch.no_grad():
        outputs = trainer.model.eval()(**inputs)
    assert last["test_accuracy"] == pytest.approx(float(right(outputs, targets).float().mean()))
    assert last["test_loss"] == pytest.approx(float(loss(outputs, targets).mean()))
    assert last["validation"] > 0


def test_what_is_clipped_are_the_gradients_of_one_example_at_a_time():
    trainer = tree_trainer()
    inputs, targets = rows(5)

    with per_example_gradients(trainer.model, "hooks") as engine:
        engine.backward(trainer.loss, inputs, targets)
        vectors = engine.vectors([*trainer.model.parameters()])
        taken = [vectors.vector(i) for i in range(5)]
    for i, vector in enumerate(taken):
        alone = mapped(lambda tensor, i=i: tensor[i : i + 1], (inputs, targets))
        value = loss(trainer.model(**alone[0]), alone[1]).sum()
        found = torch.autograd.grad(value, [*trainer.model.parameters()])
        for a, b in zip(vector, found, strict=True):
            assert torch.allclose(a, b.flatten().double(), atol=1e-6)


@pytest.mark.parametrize("private", [True, False])
def test_rows_taken_as_they_are_drawn_train_as_those_in_memory(private):
    without = {} if private else {"privacy": None}
    lazy, usual = (tree_trainer(kind, **without).fit() for kind in (Lazy, tuple))
    assert torch.equal(weights(lazy.model), weights(usual.model))
    assert lazy.history.to_json() == usual.history.to_json()


def test_a_run_is_resumed_and_leaves_that_changed_places_are_refused(tmp_path):
    whole = tree_trainer(run_dir=tmp_path / "whole").fit()
    part = tree_trainer(run_dir=tmp_path / "part")
    for at in part.run():
        if at.step == 17:
            break
    part.close()
    again = tree_trainer(run_dir=tmp_path / "part").resume().fit()
    assert torch.equal(weights(again.model), weights(whole.model))
    again.close()
    inputs, targets = rows(120, seed=120)
    swapped = {**inputs, "ids": inputs["mask"], "mask": inputs["ids"].clamp(min=1)}
    with pytest.raises(RunError, match="its data changed"):
        tree_trainer(data=(swapped, targets), run_dir=tmp_path / "part").resume()


def test_the_order_of_names_is_no_other_data():
    inputs, targets = rows()
    turned = dict(reversed(inputs.items())), dict(reversed(targets.items()))
    first, second = (InMemory(*batch).fingerprint() for batch in ((inputs, targets), turned))
    assert b"".join(first) == b"".join(second)


def test_another_name_for_the_same_rows_is():
    x, y = torch.rand(4, 2), torch.rand(4)
    first, second = (InMemory({name: x}, y).fingerprint() for name in ("query", "key"))
    assert b"".join(first) != b"".join(second)


def test_a_single_tensor_is_hashed_and_made_up_as_it_always_was():
    inputs, targets = torch.arange(6.0).reshape(3, 2), torch.tensor([0, 1, 5])
    data = InMemory(inputs, targets)
    assert b"".join(data.fingerprint()) == inputs.numpy().tobytes() + targets.numpy().tobytes()
    made, generator = MadeUp((inputs, targets)).batch(4), torch.Generator().manual_seed(0)
    u = torch.rand((4, 2), generator=generator, dtype=torch.float64)
    assert torch.equal(made[0], (u * 4 + torch.tensor([0.0, 1.0])).float())
    u = torch.rand(4, generator=generator, dtype=torch.float64)
    assert torch.equal(made[1], targets[(u * 3).long()])


def test_units_average_trees_in_their_slots():
    trainer = tree_trainer(
        units=np.repeat(np.arange(40), 3),
        rows_per_unit=2,
        batch_size=8,
        privacy=Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5, unit="person"),
        validation=Validation(tensors=rows(40), units=np.repeat(np.arange(20), 2)),
    )
    assert trainer.fit().privacy_spent().unit == "person"
    assert not torch.equal(weights(trainer.model), weights(Reader()))


def test_a_tuple_is_given_by_place():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 3), nn.Linear(4, 3)

        def forward(self, a, b):
            return self.a(a) + self.b(b)

    data = (torch.rand(60, 2), torch.rand(60, 4)), torch.randint(3, (60,))
    trainer = make_trainer(model=Sum(), data=data, test_tensors=data).fit()
    assert trainer.done == trainer.sampling.steps


def test_what_is_made_up_of_masks_and_tokens_is_some_record_s():
    inputs, targets = rows(200)
    inputs["float"] = inputs["mask"].float()
    made = MadeUp((inputs, targets)).batch(5)
    assert (made[0]["mask"].sum(1) > 0).all()
    assert torch.equal(made[0]["float"], made[0]["mask"].float())
    for i in range(5):
        same = (inputs["ids"] == made[0]["ids"][i]).all(1) & (
            targets["label"] == made[1]["label"][i]
        )
        assert torch.equal(inputs["mask"][same.nonzero()[0, 0]], made[0]["mask"][i])
        assert not (targets["size"] == made[1]["size"][i]).any()
    assert len(made[0]["ids"].unique(dim=0)) == 5


def test_a_model_that_mixes_what_it_is_given_by_name_is_refused():
    class Mixing(Reader):
        def forward(self, *, ids, mask, extra):
            return super().forward(ids=ids, mask=mask, extra=(extra[0] - extra[0].mean(0),))

    with pytest.raises(ModelError, match="one example's gradient changes with another"):
        tree_trainer(model=Mixing())


def test_a_metric_of_every_example_against_every_other_is_refused():
    def error(outputs, targets):
        return (outputs[1]["size"] - targets["size"]) ** 2

    with pytest.raises(ModelError, match="every other's targets"):
        tree_trainer(metrics={"error": error})


def test_outputs_whose_first_dimension_are_layers_go_to_the_loss_whole():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            states = self.head(x)
            return {"states": states, "last": torch.stack([states, -states]), "mean": states.mean()}

    data = torch.rand(60, 3), torch.randint(2, (60,))
    trainer = make_trainer(
        model=Recurrent(),
        data=data,
        test_tensors=data,
        physical_batch_size=2,
        loss=lambda outputs, y: f.cross_entropy(outputs["last"][0], y, reduction="none"),
    )
    assert trainer.fit().done == trainer.sampling.steps


def test_a_metric_that_sees_layers_and_every_other_example_is_refused():
    class Layers(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 1)

        def forward(self, x):
            found = self.head(x)
            return found, torch.stack([found, -found])

    def squared(outputs, targets):
        return ((outputs[1][0] - targets) ** 2).sum(1)  # (n, 1) and (n,): n values for each row

    data = torch.rand(60, 3), torch.rand(60)
    with pytest.raises(ModelError, match=r"metric error: a test row's value changes with the rows"):
        make_trainer(
            model=Layers(),
            data=data,
            test_tensors=data,
            loss=lambda outputs, targets: (outputs[0].squeeze(1) - targets) ** 2,
            metrics={"error": squared},
        )


def test_a_model_of_several_inputs_is_saved_but_not_for_export(tmp_path):
    trainer = tree_trainer().fit()
    assert (trainer.save(tmp_path / "kept") / "model.safetensors").is_file()
    with pytest.raises(ExportError, match=r"dict of ids: .*takes one tensor"):
        trainer.save(tmp_path / "graph", input_range=(0.0, 1.0))
