"""Short runs of MLPerf Tiny's presets: two steps on forty made-up records."""

import warnings

from dpsgd_torch.train import main

SMALL = ["--made-up-rows", "40", "--batch-size", "20", "--epochs", "1", "--seed", "1",
         "--noise-multiplier", "1"]  # fmt: skip
ITS_OWN = {"wake-words": ["--pretraining", "0", "--no-frozen"]}


def tiny_run(name, folder, norm):
    """The run's folder."""
    out = folder / "run"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="local, not covered by ε")
        asked = [*SMALL, *ITS_OWN.get(name, []), "--norm", norm, "--out", str(out)]
        assert main(["--preset", name, *asked]) == 0
    return out
