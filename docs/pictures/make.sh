#!/usr/bin/env bash
# The pictures of docs/start.md and README.md: one private run on bundled data beside its twin, and
# the report that it leaves, as two plots of it (SVG) and as a browser shows its top (PNG; needs
# chromium). About ten seconds on one core. From the root: bash docs/pictures/make.sh
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
run=$(mktemp -d)/run
trap 'rm -rf "$(dirname "$run")"' EXIT
python -m dpsgd_torch.train --preset digits --twin --seed 1 --out "$run"
python - "$run/report.html" "$here" <<'PY'
import re
import sys
from pathlib import Path

page, here = Path(sys.argv[1]).read_text(), Path(sys.argv[2])
figures = dict(re.findall(r"<figcaption>(.*?)</figcaption>(.*?)</figure>", page, re.DOTALL))
for title, name in {"Test accuracy by epoch": "accuracy", "Accuracy against ε": "against-epsilon"}.items():
    (here / f"digits-{name}.svg").write_text(figures[title].strip() + "\n")
PY
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1000,965 \
    --screenshot="$here/report.png" "file://$run/report.html" 2>/dev/null
python - "$here/report.png" <<'PY'
import sys

from PIL import Image

Image.open(sys.argv[1]).convert("RGB").quantize(64).save(sys.argv[1], optimize=True)
PY
