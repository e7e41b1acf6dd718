"""The Autobahn testsuite's groups 1 to 7 and 10: framing, pings, fragments, UTF-8, closing.

9, 12 and 13 are in the files beside this one.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.conformance.cases import assert_passed, names, plain
from tests.conformance.conftest import RunSuite, Verdict

CASES = names(
    {
        "1.1": 8, "1.2": 8, "2": 11, "3": 7, "4.1": 5, "4.2": 5, "5": 20,
        "6.1": 3, "6.2": 4, "6.3": 2, "6.4": 4, "6.5": 5, "6.6": 11, "6.7": 4, "6.8": 2, "6.9": 4, "6.10": 3, "6.11": 5,
        "6.12": 8, "6.13": 5, "6.14": 10, "6.15": 1, "6.16": 3, "6.17": 5, "6.18": 5, "6.19": 5, "6.20": 7, "6.21": 8,
        "6.22": 34, "6.23": 7, "7.1": 6, "7.3": 6, "7.5": 1, "7.7": 13, "7.9": 9, "7.13": 2, "10.1": 1,
    }
)  # fmt: skip

pytestmark = [pytest.mark.autobahn, pytest.mark.slow, pytest.mark.timeout(600)]  # the first test runs the suite


@pytest.fixture(scope="module", params=plain(), ids=str)
def verdicts(request: pytest.FixtureRequest, run_suite: RunSuite) -> Mapping[str, Verdict]:
    return run_suite(["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"], request.param)


@pytest.mark.parametrize("case", CASES)
def test_case(case: str, verdicts: Mapping[str, Verdict]) -> None:
    assert_passed(case, verdicts[case])


def test_every_case_is_named_here(verdicts: Mapping[str, Verdict]) -> None:
    assert set(verdicts) == set(CASES)
