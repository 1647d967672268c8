"""A run folder may come from someone else, or be damaged: nothing in it leads outside, into C or
into a page, and no export says less ε than was spent."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.torch import load_file, save_file

from dpsgd_torch.export.__main__ import main as export
from dpsgd_torch.storage.run_folder import write_durably
from dpsgd_torch.train import main as train

HOSTILE = [
    "../../outside", "/tmp/outside", "..", "digits\0", "digits/../../outside",
    "*/ int evil(void); /*", "??/", "a\\\nb", "<script>alert(1)</script>", "\x1b[2Jdigits",
    "\udce9", "digits\n", "", "DIGITS", "no-such-preset", "x" * 10_000,
]  # fmt: skip


def short(value):
    return ascii(value)[:20]


NO_NAMES = [None, 7, [], {}, True]


@pytest.fixture(autouse=True)
def _hook(monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "digits"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warnings, "showwarning", warnings.showwarning)
        words = ["--preset", "digits", "--epochs", "1", "--noise-multiplier", "3"]
        assert train([*words, "--out", str(run), "--seed", "1"]) == 0
        assert export([str(run), "--to", "onnx"]) == 0
    return run


@pytest.fixture
def run(honest, tmp_path):
    return Path(shutil.copytree(honest, tmp_path / "box" / "digits"))


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def everything(folder):
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def refused(capsys, run, *words):
    """The one line of a refusal, that left everything as it was."""
    box = run.parent
    before = everything(box)
    capsys.readouterr()
    assert export([str(run), "--to", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].isprintable()
    assert len(lines[0]) < 1000
    assert everything(box) == before
    return lines[0]


@pytest.mark.parametrize("name", [*HOSTILE, *NO_NAMES], ids=short)
@pytest.mark.parametrize("field", ["preset", "dataset", "optimizer", "privacy_unit"])
def test_a_name_that_is_not_known_is_refused_by_its_file(run, capsys, field, name):
    edit(run / "config.json", **{field: name})
    line = refused(capsys, run, "arduino")
    assert "config.json" in line
    assert field.replace("privacy_", "") in line
    capsys.readouterr()
    assert train(["--resume", str(run)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "config.json" in line


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("labels", ["a", "b\n"]), ("labels", ["a", "\udce9"]), ("labels", ["a", 7]),
        ("labels", ["a", "x" * 1000]), ("labels", ["a", "a"]), ("labels", "ab"), ("labels", []),
        ("input_shape", [1, 10**9, 10**9]), ("input_shape", ["8"]), ("input_shape", None),
        ("input_range", [0.0, float("nan")]), ("input_range", [0.0, 1e400]), ("input_range", [0]),
        ("input_range", [0.0, "1.0f); system(\"x\""]), ("output", "*/"), ("output", 7),
        ("synthetic", "yes"), ("synthetic", True),
    ],
)  # fmt: skip
def test_facts_that_no_run_would_leave_are_refused(run, capsys, field, value):
    edit(run / "task.json", **{field: value})
    line = refused(capsys, run, "arduino")
    assert f"task.json: {field} = " in line


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epsilon", 0.01), ("epsilon", "3"), ("epsilon", -1), ("epsilon", float("nan")),
        ("epsilon", []), ("delta", 2), ("delta", "*/"), ("delta", 0.0), ("relation", "*/ int x;"),
        ("relation", "label_change"), ("relation", None), ("unit", "person"), ("unit", "a\nb"),
        ("private", False),
    ],
)  # fmt: skip
def test_figures_that_are_not_the_ledgers_are_refused(run, capsys, field, value):
    edit(run / "privacy.json", **{field: value})
    assert "privacy.json: " in refused(capsys, run, "c")


def test_a_larger_epsilon_is_anybodys_to_state(run):
    edit(run / "privacy.json", epsilon=9.0)
    words = (run / "statement.txt").read_text()
    (run / "statement.txt").write_text(words.replace("ε = ", "ε = 9.0000 and δ = 1, not ε = ", 1))
    assert export([str(run), "--to", "c"]) == 0
    assert "at most 9.0000" in (run / "export" / "c" / "model.h").read_text()


def test_a_run_that_calls_itself_not_private_must_be_so_in_all_its_files(run, capsys):
    edit(run / "config.json", dp=False)
    assert "disagree on whether the run was private" in refused(capsys, run, "c")


DAMAGES = {
    "emptied": lambda content: b"",
    "cut in half": lambda content: content[: len(content) // 2],
    "flipped": lambda content: content[:-7] + bytes([content[-7] ^ 16]) + content[-6:],
    "a list": lambda content: b"[]",
    "null": lambda content: b"null",
    "no text": lambda content: b"\xff\xfe" + content,
    "deep": lambda content: b"[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name", ["config.json", "task.json", "privacy.json", "statement.txt", "model.safetensors",
             "ledger.sqlite"],
)  # fmt: skip
def test_a_damaged_file_is_refused_by_its_name_or_changes_nothing(
    run, honest, capsys, name, damage
):
    (run / name).write_bytes(DAMAGES[damage]((honest / name).read_bytes()))
    capsys.readouterr()
    status = export([str(run), "--to", "c", "--out", str(run.parent / "out")])
    lines = capsys.readouterr().err.splitlines()
    if status == 0:
        text = (run.parent / "out" / "model.h").read_text()
        told = json.loads((honest / "privacy.json").read_text())["epsilon"]
        assert float(text.partition("epsilon: at most ")[2].split()[0]) >= told
        assert damage == "flipped"
        assert name in ("ledger.sqlite", "statement.txt")
    else:
        assert (status, len(lines)) == (2, 1)
        assert name in lines[0]


@pytest.mark.parametrize("name", ["ledger.sqlite", "statement.txt", "privacy.json", "task.json"])
def test_a_lost_file_is_refused_by_its_name(run, capsys, name):
    (run / name).unlink()
    assert name in refused(capsys, run, "c")


def test_weights_that_were_changed_are_refused(run, capsys):
    tensors = load_file(run / "model.safetensors")
    content = bytearray((run / "model.safetensors").read_bytes())
    content[-1] ^= 64
    (run / "model.safetensors").write_bytes(content)
    assert "model.safetensors: damaged" in refused(capsys, run, "c")
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name] * float("nan")}, run / "model.safetensors")
    assert f"{name} holds what is no number" in refused(capsys, run, "c")


def link(path, target):
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize(
    "name", ["export", "export/c", "export/c/model.c.partial", "export/c/statement.txt",
             "private", "private/checkpoints", "metrics.jsonl", "ledger.sqlite"],
)  # fmt: skip
def test_a_link_in_a_folder_leads_nowhere(run, capsys, name):
    outside = run.parent / "outside"
    outside.mkdir()
    link(run / name, outside)
    assert "is a symbolic link" in refused(capsys, run, "c")
    assert train(["--resume", str(run)]) == 2
    assert "is a symbolic link" in capsys.readouterr().err
    assert not any(outside.iterdir())


def test_a_file_is_never_written_through_a_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("years of work")
    (tmp_path / "model.c.partial").symlink_to(victim)
    (tmp_path / "model.c").symlink_to(victim)
    write_durably(tmp_path / "model.c", b"int x;")
    assert victim.read_text() == "years of work"
    assert (tmp_path / "model.c").read_bytes() == b"int x;"
    assert not (tmp_path / "model.c").is_symlink()


def changed(model, kind):
    if kind in ("another weight", "a weight's last bit"):
        array = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
        last = np.nextafter(array.flat[0], np.float32(9))
        array.flat[0] = last if kind == "a weight's last bit" else array.flat[0] + 1
        name = model.graph.initializer[0].name
        model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(array, name))
    elif kind == "another graph":
        node = next(node for node in model.graph.node if node.op_type == "Relu")
        node.op_type = "Tanh"
    elif kind == "data from elsewhere":
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "../../../../etc/passwd"
    return model.SerializeToString()


@pytest.mark.parametrize(
    "kind",
    [
        "another weight",
        "a weight's last bit",
        "another graph",
        "data from elsewhere",
        "emptied",
        "cut",
    ],
)
def test_a_kept_model_that_is_not_the_runs_is_not_taken(run, honest, kind):
    kept = run / "export" / "onnx" / "model.onnx"
    content = kept.read_bytes()
    bad = {"emptied": b"", "cut": content[:1000]}.get(kind)
    kept.write_bytes(changed(onnx.load(kept), kind) if bad is None else bad)
    assert kept.read_bytes() != content
    assert export([str(run), "--to", "onnx"]) == 0
    graph, expected = (onnx.load(f / "export/onnx/model.onnx").graph for f in (run, honest))
    assert graph == expected


def test_an_out_that_cannot_be_written_is_refused_in_one_line(run, capsys):
    (run.parent / "file").write_text("years of work")
    for out in ("file", "file/below"):
        line = refused(capsys, run, "c", "--out", str(run.parent / out))
        assert "cannot be written" in line
