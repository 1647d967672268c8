"""What a command loads before it works: modules, not seconds, which depend on the day."""

import ast
import gc
import importlib
import json
import operator
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {
    "torch", "opacus", "numpy", "scipy", "pandas", "opendp", "sklearn", "matplotlib", "optuna",
    "jinja2", "rich", "onnx", "onnxruntime", "safetensors", "torchvision",
}  # fmt: skip
LISTS = "import json, sys; print(json.dumps(sorted(sys.modules)))"
DOOR = """
import sys
from importlib import import_module
try:
    status = import_module(sys.argv[1]).main(sys.argv[2:])
except SystemExit as ended:
    status = ended.code
assert status == {status}, status
"""


def loaded_by(code, *arguments):
    """The modules that are there when ``code`` has run in a process of its own."""
    command = [sys.executable, "-c", f"{code}\n{LISTS}", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return set(json.loads(ended.stdout.splitlines()[-1]))


def loaded_by_door(module, *arguments, status=0):
    return loaded_by(DOOR.format(status=status), module, *arguments)


@pytest.mark.parametrize(
    "door", ["__main__", "train", "search", "plan", "advise", "export.__main__"]
)
def test_help_loads_nothing_heavy(door):
    assert not loaded_by_door(f"dpsgd_torch.{door}", "--help") & HEAVY


@pytest.mark.parametrize(
    "words",
    [
        "__main__",
        "__main__ trian",
        "__main__ train --epochs 0",
        "train --epoch 1",
        "train --epochs 0",
        "train --preset none",
        "train --batch-size 100000",
        "train --noise-schedule nonsense",
        "train --no-dp --epsilon 3",
        "train --resume runs/x --epochs 3",
        "search --preset moa",
        "search --preset moa --epsilon -3",
        "search --preset moa --epsilon 3 --vary nothing=1,2",
        "search --resume runs/x --trials 3",
        "export.__main__ runs/x --to stone",
        "advise --n 0 --epsilon 3",
    ],
)
def test_a_refused_flag_loads_nothing_heavy(words):
    door, *arguments = words.split()
    assert not loaded_by_door(f"dpsgd_torch.{door}", *arguments, status=2) & HEAVY


def test_what_is_loaded_is_seen():
    """The checks above can fail: a door that loads numpy is caught."""
    assert (
        loaded_by("import numpy\n" + DOOR.format(status=0), "dpsgd_torch.train", "--help") & HEAVY
    )


def test_a_schedule_or_an_error_loads_no_torch():
    code = "from dpsgd_torch import ConfigError, schedules\nschedules.Cosine(1.0, 0.5, 9).at(3)"
    assert not loaded_by(code) & HEAVY


def test_an_epsilon_from_the_shell_loads_no_more_of_scipy_than_its_functions():
    words = "epsilon --n 60000 --batch-size 250 --noise-multiplier 1.3 --epochs 15 --delta 1e-5"
    found = loaded_by_door("accountant.__main__", *words.split())
    assert "scipy.special" in found
    unasked = {"scipy.optimize", "scipy.stats", "scipy.fft", "scipy.linalg", "scipy.sparse"}
    assert not found & (unasked | HEAVY - {"numpy", "scipy"})


def test_a_run_on_digits_loads_none_of_what_other_tasks_need():
    code = "import dpsgd_torch.app.run, dpsgd_torch.app.progress\n"
    code += "from dpsgd_torch.tasks.digits.task import digits_task; digits_task(0.0)"
    assert not loaded_by(code) & {"opendp", "pandas", "sklearn", "rich", "optuna", "onnx"}


RUN_BY = """
import json, sys
import torch
from dpsgd_torch import Privacy, Trainer
loaded = ["opacus" in sys.modules]
for gradients in ("auto", "opacus"):
    trainer = Trainer(
        torch.nn.Linear(5, 2), torch.nn.CrossEntropyLoss(),
        (torch.rand(64, 5), torch.randint(2, (64,))), gradients=gradients,
        privacy=Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=1.0), batch_size=16,
        epochs=0.25, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    assert trainer.fit().privacy_spent().agreement < 1e-6
    loaded.append("opacus" in sys.modules)
assert loaded == [False, False, True], loaded
"""


def test_a_run_loads_opacuss_engine_only_where_its_gradients_are_asked_for():
    """Its accountant alone takes part in every run."""
    assert "opacus.grad_sample" in loaded_by(RUN_BY)


def branches(package):
    """A package's __init__, where it imports its public names: (for type checkers, for Python)."""
    path = Path(importlib.import_module(package).__file__)
    branch = next(node for node in ast.parse(path.read_text()).body if isinstance(node, ast.If))
    return branch.body, branch.orelse[0].value.args[1]


def typed_names(package):
    """name → module, as a type checker reads them."""
    imports, _ = branches(package)
    return {alias.name: node.module for node in imports for alias in node.names}


@pytest.mark.parametrize("package", ["accountant", "dpsgd_torch"])
def test_public_names_are_written_alike_for_type_checkers_for_python_and_in_all(package):
    homes = ast.literal_eval(branches(package)[1])
    run = {name: f"{package}.{home}" for home, names in homes.items() for name in names.split()}
    assert typed_names(package) == run
    assert sorted(importlib.import_module(package).__all__) == sorted(run)


@pytest.mark.parametrize("package", ["accountant", "dpsgd_torch"])
def test_public_names_are_those_of_their_modules(package):
    whole = importlib.import_module(package)
    for name, home in typed_names(package).items():
        assert name in dir(whole)
        assert getattr(whole, name) is getattr(importlib.import_module(home), name)


@pytest.mark.parametrize("package", ["accountant", "dpsgd_torch"])
def test_a_name_that_is_not_public_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = importlib.import_module(package).nothing


def test_a_submodule_is_an_attribute_without_an_import_of_its_own():
    code = "import accountant, dpsgd_torch\n"
    code += "accountant.errors.PrivacyError, dpsgd_torch.schedules.Constant"
    assert {"accountant.errors", "dpsgd_torch.schedules"} <= loaded_by(code)


def test_a_submodule_that_fails_to_load_says_why():
    """An import that is missing inside it does not look like a name that is missing."""
    code = "import sys, dpsgd_torch\nsys.modules['torch'] = None\n"
    code += "try: dpsgd_torch.Trainer\nexcept ImportError as error: assert 'torch' in str(error)\n"
    code += "else: raise SystemExit('loaded')"
    assert "dpsgd_torch.training.trainer" not in loaded_by(code)


def test_the_garbage_collector_rests_while_packages_load_and_runs_afterwards():
    code = "import gc\nfrom dpsgd_torch.shell import loading\n"
    code += "with loading(): assert not gc.isenabled(); import numpy\n"
    code += "assert gc.isenabled() and gc.get_freeze_count()"
    assert "numpy" in loaded_by(code)


def test_the_garbage_collector_is_left_alone_where_torch_is_loaded():
    importlib.import_module("torch")
    from dpsgd_torch.shell import loading

    frozen = gc.get_freeze_count()
    with loading():
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


@pytest.mark.parametrize(
    ("old", "now"),
    [
        ("Watch", "EarlyStopping"),
        ("PrivacySpent", "PrivacyGuarantee"),
        ("Linear", "schedules.Linear"),
        ("Cosine", "schedules.Cosine"),
    ],
)
def test_an_old_name_still_leads_to_what_it_named_and_says_the_new_one(old, now):
    whole = importlib.import_module("dpsgd_torch")
    with pytest.warns(DeprecationWarning, match=f"dpsgd_torch.{old}: is called .*{now} now"):
        assert getattr(whole, old) is operator.attrgetter(now)(whole)
    assert old not in dir(whole)
