"""A privacy accountant from scratch, on numpy and scipy alone.

An *event* is what was released (frozen data); what it costs is a pure function of it.

>>> from accountant import RdpAccountant, dpsgd_event
>>> step = dpsgd_event(dataset_size=60_000, batch_size=250, noise_multiplier=1.3)
>>> bound = RdpAccountant().compose(step, 3_600).epsilon(delta=1e-5)
>>> print(f"ε ≤ {bound.upper:.4f} at order {bound.order:g}")
ε ≤ 0.9422 at order 17
"""

from typing import TYPE_CHECKING

from accountant.late import late

if TYPE_CHECKING:
    from accountant.bounds import DeltaBounds, EpsilonBounds, RdpBound
    from accountant.calibration import (
        BudgetNotReached,
        calibrate,
        calibrate_noise,
        calibrate_sampling_rate,
        calibrate_steps,
        exact,
    )
    from accountant.dpsgd import Sampler, dpsgd_event, dpsgd_events, dpsgd_steps
    from accountant.errors import (
        BudgetExceeded,
        Contradiction,
        InvalidValue,
        LedgerError,
        PrivacyError,
        Unreachable,
        UnsupportedEvent,
    )
    from accountant.events import (
        DiscreteGaussian,
        Event,
        ExponentialMechanism,
        FixedSizeSampled,
        Gaussian,
        Laplace,
        NoCost,
        PoissonSampled,
        RandomAllocation,
        RandomizedResponse,
        Relation,
        ShuffledEpoch,
        TruncatedPoissonSampled,
        count_runs,
        event_from_json,
    )
    from accountant.gdp import gdp_epsilon, gdp_mu
    from accountant.groups import for_group
    from accountant.ledger.ledger import Ledger
    from accountant.pld.accountant import PldAccountant
    from accountant.rdp.accountant import COMMON_ORDERS, RdpAccountant
    from accountant.rdp.curves import renyi_divergence
    from accountant.rdp.sampled_gaussian import rdp_gaussian, rdp_poisson_sampled_gaussian
    from accountant.risk.calibrate import calibrate_noise_to_advantage, calibrate_noise_to_power
    from accountant.risk.measures import Risk, risk_of
    from accountant.rounding import (
        nearest_sensitivity,
        randomized_sensitivity,
        rounded_sum_sensitivity,
        truncated_sensitivity,
    )
    from accountant.tradeoff import TradeOff, attacker_power
else:
    __getattr__, __dir__ = late(
        __name__,
        {
            "bounds": "DeltaBounds EpsilonBounds RdpBound",
            "calibration": (
                "BudgetNotReached calibrate calibrate_noise calibrate_sampling_rate "
                "calibrate_steps exact"
            ),
            "dpsgd": "Sampler dpsgd_event dpsgd_events dpsgd_steps",
            "errors": (
                "BudgetExceeded Contradiction InvalidValue LedgerError PrivacyError "
                "Unreachable UnsupportedEvent"
            ),
            "events": (
                "DiscreteGaussian Event ExponentialMechanism FixedSizeSampled Gaussian "
                "Laplace NoCost PoissonSampled RandomAllocation RandomizedResponse Relation "
                "ShuffledEpoch TruncatedPoissonSampled count_runs event_from_json"
            ),
            "gdp": "gdp_epsilon gdp_mu",
            "groups": "for_group",
            "ledger.ledger": "Ledger",
            "pld.accountant": "PldAccountant",
            "rdp.accountant": "COMMON_ORDERS RdpAccountant",
            "rdp.curves": "renyi_divergence",
            "rdp.sampled_gaussian": "rdp_gaussian rdp_poisson_sampled_gaussian",
            "risk.calibrate": "calibrate_noise_to_advantage calibrate_noise_to_power",
            "risk.measures": "Risk risk_of",
            "rounding": (
                "nearest_sensitivity randomized_sensitivity rounded_sum_sensitivity "
                "truncated_sensitivity"
            ),
            "tradeoff": "TradeOff attacker_power",
        },
    )

__all__ = [
    "COMMON_ORDERS",
    "BudgetExceeded",
    "BudgetNotReached",
    "Contradiction",
    "DeltaBounds",
    "DiscreteGaussian",
    "EpsilonBounds",
    "Event",
    "ExponentialMechanism",
    "FixedSizeSampled",
    "Gaussian",
    "InvalidValue",
    "Laplace",
    "Ledger",
    "LedgerError",
    "NoCost",
    "PldAccountant",
    "PoissonSampled",
    "PrivacyError",
    "RandomAllocation",
    "RandomizedResponse",
    "RdpAccountant",
    "RdpBound",
    "Relation",
    "Risk",
    "Sampler",
    "ShuffledEpoch",
    "TradeOff",
    "TruncatedPoissonSampled",
    "Unreachable",
    "UnsupportedEvent",
    "attacker_power",
    "calibrate",
    "calibrate_noise",
    "calibrate_noise_to_advantage",
    "calibrate_noise_to_power",
    "calibrate_sampling_rate",
    "calibrate_steps",
    "count_runs",
    "dpsgd_event",
    "dpsgd_events",
    "dpsgd_steps",
    "event_from_json",
    "exact",
    "for_group",
    "gdp_epsilon",
    "gdp_mu",
    "nearest_sensitivity",
    "randomized_sensitivity",
    "rdp_gaussian",
    "rdp_poisson_sampled_gaussian",
    "renyi_divergence",
    "risk_of",
    "rounded_sum_sensitivity",
    "truncated_sensitivity",
]
