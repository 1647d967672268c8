"""What a run promises: clip, noise, sampling and budget, and what cannot be had together."""

from __future__ import annotations

from dataclasses import dataclass

from accountant.errors import InvalidValue
from dpsgd_torch.errors import ConfigError
from dpsgd_torch.samplers.registry import parsed, words
from dpsgd_torch.schedules import GRAMMAR
from dpsgd_torch.tasks.base import knob, require

FACTORS = ("bandmf", "bandinvmf", "blt", "banded_sqrt", "banded_inverse_sqrt")
GENERATORS = ("numpy", "blocks", "philox")
SHAPE = f"by step, as factors of the first value: {GRAMMAR}, or @FILE of lines step,factor"


@dataclass(frozen=True, kw_only=True)
class Promise:
    """privacy"""

    dp: bool = knob(True, "train with differential privacy; --no-dp for the same run without")
    clip_norm: float = knob(
        1.5, "L2 norm each microbatch's gradient is clipped to", rule="positive"
    )
    clip_schedule: str = knob("constant", f"clip norm {SHAPE}")
    clipping: str = knob(
        "flat",
        "how it is cut to that norm: flat; automatic[:γ], normalised; adaptive:QUANTILE[:RATE], "
        "the norm follows a quantile that each step tells and pays; per-layer[:size]",
        since=3,
    )
    noise_multiplier: float | None = knob(
        1.3, "deviation of the noise / clip norm", rule="positive"
    )
    noise_schedule: str = knob(
        "constant", "noise multiplier by step, likewise; scaled by calibration"
    )
    noise: str = knob(
        "independent",
        "independent in each step; or correlated:KIND:BANDS, noise that later steps take off again "
        "in part, by a factorization of so many bands (blt: buffers), as correlated:bandmf:16; "
        f"KIND {' or '.join(FACTORS)}",
        since=3,
    )
    sampling: str = knob(
        "auto",
        f"how batches are drawn, as KIND or KIND:NUMBER: {words()}; auto is poisson, or cyclic "
        "with as many parts as bands where noise is correlated",
        since=3,
    )
    noise_generator: str = knob(
        "numpy",
        "what draws the noise: numpy on the CPU; blocks, the same by parts, of which each of "
        "several processes draws its own; or philox where the model is, many times as fast on a "
        "GPU (other numbers of the same law each)",
        choices=GENERATORS,
        since=3,
    )
    epsilon: float | None = knob(
        None,
        "budget: alone, the noise is calibrated to it; with --noise-multiplier, a hard stop",
        rule="positive",
    )
    advantage: float | None = knob(
        None,
        "in place of ε: any attacker's true less false positives, not to be passed",
        since=3,
    )
    tpr_at_fpr: str | None = knob(
        None,
        "in place of ε: true positives not to be passed at a rate of false ones, as 0.02@0.001",
        since=3,
    )
    delta: float = knob(1e-5, "δ of the guarantee; keep it below 1/n")
    secure: bool = knob(
        False,
        "noise exact to the last bit, it and the samples from a cryptographic generator",
        since=3,
    )
    privacy_unit: str = knob(
        "record",
        "whom ε protects: record, or a column of ids in the data (drug_id, patient_id, …)",
    )
    rows_per_unit: int = knob(
        6, "rows of such a unit that are averaged and clipped as one, at most", rule="count"
    )

    def refuse_promise(self) -> None:
        require(0 < self.delta < 1, "delta", self.delta, "must lie in (0, 1); try --delta 1e-5")
        require(
            not self.dp
            or not (self.noise_multiplier is None and self.epsilon is None)
            or not (self.advantage is None and self.tpr_at_fpr is None),
            "noise_multiplier",
            None,
            "a private run needs --noise-multiplier or --epsilon; or pass --no-dp",
        )
        risks = [r for r in (self.advantage, self.tpr_at_fpr) if r is not None]
        others = self.noise_multiplier is not None or self.epsilon is not None
        require(
            not risks or not (others or len(risks) > 1),
            "advantage" if self.advantage is not None else "tpr_at_fpr",
            risks[0] if risks else None,
            "stands alone, in place of --epsilon and --noise-multiplier; drop the others",
        )
        require(
            self.advantage is None or 0 < self.advantage < 1,
            "advantage",
            self.advantage,
            "must lie strictly between 0 and 1",
        )
        self.tpr_and_fpr()
        factor = self.factorization()
        try:
            parsed(self.sampler())
        except InvalidValue as error:
            raise ConfigError(str(error)) from error
        kind = self.sampler().partition(":")[0]
        told = f"must be cyclic or passes where noise is {self.noise}"
        fit = factor is None or kind in ("cyclic", "passes")
        require(not self.dp or fit, "sampling", self.sampling, told)
        require(
            factor is None or (self.noise_generator == "numpy" and not self.secure),
            "noise",
            self.noise,
            "is drawn by numpy and not exactly; drop --noise-generator and --secure",
        )
        require(
            not (self.secure and self.dp) or kind != "passes",
            "sampling",
            self.sampling,
            "is not for exact noise, which is charged for samples of Poisson's law; drop --secure",
        )
        constant = self.clip_schedule == self.noise_schedule == "constant"
        require(
            kind not in ("cyclic", "passes") or constant,
            "noise" if factor else "sampling",
            self.noise if factor else self.sampling,
            "pays for several steps at once; drop --clip-schedule and --noise-schedule",
        )

    def sampler(self) -> str:
        """The kind of sampler, and its number: what ``auto`` stands for."""
        factor = self.factorization()
        if factor and self.sampling in ("auto", "cyclic"):
            return f"cyclic:{factor[1]}"
        return "poisson" if self.sampling == "auto" else self.sampling

    def factorization(self) -> tuple[str, int] | None:
        """Kind and bands of the correlated noise that was asked for, if any was."""
        if self.noise == "independent":
            return None
        word, _, rest = self.noise.partition(":")
        kind, _, count = rest.partition(":")
        bands = int(count) if count.isdecimal() else 0
        require(
            word == "correlated" and kind in FACTORS and bands >= 1,
            "noise",
            self.noise,
            f"must be independent, or correlated:KIND:BANDS with KIND {' or '.join(FACTORS)} and "
            "BANDS a whole number; try correlated:bandmf:16",
        )
        return kind, bands

    def tpr_and_fpr(self) -> tuple[float, float] | None:
        """The two rates of ``tpr_at_fpr``."""
        if self.tpr_at_fpr is None:
            return None
        try:
            tpr, fpr = map(float, self.tpr_at_fpr.split("@"))
        except ValueError:
            tpr, fpr = 0.0, 0.0
        rule = "must be TPR@FPR with 0 < FPR < TPR < 1; try 0.02@0.001"
        require(0 < fpr < tpr < 1, "tpr_at_fpr", self.tpr_at_fpr, rule)
        return tpr, fpr
