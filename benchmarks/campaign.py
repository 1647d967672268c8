"""What a hostile reader would do: kills, damaged files, malformed inputs, full disks, two at once.

    make campaign                                    # all of it, about an hour
    python benchmarks/campaign.py --quick            # a minute of it
    python benchmarks/campaign.py --part damage inputs --seed 7
    python benchmarks/campaign.py --only "damage digits any 3" --seed 7

Each case draws from its own stream, keyed by ``--seed`` and its name, so that one is repeated by
both. Laws: a run that was disturbed ends with the weights and charges of one that nobody disturbed,
or pays twice, never less; what is damaged or malformed is refused in one line with status 2, or
changes nothing; never a lower ε, never a traceback. Exit status: 0, or 1 with a list of the cases
that broke a law.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import campaign_damage
import campaign_disks
import campaign_inputs
import campaign_kills
import campaign_runs
import numpy as np
import torch
from campaign_case import Broken, Case

PARTS = {
    "kills": campaign_kills,
    "damage": campaign_damage,
    "inputs": campaign_inputs,
    "disks": campaign_disks,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few cases of each kind")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--only",
        nargs="+",
        default=(),
        metavar="NAME",
        help="cases of these names, or all whose names begin so",
    )
    parser.add_argument("--seed", type=int, help="repeats a campaign (drawn, and told)")
    parser.add_argument("--minutes", type=float, help="begin no case after so many")
    asked = parser.parse_args(argv)
    seed = secrets.randbits(32) if asked.seed is None else asked.seed
    torch.set_num_threads(1)
    found = [case for part in asked.part for case in PARTS[part].cases(asked.quick)]
    if asked.only:
        named = [case for case in found if case.name in asked.only]
        found = named or [case for case in found if case.name.startswith(tuple(asked.only))]
    print(f"seed {seed}: {len(found)} cases", flush=True)
    rows = list(dict.fromkeys(case.kind for case in found))
    # in any order, so that what there is time for is some of everything
    found = [found[at] for at in np.random.default_rng(seed).permutation(len(found))]
    told, broken = _run(found, seed, asked.minutes)
    print(_table({kind: told[kind] for kind in rows if told[kind]}, broken))
    for name, law in broken.items():
        print(f'\nBROKEN: {law}\n  python benchmarks/campaign.py --only "{name}" --seed {seed}')
    return 1 if broken else 0


def _run(
    found: list[Case], seed: int, minutes: float | None
) -> tuple[dict[str, Counter[str]], dict[str, str]]:
    told: dict[str, Counter[str]] = defaultdict(Counter)
    broken: dict[str, str] = {}
    began = shown = time.monotonic()
    with tempfile.TemporaryDirectory() as there:
        campaign_runs.SHARED[:] = [Path(there) / "shared"]
        campaign_runs.SHARED[0].mkdir()
        for number, case in enumerate(found):
            if minutes and time.monotonic() - began > 60 * minutes:
                print(f"{len(found) - number} cases are left: no time", flush=True)
                break
            with tempfile.TemporaryDirectory(dir=there) as folder:
                try:
                    told[case.kind][case.work(Path(folder), case.stream(seed))] += 1
                except (Exception, SystemExit) as law:
                    told[case.kind]["BROKEN"] += 1
                    ours = "" if isinstance(law, Broken) else f"the campaign itself: {law!r}: "
                    broken[case.name] = f"{ours}{law}"
                    print(f"BROKEN {case.name}: {broken[case.name]}", flush=True)
            if time.monotonic() - shown > 10:
                shown = time.monotonic()
                left = (shown - began) / (number + 1) * (len(found) - number - 1)
                print(f"{number + 1} of {len(found)}, {left / 60:.0f} min left", flush=True)
    return told, broken


def _table(told: dict[str, Counter[str]], broken: dict[str, str]) -> str:
    rows = ["", "| what | cases | broken | how they ended |", "|---|---|---|---|"]
    for kind, ends in told.items():
        ends = Counter(ends)
        bad, total = ends.pop("BROKEN", 0), 0
        total = ends.total() + bad
        words = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
        rows.append(f"| {kind} | {total} | {bad} | {words} |")
    kills = sum(
        count * int(match[1])
        for ends in told.values()
        for end, count in ends.items()
        if (match := re.search(r"after (\d+)$", end))
    )
    cases = sum(ends.total() for ends in told.values())
    return "\n".join([*rows, "", f"{cases} cases, {kills} kills, {len(broken)} broke a law"])


if __name__ == "__main__":
    sys.exit(main())
