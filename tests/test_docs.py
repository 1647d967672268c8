"""The site builds without a warning or a network, and what its pages and the README show runs."""

import configparser
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from many_processes import Forked, ended
from pages import DOCS, ROOT, blocks, commands, pages, programs

import accountant
import dpsgd_torch
import dpsgd_torch.data
import dpsgd_torch.gradients
import dpsgd_torch.integrations
from accountant.cli.flags import parser as accountant_parser
from dpsgd_torch.advise import parser as advise_parser
from dpsgd_torch.app.flags import parse as parse_train
from dpsgd_torch.app.search.flags import parse as parse_search
from dpsgd_torch.audit.__main__ import parser as audit_parser
from dpsgd_torch.audit.command import parser as attack_parser
from dpsgd_torch.export.__main__ import parser as export_parser
from dpsgd_torch.plan import parser as plan_parser

LONG = {"docs/guides/text.md", "docs/huggingface.md"}  # load transformers and peft
TEXTS = {page: (ROOT / page).read_text() for page in pages()}
PUBLIC = (
    accountant,
    dpsgd_torch,
    dpsgd_torch.data,
    dpsgd_torch.gradients,
    dpsgd_torch.integrations,
)
RUNNING = [
    pytest.param(page, marks=[pytest.mark.long] if page in LONG else [])
    for page, text in TEXTS.items()
    if programs(text)
]


def run_page(page: Path, where: Path) -> tuple[int, str]:
    """Exit status and stderr of run_page.py."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    folders = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    code = f"from pathlib import Path; from run_page import run; run(Path({str(page)!r}))"
    environment = {**os.environ, "PYTHONPATH": folders, "PATH": path}
    (found,) = ended([Forked(code, environment, str(where))])
    return found[0], found[2]


@pytest.mark.parametrize("page", RUNNING)
def test_every_block_of_a_page_runs(page, tmp_path):
    status, told = run_page(ROOT / page, tmp_path)
    assert status == 0, told[-3000:]


def test_a_block_that_fails_is_told_by_page_and_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- runs first\nx = 1\n-->\n\n<!-- not run: takes an hour -->\n\n```python\n1 / 0\n```\n"
        "\n```python\nassert x == 2\n```\n"
    )
    status, told = run_page(page, tmp_path)
    assert status == 1
    assert f'"{page}", line 12' in told


def test_every_python_block_runs_or_says_why_not():
    spared = {
        page: [block.code for block in blocks(text) if block.kind == "shown"]
        for page, text in TEXTS.items()
    }
    assert sum(map(len, spared.values())) <= 3, spared
    assert sum(len(programs(text)) for text in TEXTS.values()) > 25


def refused(words: list[str]) -> str:
    """Why a command that a page shows would not be taken; empty where it would be."""
    match words:
        case ["python", "-m", "dpsgd_torch.train", *rest]:
            return raised(parse_train, rest)
        case ["python", "-m", "dpsgd_torch.search", *rest]:
            return raised(parse_search, rest)
        case ["python", "-m", "dpsgd_torch.export", *rest]:
            return raised(export_parser().parse_args, rest)
        case ["python", "-m", "dpsgd_torch.audit", "--command", *rest]:
            return raised(attack_parser().parse_args, ["--command", *rest])
        case ["dpsgd", "audit", *rest]:
            return refused(["python", "-m", "dpsgd_torch.audit", *rest])
        case ["python", "-m", "dpsgd_torch.audit", *rest]:
            return raised(audit_parser().parse_args, rest)
        case ["python", "-m", "dpsgd_torch.plan", *rest]:
            return raised(plan_parser().parse_args, rest)
        case ["python", "-m", "dpsgd_torch.advise", *rest]:
            return raised(advise_parser().parse_args, rest)
        case ["python", "-m", "accountant", *rest]:
            return raised(accountant_parser().parse_args, rest)
        case ["dpsgd", "train" | "search" | "export" | "advise" as door, *rest]:
            return refused(["python", "-m", f"dpsgd_torch.{door}", *rest])
        case ["dpsgd", *rest]:
            return refused(["python", "-m", "accountant", *rest])
        case ["python" | "bash", script, *rest] if not script.startswith("-"):
            return refused_script(script, rest)
        case ["make", *rest]:
            targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            return ", ".join(word for word in rest if "=" not in word and word not in targets)
        case ["pip", "install", *rest]:
            return ", ".join(set(re.findall(r"[\[,](\w+)(?=[,\]])", " ".join(rest))) - extras())
        case ["." | "mkdir" | "ls" | "cat", *_]:
            return ""
    return f"unknown command {words}"


def raised(parse, words: list[str]) -> str:
    try:
        parse(words)
    except SystemExit as ended:  # 0: --help
        return f"exit status {ended.code}" if ended.code else ""
    except dpsgd_torch.TrainingError as error:
        return str(error)
    return ""


def refused_script(script: str, words: list[str]) -> str:
    if not (ROOT / script).exists():
        return f"no {script}"
    text = (ROOT / script).read_text()
    flags = [word for word in words if word.startswith("--")]
    return ", ".join(flag for flag in flags if f'"{flag}"' not in text)


def extras() -> set[str]:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    return set(settings["options.extras_require"])


@pytest.mark.parametrize("page", [page for page, text in TEXTS.items() if commands(text)])
def test_every_command_shown_is_one_that_is_taken(page, capsys):
    found = {" ".join(words): refused(words) for words in commands(TEXTS[page])}
    capsys.readouterr()
    assert not {command: why for command, why in found.items() if why}


@pytest.mark.parametrize(
    "line",
    [
        "python -m dpsgd_torch.train --preset digits --clip 1",
        "python -m dpsgd_torch.search --trails 20",
        "python -m dpsgd_torch.export runs/NAME --to rust",
        "python -m dpsgd_torch.audit --canaries 5 runs/NAME",
        "python -m accountant epsilon --n 60000",
        "dpsgd train --preset digits --clip 1",
        "dpsgd epsilon --n 60000",
        "dpsgd trian --preset digits",
        "python benchmarks/presets.py --sees 1",
        "python benchmarks/preset.py",
        "make trian",
        "pip install 'dpsgd_torch[tabels]'",
        "curl example.org",
    ],
)
def test_a_command_that_would_not_be_taken_is_found(line, capsys):
    [words] = commands(f"```console\n{line}  # a word\n```\n")
    assert refused(words)


def test_files_that_pages_name_are_there():
    named = {
        name
        for text in TEXTS.values()
        for name in re.findall(r"\b(?:benchmarks|findings|tests)/[a-z][\w/-]+\.(?:py|sh)", text)
    }
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)", TEXTS["README.md"])
    inside = [link for link in links if not link.startswith("http")]
    assert [link for link in inside if not (ROOT / link).exists()] == []


def test_the_reference_holds_every_public_name():
    reference = "\n".join(path.read_text() for path in (DOCS / "reference").glob("*.md"))
    for package in PUBLIC:
        missing = [name for name in package.__all__ if not re.search(rf"\b{name}\b", reference)]
        assert not missing, package.__name__
    assert not re.search(r"\bPrivateLoader\b", reference)  # what is not there would be missed


def test_the_findings_are_all_told():
    scripts = sorted(path.name for path in (ROOT / "findings").glob("*.sh"))
    assert scripts
    assert [name for name in scripts if name not in TEXTS["docs/findings.md"]] == []


class Fetched(HTMLParser):
    """What a page loads from elsewhere; a link that a reader may follow loads nothing."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            loads = name in ("src", "srcset", "data", "poster") or (tag, name) == ("link", "href")
            if loads and re.match(r"(https?:)?//", value or ""):
                self.found.append(f"{tag} {value}")


def fetched(site: Path) -> list[str]:
    found = [load for path in site.rglob("*.html") for load in Fetched(path.read_text()).found]
    for path in site.rglob("*.css"):
        found += re.findall(r"url\([\"']?(?:https?:)?//[^)]*|@import[^;]*//[^;]*", path.read_text())
    return found


def test_the_site_builds_without_a_warning_searches_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("sphinx", reason="sphinx is missing: pip install 'dpsgd_torch[docs]'")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(DOCS), "site"]
    folders = {**os.environ, "PYTHONPATH": str(ROOT)}
    built = subprocess.run(command, cwd=tmp_path, env=folders, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-3000:]
    site = tmp_path / "site"
    assert len(list(site.rglob("*.html"))) > 25
    assert fetched(site) == []
    assert "poisson" in (site / "searchindex.js").read_text()  # a script: no server is asked


def test_what_a_page_would_fetch_is_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="https://example.org">x</a><script src="https://example.org/x.js"></script>'
    )
    (tmp_path / "a.css").write_text("@font-face { src: url(//example.org/x.woff) }")
    assert fetched(tmp_path) == ["script https://example.org/x.js", "url(//example.org/x.woff"]
