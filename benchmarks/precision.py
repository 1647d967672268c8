"""Does mixed precision gain a private step what it gains a plain one?

Four contenders a model, from the same weights and batch, in one process: plain and private, each in
float32 and under autocast. A round times one step of each, in an order that rotates; ratios are
taken within a round, and the middle one is shown with where 80 % of them lie.

    plain     bf16 ÷ float32 of zero_grad, forward, backward, step
    private   bf16 ÷ float32 of what the Trainer runs, in one physical batch
    gain      private's ratio over plain's. Goal: within 5 % of 1, where the CPU has instructions

What the CPU has is printed first: without avx512_bf16 or amx_bf16 nothing is to be gained.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from step import conditions, time_steps
from torch import nn
from torch.nn.functional import cross_entropy

from dpsgd_torch.data.in_memory import InMemory
from dpsgd_torch.data.trees import call
from dpsgd_torch.gradients.graph.engine import GraphGradients
from dpsgd_torch.precision import Precision, cpu_flags
from dpsgd_torch.privacy.plan import StepPlan
from dpsgd_torch.tasks.mnist.task import mnist_cnn
from dpsgd_torch.training.private_optimizer import PrivateOptimizer
from dpsgd_torch.training.steps import Draw, PrivateStep
from dpsgd_torch.training.streams import Streams

CPU = torch.device("cpu")
GOAL = 0.05
Made = tuple[nn.Module, torch.Tensor, torch.Tensor]


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    rows = []
    for name in options.models:
        steps = contenders(MODELS[name], options.precision)
        found = time_steps(steps, (), options.rounds)
        rows.append({"model": name, **compared(found.pop("seconds"))})
    result = {**conditions(options), "cpu": told_of_the_cpu(), "rows": rows}
    print(json.dumps(result, indent=2) if options.json else table(result, options.precision))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--models", nargs="+", choices=MODELS, default=list(MODELS), help="which (all)")
    add("--precision", default="bf16", help="beside float32 (bf16)")
    add("--rounds", type=int, default=20, help="timed rounds, after a few to warm up (20)")
    add("--threads", type=int, default=1, help="of torch; one is steadiest (1)")
    add("--json", action="store_true", help="everything as JSON instead of a table")
    return parser.parse_args()


def told_of_the_cpu() -> dict[str, Any]:
    """What speaks for a gain."""
    wanted = ("avx512_bf16", "amx_bf16", "avx512_fp16", "amx_fp16", "bf16")
    return {
        "capability": torch.backends.cpu.get_cpu_capability(),
        "has": [name for name in wanted if name in cpu_flags()],
    }


def contenders(made: Callable[[], Made], precision: str) -> dict[str, Callable[[], object]]:
    steps: dict[str, Callable[[], object]] = {}
    for name, asked in (("float32", "float32"), ("mixed", precision)):
        steps[f"plain {name}"] = plain_step(*made(), Precision.of(asked))
        steps[f"private {name}"] = private_step(*made(), Precision.of(asked))
    return steps


def losses(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
    """One an example: classes, or the next token at each place."""
    logits = outputs if isinstance(outputs, torch.Tensor) else outputs.logits
    if targets.dim() == 1:
        return cross_entropy(logits, targets, reduction="none")
    return cross_entropy(logits[:, :-1].mT, targets[:, 1:], reduction="none").mean(1)


def plain_step(
    model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, precision: Precision
) -> Callable[[], object]:
    forward, optimizer = precision.forward(call, CPU), sgd(model)

    def step() -> None:
        optimizer.zero_grad()
        losses(forward(model, inputs), targets).mean().backward()
        optimizer.step()

    return step


def private_step(
    model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, precision: Precision
) -> Callable[[], object]:
    everyone = np.arange(len(targets))
    take = PrivateStep(
        GraphGradients(model, forward=precision.forward(call, CPU), scale=precision.loss_scale),
        losses,
        PrivateOptimizer(sgd(model), microbatches=len(everyone)),
        physical_batch_size=len(everyone),
    )
    data, plan = InMemory(inputs, targets), StepPlan(1.0, 1.0)
    streams, number = Streams(0), itertools.count()

    def step() -> None:
        noise = streams.numpy("noise", step=next(number))
        take(data, plan, Draw(everyone, everyone, noise))

    return step


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-3)


def compared(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians in ms, and each ratio round by round."""
    at = {name: np.array(values) for name, values in seconds.items()}
    ratios = {kind: at[f"{kind} mixed"] / at[f"{kind} float32"] for kind in ("plain", "private")}
    ratios["gain"] = ratios["private"] / ratios["plain"]
    ratios["private/plain float32"] = at["private float32"] / at["plain float32"]
    ratios["private/plain mixed"] = at["private mixed"] / at["plain mixed"]
    return {
        "ms": {name: 1000 * float(np.median(values)) for name, values in at.items()},
        "ratio": {
            name: np.quantile(values, [0.1, 0.5, 0.9]).tolist() for name, values in ratios.items()
        },
    }


def cnn() -> Made:
    made = torch.Generator().manual_seed(0)
    images = torch.rand(1024, 1, 28, 28, generator=made)
    return mnist_cnn(made), images, torch.randint(10, (1024,), generator=made)


def mlp() -> Made:
    torch.manual_seed(0)
    wide = [nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU()]
    model = nn.Sequential(*wide, nn.Linear(1024, 10))
    return model, torch.randn(1024, 1024), torch.randint(10, (1024,))


def llama() -> Made:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000, hidden_size=256, intermediate_size=688, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    words = torch.randint(1000, (32, 64))
    return LlamaForCausalLM(config), words, words


def gpt2() -> Made:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=1000, n_positions=64, n_embd=256, n_layer=4, n_head=4, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    words = torch.randint(1000, (32, 64))
    return GPT2LMHeadModel(config), words, words


MODELS: dict[str, Callable[[], Made]] = {"cnn": cnn, "mlp": mlp, "llama": llama, "gpt2": gpt2}


def table(result: dict[str, Any], precision: str) -> str:
    """For people: medians, and each ratio with its 10-90 % range."""
    lines = [f"{name}: {result[name]}" for name in result if name != "rows"]
    for row in result["rows"]:
        times = ", ".join(f"{name} {ms:.1f} ms" for name, ms in row["ms"].items())
        lines += ["", f"{row['model']}: {times}"]
        for name, (low, middle, high) in row["ratio"].items():
            says = f"{precision} ÷ float32" if name in ("plain", "private") else ""
            says = f"  goal {1 - GOAL:.2f} to {1 + GOAL:.2f}" if name == "gain" else says
            lines.append(f"  {name:22}{middle:6.2f}  ({low:.2f} to {high:.2f})  {says}".rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
