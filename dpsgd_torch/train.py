"""``python -m dpsgd_torch.train``: parse, run, print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dpsgd_torch.app.flags import parse
from dpsgd_torch.shell import first_of_all, in_one_line, loading

if TYPE_CHECKING:
    from dpsgd_torch.training.world import World


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 refused (one line on stderr says why), 130 interrupted."""

    def story() -> None:
        request = parse(argv)
        with loading():  # torch takes its time: after --help
            from dpsgd_torch.app.follow import follow
            from dpsgd_torch.app.progress import presenter
            from dpsgd_torch.app.run import run
            from dpsgd_torch.training.world import World

        worlds.append(world := World.of_environment(request.timeout))
        with world.stopping_together():
            if world.is_first:
                run(request, presenter(as_json=request.json), world)
            else:
                follow(request, world)

    worlds: list[World] = []
    return in_one_line(story, silent=lambda: not (worlds[0].speaks if worlds else first_of_all()))


if __name__ == "__main__":
    sys.exit(main())
