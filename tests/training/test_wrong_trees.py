"""Trees that are not what they should be, or not what they say: refused by the leaf's name."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_problem import make_trainer

from dpsgd_torch import DataError
from dpsgd_torch.data.base import Data, Schema, Tensor
from dpsgd_torch.data.checked import Checked
from dpsgd_torch.data.in_memory import InMemory
from dpsgd_torch.data.trees import leaves, mapped, taken

X, Y = torch.zeros(10, 3), torch.zeros(10)
WRONG_TREES = {
    "fewer rows": (
        ({"ids": X, "mask": X[:9]}, Y),
        r"inputs\.mask has 9 rows where inputs\.ids has 10",
    ),
    "other targets": (({"ids": X}, {"a": Y[:4]}), r"targets\.a has 4 rows where inputs\.ids"),
    "None": (({"ids": X, "mask": None}, Y), r"inputs\.mask = NoneType: must be a tensor.*left out"),
    "a number": (((X, torch.tensor(1.0)), Y), r"inputs\.1 = one number"),
    "lists": ((X, [0.0, 1.0]), r"targets\.0 = float"),
    "nothing": (({}, Y), "inputs = dict: is empty"),
    "nothing within": (({"ids": X, "more": ()}, Y), r"inputs\.more = tuple: is empty"),
    "a key": (({0: X}, Y), "the key 0: must be text"),
    "no rows": (({"ids": X[:0]}, Y[:0]), r"inputs\.ids has 0 rows"),
    "no targets": ({"ids": X}, "train_tensors = dict: must be a pair of tensors"),
    "two batches": ([(X, Y), (X, Y)], "must be a pair of tensors"),
}


@pytest.mark.parametrize("case", WRONG_TREES)
def test_a_wrong_tree_is_refused_by_its_leaf(case):
    data, match = WRONG_TREES[case]
    with pytest.raises(DataError, match=match) as refusal:
        make_trainer(data=data)
    assert str(refusal.value).startswith("train_tensors")
    assert "\n" not in str(refusal.value)


class Cut(Data):
    """Rows that are cut from a tree as they are drawn."""

    batch = (
        {
            "ids": torch.arange(30).reshape(6, 5),
            "mask": torch.ones(6, 5, dtype=torch.int64),
            "extra": (torch.zeros(6, 2),),
        },
        torch.zeros(6),
    )
    schema = Schema.of(batch)

    def __len__(self):
        return 6

    def take(self, indices):
        return taken(self.batch, torch.from_numpy(indices))


def taking(**changes):
    """A kind whose schema is true and whose rows are not."""

    class Kind(Cut):
        def take(self, indices):
            inputs, targets = super().take(indices)
            made = {name: change(inputs.get(name)) for name, change in changes.items()}
            return {k: v for k, v in {**inputs, **made}.items() if v is not None}, targets

    return Checked(Kind(), "cpu", "train_tensors")


UNTRUE = {
    "a leaf is missing": (
        taking(mask=lambda t: None),
        r"= dict of ids.*: must be dict of ids.*mask",
    ),
    "a leaf more": (taking(more=lambda t: X[:1]), "must be dict of ids"),
    "another dtype": (taking(mask=torch.Tensor.float), r"inputs\.mask of row 2 = torch\.float32"),
    "a row less": (taking(ids=lambda t: t[1:]), r"inputs\.ids of row 2"),
    "within": (taking(extra=lambda t: (t[0][:, :1],)), r"inputs\.extra\.0 of row 2"),
    "arrays": (taking(ids=torch.Tensor.numpy), r"inputs\.ids = ndarray: must be a tensor"),
}


@pytest.mark.parametrize("case", UNTRUE)
def test_rows_that_are_not_as_their_schema_says_are_refused_by_their_leaf(case):
    data, match = UNTRUE[case]
    with pytest.raises(DataError, match=match):
        data.take(np.array([2]))


def test_names_and_not_their_order_say_what_a_leaf_is():
    class Turned(Cut):
        def take(self, indices):
            inputs, targets = super().take(indices)
            return dict(reversed(inputs.items())), targets

    inputs, _ = Checked(Turned(), "cpu", "train_tensors").take(np.array([1, 4]))
    assert torch.equal(inputs["ids"], Cut.batch[0]["ids"][[1, 4]])
    assert (inputs["mask"] == 1).all()


def test_a_schema_of_no_specs_is_refused():
    kind = Cut()
    kind.schema = Schema({"ids": Tensor((5,), torch.int64), "mask": 5}, Tensor((), torch.int64))
    with pytest.raises(DataError, match=r"schema\.inputs\.mask = int: must be a"):
        Checked(kind, "cpu", "train_tensors")


TREES = st.recursive(
    st.sampled_from([(2,), (), (1, 3)]).map(lambda shape: torch.rand(7, *shape)),
    lambda part: (
        st.lists(part, min_size=1, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from(["a", "b", "c"]), part, min_size=1)
    ),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None)
@given(TREES, TREES, st.permutations(range(7)), st.data())
def test_any_tree_is_taken_row_by_row_and_one_row_less_is_refused(inputs, targets, order, data):
    whole = InMemory.of((inputs, targets), "cpu", "train_tensors")
    turned = whole.take(np.array(order))
    for before, after in zip(leaves((inputs, targets)), leaves(turned), strict=True):
        assert torch.equal(before[order], after)
    assert [*map(len, leaves([*whole.batches(5)]))] == [5] * len(leaves(turned)) + [2] * len(
        leaves(turned)
    )
    short = data.draw(st.integers(0, len(leaves(turned)) - 1))
    numbers = iter(range(20))
    cut = mapped(lambda leaf: leaf[next(numbers) == short :], (inputs, targets))
    if len(leaves(cut)) > 1:
        with pytest.raises(DataError, match=r"rows where|equal length"):
            InMemory.of(cut, "cpu", "train_tensors")
