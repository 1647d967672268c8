"""The cross-check prices what it has an analysis for, and refuses what it has none for."""

import re
import sys
import warnings

import pytest

from accountant import (
    BudgetNotReached,
    FixedSizeSampled,
    Gaussian,
    Laplace,
    PoissonSampled,
    PrivacyError,
    RdpAccountant,
    Relation,
    UnsupportedEvent,
    dpsgd_event,
)
from dpsgd_torch import Privacy
from dpsgd_torch.app.search.allowance import Rule, allowance
from dpsgd_torch.privacy.cross_check import opacus_epsilon, opacus_rdp
from dpsgd_torch.privacy.opacus_alone import opacus_alone
from dpsgd_torch.privacy.plan import Sampling

REPLACED = Gaussian(noise_multiplier=2.0, relation=Relation.REPLACE_ONE)
STEP = dpsgd_event(dataset_size=1000, batch_size=10, noise_multiplier=2.0)


@pytest.mark.parametrize(
    "event",
    [
        FixedSizeSampled(dataset_size=1000, batch_size=10, event=REPLACED),
        PoissonSampled(sampling_rate=0.01, event=REPLACED),
        PoissonSampled(sampling_rate=0.01, event=Gaussian(noise_multiplier=2.0), group_size=3),
    ],
)
def test_gaussian_noise_on_records_drawn_otherwise_is_refused(event):
    """Each was priced as if of all records, or of one record added: that is another run."""
    said = rf"^event {re.escape(repr(event))}: Opacus prices .*; use the accountant alone$"
    with pytest.raises(UnsupportedEvent, match=said):
        opacus_epsilon([(event, 10)], 1e-5)


def test_other_noise_is_priced_by_our_own_divergences_in_both_sums():
    laplace = PoissonSampled(sampling_rate=0.1, event=Laplace(noise_multiplier=5.0))
    epsilon, difference = opacus_epsilon([(STEP, 100), (laplace, 3)], 1e-5)
    ours = RdpAccountant().compose(STEP, 100).compose(laplace, 3).epsilon(1e-5).upper
    assert difference < 1e-9
    assert epsilon == pytest.approx(ours, rel=1e-6)


def test_gaussian_noise_on_all_records_is_priced_as_such():
    for event in (
        Gaussian(noise_multiplier=5.0),
        PoissonSampled(sampling_rate=1.0, event=Gaussian(noise_multiplier=5.0)),
    ):
        epsilon, difference = opacus_epsilon([(event, 2)], 1e-5)
        ours = RdpAccountant().compose(event, 2).epsilon(1e-5, search=False).upper
        assert difference < 1e-9
        assert epsilon == pytest.approx(ours, rel=1e-6)


def plan(epsilon):
    privacy = Privacy(epsilon=epsilon, delta=1e-5, clip_norm=1.0)
    return privacy.plan(Sampling(dataset_size=10_000, batch_size=100, steps=30))


def test_a_budget_that_no_noise_is_little_enough_for_is_told():
    with pytest.warns(
        BudgetNotReached, match=r"^epsilon = 100000: is not reached: .* ends at 0.02"
    ):
        found = plan(100_000.0)
    assert found.event(0).event.noise_multiplier == pytest.approx(0.02)


def test_a_budget_that_is_reached_is_not_remarked_upon():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plan(3.0).event(0).event.noise_multiplier > 0.1


def test_a_refusal_is_one_of_the_projects_own():
    assert issubclass(UnsupportedEvent, PrivacyError)


def test_a_search_whose_budget_no_noise_spends_is_told_so():
    rule = Rule(law=None, trials=2)

    def run(noise):
        return [(Gaussian(noise_multiplier=noise), 1)]

    with pytest.warns(BudgetNotReached, match=r"ends at a multiplier of 0.1, which costs"):
        assert allowance(rule, run, 1e6, 1e-5).epsilon < 1e6


def test_what_checks_is_opacuss_own_file_as_its_package_has_it():
    import opacus
    from opacus.accountants.analysis import rdp

    assert opacus_rdp.__file__ == rdp.__file__
    assert opacus_alone("version").__version__ == opacus.__version__
    prices = {"q": 0.01, "noise_multiplier": 1.1, "steps": 100, "orders": [2, 3.5, 64]}
    assert opacus_rdp.compute_rdp(**prices).tolist() == rdp.compute_rdp(**prices).tolist()


def test_a_module_that_opacus_lacks_is_an_import_error(monkeypatch):
    with pytest.raises(ModuleNotFoundError, match=r"opacus\.accountants\.nothing"):
        opacus_alone("accountants.nothing")
    monkeypatch.setitem(sys.modules, "opacus", None)  # as if it were not installed
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'opacus'$"):
        opacus_alone("accountants.analysis.gdp")
