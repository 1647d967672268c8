"""What several processes are refused: one line, status 2 on each, nothing charged."""

import os
import socket
import subprocess
import sys

from many_processes import begun, ended

SEARCH = (
    "from dpsgd_torch.search import main\nsys.exit(main(['--preset', 'digits', '--epsilon', '3']))"
)


def told(processes) -> str:
    """The one line, of rank 0; all ended with 2."""
    (first, _, line), *others = ended(processes)
    assert [first, *(status for status, _, _ in others)] == [2] * (1 + len(others))
    assert line.count("\n") == 1, line
    assert not any(err for _, _, err in others), others
    return line


def test_a_search_is_one_process():
    env = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    code = "import sys\n" + SEARCH
    lines = []
    for rank in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**env, "RANK": str(rank)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 2
        lines.append(done.stderr)
    assert lines[0].startswith("error: processes = 2: a search is one process")
    assert lines[1] == ""


PORT = """
from dpsgd_torch.shell import in_one_line
sys.exit(in_one_line(lambda: World.of_environment(5.0)))
"""


def test_a_port_in_use_is_refused():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code = "import sys\nfrom dpsgd_torch.training.world import World\n" + PORT
        env = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**env, "RANK": "0", "TORCH_CPP_LOG_LEVEL": "FATAL"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"error: rank 0: the ranks cannot be connected at 127.0.0.1:{port}"
    )
    assert "pass torchrun another --master-port" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_device_that_is_not_there_is_refused():
    script = "from small_problem import make_trainer\nmake_trainer(world=world, device='cuda')"
    assert "device = cuda" in told(begun(script, 2))


OTHERS = """
import platform, torch
from small_problem import make_trainer
from dpsgd_torch.training import agreement, fingerprint
if world.rank:
    PLANT
make_trainer(world=world, run_dir=None).fit()
"""


def test_ranks_of_other_versions_are_refused_by_name():
    plants = {
        "Python": "platform.python_version = lambda: '3.9.1'",
        "release of dpsgd torch": "agreement.__version__ = '0.1'",
        "processor or libraries": "fingerprint.np.__version__ = '1.0'",
        "model's code": "agreement.described_model = lambda model: 'other'",
    }
    for name, plant in plants.items():
        line = told(begun(OTHERS.replace("PLANT", plant), 2))
        assert line.startswith(f"error: rank 1: its {name} differs from rank 0's"), line


CHECKPOINT = """
import torch
from small_problem import make_trainer
trainer = make_trainer(world=world, run_dir=RUN)
for at in trainer.run():
    if (world.rank, at.step) == (1, 5):
        PLANT
"""


def test_ranks_that_drift_apart_are_refused_at_the_next_checkpoint(tmp_path):
    plants = {
        "data": "trainer.state.data_digest = 'others'",
        "state of the optimizer": "next(iter(trainer.optimizer.state.values()))"
        "['more'] = torch.ones(1)",
    }
    for number, (name, plant) in enumerate(plants.items()):
        script = CHECKPOINT.replace("PLANT", plant).replace(
            "RUN", repr(str(tmp_path / str(number)))
        )
        line = told(begun(script, 2))
        assert f"rank 1: its {name} differs from rank 0's, at a checkpoint" in line, line
