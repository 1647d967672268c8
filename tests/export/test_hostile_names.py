"""Names that would end a comment, continue a line or open a tag stay text, wherever they go."""

import dataclasses
import html.parser
import os
import shutil
import subprocess
import warnings

import numpy as np
import pytest
from hand_built_programs import gesture_program

from dpsgd_torch.app.predict import Predicted
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.app.report.page import write_report
from dpsgd_torch.app.report.plots import promise_by_rows
from dpsgd_torch.app.report.promises import Promises
from dpsgd_torch.export.c_text import comment
from dpsgd_torch.export.host import run_on_host
from dpsgd_torch.export.to_arduino import to_arduino
from dpsgd_torch.export.to_c import to_c
from dpsgd_torch.export.to_header import to_header
from dpsgd_torch.shell import one_line
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.train import main as train
from dpsgd_torch.training.history import EpochRecord, History


@pytest.fixture(autouse=True)
def _hook(monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)


def short(value):
    return ascii(value)[:20]


EVIL = [
    "*/ int evil; /*", "**//**/", "/*/", "??/", "a???/", "????????/", "é??/", "ééé/", "\\", "a\\\n",
    "x\u2028y", "\x00", "\x7f", "\udce9", "//", "%s", '"', "\\u0041", "*??/\n/",
]  # fmt: skip


@pytest.mark.parametrize("text", EVIL, ids=short)
def test_no_text_leaves_a_comment_or_continues_a_line(text):
    for lines in ([text], [text, "next"], ["*", text], [text + "*", "/"]):
        written = comment(lines)
        assert written.startswith("/* ")
        assert written.endswith(" */")
        assert written.count("*/") == 1
        assert written.count("/*") == 1
        assert "??" not in written
        assert "\\" not in written
        assert written.isascii()
        assert all(c == "\n" or c.isprintable() for c in written)


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
def test_hostile_names_in_every_c_file_compile_without_a_warning_and_change_nothing(tmp_path):
    program = gesture_program()
    told = {f"key {i}": text for i, text in enumerate(EVIL)}
    labels = tuple(text.encode("utf-8", "replace").decode() for text in EVIL[:2])
    named = dataclasses.replace(program, provenance=told, labels=labels)
    inputs = np.zeros((1, 714), np.int8)
    plain = dataclasses.replace(program, provenance={}, labels=("a", "b"))
    for cplusplus in (False, True):
        outputs = [run_on_host(to_c(each), inputs, cplusplus=cplusplus) for each in (named, plain)]
        assert (outputs[0] == outputs[1]).all()
    (tmp_path / "h.c").write_text(to_header(b"TFL3", told))
    flags = ["-std=c99", "-Wall", "-Wextra", "-Wcomment", "-Wtrigraphs", "-Werror", "-c", "h.c"]
    done = subprocess.run(["gcc", *flags], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""
    sketch = to_arduino(named, "name */ x", output="logits", input_range=(0.0, 1.0))
    head = sketch["name */ x.ino"].partition("#define")[0]
    assert head.count("*/") == 1


class Tags(html.parser.HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found, self.handlers = set(), []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.add(tag)
        self.handlers += [name for name, _ in attributes if name.startswith("on")]


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "--><script>", '" onload="x', "$\\frac{$", "a$b$c", "]]>"]
)
def test_no_name_becomes_part_of_a_page(tmp_path, name):
    """Presets, data sets and columns of ids, wherever they stand: text, title, picture, comment."""
    folder = RunFolder(tmp_path / "run")
    folder.create()
    config = dataclasses.replace(PRESETS["digits"]().config, preset=name, device=name)
    promises = Promises(name, ((1, 1.0), (2, 2.0)), 1.0, True, 2.0)
    history = History([EpochRecord(epoch=1, step=9, epsilon=1.0, test={name: 0.5})])
    write_report(folder, config, history, None, None, f"about {name}", Predicted(), promises, 3.0)
    page = (tmp_path / "run" / "report.html").read_text()
    tags = Tags(page)
    assert not {"script", "iframe", "object", "img", "a"} & tags.found
    assert tags.handlers == []
    assert "svg" in tags.found
    assert promise_by_rows([(1, 1.0), (2, 2.0)], name, 1.0)


def test_a_message_is_one_line_without_control_characters():
    assert one_line("a\nb\x1b[2J\u202e") == "a b\\x1b[2J\\u202e"


@pytest.mark.parametrize("name", [b"punch\n.csv", b"punch\xff.csv", b"\x1b[2J.csv"])
def test_a_gesture_whose_files_name_is_no_plain_text_is_refused(tmp_path, capsys, name):
    header = "aX,aY,aZ,gX,gY,gZ\n"
    rows = header + "0,0,1,0,0,0\n" * 119
    (tmp_path / "wave.csv").write_text(rows)
    with open(os.fsencode(tmp_path) + b"/" + name, "w") as file:
        file.write(rows)
    capsys.readouterr()
    words = ["--preset", "gesture", "--data-dir", str(tmp_path), "--out", str(tmp_path / "run")]
    assert train(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "names a gesture and is published" in line
