"""``python -m dpsgd_torch.train``: parse, run, print."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

from accountant import PrivacyError
from dpsgd_torch.flags import parse
from dpsgd_torch.progress import presenter
from dpsgd_torch.run import run


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 refused (one line on stderr says why), 130 interrupted."""
    with warnings.catch_warnings():
        warnings.showwarning = _one_line
        try:
            request = parse(argv)
            run(request, presenter(as_json=request.json))
        except PrivacyError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as stopped:
            print(f"interrupted {stopped}", file=sys.stderr)
            return 130
    return 0


def _one_line(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
