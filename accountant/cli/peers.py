"""Other accountants, where they are installed, behind one call: for comparison, never for an ε.

None is imported by the accountant itself: ``python -m accountant.cli.peers NAME`` answers from a
process of its own, which may take its time, its memory and torch with it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

Part = tuple[float, float, int]
"""Sampling rate, noise multiplier and number of steps, of Poisson-sampled Gaussian releases."""

Answer = tuple[float | None, float]
"""Lower and upper bound on ε, or None and the one number a tool gives."""

Ask = Callable[[list[Part], float], Answer]

WARM_UP: tuple[list[Part], float] = ([(0.01, 1.0, 100)], 1e-5)


def dp_accounting_rdp() -> Ask:
    return _dp_accounting(import_module("dp_accounting.rdp").RdpAccountant)


def dp_accounting_pld() -> Ask:
    return _dp_accounting(import_module("dp_accounting.pld").PLDAccountant)


def _dp_accounting(new: Callable[[], Any]) -> Ask:
    library = import_module("dp_accounting")

    def ask(parts: list[Part], delta: float) -> Answer:
        accountant = new()
        for rate, noise, steps in parts:
            event = library.PoissonSampledDpEvent(rate, library.GaussianDpEvent(noise))
            accountant.compose(event, steps)
        return None, accountant.get_epsilon(delta)

    return ask


def opacus_rdp() -> Ask:
    return _opacus("rdp")


def opacus_prv() -> Ask:
    return _opacus("prv")


def opacus_gdp() -> Ask:
    return _opacus("gdp")


def _opacus(mechanism: str) -> Ask:
    library = import_module("opacus.accountants")

    def ask(parts: list[Part], delta: float) -> Answer:
        if mechanism == "gdp" and len(parts) > 1:
            raise ValueError("noise must stay constant")  # it would price the last part alone
        accountant = library.create_accountant(mechanism)
        accountant.history = [(noise, rate, steps) for rate, noise, steps in parts]
        return None, accountant.get_epsilon(delta)

    return ask


def prv_accountant(error: float = 0.1) -> Ask:
    """Its interval, for an allowed error in ε; that in δ is δ/1000, as its manual advises."""
    library = import_module("prv_accountant")

    def ask(parts: list[Part], delta: float) -> Answer:
        accountant = library.PRVAccountant(
            prvs=[
                library.PoissonSubsampledGaussianMechanism(rate, noise) for rate, noise, _ in parts
            ],
            max_self_compositions=[steps for _, _, steps in parts],
            eps_error=error,
            delta_error=delta / 1000,
        )
        lower, _, upper = accountant.compute_epsilon(delta, [steps for _, _, steps in parts])
        return lower, upper

    return ask


def autodp() -> Ask:
    """The composition that its NoisySGD_Mechanism makes, of any parts."""
    mechanisms = import_module("autodp.mechanism_zoo")
    transforms = import_module("autodp.transformer_zoo")

    def ask(parts: list[Part], delta: float) -> Answer:
        sample = transforms.AmplificationBySampling(PoissonSampling=True)
        sampled = [
            sample(mechanisms.ExactGaussianMechanism(noise), rate, improved_bound_flag=True)
            for rate, noise, _ in parts
        ]
        total = transforms.Composition()(sampled, [steps for _, _, steps in parts])
        return None, total.get_approxDP(delta)

    return ask


@dataclass(frozen=True)
class Peer:
    """An accountant of another package; ``prepare`` imports it."""

    package: str
    prepare: Callable[[], Ask]

    @property
    def installed(self) -> bool:
        return find_spec(self.package) is not None


PEERS = {
    "dp_accounting RDP": Peer("dp_accounting", dp_accounting_rdp),
    "dp_accounting PLD": Peer("dp_accounting", dp_accounting_pld),
    "Opacus RDP": Peer("opacus", opacus_rdp),
    "Opacus PRV": Peer("opacus", opacus_prv),
    "Opacus GDP": Peer("opacus", opacus_gdp),
    "prv_accountant": Peer("prv_accountant", prv_accountant),
    "autodp RDP": Peer("autodp", autodp),
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What peers warn of is theirs."""
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def main() -> None:
    """Answer the question on stdin, {"parts", "delta"}, as one JSON object."""
    question = json.load(sys.stdin)
    parts = [(float(q), float(s), int(n)) for q, s, n in question["parts"]]
    with quiet():
        ask = PEERS[sys.argv[1]].prepare()
        ask(*WARM_UP)
        started = time.perf_counter()
        lower, epsilon = ask(parts, question["delta"])
        seconds = time.perf_counter() - started
    answer = {"lower": lower, "epsilon": epsilon, "seconds": seconds}
    print(json.dumps({name: None if v is None else float(v) for name, v in answer.items()}))


if __name__ == "__main__":
    main()
