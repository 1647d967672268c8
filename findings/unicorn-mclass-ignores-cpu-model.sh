#!/usr/bin/env bash
# unicorn 2.1.4: with UC_MODE_MCLASS a chosen Cortex-M is accepted, and a Cortex-M33 runs instead.
#
# Expected: after ctl_set_cpu_model(UC_CPU_ARM_CORTEX_M3) the core is a Cortex-M3, which has neither
#   floating-point nor DSP instructions, or the call fails. The flag is the one that asks for M-class.
# Seen: the call succeeds, ctl_get_cpu_model tells 11, the M33, and both kinds of instruction run.
#   Without the flag the model is honoured:
#     THUMB           asked M3, told M3: neither runs     asked M4, told M4: both run
#     THUMB | MCLASS  asked M3, told M33: both run        asked M4, told M33: both run
# A program that the real part cannot run passes its test in the emulator.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install --quiet unicorn==2.1.4
venv/bin/python - <<'PY'
import sys

import unicorn
from unicorn import arm_const as arm

BASE = 0x8000
CODE = {"vmov.f32 s0, #1.0": "b7ee000a", "qadd8 r0, r0, r0": "80fa10f0"}
NAMES = {getattr(arm, f"UC_CPU_ARM_CORTEX_{name}"): name for name in ("M0", "M3", "M4", "M7", "M33")}


def fresh(flag, model):
    uc = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | flag)
    uc.ctl_set_cpu_model(model)
    return uc


def runs(uc, code):
    uc.mem_map(BASE, 0x1000)
    uc.mem_write(BASE, code)
    try:
        uc.emu_start(BASE | 1, BASE + len(code))
    except unicorn.UcError:
        return False
    return True


print(f"unicorn {unicorn.__version__}")
seen = {}
for flag, mode in ((0, "THUMB"), (unicorn.UC_MODE_MCLASS, "THUMB | MCLASS")):
    for model in (arm.UC_CPU_ARM_CORTEX_M3, arm.UC_CPU_ARM_CORTEX_M4):
        told = NAMES[fresh(flag, model).ctl_get_cpu_model()]
        ran = [name for name, code in CODE.items() if runs(fresh(flag, model), bytes.fromhex(code))]
        print(f"{mode:14} asked {NAMES[model]}, told {told:3} runs: {'; '.join(ran) or 'neither'}")
        seen[mode, NAMES[model]] = told, len(ran)
told = [("M3", 0), ("M4", 2), ("M33", 2), ("M33", 2)]
sys.exit(0 if list(seen.values()) == told else "not as the head says")
PY
