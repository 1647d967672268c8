#!/usr/bin/env bash
# riskcal 1.5.1: get_beta_for_dpsgd with its default grid (1e-4) tells an attacker's false negatives
# too many; a coarser grid is closer, and find_noise_multiplier_for_err_rates takes too little noise.
#
# Expected: the finer the grid, the closer to the truth.
# Seen, for noise 0.59285, q = 250/60000, 3600 steps, at 0.1 % false positives:
#     grid 1e-3: beta 0.978355;  3e-4: 0.978521;  1e-4, the default: 0.979995
# Two loss laws on a grid of 2e-4, composed by FFT elsewhere, have 0.978351 there: 2.16 % of true
# positives. Asked for at most 2 % (alpha=.001, beta=.98), the search on the default grid ends at this
# noise; on 1e-3 it ends at 0.60012, where 2 % is right.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install --quiet riskcal==1.5.1
venv/bin/python -W ignore - <<'PY'
import importlib.metadata
import sys

from riskcal.calibration.dpsgd import get_beta_for_dpsgd

print(f"riskcal {importlib.metadata.version('riskcal')}")
run = {"noise_multiplier": 0.59285, "sample_rate": 250 / 60000, "num_steps": 3600}
found = {grid: float(get_beta_for_dpsgd(**run, alpha=1e-3, grid_step=grid)) for grid in (1e-3, 1e-4)}
for grid, beta in found.items():
    print(f"grid {grid:g}: beta {beta:.6f}")
as_told = abs(found[1e-3] - 0.978355) < 1e-5 and abs(found[1e-4] - 0.979995) < 1e-5
sys.exit(0 if as_told else "behaves otherwise now")
PY
