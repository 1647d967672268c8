"""Malformed inputs, over every reader: refused in one line, or taken; never a traceback."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import campaign_runs as runs
import numpy as np
from campaign_case import Broken, Case, done, verdict
from campaign_mangle import NASTY, mangled, mangled_json, mangled_onnx

from accountant.__main__ import main as accountant
from accountant.ledger.recorded import read_events
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.app.stored_config import config_from_json
from dpsgd_torch.audit.__main__ import main as audit
from dpsgd_torch.export.__main__ import main as export
from dpsgd_torch.plan import main as plan
from dpsgd_torch.search import main as search
from dpsgd_torch.shell import in_one_line
from dpsgd_torch.tasks.gestures.files import AXES, SAMPLES
from dpsgd_torch.tasks.registry import load_task
from dpsgd_torch.tasks.text.files import read_texts
from dpsgd_torch.tasks.text.records import Columns
from dpsgd_torch.train import main

Reader = Callable[[Path, np.random.Generator], Callable[[], Any]]
_EVENTS: list[dict[str, Any]] = [
    {"type": "laplace", "noise_multiplier": 10, "count": 3},
    {"type": "poisson_sampled", "sampling_rate": 0.1, "count": 20,
     "event": {"type": "gaussian", "noise_multiplier": 1.1}},
]  # fmt: skip


def cases(quick: bool) -> Iterator[Case]:
    """So many of each reader; each in a process of its own."""
    for name, (reader, count) in READERS.items():
        for number in range(min(2, count) if quick else count):
            yield Case(f"{name} {number}", _read(reader))


def _read(reader: Reader) -> Callable[[Path, np.random.Generator], str]:
    def work(folder: Path, rng: np.random.Generator) -> str:
        story = reader(folder, rng)
        try:
            return verdict(done(story, folder), also=(1, 130))
        except Broken as law:
            given = getattr(story, "given", "")
            raise Broken(f"{given}: {law}" if given else str(law)) from law

    return work


def _with(story: Callable[[], Any], given: object) -> Callable[[], Any]:
    story.given = str(given)[:300]  # type: ignore[attr-defined]
    return story


def _gestures(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
    for name, count in (("wave", 7), ("nod", 5)):
        values = rng.normal(0, [[0.5] * 3 + [100.0] * 3], (count * SAMPLES, 6))
        lines = [",".join(AXES), *(",".join(f"{x:.3f}" for x in row) for row in values)]
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    path = folder / "wave.csv"
    path.write_bytes(mangled(path.read_bytes(), rng))
    config = PRESETS["gesture"]().config
    partial = str(rng.choice(["refuse", "drop"]))
    return lambda: in_one_line(lambda: load_task(config, folder, partial) and None)


def _responses(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
    runs.words("moa")  # made once
    there = runs.SHARED[0] / "responses"
    names = sorted(path.name for path in there.iterdir())
    for name in names:
        (folder / name).symlink_to(there / name)
    name = str(rng.choice(names))
    (folder / name).unlink()
    (folder / name).write_bytes(mangled((there / name).read_bytes(), rng))
    config = PRESETS["moa"]().config
    return _with(lambda: in_one_line(lambda: load_task(config, folder) and None), name)


def _texts(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
    rows = [{"text": f"so {i} it, \"goes\"", "label": "ab"[i % 2], "author": str(i % 7)}
            for i in range(40)]  # fmt: skip
    if rng.random() < 0.5:
        path = folder / "train.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path = folder / "train.csv"
        lines = [f'"{row["text"].replace(chr(34), chr(34) * 2)}",{row["label"]},{row["author"]}'
                 for row in rows]  # fmt: skip
        path.write_text("\n".join(["text,label,author", *lines]) + "\n")
    path.write_bytes(mangled(path.read_bytes(), rng))
    columns = Columns("text", "label", "author", bool(rng.integers(2)))
    return lambda: in_one_line(lambda: read_texts(folder, columns) and None)


def _idx(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
    from dpsgd_torch.tasks.mnist.idx import FILES

    for name, shape in FILES.items():
        header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
        (folder / name).write_bytes(mangled(header + bytes(2000), rng))
    config = PRESETS["mnist-tutorial"]().config
    return lambda: in_one_line(lambda: load_task(config, folder) and None)


def _config(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
    fields = PRESETS[str(rng.choice(list(PRESETS)))]().config.to_json()
    given = mangled_json(fields, rng)
    return _with(
        lambda: in_one_line(lambda: config_from_json(given, folder / "config.json", 1) and None),
        json.dumps(given, default=str),
    )


def _resume(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
    """A run's config.json, or what ``--resume`` names."""
    import shutil

    if rng.random() < 0.3:
        named = str(rng.choice([word for word in NASTY if "\0" not in word]))
        return _with(lambda: main(["--resume", named]), named)
    run = Path(shutil.copytree(runs.cut_off("digits", 6), folder / "run"))
    path = run / "config.json"
    path.write_bytes(mangled(path.read_bytes(), rng))
    return lambda: main(["--resume", str(run)])


def _ledger_json(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
    path = folder / "events.json"
    text = json.dumps(mangled_json(_EVENTS, rng)).encode()
    path.write_bytes(text if rng.random() < 0.7 else mangled(text, rng))
    priced = ["ledger", str(path), "--delta", "1e-5"]
    words = priced if rng.random() < 0.7 else ["risk", str(path)]
    return _with(lambda: accountant(words), f"{words[0]} {path.read_bytes()!r}")


def _ledger_file(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
    path = folder / "ledger.sqlite"
    path.write_bytes(mangled((runs.undisturbed("digits") / path.name).read_bytes(), rng))
    return lambda: in_one_line(lambda: read_events(path) and None)


def _onnx(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
    from dpsgd_torch.export.from_onnx import from_onnx

    model, what = mangled_onnx(rng)
    return _with(lambda: in_one_line(lambda: from_onnx(model) and None), what)


def _flags(
    door: Callable[[list[str]], int], usual: list[str], names: list[str], prepare: Any = None
) -> Reader:
    def reader(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
        words = [str(folder) if word == "FOLDER" else word for word in usual]
        for _ in range(int(rng.integers(1, 4))):
            words.append(str(rng.choice(names)))
            if rng.random() < 0.9:
                words.append(str(rng.choice([word for word in NASTY if "\0" not in word])))
        if rng.random() < 0.2:
            words.pop(int(rng.integers(len(words))))

        def story() -> int:
            import os

            os.chdir(folder)
            if prepare:
                prepare()
            return door(words)

        return _with(story, words)

    return reader


def _stopped_at_the_start() -> None:
    """All is refused that can be; then it is over."""
    from dpsgd_torch.app import run as application

    def stop(trainer: object) -> None:
        raise KeyboardInterrupt

    application.start = stop


def _names(door: Any) -> list[str]:
    """The flags in its help."""
    import contextlib
    import io
    import re

    with contextlib.redirect_stdout(io.StringIO()) as told, contextlib.suppress(SystemExit):
        door(["--help"])
    named = set(re.findall(r"--[a-z][a-z-]+", told.getvalue()))
    return sorted(named - {"--help", "--command", "--audit", "--twin", "--compile", "--data-dir"})


_FUNCTIONS = {
    "raises": "raise ValueError('tensor([1., 2.])\\nand more')",
    "exits": "raise SystemExit(3)",
    "none": "return None",
    "nan": "return [torch.full((3,), float('nan'))]",
    "nothing": "return []",
    "ragged": "return [torch.zeros(3), torch.zeros(4)]",
    "words": "return 'model'",
    "numbers": "return 3.0",
    "by coin": "return [torch.zeros(len(data[0]))]",
    "raising model": "return lambda x: 1 / 0",
    "short model": "return lambda x: torch.zeros(1, 10)",
    "words of a model": "return lambda x: 'seven'",
    "nan of a model": "return lambda x: torch.full((len(x), 10), float('nan'))",
    "changes its data": "data[0].zero_(); return lambda x: torch.zeros(len(x), 10)",
    "dies": "import os; os._exit(9)",
    "complex": "return [torch.zeros(3, dtype=torch.complex64)]",
    "huge": "return [torch.full((3,), 1e300, dtype=torch.float64)]",
    "objects": "return [object()]",
    "generator": "yield torch.zeros(3)",
    "class": "return torch.nn.Linear",
    "recursion": "return train(data, seed)",
    "memory": "raise MemoryError",
    "stops": "raise StopIteration",
}
_HEADS = ["def train(data, seed):\n    ", "def train(data):\n    ", "train = 3  # ",
          "def train(:\n", "raise ImportError('no')\n", "def other(data, seed):\n    "]  # fmt: skip


def _functions(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
    head = _HEADS[0] if rng.random() < 0.8 else str(rng.choice(_HEADS))
    name = str(rng.choice(list(_FUNCTIONS)))
    module = f"mine_{rng.integers(10**6)}"
    (folder / f"{module}.py").write_text(f"import torch\n{head}{_FUNCTIONS[name]}\n")
    attack = str(rng.choice(["one-record", "one-run", "lira"]))
    words = ["--command", f"{module}:train", "--n", "100", "--models", "8", "--epsilon", "2",
             "--attack", attack, "--seed", "1", "--processes", str(rng.integers(1, 3))]  # fmt: skip
    if attack == "one-run":
        words += ["--canary", "mislabeled", "--canaries", "8"]
    if attack == "lira":
        words += ["--canaries", "8"]

    def story() -> int:
        import os

        os.chdir(folder)
        sys.path.insert(0, str(folder))
        return audit(words)

    return _with(story, f"{name} ({head.splitlines()[0]}) {attack}")


def _own_data(folder: Path, rng: np.random.Generator) -> Callable[[], Any]:
    from campaign_tables import story

    return story(rng)


_MINE = ["audit", "--epsilon", "--delta", "--n", "--sampling-rate", "--steps", "--attack",
         "--canary", "--canaries", "--queries", "--score", "--confidence", "--noise-multiplier",
         "--seed", "--data"]  # fmt: skip
_RUN = ["--n", "60000", "--batch-size", "250", "--delta", "1e-5"]
READERS: dict[str, tuple[Reader, int]] = {
    "gestures (CSV)": (_gestures, 200),
    "drug responses (CSV)": (_responses, 80),
    "texts (CSV, JSON lines)": (_texts, 150),
    "images (idx)": (_idx, 30),
    "tables of one's own": (_own_data, 150),
    "config.json": (_config, 250),
    "resume": (_resume, 60),
    "ledger of JSON": (_ledger_json, 200),
    "ledger of SQLite": (_ledger_file, 80),
    "ONNX": (_onnx, 150),
    "flags of train": (
        _flags(main, ["--preset", "digits", "--out", "run"], _names(main), _stopped_at_the_start),
        150,
    ),
    "flags of accountant epsilon": (
        _flags(accountant, ["epsilon", *_RUN, "--epochs", "2", "--noise-multiplier", "1.3"],
               ["--n", "--batch-size", "--delta", "--epochs", "--steps", "--noise-multiplier",
                "--sampler", "--relation", "--group-size", "--microbatch-size", "--method",
                "--width"]), 80),
    "flags of accountant noise": (
        _flags(accountant, ["noise", *_RUN, "--epochs", "2", "--epsilon", "3"],
               ["--n", "--batch-size", "--delta", "--epochs", "--steps", "--epsilon",
                "--tpr-at-fpr", "--advantage", "--sampler", "--relation", "--group-size"]), 60),
    "flags of plan": (
        _flags(plan, ["--parameters", "1000", "--batch-size", "64", "--example-seconds", "0.001"],
               _names(plan)), 80),
    "flags of search": (
        _flags(search, ["--preset", "digits", "--nonsense"], _names(search)), 20),
    "flags of export": (
        _flags(export, ["FOLDER", "--to", "c"], _names(export)), 30),
    "flags of audit": (
        _flags(audit, ["--command", "json:loads", "--n", "20", "--models", "2"], _MINE[1:]), 50),
    "functions for audit": (_functions, 60),
}  # fmt: skip
