"""OpenDP, loaded where a mechanism first needs it: it brings pandas and scikit-learn along."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def opendp() -> Any:
    """``opendp.prelude``; call it before anything is charged, so that nothing fails after.

    >>> hasattr(opendp().m, "make_laplace")
    True
    """
    import opendp.prelude as dp

    dp.enable_features("contrib")
    return dp
