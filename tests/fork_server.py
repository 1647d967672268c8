"""A process that has loaded what scripts of tests import, and forks itself for each of them.

Ranks and runs that are killed need processes of their own, not their own three seconds of imports.
Started by many_processes.py; asked through a socket, which a script's outputs come along with.
"""

import gc
import importlib
import json
import os
import socket
import sys
import types

LOADED = (
    "torch._dynamo",  # which torch loads for an optimizer
    "dpsgd_torch.app.run",
    "dpsgd_torch.app.progress",
    "dpsgd_torch.audit",
    "dpsgd_torch.train",
    "dpsgd_torch.training.own_loop",
    "dpsgd_torch.training.trainer",
    "dpsgd_torch.integrations.opacus_style",
    "noise_in_parts",
    "sharded_runs",
    "small_runs",
)


def forked(door: socket.socket) -> str | None:
    """None once nobody asks any more; in a child, the script that it is to run."""
    while True:
        message, pipes, _, _ = socket.recv_fds(door, 1 << 18, 2)
        if not message:
            return None
        asked = json.loads(message)
        if "wait" in asked:
            door.send(str(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1])).encode())
            continue
        child = os.fork()
        if not child:
            door.close()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for pipe, stream in zip(pipes, (1, 2), strict=True):
                os.dup2(pipe, stream)
                os.close(pipe)
            os.environ.clear()
            os.environ.update(asked["environment"])
            os.chdir(asked["folder"])
            return asked["script"]
        for pipe in pipes:
            os.close(pipe)
        door.send(str(child).encode())


if __name__ == "__main__":
    for name in LOADED:
        importlib.import_module(name)
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, threads  # else a fork may wait for a lock that nobody gives back
    gc.freeze()
    script = forked(socket.socket(fileno=int(sys.argv[1])))
    if script is not None:  # the last thing here, so that it ends as `python -c` does
        sys.argv = ["-c"]
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(script, "<string>", "exec"), main.__dict__)
