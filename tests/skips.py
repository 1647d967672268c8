"""Reasons for which a test may be skipped where a skip is a failure: `pytest --refuse-skips`."""

import re

import pytest

ALLOWED = {
    r"the real recordings are not on this machine": "they are one person's, and not published",
    r"root may write anywhere": "only another user can be refused by the file system",
    r"no C\+\+ compiler is here": "a run goes on without: tested there, too",
    r"\b(GPU|CUDA)\b": "no machine without one can show what it does",
}
"""What a skip's reason holds → why it is no gap in the checks."""


def is_allowed(reason: str) -> bool:
    return any(re.search(pattern, reason) for pattern in ALLOWED)


def reason_of(report) -> str:
    """Why a test or a module was skipped."""
    place = report.longrepr
    return place[2].removeprefix("Skipped: ") if isinstance(place, tuple) else str(place)


def refuse(report) -> None:
    """Turn a skip that is not allowed into a failure; an expected failure is no skip."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = reason_of(report)
    if not is_allowed(reason):
        report.outcome = "failed"
        report.longrepr = (
            f"skipped: {reason}\nand here nothing may be skipped: install what it needs (as root: "
            "make boards), or list the reason in tests/skips.py"
        )


class Refuser:
    """A plugin: refuses skips of tests, and of whole modules."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self):
        report = yield
        refuse(report)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self):
        report = yield
        refuse(report)
        return report
