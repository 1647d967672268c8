"""Property tests that are the same at every run, however slow the machine."""

import pytest
from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


def pytest_addoption(parser):
    parser.addoption(
        "--networks",
        type=int,
        default=200,
        help="random networks that the export tests draw (default: 200)",
    )


@pytest.fixture
def networks(request):
    return request.config.getoption("--networks")
