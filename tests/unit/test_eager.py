"""start_eagerly: a task's first step at once, alike on every Python."""

from __future__ import annotations

import asyncio
import contextvars
import io
from collections.abc import Coroutine
from typing import Any

import pytest

from wsev._core.eager import start_eagerly

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")


def start(coro: Coroutine[Any, Any, object]) -> asyncio.Task[object] | None:
    return start_eagerly(coro, asyncio.get_running_loop())


def current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def test_what_does_not_suspend_has_ended_when_it_returns() -> None:
    seen = []

    async def append() -> None:
        seen.append(current())

    outer = current()
    assert start(append()) is None
    assert seen[0] is not outer
    assert asyncio.current_task() is outer


async def test_what_it_raises_is_raised() -> None:
    async def fail() -> None:
        raise ValueError("of the coroutine")

    outer = current()
    with pytest.raises(ValueError, match="of the coroutine"):
        start(fail())
    assert asyncio.current_task() is outer


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_what_ends_a_program_is_raised_and_not_logged(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise error

    with pytest.raises(error):
        start(fail())
    await asyncio.sleep(0)
    assert not caplog.records


async def test_what_suspends_goes_on_in_the_same_task() -> None:
    tasks = []
    future = asyncio.get_running_loop().create_future()

    async def wait() -> str:
        tasks.append(current())
        result = await future
        tasks.append(current())
        await asyncio.sleep(0)
        tasks.append(current())
        return f"{result}, back"

    task = start(wait())
    assert task is not None
    assert tasks == [task]
    assert not task.done()
    future.set_result("there")
    assert await task == "there, back"
    assert tasks == [task] * 3


async def test_a_bare_yield_gives_others_a_turn() -> None:
    order = []

    async def yielding() -> None:
        order.append("begun")
        await asyncio.sleep(0)
        order.append("on")

    task = start(yielding())
    order.append("outside")
    assert task is not None
    await task
    assert order == ["begun", "outside", "on"]


async def test_a_future_that_is_done_before_the_tasks_first_turn() -> None:
    future = asyncio.get_running_loop().create_future()

    async def wait() -> object:
        return await future

    task = start(wait())
    assert task is not None
    future.set_exception(ValueError("early"))
    with pytest.raises(ValueError, match="early"):
        await task


async def test_each_has_a_context_of_its_own_through_all_steps() -> None:
    seen: list[str] = []
    event = asyncio.Event()

    async def enter(name: str, *, suspends: bool) -> None:
        seen.append(variable.get())
        variable.set(name)
        if suspends:
            await event.wait()
            seen.append(variable.get())
            await asyncio.create_task(child())

    async def child() -> None:
        seen.append(variable.get())

    assert start(enter("first", suspends=False)) is None
    task = start(enter("second", suspends=True))
    assert start(enter("third", suspends=False)) is None
    event.set()
    assert task is not None
    await task
    assert seen == ["outside", "outside", "outside", "second", "second"]
    assert variable.get() == "outside"


async def test_cancelled_before_its_first_turn_it_cancels_what_it_awaits() -> None:
    future = asyncio.get_running_loop().create_future()
    ends = []

    async def wait() -> None:
        try:
            await future
        finally:
            ends.append("cleaned up")

    task = start(wait())
    assert task is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert future.cancelled()
    assert task.cancelled()
    assert ends == ["cleaned up"]


async def test_cancelled_at_a_bare_yield_before_its_first_turn() -> None:
    task = start(asyncio.sleep(0))
    assert task is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_later() -> None:
    async def wait() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            current().uncancel()
        await asyncio.sleep(0)
        return "stayed"

    task = start(wait())
    await asyncio.sleep(0)
    assert task is not None
    task.cancel()
    assert await task == "stayed"


async def test_who_cancels_himself_is_cancelled_at_the_next_await() -> None:
    future = asyncio.get_running_loop().create_future()

    async def cancel() -> None:
        current().cancel()
        await future

    task = start(cancel())
    assert task is not None
    with pytest.raises(asyncio.CancelledError):
        await task
    assert future.cancelled()


async def test_who_cancels_himself_at_his_end_cancels_nobody_else() -> None:
    async def cancel() -> None:
        current().cancel()

    assert start(cancel()) is None
    task = start(asyncio.sleep(0, "not cancelled"))
    assert task is not None
    assert await task == "not cancelled"


async def test_a_task_that_was_kept_is_not_the_next_ones() -> None:
    kept = []

    async def keep() -> None:
        kept.append(current())

    assert start(keep()) is None
    task = start(asyncio.sleep(0, "not cancelled"))
    kept[0].cancel()
    assert task is not None
    assert task is not kept[0]
    assert await task == "not cancelled"


async def test_timeouts_and_groups_work_in_it() -> None:
    async def work() -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            return "timed out"
        return "not"

    async def timeout_first() -> str:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        except TimeoutError:
            return "timed out"
        return "not"

    for coro in (work(), timeout_first()):
        task = start(coro)
        assert task is not None
        assert await task == "timed out"


async def test_one_within_another() -> None:
    seen = []

    async def inner() -> None:
        seen.append(current())

    async def outer() -> None:
        seen.append(current())
        assert start(inner()) is None
        seen.append(current())
        await asyncio.sleep(0)

    task = start(outer())
    assert task is not None
    assert seen[0] is seen[2] is task
    assert seen[1] is not task
    await task


async def test_a_task_shows_what_it_runs() -> None:
    async def waiting_for_godot() -> None:
        await asyncio.Event().wait()

    task = start(waiting_for_godot())
    assert task is not None
    assert "waiting_for_godot" in repr(task)
    stack = io.StringIO()
    task.print_stack(file=stack)
    assert "waiting_for_godot" in stack.getvalue()
    task.cancel()


async def test_very_many_that_do_not_suspend_leave_no_task() -> None:
    async def nothing() -> None:
        pass

    before = len(asyncio.all_tasks())
    for _ in range(1000):
        assert start(nothing()) is None
    # One may be spare; a task for each would show here.
    assert len(asyncio.all_tasks()) <= before + 1
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == before


def test_a_loop_that_is_closed_before_the_turn_of_a_spare_task(caplog: pytest.LogCaptureFixture) -> None:
    async def nothing() -> None:
        pass

    def begin(loop: asyncio.AbstractEventLoop) -> None:
        start_eagerly(nothing(), loop)
        loop.stop()

    for _ in range(2):  # another loop takes none of the first's
        loop = asyncio.new_event_loop()
        loop.call_soon(begin, loop)
        loop.run_forever()
        loop.close()
    assert not caplog.records
