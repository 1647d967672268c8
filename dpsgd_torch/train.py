"""``python -m dpsgd_torch.train``: parse, run, print."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    from accountant import PrivacyError
    from dpsgd_torch.flags import parse

    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        request = parse(argv)
        from dpsgd_torch.progress import presenter  # torch and its like load only for a real run
        from dpsgd_torch.run import run

        run(request, presenter(as_json=request.json))
    except PrivacyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: go on with --resume and the run's folder", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
