"""Whatever happens to a file of a run: refused in one line that names it, or the same weights."""

import json
import shutil
import warnings
from pathlib import Path

import pytest

from dpsgd_torch.train import main
from dpsgd_torch.training.charges import Charges

WORDS = ["--preset", "digits", "--epochs", "3", "--batch-size", "479", "--physical-batch-size",
         "512", "--noise-multiplier", "3", "--validation", "public", "--keep-best",
         "--checkpoint-every", "2", "--seed", "4"]  # fmt: skip
STOPPED_AT = 6  # the seventh of eight steps: checkpoints at 5 and 6, best weights of an epoch

JSON = {
    "no object": "[]", "null": "null", "a number": "7", "a string": '"x"', "nothing in it": "{}",
    "deep": "[" * 100_000, "two lines": '{"epoch": 1}\n{"epoch"',
}  # fmt: skip


def flipped(place: float, bit: int):
    def damage(content: bytes) -> bytes:
        at = min(int(place * len(content)), len(content) - 1)
        return content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :]

    return damage


def replaced_by(text: str):
    return lambda content: text.encode()


DAMAGES = {
    "emptied": lambda content: b"",
    "cut in half": lambda content: content[: len(content) // 2],
    "cut by a byte": lambda content: content[:-1],
    "zeroed": lambda content: bytes(len(content)),
    **{f"a bit flipped at {place}": flipped(place, bit) for place, bit in
       [(0.0, 2), (0.17, 0), (0.36, 4), (0.5, 1), (0.68, 6), (0.83, 0), (0.97, 3), (1.0, 0)]},
    **{name: replaced_by(text) for name, text in JSON.items()},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("dpsgd_torch.app.run.write_report", lambda *_: None)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was interrupted, and its copy that went on."""
    run = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        settle = Charges.settle

        def interrupt(self, step, *rest):
            settle(self, step, *rest)
            if step == STOPPED_AT:
                raise KeyboardInterrupt

        patch.setattr(Charges, "settle", interrupt)
        patch.setattr(warnings, "showwarning", warnings.showwarning)
        assert main([*WORDS, "--out", str(run)]) == 130
    assert main(["--resume", str(shutil.copytree(run, run.with_name("whole")))]) == 0
    return run


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def epsilon(run: Path) -> float:
    return float(json.loads((run / "privacy.json").read_text())["epsilon"])


def files(run: Path) -> list[str]:
    return sorted(p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file())


def resumed(run: Path, name: str, content: bytes, capsys) -> str:
    """ "refused" or "the same"; anything else fails."""
    whole = run.with_name("whole")
    copy = Path(shutil.copytree(run, run.with_name("copy"), dirs_exist_ok=False))
    try:
        (copy / name).write_bytes(content)
        capsys.readouterr()
        status = main(["--resume", str(copy)])
        lines = capsys.readouterr().err.splitlines()
        if status == 0:
            assert weights(copy) == weights(whole), name
            assert epsilon(copy) >= epsilon(whole), name
            told, expected = ((each / "metrics.jsonl").read_bytes() for each in (copy, whole))
            assert told == expected, name
            return "the same"
        assert status == 2, (name, lines)
        assert len(lines) == 1, (name, lines)
        assert Path(name).parts[-1 if "step-" not in name else -2] in lines[0], (name, lines)
        assert len(lines[0]) < 600
        return "refused"
    finally:
        shutil.rmtree(copy)


READ_BACK = [
    "config.json", "ledger.sqlite", "private/checkpoints/step-00000006/state.json",
    "private/checkpoints/step-00000006/tensors.safetensors", "private/contract.json",
    "private/plan.json", "private/streams.json",
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_by_its_name_or_changes_nothing(stopped, damage, capsys):
    for name in READ_BACK:
        whole = (stopped / name).read_bytes()
        if (content := DAMAGES[damage](whole)) != whole:
            found = resumed(stopped, name, content, capsys)
            assert found == "refused" or damage in SMALL or name == "ledger.sqlite", name


SMALL = {"cut by a byte"}  # the newline at a JSON file's end


@pytest.mark.parametrize("damage", ["emptied", "no object", "two lines", "a bit flipped at 0.5"])
def test_what_was_published_and_what_is_superseded_is_never_read_back(stopped, damage, capsys):
    for name in set(files(stopped)) - set(READ_BACK):
        content = DAMAGES[damage]((stopped / name).read_bytes())
        assert resumed(stopped, name, content, capsys) == "the same", name


@pytest.mark.parametrize("damage", ["emptied", "cut by a byte", "zeroed", "a bit flipped at 0.68"])
def test_damaged_best_weights_are_refused_where_they_are_needed(stopped, damage, capsys):
    name = "private/best-00003.safetensors"
    finished = stopped.with_name("whole")
    content = DAMAGES[damage]((finished / name).read_bytes())
    assert resumed(finished, name, content, capsys) == "refused"


@pytest.mark.parametrize("name", READ_BACK)
def test_a_lost_file_is_refused_by_its_name(stopped, name, capsys):
    copy = Path(shutil.copytree(stopped, stopped.with_name("copy")))
    try:
        (copy / name).unlink()
        capsys.readouterr()
        assert main(["--resume", str(copy)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert Path(name).parts[-1 if "step-" not in name else -2] in line
    finally:
        shutil.rmtree(copy)


@pytest.mark.parametrize("damage", ["emptied", "cut in half", "a bit flipped at 0.36", "no object",
                                    "deep", "null"])  # fmt: skip
def test_damaged_answers_about_labels_are_refused_by_their_name(labels, damage, capsys):
    name = "private/answers.json"
    content = DAMAGES[damage]((labels / name).read_bytes())
    assert resumed(labels, name, content, capsys) == "refused"


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    run = tmp_path_factory.mktemp("labels") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warnings, "showwarning", warnings.showwarning)
        words = ["--preset", "digits", "--no-dp", "--label-epsilon", "3", "--epochs", "1"]
        assert main([*words, "--out", str(run)]) == 0
    shutil.copytree(run, run.with_name("whole"))
    return run
