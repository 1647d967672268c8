"""The C++ compiler that compiled loops on a CPU need."""

from __future__ import annotations

import functools
import subprocess

from dpsgd_torch.gradients.compiled.held import CannotCompile


@functools.cache
def compiler() -> str:
    """Its version, in one line: another may round in another order.

    Raises:
        CannotCompile: there is none.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler  # takes its time

    try:
        said = subprocess.run(
            [get_cpp_compiler(), "--version"], capture_output=True, text=True, check=True
        )
    except Exception as error:  # torch has its own for this, by release
        raise CannotCompile(
            "there is no C++ compiler here; install g++ or clang, or name one by CXX"
        ) from error
    return said.stdout.splitlines()[0]
