"""``import torchvision`` after ``import dpsgd_torch``, whichever torch it was built for."""

import subprocess
import sys

import pytest

MENDED = "import sys, dpsgd_torch\nassert 'torch' not in sys.modules\n"
FAKE = "operator torchvision::nms does not exist"


def ended(code, folder=None):
    first = f"import sys\nsys.path.insert(0, {str(folder)!r})\n" if folder else ""
    command = [sys.executable, "-c", first + code]
    return subprocess.run(command, capture_output=True, text=True)


def test_torchvisions_models_import_plainly_and_run():
    code = "import torchvision, torch\nfrom torchvision.models import resnet18\n"
    code += "print(len(resnet18(num_classes=3)(torch.zeros(2, 3, 32, 32))))\n"
    code += "print(type(torchvision.__loader__).__module__, torchvision.datasets.MNIST.__name__)"
    done = ended(MENDED + code)
    assert done.stdout == "2\n_frozen_importlib_external MNIST\n", done.stderr


@pytest.fixture
def planted(tmp_path):
    """Writes a torchvision of our own, found before the installed one."""

    def write(text):
        (tmp_path / "torchvision").mkdir()
        (tmp_path / "torchvision" / "__init__.py").write_text(text)
        return tmp_path

    return write


def test_one_that_imports_by_itself_is_imported_once_and_without_torch(planted):
    folder = planted("print('here')")
    done = ended(MENDED + "import torchvision\nassert 'torch' not in sys.modules", folder)
    assert (done.stdout, done.returncode) == ("here\n", 0), done.stderr


def test_operators_that_are_missing_are_named_and_the_import_is_tried_once_more(planted):
    folder = planted(
        "import torch\nprint('try')\n"
        "if not hasattr(torch.ops.torchvision, 'nms'):\n"
        f"    raise RuntimeError('{FAKE}')\n"
    )
    done = ended(MENDED + "import torchvision", folder)
    assert (done.stdout, done.returncode) == ("try\ntry\n", 0), done.stderr
    alone = ended("import torchvision", folder)
    assert alone.returncode == 1
    assert FAKE in alone.stderr


def test_any_other_failure_is_its_own(planted):
    folder = planted("print('try')\nraise RuntimeError('broken otherwise')")
    done = ended(MENDED + "import torchvision", folder)
    assert (done.stdout, done.returncode) == ("try\n", 1)
    assert done.stderr.endswith("RuntimeError: broken otherwise\n")


def test_without_torchvision_its_import_says_so():
    code = MENDED + "sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
    done = ended(code + "import torchvision")
    assert "ModuleNotFoundError: No module named 'torchvision'" in done.stderr
