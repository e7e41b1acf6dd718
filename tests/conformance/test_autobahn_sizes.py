"""The Autobahn testsuite's group 9: messages of up to 16 MiB, whole, in up to 65,536 fragments, and many small ones."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.conformance.cases import assert_passed, names, plain
from tests.conformance.conftest import RunSuite, Verdict

CASES = names({"9.1": 6, "9.2": 6, "9.3": 9, "9.4": 9, "9.5": 6, "9.6": 6, "9.7": 6, "9.8": 6})

pytestmark = [pytest.mark.autobahn, pytest.mark.slow, pytest.mark.timeout(600)]  # the first test runs the suite


@pytest.fixture(scope="module", params=plain(), ids=str)
def verdicts(request: pytest.FixtureRequest, run_suite: RunSuite) -> Mapping[str, Verdict]:
    return run_suite(["9.*"], request.param)


@pytest.mark.parametrize("case", CASES)
def test_case(case: str, verdicts: Mapping[str, Verdict]) -> None:
    assert_passed(case, verdicts[case])


def test_every_case_is_named_here(verdicts: Mapping[str, Verdict]) -> None:
    assert set(verdicts) == set(CASES)
