"""Reports: everything is counted, and told once a second at most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.recorded import ManualLoop
from wsev.brokers.reports import Reports
from wsev.errors import BrokerError


class Loop(ManualLoop):
    """With call_soon, whose turn comes when time passes."""

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
        return self.call_later(0, callback, *args)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def reports(loop: Loop, told: list[str]) -> Reports:
    return Reports(loop, lambda error: told.append(str(error)))


def test_the_first_is_told_at_once_but_not_from_inside_the_call(loop: Loop, told: list[str], reports: Reports) -> None:
    reports.failed(BrokerError("lost"))
    assert told == []
    loop.pass_time(0)
    assert told == ["lost"]


def test_what_comes_within_a_second_is_told_at_its_end_in_one(loop: Loop, told: list[str], reports: Reports) -> None:
    reports.failed(BrokerError("first"))
    loop.pass_time(0)
    for number in range(5):
        loop.pass_time(0.1)
        reports.failed(BrokerError(f"failure {number}"))
        reports.dropped(10, "too slow")
    assert told == ["first"]
    loop.pass_time(1)
    assert told[1:] == ["failure 0; and 4 more", "dropped messages: 50; too slow"]


def test_after_a_quiet_second_the_next_is_told_at_once_again(loop: Loop, told: list[str], reports: Reports) -> None:
    reports.failed(BrokerError("first"))
    loop.pass_time(1.5)
    reports.failed(BrokerError("second"))
    loop.pass_time(0)
    assert told == ["first", "second"]


def test_trouble_without_end_is_told_once_a_second(loop: Loop, told: list[str], reports: Reports) -> None:
    for _ in range(95):
        reports.dropped(1, "too slow")
        loop.pass_time(0.1)
    assert len(told) == 10
    assert reports.messages == 95


def test_each_reason_is_told_by_itself_with_its_count() -> None:
    errors: list[BrokerError] = []
    loop = Loop()
    reports = Reports(loop, errors.append)
    reports.dropped(2, "too slow")
    reports.dropped(3, "too long")
    reports.dropped(5, "too slow")
    loop.pass_time(0)
    assert [(error.dropped, error.reason) for error in errors] == [
        (7, "dropped messages: 7; too slow"),
        (3, "dropped messages: 3; too long"),
    ]
    assert reports.messages == 10


def test_the_rest_is_told_when_it_ends_and_nothing_later(loop: Loop, told: list[str], reports: Reports) -> None:
    reports.failed(BrokerError("first"))
    loop.pass_time(0)
    reports.dropped(1, "too slow")
    reports.close()
    assert told == ["first", "dropped messages: 1; too slow"]
    loop.pass_time(5)
    assert len(told) == 2


def test_a_cause_is_kept(loop: Loop) -> None:
    errors: list[BrokerError] = []
    reports = Reports(loop, errors.append)
    error = BrokerError("raised")
    error.__cause__ = KeyError("x")
    reports.failed(error)
    reports.failed(BrokerError("another"))
    loop.pass_time(0)
    assert isinstance(errors[0].__cause__, KeyError)
    assert str(errors[0]) == "raised; and 1 more"
