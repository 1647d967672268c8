"""Sequences of unequal length: padded batch by batch, masked, and refused where padding tells."""

import datasets
import numpy as np
import pytest
import torch
from small_problem import make_trainer, weights
from torch import nn
from torch.nn import functional as f

from accountant.errors import InvalidValue
from dpsgd_torch import Columns, DataError, ModelError, Padded, Privacy, RunError, Validation
from dpsgd_torch.data.base import Data, Schema, Tensor
from dpsgd_torch.data.checked import data_on
from dpsgd_torch.gradients.methods import per_example_gradients
from dpsgd_torch.losses import classification, token_classification
from dpsgd_torch.tasks.mnist.torchvision_import import torchvision_datasets

torchvision_datasets()  # transformers takes torchvision along, which may fit another torch
transformers = pytest.importorskip("transformers")
N = 120
RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(1, 30, N)
WORDS = [torch.from_numpy(RNG.integers(1, 11, size)) for size in LENGTHS]
LABELS = torch.from_numpy(RNG.integers(3, size=N))
TAGS = [word % 3 for word in WORDS]


def padded(count=N, **changes):
    words = Padded(WORDS[:count], **changes)
    return {"input_ids": words, "attention_mask": words.mask}, LABELS[:count]


class Reader(nn.Module):
    """Words, each with what comes before it, and their mean, by ``pool``."""

    def __init__(self, pool, heads=3, recurrent=False):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.words, self.head = nn.Embedding(11, 6), nn.Linear(6, heads)
            self.mix = nn.GRU(6, 6, batch_first=True) if recurrent else nn.Linear(6, 6)
        self.pool = pool

    def forward(self, input_ids, attention_mask):
        found = self.mix(self.words(input_ids))
        found = found[0] if isinstance(found, tuple) else torch.tanh(found)
        return self.pool(self.head(found), attention_mask.unsqueeze(2))


def masked_mean(x, mask):
    return (x * mask).sum(1) / mask.sum(1).clamp(min=1)


def last(x, mask):
    return x.gather(1, (mask.sum(1, keepdim=True) - 1).expand(-1, -1, x.shape[2])).squeeze(1)


def trained(model, data, **changes):
    return make_trainer(**{"model": model, "data": data, "epochs": 1, **changes})


GOOD = {
    "a mean": lambda: Reader(masked_mean),
    "the last of a recurrent layer": lambda: Reader(last, recurrent=True),
}
BAD = {
    "a mean over padding": lambda: Reader(lambda x, mask: x.mean(1)),
    "weights over padding": lambda: Reader(lambda x, mask: (x.softmax(1) * x * mask).sum(1)),
    "the last state after padding": lambda: Reader(lambda x, mask: x[:, -1], recurrent=True),
    "a sum with the number of places": lambda: Reader(
        lambda x, mask: masked_mean(x, mask) * mask.shape[1]
    ),
}


KINDS = [("a mean", "graph"), ("a mean", "opacus"), ("the last of a recurrent layer", "graph")]


@pytest.mark.parametrize(("case", "gradients"), KINDS)
def test_a_model_that_keeps_padding_out_trains(case, gradients):
    model = GOOD[case]()
    before = weights(model).clone()
    trainer = trained(
        model,
        padded(),
        gradients=gradients,
        test_tensors=padded(50),
        validation=Validation(tensors=padded(40)),
        physical_batch_size="auto",
    ).fit()
    assert trainer.done == trainer.sampling.steps
    assert not torch.equal(weights(model), before)


@pytest.mark.parametrize("case", BAD)
def test_a_model_whose_gradient_changes_with_padding_is_refused(tmp_path, case):
    with pytest.raises(ModelError, match=r"an example's gradient changes with how far it") as told:
        trained(BAD[case](), padded(), run_dir=tmp_path / "run")
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("case", BAD)
def test_padded_to_a_declared_length_such_a_model_trains(case):
    trainer = trained(BAD[case](), padded(length=32)).fit()
    assert trainer.done == trainer.sampling.steps
    assert trainer.data.schema.inputs["input_ids"].shape == (32,)


def test_a_zero_that_hides_padding_is_moved():
    """As a head of zeros, or LoRA's, whose other factor learns nothing at first."""
    model = Reader(lambda x, mask: x.mean(1) * 0 + masked_mean(x, mask))
    model.gate = nn.Parameter(torch.zeros(()))
    model.pool = lambda x, mask: masked_mean(x, mask) + model.gate * x.detach().std(1) * 1e-3
    with pytest.raises(ModelError, match="changes with how far it is padded"):
        trained(model, padded())


def test_a_loss_that_counts_padding_is_refused_and_one_that_leaves_it_out_trains():
    words = Padded(WORDS)
    inputs = {"input_ids": words, "attention_mask": words.mask}

    def tagger():
        return Reader(lambda x, mask: x.transpose(1, 2))

    with pytest.raises(ModelError, match="changes with how far it is padded"):
        trained(tagger(), (inputs, Padded(TAGS)), loss=nn.CrossEntropyLoss())
    tags = Padded(TAGS, -100)
    assert trained(tagger(), (inputs, tags), loss=nn.CrossEntropyLoss()).fit().done == 10

    def named(outputs, targets):
        return token_classification({"logits": outputs.transpose(1, 2)}, targets)

    assert trained(tagger(), (inputs, tags), loss=named).fit().done == 10


def test_a_score_that_changes_with_padding_is_refused():
    def counting(outputs, targets):
        return outputs["all"].mean((1, 2))

    class Two(Reader):
        def forward(self, input_ids, attention_mask):
            kept = super().forward(input_ids, attention_mask)
            return {"logits": kept, "all": self.words(input_ids)}

    for changes in (
        {"validation": Validation(tensors=padded(40), score=counting)},
        {"test_tensors": padded(40), "metrics": {"odd": counting}},
    ):
        with pytest.raises(ModelError, match=r"(score|odd): a (validation|test) row's value chang"):
            trained(Two(masked_mean), padded(), loss=classification, **changes)


@pytest.mark.parametrize(("case", "kind"), KINDS)
def test_what_is_clipped_is_the_gradient_that_an_example_has_alone(case, kind):
    model, data = GOOD[case](), data_on("cpu", padded(), "data")
    trainer = trained(model, padded(), gradients=kind)
    parameters = [*model.parameters()]
    with per_example_gradients(model, kind, trainer.state.method.layouts) as engine:
        for rows in ([3], [0, 1, 2], [np.argmin(LENGTHS), np.argmax(LENGTHS)], range(40)):
            indices = np.array(rows)
            engine.backward(trainer.loss, *data.take(indices))
            vectors = engine.vectors(parameters)
            for place, row in enumerate(indices):
                inputs, targets = data.take(indices[place : place + 1])
                value = trainer.loss(model(**inputs), targets).sum()
                alone = torch.autograd.grad(value, parameters)
                for a, b in zip(vectors.vector(place), alone, strict=True):
                    assert torch.allclose(a, b.flatten().double(), atol=1e-6), row


def test_how_a_batch_is_cut_does_not_matter():
    quiet = {"privacy": Privacy(noise_multiplier=1e-6, delta=1e-3, clip_norm=0.5)}
    small, large = (
        trained(Reader(masked_mean), padded(), physical_batch_size=size, **quiet).fit()
        for size in (2, 64)
    )
    assert torch.allclose(weights(small.model), weights(large.model), atol=1e-4)


def test_a_small_bert_reads_a_table_of_tokens():
    table = datasets.Dataset.from_dict(
        {
            "input_ids": [words.tolist() for words in WORDS],
            "attention_mask": [[1] * len(words) for words in WORDS],
            "label": LABELS.tolist(),
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=11,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            max_position_embeddings=40,
            num_labels=3,
        )
        model = transformers.BertForSequenceClassification(config)
    trainer = trained(model, Columns(table, targets="label"), loss=classification).fit()
    assert trainer.done == trainer.sampling.steps
    with pytest.raises(ModelError, match="changes with how far it is padded"):
        trained(
            model,
            Columns(table.remove_columns("attention_mask"), targets="label"),
            loss=classification,
        )


def test_a_row_beyond_the_declared_length_is_refused_before_a_charge(tmp_path):
    row = int(np.flatnonzero(LENGTHS.max() == LENGTHS)[0])
    with pytest.raises(DataError, match=rf"row {row} has 29 elements: must be ≤ length = 28"):
        trained(Reader(masked_mean), padded(length=28), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(InvalidValue, match="multiple_of = 0"):
        Padded(WORDS, multiple_of=0)


def test_a_label_out_of_range_in_one_long_row_is_met_before_a_charge():
    tags = [*TAGS]
    tags[77] = torch.full_like(tags[77], 3)
    words = Padded(WORDS)
    data = {"input_ids": words, "attention_mask": words.mask}, Padded(tags, -100)
    with pytest.raises(DataError, match="row 77 has a class out of range for CrossEntropyLoss"):
        trained(Reader(lambda x, mask: x.transpose(1, 2)), data, loss=nn.CrossEntropyLoss())


def test_a_run_resumes_bit_for_bit_and_refuses_other_sequences(tmp_path):
    def run(folder, data):
        return trained(Reader(masked_mean), data, run_dir=tmp_path / folder)

    whole, part = run("whole", padded()).fit(), run("part", padded())
    for at in part.run():
        if at.step == 4:
            break
    part.close()
    shorter = [*WORDS[:-1], WORDS[-1][:-1] if len(WORDS[-1]) > 1 else WORDS[-1].repeat(2)]
    words = Padded(shorter)
    other = {"input_ids": words, "attention_mask": words.mask}, LABELS
    with pytest.raises(RunError, match="its data changed"):
        run("part", other).resume()
    again = run("part", padded()).resume().fit()
    assert torch.equal(weights(again.model), weights(whole.model))


class Collated(Data):
    """A kind of one's own that pads by a collate function, and says so in its schema."""

    schema = Schema(
        {
            "input_ids": Tensor((None,), torch.int64),
            "attention_mask": Tensor((None,), torch.int64),
        },
        Tensor((), torch.int64),
    )

    def __len__(self):
        return N

    def take(self, indices):
        words = nn.utils.rnn.pad_sequence([WORDS[row] for row in indices], batch_first=True)
        return {"input_ids": words, "attention_mask": (words > 0).long()}, LABELS[indices]


def test_a_kind_of_ones_own_may_pad_its_batches():
    assert trained(Reader(masked_mean), Collated()).fit().done == 10
    with pytest.raises(ModelError, match="changes with how far it is padded"):
        trained(BAD["a mean over padding"](), Collated())


def test_a_graph_of_varying_inputs_is_no_export(tmp_path):
    words = Padded(WORDS)

    class Plain(Reader):
        def forward(self, input_ids):
            return super().forward(input_ids, (input_ids > 0).long())

    trainer = trained(Plain(masked_mean), (words, LABELS)).fit()
    with pytest.raises(Exception, match="padded to another length in each batch"):
        trainer.save(tmp_path / "out", input_range=(0, 10))


def test_the_loss_of_padded_rows_is_that_of_the_rows():
    model, data = Reader(masked_mean).eval(), data_on("cpu", padded(), "data")
    inputs, targets = data.take(np.arange(N))
    expected = torch.stack(
        [model(words[None], torch.ones(1, len(words)).long())[0] for words in WORDS]
    )
    assert torch.allclose(model(**inputs), expected, atol=1e-6)
    assert f.cross_entropy(model(**inputs), targets).item() > 0
