"""Short runs of MLPerf Tiny's presets: two steps on forty made-up records."""

import warnings

from dpsgd_torch.train import main

SMALL = ["--made-up-rows", "40", "--batch-size", "20", "--epochs", "1", "--seed", "1",
         "--noise-multiplier", "1"]  # fmt: skip


def tiny_run(name, folder, norm):
    """The run's folder."""
    out = folder / "run"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="local, not covered by ε")
        assert main(["--preset", name, *SMALL, "--norm", norm, "--out", str(out)]) == 0
    return out
