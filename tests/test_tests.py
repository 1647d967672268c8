"""Every test can fail by itself: it asserts, expects an error, or calls a helper that does."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
EXPECTING = {"pytest.raises", "pytest.warns", "pytest.fail"}  # fail where nothing happens
Functions = dict[str, ast.FunctionDef]


def functions_of(tree: ast.AST) -> Functions:
    """All functions of a file, nested ones and methods too, by name."""
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def asserts(function: ast.AST) -> bool:
    """Whether it holds an assertion that is not of a constant, or expects an error or warning."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant):
            return True
        if isinstance(node, ast.Call) and ast.unparse(node.func) in EXPECTING:
            return True
    return False


def imported(tree: ast.AST, helpers: dict[str, Functions]) -> Functions:
    """What a file takes from other files of the tests."""
    found: Functions = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in helpers:
            for alias in node.names:
                if alias.name in helpers[node.module]:
                    found[alias.asname or alias.name] = helpers[node.module][alias.name]
    return found


def without_assertion(source: str, helpers: dict[str, Functions]) -> list[str]:
    """Names of the tests in a file that nothing can make fail but an error on the way."""
    tree = ast.parse(source)
    known = {**imported(tree, helpers), **functions_of(tree)}
    checking = {name for name, function in known.items() if asserts(function)}
    while more := {
        name
        for name, function in known.items()
        if name not in checking
        and any(
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in checking
            and not node.func.id.startswith("test_")
            for node in ast.walk(function)
        )
    }:
        checking |= more
    return [name for name in known if name.startswith("test_") and name not in checking]


HELPERS = {
    path.stem: functions_of(ast.parse(path.read_text()))
    for path in TESTS.glob("*.py")
    if not path.stem.startswith("test_")
}


def test_every_test_holds_an_assertion_or_calls_a_helper_that_does():
    found = [
        f"{path.relative_to(TESTS)}: {name}"
        for path in sorted(TESTS.rglob("test_*.py"))
        for name in without_assertion(path.read_text(), HELPERS)
    ]
    assert not found


CHECKED = {
    "an assertion": "def test_it():\n    assert f() == 1",
    "an expected error": "def test_it():\n    with pytest.raises(ValueError):\n        f()",
    "an expected warning": "def test_it():\n    with pytest.warns(UserWarning):\n        f()",
    "a helper": "def same(a):\n    assert a\ndef test_it():\n    same(f())",
    "a helper's helper": (
        "def same(a):\n    assert a\ndef all(a):\n    same(a)\ndef test_it():\n    all(f())"
    ),
    "an imported helper": "from checks import same as alike\ndef test_it():\n    alike(f())",
}
UNCHECKED = {
    "a call": "def test_it():\n    f()",
    "a comparison": "def test_it():\n    f() == 1",
    "an assertion of a constant": "def test_it():\n    assert True",
    "a helper that asserts nothing": "def same(a):\n    a == 1\ndef test_it():\n    same(f())",
    "a helper that nothing calls": "def same(a):\n    assert a\ndef test_it():\n    f()",
    "a helper that is only named": "def same(a):\n    assert a\ndef test_it():\n    f(same)",
    "an imported helper that asserts nothing": (
        "from checks import build\ndef test_it():\n    build(f())"
    ),
    "an assertion of another test": "def test_a():\n    assert f()\ndef test_it():\n    test_a",
    "a method": "class TestIt:\n    def test_it(self):\n        f()",
}
CHECKS = {"checks": functions_of(ast.parse("def same(a):\n    assert a\ndef build(a):\n    f(a)"))}


@pytest.mark.parametrize("name", CHECKED)
def test_a_test_that_checks_is_let_pass(name):
    assert without_assertion(CHECKED[name], CHECKS) == []


@pytest.mark.parametrize("name", UNCHECKED)
def test_a_planted_test_that_checks_nothing_is_caught(name):
    assert without_assertion(UNCHECKED[name], CHECKS) == ["test_it"]
