#!/usr/bin/env bash
# transformers 5.24.0: AutoTokenizer.from_pretrained on a model's folder that holds no tokenizer, only
# config.json, returns a tokenizer without a vocabulary, and says nothing.
#
# Expected: an error that no tokenizer is in the folder, as a folder without weights gives one for
#   AutoModel.
# Seen, for two texts without a word in common:
#     bert  vocabulary of 5, ids [2, 1, 1, 1, 1, 3] and [2, 1, 1, 1, 1, 3]: every word is unknown
#     gpt2  vocabulary of 1, ids [] and []: every text is empty
# A model that is fine-tuned on such tokens trains without an error, on texts that are all alike but
# for their lengths (or not even that); its folder was most often written by model.save_pretrained
# alone.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install --quiet transformers==5.24.0
venv/bin/python - <<'PY'
import sys

import transformers
from transformers import AutoTokenizer, BertConfig, GPT2Config

print(f"transformers {transformers.__version__}")
as_told = True
for config, seen in ((BertConfig, (5, 6)), (GPT2Config, (1, 0))):
    folder = config.model_type
    config().save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    texts = "weather map of Norway", "seven old violins rest"
    ids = [tokenizer(text)["input_ids"] for text in texts]
    print(f"{folder}: vocabulary of {len(tokenizer)}, ids {ids[0]} and {ids[1]}")
    as_told &= ids[0] == ids[1] and (len(tokenizer), len(ids[0])) == seen
sys.exit(0 if as_told else "behaves otherwise now")
PY
