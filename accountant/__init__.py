"""A privacy accountant from scratch, on numpy and scipy alone.

An *event* is what was released (frozen data); what it costs is a pure function of it.

>>> from accountant import RdpAccountant, dpsgd_event
>>> step = dpsgd_event(dataset_size=60_000, batch_size=250, noise_multiplier=1.3)
>>> bound = RdpAccountant().compose(step, 3_600).epsilon(delta=1e-5)
>>> print(f"ε ≤ {bound.upper:.4f} at order {bound.order:g}")
ε ≤ 0.9422 at order 17
"""

from accountant.calibrate import calibrate_noise
from accountant.errors import (
    BudgetExceeded,
    InvalidValue,
    LedgerError,
    PrivacyError,
    Unreachable,
    UnsupportedEvent,
)
from accountant.dpsgd import dpsgd_event, dpsgd_steps
from accountant.events import (
    DiscreteGaussian,
    Event,
    ExponentialMechanism,
    FixedSizeSampled,
    Gaussian,
    Laplace,
    PoissonSampled,
    RandomizedResponse,
    Relation,
    ShuffledEpoch,
    count_runs,
    event_from_json,
)
from accountant.ledger import Ledger
from accountant.rdp import (
    COMMON_ORDERS,
    RdpAccountant,
    RdpBound,
    rdp_gaussian,
    rdp_poisson_sampled_gaussian,
    renyi_divergence,
)

__all__ = [
    "COMMON_ORDERS",
    "BudgetExceeded",
    "Event",
    "Gaussian",
    "InvalidValue",
    "Ledger",
    "LedgerError",
    "PoissonSampled",
    "PrivacyError",
    "RdpAccountant",
    "RdpBound",
    "Relation",
    "Unreachable",
    "UnsupportedEvent",
    "calibrate_noise",
    "count_runs",
    "dpsgd_event",
    "dpsgd_steps",
    "event_from_json",
    "rdp_gaussian",
    "rdp_poisson_sampled_gaussian",
    "renyi_divergence",
]
