"""What the same DP-SGD run would be worth if one thing about it were otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from accountant.bounds import EpsilonBounds
from accountant.dpsgd import Sampler, dpsgd_events
from accountant.events import Relation
from accountant.pld.accountant import PldAccountant


@dataclass(frozen=True)
class Alternative:
    """A run, what it is, and its ε."""

    name: str
    relation: Relation
    epsilon: EpsilonBounds


def side_by_side(
    *,
    dataset_size: int,
    batch_size: int,
    noise_multiplier: float,
    steps: int,
    delta: float,
    microbatch_size: int = 1,
) -> list[Alternative]:
    """The run with Poisson batches, and beside it what is often mistaken for the same.

    ε of different relations cannot be compared as numbers: replacing a record is adding one and
    removing another.

    >>> rows = side_by_side(dataset_size=60000, batch_size=250, noise_multiplier=1.3, steps=3600,
    ...                     delta=1e-5)
    >>> for row in rows:
    ...     print(f"{row.name:<36} {row.epsilon.upper:5.2f}")
    one record added or removed           0.85
    the same in microbatches              4.30
    one record replaced                   5.02
    one replaced, batches of fixed size   5.02
    one replaced, shuffled batches       42.41
    """
    either = "without microbatches" if microbatch_size > 1 else "in microbatches"
    other = 1 if microbatch_size > 1 else 2  # a microbatch of several moves the sum by twice
    own = 3 - other
    add, replace = Relation.ADD_OR_REMOVE_ONE, Relation.REPLACE_ONE
    found = []
    for name, halved, sampler, relation in (
        ("one record added or removed", own, Sampler.POISSON, add),
        (f"the same {either}", other, Sampler.POISSON, add),
        ("one record replaced", 1, Sampler.POISSON, replace),
        ("one replaced, batches of fixed size", 1, Sampler.FIXED_SIZE, replace),
        ("one replaced, shuffled batches", 1, Sampler.SHUFFLED, replace),
    ):
        accountant = PldAccountant()
        for event, count in dpsgd_events(
            dataset_size=dataset_size,
            batch_size=batch_size,
            noise_multiplier=noise_multiplier / halved,
            steps=steps,
            sampler=sampler,
            relation=relation,
        ):
            accountant.compose(event, count)
        found.append(Alternative(name, relation, accountant.epsilon(delta)))
    return found
