"""``python -m dpsgd_torch.search``: hyper-parameters chosen on private data, inside ε."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from dpsgd_torch.app.search.flags import parse
from dpsgd_torch.errors import ConfigError
from dpsgd_torch.shell import first_of_all, in_one_line, loading


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 refused (one line on stderr says why), 130 interrupted."""

    def story() -> None:
        options, asked = parse(argv)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ:
            raise ConfigError(
                f"processes = {os.environ['WORLD_SIZE']}: a search is one process, whose trials "
                "share a ledger; run it without torchrun"
            )
        with loading():  # torch takes its time: after --help
            from dpsgd_torch.app.search.story import search

        search(options, asked)

    return in_one_line(story, interrupted="interrupted; ", silent=lambda: not first_of_all())


if __name__ == "__main__":
    sys.exit(main())
