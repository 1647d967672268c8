"""``python -m dpsgd_torch.train``: parse, run, print."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dpsgd_torch.app.flags import parse
from dpsgd_torch.shell import in_one_line, loading


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 refused (one line on stderr says why), 130 interrupted."""

    def story() -> None:
        request = parse(argv)
        with loading():  # torch takes its time: after --help
            from dpsgd_torch.app.progress import presenter
            from dpsgd_torch.app.run import run

        run(request, presenter(as_json=request.json))

    return in_one_line(story)


if __name__ == "__main__":
    sys.exit(main())
