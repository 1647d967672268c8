"""In CI a skip is a failure: a check that did not run must not look like one that passed."""

import subprocess
import sys
from pathlib import Path

import pytest
import skips

ROOT = Path(__file__).parents[1]
TESTS = """
import pytest

def test_that_runs():
    assert True

@pytest.mark.skipif(True, reason="microbit needs arm-none-eabi-gcc")
def test_marked():
    pass

def test_inside():
    pytest.skip("ziglang is not installed")

@pytest.fixture
def data():
    pytest.skip("the mirrors cannot be reached")

def test_by_its_fixture(data):
    pass

@pytest.mark.skipif(True, reason="there is no GPU here")
def test_allowed():
    pass

@pytest.mark.xfail(reason="known")
def test_that_is_expected_to_fail():
    assert False
"""


@pytest.fixture
def outcome(tmp_path):
    """Flags → pytest's exit status and summary for the tests above."""
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "test_module.py").write_text(
        "import pytest\npytest.importorskip('a_module_that_is_nowhere')\n"
    )

    def run(*flags):
        line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rA", *flags]
        line += ["-o", f"pythonpath={ROOT / 'tests'}", "--rootdir", str(tmp_path), str(tmp_path)]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    return run


def test_elsewhere_a_skip_is_a_skip(outcome):
    status, said = outcome()
    assert status == 0
    assert "1 passed, 5 skipped, 1 xfailed" in said


def test_where_skips_are_refused_each_fails_with_its_reason(outcome):
    status, said = outcome("--refuse-skips", "--continue-on-collection-errors")
    assert status == 1
    assert "1 passed, 1 skipped, 1 xfailed" in said
    assert "ERROR" in said
    assert "test_module" in said
    for reason in ("arm-none-eabi-gcc", "ziglang is not", "mirrors cannot", "a_module_that_is"):
        assert f"{reason}" in said
    assert "list the reason in tests/skips.py" in said


@pytest.mark.parametrize("reason", ["gcc is not installed", "needs ziglang and unicorn", ""])
def test_a_missing_tool_is_no_reason(reason):
    assert not skips.is_allowed(reason)


def test_ci_refuses_skips_and_does_not_hide_that_compilers_could_not_be_installed():
    script = (ROOT / ".ci" / "run").read_text()
    assert "--refuse-skips" in script
    assert "set -euo pipefail" in script
    assert "make boards" in script
    for hidden in ("||", "2>&1", "2>/dev/null"):
        assert hidden not in script.partition("make boards")[2]
