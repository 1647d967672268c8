"""A disk that takes nothing more: one line that names the file, and nothing half written."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dpsgd_torch.shell import in_one_line

WRITE = """
import resource, sys
from pathlib import Path
from dpsgd_torch.shell import in_one_line
from dpsgd_torch.storage.run_folder import write_durably

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
path = Path(sys.argv[1])
path.write_bytes(b"old")
sys.exit(in_one_line(lambda: write_durably(path, bytes(100_000))))
"""


def test_a_file_that_does_not_fit_is_refused_by_its_name_and_the_old_one_stays(tmp_path):
    path = tmp_path / "model.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    rule = "cannot be written (File too large); mend that, then resume"
    assert (done.returncode, done.stderr) == (2, f"error: {path}: {rule}\n")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_whatever_meets_a_full_disk_is_one_line(number, capsys):
    def story():
        raise OSError(number, os.strerror(number), "report.html")

    assert in_one_line(story) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: report.html: cannot be written ({os.strerror(number)})")


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES])
def test_a_path_that_no_system_takes_is_one_line(number, capsys):
    def story():
        raise OSError(number, os.strerror(number), "so\nit")

    assert in_one_line(story) == 2
    rule = f"cannot be used ({os.strerror(number)}); name another path"
    assert capsys.readouterr().err == f"error: so it: {rule}\n"


def test_another_error_of_the_system_is_a_fault_of_ours():
    def story():
        raise ConnectionResetError(errno.ECONNRESET, "reset")

    with pytest.raises(ConnectionResetError):
        in_one_line(story)
