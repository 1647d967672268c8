"""Peak memory of a rank: every rank with the whole model, and each with a part (--shard).

    python benchmarks/shard.py                      # 2 ranks, 25 M parameters, AdamW
    python benchmarks/shard.py --ranks 4 --width 2048 --depth 12

Each run is of processes of its own; the peak is ``VmHWM`` of each from its start to its end, with
everything: libraries, rehearsal, steps, checkpoints.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def peak() -> float:
    """MiB that this process held at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def work(asked: argparse.Namespace) -> None:
    """One rank's: train, and tell its peak and how long a step took."""
    import torch
    from torch import nn

    from dpsgd_torch import Privacy, Trainer

    torch.manual_seed(0)
    torch.set_num_threads(1)
    loaded, width = peak(), asked.width
    layers = [part for _ in range(asked.depth) for part in (nn.Linear(width, width), nn.ReLU())]
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), *layers, nn.Linear(width, 10))
    data = torch.rand(256, 64), torch.randint(10, (256,))
    trainer = Trainer(
        model,
        nn.CrossEntropyLoss(),
        data,
        privacy=Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=1.0),
        batch_size=32,
        epochs=asked.steps / 8,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        run_dir=asked.run_dir,
        physical_batch_size=16,
        seed=1,
        shard=asked.shard,
    )
    times = [time.perf_counter()]
    for _ in trainer.run():
        times.append(time.perf_counter())
    told = {
        "peak": peak(),
        "loaded": loaded,
        "seconds": sorted(b - a for a, b in itertools.pairwise(times[1:])),
        "parameters": sum(p.numel() for p in model.parameters()),
        "norm": float(sum(p.detach().double().square().sum() for p in model.parameters())) ** 0.5,
        "epsilon": trainer.privacy_spent().epsilon,
    }
    print("told", json.dumps(told))


def told_by(asked: argparse.Namespace, *, shard: bool) -> list[dict[str, float]]:
    """What each rank of one run tells."""
    with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
        probe.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": str(asked.ranks), "MASTER_ADDR": "127.0.0.1"}
        shared |= {"MASTER_PORT": str(probe.getsockname()[1]), "OMP_NUM_THREADS": "1"}
        shared |= {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        flags = [f"--{name}={getattr(asked, name)}" for name in ("width", "depth", "steps")]
        flags += ["--work"] + ["--shard"] * shard
        flags += [f"--run-dir={folder}/run"] * asked.kept
        probe.close()
        ranks = [
            subprocess.Popen(
                [sys.executable, __file__, *flags],
                env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(asked.ranks)
        ]
        outs = [rank.communicate()[0] for rank in ranks]
    lines = [line for out in outs for line in out.splitlines() if line.startswith("told ")]
    return [json.loads(line.removeprefix("told ")) for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--depth", type=int, default=24)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--kept", action="store_true", help="with a run folder and checkpoints")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--shard", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--run-dir", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work(asked)
        return
    whole, parts = (told_by(asked, shard=shard) for shard in (False, True))
    print(f"{whole[0]['parameters']:,} parameters, AdamW, {asked.ranks} ranks, MiB at most:")
    for name, each in (("whole model", whole), ("in parts", parts)):
        peaks = ", ".join(f"{rank['peak']:.0f}" for rank in each)
        step = each[0]["seconds"][len(each[0]["seconds"]) // 2]
        print(
            f"  {name:12} {peaks}   ({each[0]['loaded']:.0f} of it libraries; {step:.2f} s a step)"
        )
    ratio = max(rank["peak"] for rank in parts) / max(rank["peak"] for rank in whole)
    print(f"  ratio of the largest: {ratio:.3f}")


if __name__ == "__main__":
    main()
