"""Compiled steps ÷ eager steps, private and plain, in turns: medians with their spread.

    python benchmarks/compiled.py            # small MLP, small CNN, moa-notebook's, a tiny Llama
    python benchmarks/compiled.py mlp cnn --steps 40

A private step is all of it: passes, norms, clip, sums, noise and SGD, on Poisson batches. A plain
one is ``torch.compile(model)`` beside the model itself, on batches of one size. Times are of the
processor, on one thread, so that what else runs on a machine counts less. Five minutes.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from dpsgd_torch import Privacy, Trainer
from dpsgd_torch.gradients.methods import per_example_gradients
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
from dpsgd_torch.training.steps import Draw, PrivateStep

RECORDS = 20_000


def mlp() -> tuple[nn.Module, torch.Tensor, torch.Tensor, int]:
    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    return model, torch.rand(RECORDS, 64), torch.randint(10, (RECORDS,)), 256


def cnn() -> tuple[nn.Module, torch.Tensor, torch.Tensor, int]:
    from dpsgd_torch.tasks.mnist.task import mnist_cnn

    model = mnist_cnn(torch.Generator().manual_seed(0))
    return model, torch.rand(2000, 1, 28, 28), torch.randint(10, (2000,)), 256


def moa() -> tuple[nn.Module, torch.Tensor, torch.Tensor, int]:
    model = nn.Sequential(
        *(nn.LayerNorm(875), nn.Dropout(0.2), nn.Linear(875, 2048), nn.ReLU(), nn.LayerNorm(2048)),
        *(nn.Dropout(0.5), nn.Linear(2048, 1048), nn.ReLU(), nn.LayerNorm(1048), nn.Dropout(0.5)),
        nn.Linear(1048, 206),
    )
    return model, torch.rand(2000, 875), (torch.rand(2000, 206) < 0.01).float(), 64


class _Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(ids, use_cache=False).logits
        return logits.transpose(1, 2)


def llama() -> tuple[nn.Module, torch.Tensor, torch.Tensor, int]:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, attn_implementation="eager",
    )  # fmt: skip
    ids = torch.randint(256, (500, 33))
    return _Logits(LlamaForCausalLM(config)), ids[:, :-1], ids[:, 1:], 32


MODELS = {"mlp": mlp, "cnn": cnn, "moa": moa, "llama": llama}


def ratio(one: Callable[[], None], other: Callable[[], None], steps: int) -> str:
    """The median of ``one`` ÷ ``other``, a pair at a time, with quartiles; and other's time."""
    found: list[float] = []
    took: list[float] = []
    for step in range(steps + 3):
        began = time.process_time()
        one()
        middle = time.process_time()
        other()
        end = time.process_time()
        if step >= 3:
            found.append((middle - began) / (end - middle))
            took.append(end - middle)
    low, median, high = statistics.quantiles(found, n=4)
    return f"{median:.2f} ({low:.2f} to {high:.2f}) of {1e3 * statistics.median(took):.1f} ms"


def private(name: str, steps: int) -> str:
    taking, seconds = [], 0.0
    for compiled in (True, False):
        torch.manual_seed(0)
        model, inputs, targets, batch_size = MODELS[name]()
        loss = nn.BCEWithLogitsLoss() if name == "moa" else nn.CrossEntropyLoss()
        trainer = Trainer(
            model, loss, (inputs, targets), batch_size=batch_size, epochs=1, compile=compiled,
            privacy=Privacy(noise_multiplier=1.0, delta=1e-6, clip_norm=1.0),
            optimizer=lambda p: torch.optim.SGD(p, lr=0.01),
        )  # fmt: skip
        taking.append(step_of(trainer))
        if program := trainer.state.method.program:
            seconds = program.seconds
    return f"{ratio(*taking, steps)}, compiled in {seconds:.0f} s" if seconds else "not compiled"


def step_of(trainer: Trainer) -> Callable[[], None]:
    run, rng = trainer.state, np.random.default_rng(0)
    assert run.plan
    method, plan = run.method, run.plan.step(0)
    gradients = per_example_gradients(
        run.model, method.kind, method.layouts, run.forward, program=method.program
    ).__enter__()
    optimizer = PrivateOptimizer(run.optimizer, microbatches=run.sampling.microbatches)
    take = PrivateStep(gradients, run.loss, optimizer, physical_batch_size=run.at_once)

    def step() -> None:
        rows = np.flatnonzero(rng.random(len(run.data)) < run.sampling.batch_size / len(run.data))
        take(run.data, plan, Draw(rows, np.arange(len(rows)), rng))

    return step


def plain(name: str, steps: int) -> str:
    model, inputs, targets, batch_size = MODELS[name]()
    x, y = inputs[:batch_size], targets[:batch_size]
    loss = nn.BCEWithLogitsLoss() if name == "moa" else nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step_by(called: Callable[..., torch.Tensor]) -> Callable[[], None]:
        def step() -> None:
            optimizer.zero_grad()
            loss(called(x), y).backward()
            optimizer.step()

        return step

    return ratio(step_by(torch.compile(model, dynamic=False)), step_by(model), steps)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("models", nargs="*", default=list(MODELS), choices=[*MODELS, []])
    asked.add_argument("--steps", type=int, default=30)
    given = asked.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name in given.models or MODELS:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*local, not covered")
            print(f"{name:6} private: compiled ÷ eager {private(name, given.steps)}", flush=True)
        print(f"{name:6} plain:   compiled ÷ eager {plain(name, given.steps)}", flush=True)


if __name__ == "__main__":
    main()
