"""The accountant's command line, as a shell sees it."""

import pytest

from accountant.__main__ import main


@pytest.fixture
def shell(capsys):
    def run(*arguments):
        try:
            status = main(arguments)
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return run
