"""The scoreboard: what several processes count is added up, and no total goes back when one of them ends."""

from __future__ import annotations

import os
from typing import Any

import pytest

from wsev.workers.scoreboard import HEADER, RECORD_SIZE, Score, Scoreboard, add


def board(slots: int = 3) -> Scoreboard:
    return Scoreboard(slots)


def write(score: Score, connections: int, messages: int, **closes: int) -> None:
    score.write({"connections": connections}, {"messages": messages, "closes": closes})


def memory_of(score: Score) -> Any:
    return score.board._slots[score.slot]._memory


def test_nothing_is_counted_at_first() -> None:
    totals = board().read()
    assert (totals.of_now, totals.growing, totals.workers, totals.restarts) == ({}, {}, 0, 0)


def test_figures_are_added_by_name_and_by_two_names() -> None:
    assert add({"a": 1, "b": {"x": 1}}, {"a": 2, "b": {"x": 3, "y": 4}, "c": {"z": 5}}) == {
        "a": 3,
        "b": {"x": 4, "y": 4},
        "c": {"z": 5},
    }


def test_every_worker_sees_the_sum_of_all() -> None:
    scores = [(score_board := board()).open_slot(), score_board.open_slot()]
    write(scores[0], 2, 10, a=1)
    write(scores[1], 3, 20, a=1, b=2)
    for score in scores:
        totals = score.read()
        assert totals.of_now == {"connections": 5}
        assert totals.growing == {"messages": 30, "closes": {"a": 2, "b": 2}}
        assert totals.workers == 2


def test_what_is_written_last_counts() -> None:
    score = board().open_slot()
    for messages in range(5):
        write(score, 0, messages)
        assert score.read().growing["messages"] == messages


def test_a_worker_that_has_ended_goes_on_counting_in_the_totals_but_is_not_there() -> None:
    whole = board()
    first, second = whole.open_slot(), whole.open_slot()
    write(first, 2, 10)
    write(second, 3, 20)
    whole.close_slot(first)
    totals = second.read()
    assert (totals.of_now, totals.growing["messages"], totals.workers) == ({"connections": 3}, 30, 1)


def test_a_slots_next_worker_begins_anew_and_its_predecessor_stays_counted() -> None:
    whole = board(1)
    for life in range(3):
        score = whole.open_slot()
        assert whole.read().growing.get("messages", 0) == 10 * life
        write(score, 1, 10)
        assert whole.read().growing["messages"] == 10 * (life + 1)
        whole.close_slot(score)
        totals = whole.read()
        assert (totals.of_now, totals.growing["messages"], totals.workers) == ({}, 10 * (life + 1), 0)


def test_a_worker_that_ends_before_it_wrote_takes_nothing_along() -> None:
    whole = board(1)
    write(first := whole.open_slot(), 1, 10)
    whole.close_slot(first)
    whole.close_slot(whole.open_slot())
    assert whole.read().growing["messages"] == 10


def test_restarts_are_counted() -> None:
    whole = board()
    whole.count_restart()
    whole.count_restart()
    assert whole.read().restarts == 2


@pytest.mark.parametrize("damage", range(0, HEADER.size + 4), ids=lambda at: f"byte {at}")
def test_a_record_that_was_not_finished_is_passed_over(damage: int) -> None:
    """As if the writer had been killed in the middle: the record before it counts, and the next one can be written."""
    score = board(1).open_slot()
    write(score, 0, 1)
    write(score, 0, 2)
    youngest = 0  # the second record's number is even
    memory_of(score)[youngest + damage] ^= 0xFF
    assert score.read().growing["messages"] == 1
    write(score, 0, 3)
    assert score.read().growing["messages"] == 3
    write(score, 0, 4)
    assert score.read().growing["messages"] == 4


def test_figures_that_are_too_many_are_not_written() -> None:
    score = board(1).open_slot()
    write(score, 0, 1)
    score.write({}, {str(number): number for number in range(RECORD_SIZE // 8)})
    assert score.read().growing["messages"] == 1


def test_every_close_code_there_is_has_room() -> None:
    score = board(1).open_slot()
    closes = {str(code): 10**19 for code in range(3000, 5000)}
    score.write({}, {"closes": closes})
    assert score.read().growing["closes"] == closes


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # pytest-xdist has threads; the child does little
def test_another_process_reads_whole_records_while_one_writes() -> None:
    whole = board(1)
    score = whole.open_slot()
    write(score, 0, 0, same=0)
    child = os.fork()
    if child == 0:
        for number in range(1, 2001):
            write(score, 0, number, same=number)
        os._exit(0)
    last = 0
    while last < 2000:
        growing = whole.read().growing
        assert growing["messages"] == growing["closes"]["same"] >= last
        last = growing["messages"]
    assert os.waitpid(child, 0)[1] == 0
