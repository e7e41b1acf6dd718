"""The Autobahn testsuite's group 13: permessage-deflate, what a client may offer."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.conformance.cases import affordable, assert_passed, compressed, names
from tests.conformance.conftest import RunSuite, Verdict

CASES = affordable(names({"13.1": 18, "13.2": 18, "13.3": 18, "13.4": 18, "13.5": 18, "13.6": 18, "13.7": 18}))

pytestmark = [pytest.mark.autobahn, pytest.mark.slow, pytest.mark.timeout(1800)]  # the first test runs the suite


@pytest.fixture(scope="module", params=compressed(), ids=str)
def verdicts(request: pytest.FixtureRequest, run_suite: RunSuite) -> Mapping[str, Verdict]:
    return run_suite(CASES, request.param)


@pytest.mark.parametrize("case", CASES)
def test_case(case: str, verdicts: Mapping[str, Verdict]) -> None:
    assert_passed(case, verdicts[case])


def test_every_case_is_named_here(verdicts: Mapping[str, Verdict]) -> None:
    assert set(verdicts) == set(CASES)
