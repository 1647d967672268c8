"""``python -m dpsgd_torch.search``: hyper-parameters chosen on private data, inside ε."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dpsgd_torch.searching.flags import parse
from dpsgd_torch.shell import in_one_line


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 refused (one line on stderr says why), 130 interrupted."""

    def story() -> None:
        options, asked = parse(argv)
        from dpsgd_torch.searching.story import search  # torch takes its time: after --help

        search(options, asked)

    return in_one_line(story, interrupted="interrupted; ")


if __name__ == "__main__":
    sys.exit(main())
