"""One step of each contender on one model: plain, ours, and Opacus's two, run as well as they can.

What Opacus needs is done for it and not for us: layers replaced by its own (its ``fix``), residual
sums and activations out of place, position ids one row an example, dictionaries passed by keyword.
"""

from __future__ import annotations

import itertools
import operator
import time
import types
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from opacus import GradSampleModule
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from opacus.validators import ModuleValidator
from torch import nn
from torch.utils._pytree import tree_map

from dpsgd_torch.gradients.losses import per_example
from dpsgd_torch.gradients.methods import per_example_gradients
from dpsgd_torch.privacy.plan import StepPlan
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
from dpsgd_torch.training.streams import Streams

Case = tuple[nn.Module, Any, torch.Tensor, Any]  # model, inputs, targets, loss
Step = Callable[[], object]

CLIP_NORM, NOISE_MULTIPLIER, RATE = 1.0, 1.0, 1e-3
PROMISE = {"max_grad_norm": CLIP_NORM, "noise_multiplier": NOISE_MULTIPLIER}


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=RATE)


def called(model: nn.Module, inputs: Any) -> Any:
    return model(**inputs) if isinstance(inputs, dict) else model(inputs)


def plain(case: Case) -> Step:
    model, inputs, targets, loss = case
    optimizer, loss = sgd(model), per_example(loss)

    def step() -> None:
        optimizer.zero_grad()
        loss(called(model, inputs), targets).mean().backward()
        optimizer.step()

    return step


class Ours:
    """What the Trainer's step does: vectors, clip, float64 sums, noise, checks, optimizer."""

    def __init__(self, case: Case, kind: str = "graph") -> None:
        model, self.inputs, self.targets, loss = case
        self.optimizer = PrivateOptimizer(sgd(model), microbatches=len(self.targets))
        self.loss, self.number, self.streams = per_example(loss), itertools.count(), Streams(0)
        self.open = ExitStack()  # held: the hooks go with it
        self.engine = self.open.enter_context(per_example_gradients(model, kind))
        self.seconds: dict[str, list[float]] = {"engine": [], "noise": []}

    def __call__(self) -> None:
        started = time.perf_counter()
        noise = self.streams.numpy("noise", step=next(self.number))
        self.optimizer.begin(StepPlan(CLIP_NORM, NOISE_MULTIPLIER), noise)
        self.engine.backward(self.loss, self.inputs, self.targets)
        self.optimizer.accumulate(self.engine.vectors(self.optimizer.params))
        summed = time.perf_counter()
        self.optimizer.release()
        self.seconds["engine"].append(summed - started)
        self.seconds["noise"].append(time.perf_counter() - summed)


class PerRow(nn.Module):
    """A loss with the attribute that Opacus sets, and one value an example all the same."""

    reduction = "mean"

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.loss = per_example(loss)

    def forward(self, outputs: Any, targets: torch.Tensor) -> torch.Tensor:
        return self.loss(outputs, targets)


def hooks(case: Case, piece: int | None = None) -> Step:
    """Opacus's hooks; ``piece`` rows at a time, as its BatchMemoryManager would have it."""
    model, inputs, targets, loss = for_opacus(case)
    wrapped, loss = GradSampleModule(model), per_example(loss)
    optimizer = DPOptimizer(sgd(wrapped), **PROMISE, expected_batch_size=len(targets))
    count, size = len(targets), piece or len(targets)
    warnings.filterwarnings("ignore", message="Full backward hook is firing")

    def step() -> None:
        for start in range(0, count, size):
            rows = slice(start, start + size)
            part = tree_map(operator.itemgetter(rows), inputs) if size < count else inputs
            optimizer.zero_grad()
            loss(called(wrapped, part), targets[rows]).mean().backward()
            optimizer.signal_skip_step(do_skip=start + size < count)
            optimizer.step()

    return step


def ghost(case: Case) -> Step:
    """Opacus's fast gradient clipping: two backward passes."""
    model, inputs, targets, loss = for_opacus(case)
    wrapped = GradSampleModuleFastGradientClipping(
        model, max_grad_norm=CLIP_NORM, use_ghost_clipping=True, loss_reduction="mean"
    )
    optimizer = DPOptimizerFastGradientClipping(
        sgd(wrapped), **PROMISE, expected_batch_size=len(targets), loss_reduction="mean"
    )
    criterion = DPLossFastGradientClipping(wrapped, optimizer, PerRow(loss), loss_reduction="mean")
    warnings.filterwarnings("ignore", message="Full backward hook is firing")

    def step() -> None:
        optimizer.zero_grad()
        criterion(called(wrapped, inputs), targets).backward()
        optimizer.step()

    return step


def for_opacus(case: Case) -> Case:
    """The same model and rows, changed where Opacus would refuse them or fail."""
    model, inputs, targets, loss = case
    if not ModuleValidator.is_valid(model):
        model = ModuleValidator.fix(model)
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
        if type(module).__name__ == "BasicBlock":
            module.forward = types.MethodType(_basic_block, module)
    if isinstance(inputs, dict) and "input_ids" in inputs:
        inputs = {**inputs, **_ids_by_row(model, inputs)}
    return model, inputs, targets, loss


def _basic_block(block: Any, x: torch.Tensor) -> torch.Tensor:
    """torchvision's, without ``out += identity``."""
    out = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(x)))))
    return block.relu(out + (x if block.downsample is None else block.downsample(x)))


def _ids_by_row(model: nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Ids that the model would make once for all rows; Opacus needs them row by row."""
    kind, ids = model.config.model_type, inputs["input_ids"]
    places = torch.arange(ids.shape[1]).repeat(len(ids), 1)
    if kind == "bert":
        return {"position_ids": places, "token_type_ids": torch.zeros_like(ids)}
    return {"position_ids": places} if kind == "gpt2" else {}


CONTENDERS: dict[str, Callable[..., Step]] = {
    "plain": plain,
    "ours": Ours,
    "hooks": hooks,
    "ghost": ghost,
}
