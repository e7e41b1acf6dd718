"""Names the cases of the Autobahn testsuite, and judges what it says of one.  Knows nothing of how it is run."""

from __future__ import annotations

from collections.abc import Mapping

# The suite only tells what it saw: data behind a Close, and close codes that RFC 6455 does not define.
INFORMATIONAL = ("7.1.6", "7.13.1", "7.13.2")


def names(counts: Mapping[str, int]) -> list[str]:
    """`{"1.1": 2}` is 1.1.1 and 1.1.2."""
    return [f"{group}.{number}" for group, count in counts.items() for number in range(1, count + 1)]


def assert_passed(case: str, verdict: Mapping[str, str]) -> None:
    """Strictly: NON-STRICT is a failure too."""
    passed = ("OK", "INFORMATIONAL") if case in INFORMATIONAL else ("OK",)
    assert verdict["behavior"] in passed, verdict
    assert verdict["behaviorClose"] in passed, verdict
