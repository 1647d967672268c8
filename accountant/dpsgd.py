"""A DP-SGD run as events: what one step releases, and how many steps there are."""

from __future__ import annotations

import math
from fractions import Fraction

from accountant.errors import check
from accountant.events import Gaussian, PoissonSampled


def dpsgd_event(
    *, dataset_size: int, batch_size: int, noise_multiplier: float, microbatch_size: int = 1
) -> PoissonSampled:
    """One step of DP-SGD, as it is charged under add/remove of one record.

    A record alone under its clip moves the sum by at most C. In a microbatch of several it
    moves one clipped vector from anywhere in the ball of radius C to anywhere else, 2C, so the
    noise counts for half.

    >>> dpsgd_event(dataset_size=60000, batch_size=50, noise_multiplier=1.2, microbatch_size=5)
    ... # doctest: +NORMALIZE_WHITESPACE
    PoissonSampled(sampling_rate=0.0008333333333333334,
                   event=Gaussian(noise_multiplier=0.6))
    """
    check(dataset_size >= 1, "n", dataset_size, "must be at least 1 record")
    check(
        1 <= batch_size <= dataset_size,
        "batch_size",
        batch_size,
        f"must lie between 1 and n = {dataset_size}",
        "lower the batch size",
    )
    check(
        microbatch_size >= 1 and batch_size % microbatch_size == 0,
        "microbatch_size",
        microbatch_size,
        f"must divide the batch of {batch_size}",
        "choose a divisor",
    )
    sensitivity = 1 if microbatch_size == 1 else 2
    return PoissonSampled(
        sampling_rate=batch_size / dataset_size,
        event=Gaussian(noise_multiplier=noise_multiplier / sensitivity),
    )


def dpsgd_steps(*, dataset_size: int, batch_size: int, epochs: float) -> int:
    """Steps that pass over n records ``epochs`` times in expectation, rounded up.

    >>> dpsgd_steps(dataset_size=60000, batch_size=250, epochs=15)
    3600
    """
    check(batch_size >= 1, "batch_size", batch_size, "must be at least 1")
    check(epochs >= 0 and math.isfinite(epochs), "epochs", epochs, "must be a number ≥ 0")
    return math.ceil(Fraction(str(epochs)) * dataset_size / batch_size)
