"""``python -m dpsgd_torch.search``: hyper-parameters chosen on private data, inside ε."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dpsgd_torch.app.search.flags import parse
from dpsgd_torch.shell import in_one_line, loading


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 refused (one line on stderr says why), 130 interrupted."""

    def story() -> None:
        options, asked = parse(argv)
        with loading():  # torch takes its time: after --help
            from dpsgd_torch.app.search.story import search

        search(options, asked)

    return in_one_line(story, interrupted="interrupted; ")


if __name__ == "__main__":
    sys.exit(main())
