"""The answer to ``dpsgd advise``: what was asked, looked at and suggested, in words or as JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any

from dpsgd_torch.advice.law import Law, written
from dpsgd_torch.advice.settings import Asked, Suggestion, suggest
from dpsgd_torch.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from dpsgd_torch.advice.first_steps import FirstSteps

_FEATURES = 400
_IMAGE = (1, 28, 28)
_ROWS = 512  # made-up ones whose gradients are looked at


def answer(given: argparse.Namespace) -> str:
    """What the command prints; draws the picture that was asked for."""
    asked, seen = _asked(given)
    found = suggest(asked)
    if given.plot is not None:
        from dpsgd_torch.advice.picture import draw

        draw(asked, found, given.plot)
    if given.json:
        return json.dumps(as_json(asked, found, seen), indent=2)
    return in_words(asked, found, seen, classes=given.classes)


def _asked(given: argparse.Namespace) -> tuple[Asked, FirstSteps | None]:
    for name in ("minutes", "example_seconds"):
        value = getattr(given, name)
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{name} = {value:g}: must be a number > 0")
    if given.classes < 2:
        raise ConfigError(f"classes = {given.classes}: must be at least 2")
    if given.input_shape is not None and given.model is None:
        raise ConfigError("input_shape: is of a --model; name one, or leave it out")
    if given.parameters is not None and given.minutes and given.example_seconds is None:
        raise ConfigError(
            f"minutes = {given.minutes:g}: how long an example takes is not known of a number of "
            "parameters; say --example-seconds, or name a --model"
        )
    asked = Asked(
        n=given.n,
        epsilon=given.epsilon,
        delta=_delta(given.n) if given.delta is None else given.delta,
        kind="network" if given.model or given.parameters else "head",
        parameters=given.parameters or ((given.features or _FEATURES) + 1) * given.classes,
        seconds=None if given.minutes is None else 60 * given.minutes,
        example_seconds=given.example_seconds,
    )
    if given.parameters is not None:
        return asked, None
    seen = _looked_at(given)
    return dataclasses.replace(
        asked,
        parameters=seen.parameters,
        example_seconds=given.example_seconds or seen.example_seconds,
    ), seen


def _delta(n: int) -> float:
    """1e-5, or less where 1/n is."""
    return min(1e-5, float(f"1e{math.floor(math.log10(1 / n))}"))


def _looked_at(given: argparse.Namespace) -> FirstSteps:
    from dpsgd_torch.advice.first_steps import first_steps
    from dpsgd_torch.advice.model import linear_head, made_by, made_up_rows

    if given.model is None:
        features = given.features or _FEATURES
        shape: tuple[int, ...] = (features,)
        model: nn.Module = linear_head(features, given.classes)
    else:
        shape = tuple(given.input_shape or _IMAGE)
        model = made_by(given.model).train()
    return first_steps(model, made_up_rows(_ROWS, shape, given.classes))


def as_json(asked: Asked, found: Suggestion, seen: FirstSteps | None) -> dict[str, Any]:
    """What was asked, what is suggested, what was looked at, and where the law is from."""
    law = Law.of(asked.kind)
    looked = None
    if seen is not None:
        looked = dataclasses.asdict(seen) | {
            "signal_to_noise": seen.signal_to_noise(found.noise_multiplier, found.batch_size),
            "signal_to_noise_of_run": seen.signal_to_noise(
                found.noise_multiplier, found.batch_size, found.steps
            ),
        }
    return {
        "asked": dataclasses.asdict(asked),
        "suggested": found.to_json(),
        "first_steps": looked,
        "rules": {
            "kind": asked.kind,
            "date": written()["date"],
            "command": written()["command"],
            "errors": dict(law.errors),
            "outside": _outside(asked, found, law),
        },
    }


def in_words(asked: Asked, found: Suggestion, seen: FirstSteps | None, *, classes: int) -> str:
    """A page for the terminal."""
    a_model = f"a linear head, {classes} classes" if asked.kind == "head" else "a network"
    share = 100 * found.batch_size / asked.n
    rows = [
        ("batch size", f"{found.batch_size:,}", f"expected, Poisson: {share:.3g} % of the records"),
        ("steps", f"{found.steps}", f"{found.epochs:g} epochs"),
        ("noise multiplier", f"{found.noise_multiplier:.5g}",
         f"exact: ε lies between {found.epsilon[0]:.6f} and {found.epsilon[1]:.6f}"),
        ("clip norm", f"{found.clip_norm:g}", ""),
        ("learning rate", f"{found.learning_rate:g}", "SGD, no momentum, falling linearly to 0"),
    ]  # fmt: skip
    lines = [
        f"n = {asked.n:,}, ε = {asked.epsilon:g}, δ = {asked.delta:g}; {a_model}: "
        f"{asked.parameters:,} parameters",
        "",
        *(f"{name:18}{value:>9}   {more}".rstrip() for name, value, more in rows),
        "",
        *_expected(asked, found),
        *_seen(asked, found, seen),
        "",
        *_python(asked, found),
        "",
        *_rules(asked, found),
    ]
    return "\n".join(lines)


def _expected(asked: Asked, found: Suggestion) -> list[str]:
    n, epsilon = found.half
    ways = [f"n = {n:,}"] if n else []
    ways += [f"ε = {epsilon:.2g}"] if epsilon else []
    why = {
        "noise": "the noise that ε asks of so few records",
        "model": "the model and its features: noise costs little",
        "time": "time: with more minutes batches could be larger",
    }[found.limit]
    return [
        f"kept: {min(100 * found.kept, 99.5):.3g} % of the accuracy above chance that this model "
        "reaches without noise, in 180 steps of such batches",
        f"limited by {why}",
        f"half the loss: {' or '.join(ways) or 'out of reach'}, all else as it is",
    ]


def _seen(asked: Asked, found: Suggestion, seen: FirstSteps | None) -> list[str]:
    each, lines = asked.example_seconds, []
    if seen is not None:
        one, all_of_them = (
            seen.signal_to_noise(found.noise_multiplier, found.batch_size, steps)
            for steps in (1, found.steps)
        )
        lines.append(
            f"first steps, on {seen.rows} made-up rows: mean clipped gradient {seen.signal:.2g} C, "
            f"{100 * seen.clipped:.0f} % clipped; signal to noise {one:.3g}, of {found.steps} such "
            f"steps {all_of_them:.3g}"
        )
    if each is not None:
        whole = each * found.batch_size * found.steps
        bytes_of = f", {seen.example_bytes:,} bytes" if seen is not None else ""
        lines.append(
            f"here an example takes {1e6 * each:.3g} µs{bytes_of}; the steps {_spoken(whole)}"
        )
    return lines


def _python(asked: Asked, found: Suggestion) -> list[str]:
    model = "model" if asked.kind == "network" else "head"
    return [
        "from dpsgd_torch import Privacy, Trainer, schedules",
        "trainer = Trainer(",
        f"    {model}, nn.CrossEntropyLoss(), (inputs, targets),",
        f"    privacy=Privacy(epsilon={asked.epsilon:g}, delta={asked.delta:g}, "
        f"clip_norm={found.clip_norm:g}),",
        f"    batch_size={found.batch_size}, epochs={found.epochs!r},",
        f"    optimizer=lambda p: torch.optim.SGD(p, lr={found.learning_rate:g}),",
        f"    rate_schedule=schedules.Linear(1.0, 0.0, {found.steps}))",
    ]


def _rules(asked: Asked, found: Suggestion) -> list[str]:
    law, source = Law.of(asked.kind), written()
    errors = law.errors
    lines = [
        f"rules: fitted to {errors['fitted_cells']:.0f} settings of made-up rows, "
        f"{source['date']}, by {source['command']}",
        f"on cases left out, {100 * errors['kept_rms']:.0f} points off what is kept (root mean "
        f"square); its learning rate {100 * errors['regret_median']:.1f} points below the best of "
        f"all that were tried (median; in nine of ten at most "
        f"{100 * errors['regret_nine_tenths']:.1f})",
    ]
    if outside := _outside(asked, found, law):
        lines.append(f"beyond what was measured: {', '.join(outside)}; take it as a guess")
    return lines


def _outside(asked: Asked, found: Suggestion, law: Law) -> list[str]:
    values = {"n": asked.n, "kappa": found.kappa, "parameters": asked.parameters}
    names = {"n": "n", "kappa": "noise", "parameters": "parameters"}
    return [
        names[name]
        for name, value in values.items()
        if not law.measured[name][0] <= value <= law.measured[name][1]
    ]


def _spoken(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds / 60:.0f} min"
