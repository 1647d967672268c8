"""Property tests that are the same at every run, however slow the machine."""

import os

# Before torch is loaded, here and in every child: threads that wait for each other cost small
# problems three times what they take.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import skips
from hypothesis import settings

import dpsgd_torch  # noqa: F401  (torchvision, which torchmetrics loads, can be imported after it)

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


def pytest_addoption(parser):
    parser.addoption(
        "--networks",
        type=int,
        default=200,
        help="random networks that the long export tests draw, others a quarter (default: 200)",
    )
    parser.addoption(
        "--graphs",
        type=int,
        default=300,
        help="random graphs with branches, of tests/random_graphs.py (default: 300)",
    )
    parser.addoption(
        "--refuse-skips",
        action="store_true",
        help="a test that is skipped fails, unless tests/skips.py lists the reason",
    )


def pytest_configure(config):
    if config.getoption("--refuse-skips"):
        config.pluginmanager.register(skips.Refuser())  # doctests outside this folder too


GRAPHS_AT_ONCE = 100


def pytest_generate_tests(metafunc):
    """``graph_seeds``: of each batch of ``--graphs``."""
    if "graph_seeds" in metafunc.fixturenames:
        count = metafunc.config.getoption("--graphs")
        starts = range(0, count, GRAPHS_AT_ONCE)
        batches = [range(first, min(first + GRAPHS_AT_ONCE, count)) for first in starts]
        metafunc.parametrize("graph_seeds", batches, ids=lambda batch: f"{batch[0]}-{batch[-1]}")


@pytest.fixture(scope="session")
def inductor(tmp_path_factory):
    """torch.compile's cache in a folder that goes away; a compiler is asked what it can once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        yield


@pytest.fixture(params=["some", pytest.param("all", marks=pytest.mark.long)])
def networks(request):
    """How many random networks: a quarter of them each time, all in a long run."""
    of_all = request.config.getoption("--networks")
    return of_all if request.param == "all" else -(-of_all // 4)
