"""Opacus's ``PrivacyEngine``, for loops written for it: ``make_private``, then the same loop."""

from __future__ import annotations

from typing import Any

from torch import nn, optim
from torch.utils.data import DataLoader

from accountant import COMMON_ORDERS, RdpAccountant, exact
from accountant.errors import check, check_delta
from dpsgd_torch.errors import ConfigError, RunError
from dpsgd_torch.integrations.opacus_pieces import (
    ExampleCriterion,
    PoissonLoader,
    SteppingOptimizer,
    data_of,
)
from dpsgd_torch.privacy.guarantee import PrivacyGuarantee
from dpsgd_torch.privacy.privacy import Privacy
from dpsgd_torch.samplers.poisson import PoissonSampler
from dpsgd_torch.schedules import Schedule
from dpsgd_torch.training.own_loop import Private

Made = tuple[nn.Module, SteppingOptimizer, ExampleCriterion, PoissonLoader]
_GHOST = (
    "is told of one number for a batch, which hides the examples' own; pass criterion=…, "
    "grad_sample_mode='ghost', and take what is returned: model, optimizer, criterion, loader"
)
_KEPT: dict[str, tuple[Any, str]] = {
    "poisson_sampling": (True, "no analysis gives shuffled batches this ε; leave it out"),
    "clipping": (
        "flat",
        "one norm over all parameters is what is charged; leave it out (a clip that follows the "
        "data must be paid for; one that is fixed beforehand, max_grad_norm=Step(…) of "
        "dpsgd_torch.schedules, is free)",
    ),
    "loss_reduction": ("mean", "sums are divided by the expected batch size; scale the rate by it"),
    "batch_first": (True, "rows are the first dimension; transpose within the model"),
    "noise_generator": (
        None,
        "noise is drawn from a stream of its own, which nothing else reads; pass seed=…",
    ),
    "rand_on_empty": (False, "an empty batch is noise alone already; leave it out"),
    "wrap_model": ((True, False), "must be True or False; the model is wrapped in neither case"),
}


class PrivacyEngine:
    """DP-SGD for code written for Opacus's engine [Abadi et al. 2016, Algorithm 1].

    * Guarantee: that of ``Private``, on which it stands: Poisson batches, sums divided by the
      declared ``data_loader.batch_size``, a charge before each noise.
    * The shape is that of Opacus's ``grad_sample_mode="ghost"``: the criterion that is returned
      keeps the examples' losses apart, and its result's ``backward`` clips them.
    * One engine is one run. Each pass over the loader is an epoch; passes beyond ``epochs`` are
      added to the plan, and add to ε.

    Args:
        accountant: "prv": ε is exact, an upper bound; "rdp": Rényi accounting at Opacus's orders.
        secure_mode: noise is float64 on a public grid in either case.

    Raises:
        ConfigError: "gdp", an estimate that can lie below the truth.

    >>> import torch
    >>> from torch.utils.data import TensorDataset
    >>> rows = TensorDataset(torch.rand(64, 5), torch.randint(2, (64,)))
    >>> model = nn.Linear(5, 2)
    >>> engine = PrivacyEngine()
    >>> model, optimizer, criterion, loader = engine.make_private(
    ...     module=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
    ...     criterion=nn.CrossEntropyLoss(), data_loader=DataLoader(rows, batch_size=16),
    ...     noise_multiplier=1.0, max_grad_norm=1.0, grad_sample_mode="ghost")
    >>> for x, y in loader:
    ...     optimizer.zero_grad()
    ...     criterion(model(x), y).backward()
    ...     optimizer.step()
    >>> 0 < engine.get_epsilon(delta=1e-3) < 3
    True
    """

    def __init__(self, *, accountant: str = "prv", secure_mode: bool = False) -> None:
        if accountant not in ("prv", "rdp"):
            raise ConfigError(
                f"accountant = {accountant}: must be 'prv' (exact) or 'rdp': gdp is an estimate "
                "that can lie below the truth"
            )
        check(isinstance(secure_mode, bool), "secure_mode", secure_mode, "must be True or False")
        self.accountant, self.secure_mode = accountant, secure_mode
        self.private: Private | None = None

    def make_private(
        self,
        *,
        module: nn.Module,
        optimizer: optim.Optimizer,
        data_loader: DataLoader[Any],
        noise_multiplier: float | Schedule,
        max_grad_norm: float | Schedule,
        criterion: Any = None,
        grad_sample_mode: str = "hooks",
        target_delta: float | None = None,
        epochs: float = 1,
        seed: int | None = None,
        **more: Any,
    ) -> Made:
        """(module, optimizer, criterion, loader), to train by in the loop that is there.

        Args:
            module, optimizer, data_loader, noise_multiplier, max_grad_norm: as Opacus takes them.
            criterion: a torch loss, or a function that gives one value an example.
            grad_sample_mode: must be "ghost", whose shape this is.
            target_delta: δ of the ledger, which ``get_epsilon`` may ask at another; by default a
                tenth of 1 / n, or 1e-5.
            epochs: passes that are planned; more are added as the loader is iterated.
            seed: keys noise and batches; one that others know protects nobody.
            more: Opacus's others, at the values that a guarantee allows.

        Raises:
            ConfigError, InvalidValue, ModelError, DataError: before anything is charged.
        """
        privacy = {"noise_multiplier": noise_multiplier, "clip_norm": max_grad_norm}
        given = (module, optimizer, criterion, data_loader)
        return self._made(given, grad_sample_mode, more, privacy, target_delta, epochs, seed)

    def make_private_with_epsilon(
        self,
        *,
        module: nn.Module,
        optimizer: optim.Optimizer,
        data_loader: DataLoader[Any],
        target_epsilon: float,
        target_delta: float,
        epochs: float,
        max_grad_norm: float | Schedule,
        criterion: Any = None,
        grad_sample_mode: str = "hooks",
        seed: int | None = None,
        **more: Any,
    ) -> Made:
        """As ``make_private``, noise calibrated so that ``epochs`` passes cost ``target_epsilon``.

        A further pass over the loader is refused: nothing is left to spend.

        Raises:
            ConfigError, InvalidValue, ModelError, DataError: before anything is charged.
        """
        privacy = {"epsilon": target_epsilon, "clip_norm": max_grad_norm}
        given = (module, optimizer, criterion, data_loader)
        return self._made(given, grad_sample_mode, more, privacy, target_delta, epochs, seed)

    def get_epsilon(self, delta: float) -> float:
        """ε of the steps so far at ``delta``, by the engine's accountant; 0 before the first."""
        check_delta(delta)
        if self.private is None or not self.private.state.charges.has_ledger:
            return 0.0
        events = self.private.ledger.events()
        if not events:
            return 0.0
        spent = self.privacy_spent()  # whose two accountants must agree
        if self.accountant == "rdp":
            rdp = RdpAccountant(COMMON_ORDERS)
            rdp.compose_all(events)
            return float(rdp.epsilon(delta, search=False).upper)
        if delta == spent.delta:
            return spent.epsilon
        priced = exact()
        priced.compose_all(events)
        return float(priced.epsilon(delta).upper)

    def privacy_spent(self) -> PrivacyGuarantee:
        """What has been spent so far, by both accountants, at the δ of the plan.

        Raises:
            RunError: nothing was charged yet.
        """
        if self.private is None:
            raise RunError("privacy: nothing was charged; call make_private first")
        return self.private.privacy_spent()

    def save_checkpoint(self, **given: Any) -> None:
        """Refused: it would hold no ledger.

        Raises:
            RunError: always.
        """
        raise RunError(
            "save_checkpoint: a checkpoint without its ledger forgets what was paid; use "
            "dpsgd_torch.Private(run_dir=…) and its resume(), or engine.private.save(path)"
        )

    load_checkpoint = save_checkpoint

    def _made(
        self,
        given: tuple[nn.Module, optim.Optimizer, Any, DataLoader[Any]],
        mode: str,
        more: dict[str, Any],
        asked: dict[str, Any],
        delta: float | None,
        epochs: float,
        seed: int | None,
    ) -> Made:
        module, optimizer, criterion, data_loader = given
        if self.private is not None:
            raise RunError("make_private: this engine has a run; one engine a run, make another")
        _refuse(mode, criterion, asked["clip_norm"], more)
        size = data_loader.batch_size
        if size is None:
            raise ConfigError(
                "data_loader: has no batch_size; pass one with it, the expected size that sums "
                "are divided by"
            )
        data, items = data_of(data_loader)
        n = len(data_loader.dataset)  # type: ignore[arg-type]
        original = getattr(optimizer, "original_optimizer", optimizer)
        most = PoissonSampler(dataset_size=n, batch_size=min(size, n), steps=1).most()
        self.private = private = Private(
            module,
            original,
            data,
            privacy=Privacy(delta=min(1e-5, 0.1 / n) if delta is None else delta, **asked),
            batch_size=size,
            epochs=epochs,
            physical_batch_size=most,  # a batch whole, as Opacus hands it over
            device=next(module.parameters()).device,
            seed=seed,
        )
        return (
            module,
            SteppingOptimizer(private, original),
            ExampleCriterion(private, criterion),
            PoissonLoader(private, data_loader, items),
        )


def _refuse(mode: str, criterion: Any, clip_norm: Any, more: dict[str, Any]) -> None:
    if mode != "ghost" or criterion is None:
        raise ConfigError(f"grad_sample_mode = {mode}: {_GHOST}")
    if getattr(criterion, "reduction", "mean") == "sum":
        raise ConfigError(
            f"criterion.reduction = sum: {_KEPT['loss_reduction'][1]}, and pass reduction='mean'"
        )
    if isinstance(clip_norm, list | tuple):
        raise ConfigError(f"max_grad_norm = {clip_norm}: {_KEPT['clipping'][1]}")
    for name, value in more.items():
        if name not in _KEPT:
            raise ConfigError(f"{name}: is none of make_private's arguments; leave it out")
        kept, why = _KEPT[name]
        if value not in (kept if isinstance(kept, tuple) else (kept,)):
            raise ConfigError(f"{name} = {value}: {why}")
