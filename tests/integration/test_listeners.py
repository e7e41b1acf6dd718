"""Server.subscribe: callbacks of the server itself, on a server by itself.  Across servers: test_brokers.py."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import wsev
from tests.conftest import Raw, Serve
from wsev.listeners import MAX_WAITING, OVERHEAD

Server = wsev.Server[Any]


class Recorder:
    """A callback that keeps what it was called with, and can be waited for."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    def __call__(self, topic: str, message: str | bytes) -> None:
        self.calls.put_nowait((topic, message))

    async def next(self) -> tuple[str, Any]:
        return await self.calls.get()

    def is_idle(self) -> bool:
        return self.calls.empty()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


async def fence(server: Server) -> None:
    """Wait until everything that waits for a sync callback has been called for."""
    last = Recorder()
    server.subscribe("fence", last)
    server.publish("fence", "")
    await last.next()
    server.unsubscribe("fence", last)


# What it is called with, and when.


@pytest.mark.parametrize(
    ("message", "text", "heard"),
    [("hé", False, "hé"), (b"\xff", False, b"\xff"), (b"hi", True, "hi"), (bytearray(b"a"), False, b"a")],
    ids=["str", "bytes", "bytes as text", "bytearray"],
)
async def test_it_hears_what_is_published(
    serve: Serve, recorder: Recorder, message: Any, text: bool, heard: str | bytes
) -> None:
    server = await serve(wsev.Server())
    server.subscribe("room", recorder)
    assert server.publish("room", message, text=text) == 0, "it is no connection"
    assert await recorder.next() == ("room", heard)


async def test_text_that_is_not_utf_8_harms_nobody(serve: Serve, recorder: Recorder) -> None:
    server = await serve(wsev.Server())
    server.subscribe("room", recorder)
    server.publish("room", b"a\xff", text=True)
    assert await recorder.next() == ("room", "a\N{REPLACEMENT CHARACTER}")


async def test_it_hears_other_topics_not(serve: Serve, recorder: Recorder) -> None:
    server = await serve(wsev.Server())
    server.subscribe("room", recorder)
    server.publish("hall", "x")
    server.broadcast("x")
    await fence(server)
    assert recorder.is_idle()


async def test_it_hears_what_a_connection_publishes(serve: Serve, raw: Raw, recorder: Recorder) -> None:
    server = wsev.Server[Any]()
    server.on_message(lambda conn, message: conn.publish("room", message))
    server.subscribe("room", recorder)
    await serve(server)
    peer = await raw(server)
    await peer.upgrade()
    await peer.send_frame(1, b"said")
    assert await recorder.next() == ("room", "said")


async def test_it_is_never_called_from_inside_publish(serve: Serve, recorder: Recorder) -> None:
    server = await serve(wsev.Server())
    server.subscribe("room", recorder)
    server.publish("room", "x")
    assert recorder.is_idle()
    await recorder.next()


async def test_what_it_publishes_itself_does_not_keep_the_loop(serve: Serve) -> None:
    server = await serve(wsev.Server())
    turns = 0

    def again(topic: str, message: str) -> None:
        nonlocal turns
        turns += 1
        server.publish(topic, message)

    server.subscribe("room", again)
    server.publish("room", "for ever")
    for _ in range(50):
        await asyncio.sleep(0)
    assert 2 <= turns <= 1000, "a few for each turn of the loop"
    server.unsubscribe("room", again)


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
async def test_messages_come_in_order_and_one_at_a_time(serve: Serve, is_async: bool) -> None:
    server = await serve(wsev.Server())
    begun: list[str] = []
    ended: list[str] = []
    done = asyncio.Event()

    def hear(topic: str, message: str) -> Any:
        assert begun == ended, "the last call had not ended"
        begun.append(message)
        return end(message) if is_async else finish(message)

    async def end(message: str) -> None:
        await asyncio.sleep(0)
        finish(message)

    def finish(message: str) -> None:
        ended.append(message)
        if len(ended) == 100:
            done.set()

    server.subscribe("room", hear)
    for number in range(100):
        server.publish("room", str(number))
    await done.wait()
    assert ended == [str(number) for number in range(100)]


async def test_a_callback_that_suspends_holds_up_no_other(serve: Serve, recorder: Recorder) -> None:
    server = await serve(wsev.Server())
    gate = asyncio.Event()

    async def wait(topic: str, message: str) -> None:
        await gate.wait()

    server.subscribe("room", wait)
    server.subscribe("room", recorder)
    for _ in range(3):
        server.publish("room", "x")
    for _ in range(3):
        await recorder.next()
    gate.set()


# Subscribing.


async def test_subscribing_twice_is_once(serve: Serve, recorder: Recorder) -> None:
    server = await serve(wsev.Server())
    server.subscribe("room", recorder)
    server.subscribe("room", recorder)
    server.publish("room", "x")
    await recorder.next()
    await fence(server)
    assert recorder.is_idle()
    assert server.unsubscribe("room", recorder) is True
    assert server.unsubscribe("room", recorder) is False


async def test_a_bound_method_is_the_same_callback_each_time(serve: Serve) -> None:
    server = await serve(wsev.Server())
    recorder = Recorder()
    server.subscribe("room", recorder.__call__)
    assert server.unsubscribe("room", recorder.__call__) is True


async def test_after_unsubscribe_nothing_is_called_not_even_for_what_waits(serve: Serve, recorder: Recorder) -> None:
    server = await serve(wsev.Server())
    server.subscribe("room", recorder)
    server.publish("room", "x")
    server.unsubscribe("room", recorder)
    server.publish("room", "y")
    await fence(server)
    assert recorder.is_idle()


async def test_a_call_that_runs_goes_on_when_it_unsubscribes(serve: Serve) -> None:
    server = await serve(wsev.Server())
    done = asyncio.Event()

    async def once(topic: str, message: str) -> None:
        server.unsubscribe("room", once)
        await asyncio.sleep(0)
        done.set()

    server.subscribe("room", once)
    server.publish("room", "x")
    await done.wait()


def test_what_is_no_callback_is_an_error_that_says_so() -> None:
    server = wsev.Server[Any]()
    wrong: Any
    for wrong in (3, lambda: None, lambda topic: None, lambda a, b, c: None):
        with pytest.raises(wsev.OptionError, match=r"callback\(topic, message\)"):
            server.subscribe("room", wrong)


@pytest.mark.parametrize(("topic", "error"), [("", ValueError), ("x" * 256, ValueError), (b"room", TypeError)])
def test_what_is_no_topic_is_an_error_that_says_so(topic: Any, error: type[Exception], recorder: Recorder) -> None:
    server = wsev.Server[Any]()
    with pytest.raises(error, match="topic="):
        server.subscribe(topic, recorder)
    with pytest.raises(error, match="topic="):
        server.unsubscribe(topic, recorder)


# A server's life.


async def test_a_subscription_holds_over_stops_until_it_is_ended(serve: Serve, recorder: Recorder) -> None:
    server = wsev.Server[Any]()
    server.subscribe("room", recorder)
    for _ in range(2):
        await server.start(0)
        server.publish("room", "x")
        await recorder.next()
        await server.stop()
        server.publish("room", "to nobody")
    assert server.unsubscribe("room", recorder) is True
    await serve(server)
    server.publish("room", "x")
    await fence(server)
    assert recorder.is_idle()


async def test_before_the_lifespan_was_entered_nothing_is_called_but_what_it_subscribed_itself(
    serve: Serve, recorder: Recorder
) -> None:
    own = Recorder()

    @asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[str]:
        server.subscribe("room", own)
        server.publish("room", "from the lifespan")
        assert await own.next() == ("room", "from the lifespan")
        await fence(server)
        assert recorder.is_idle()
        yield "entered"

    server = wsev.Server[Any](lifespan=lifespan)
    server.subscribe("room", recorder)
    await serve(server)
    assert await recorder.next() == ("room", "from the lifespan")


async def test_what_was_published_before_the_stop_is_still_called_for(serve: Serve, recorder: Recorder) -> None:
    server = await serve(wsev.Server())
    server.subscribe("room", recorder)
    server.publish("room", "last words")
    await server.stop()
    assert await recorder.next() == ("room", "last words")


async def test_a_stop_waits_for_a_callback_that_runs(serve: Serve) -> None:
    server = await serve(wsev.Server())
    gate, ended = asyncio.Event(), False

    async def hear(topic: str, message: str) -> None:
        nonlocal ended
        await gate.wait()
        ended = True

    server.subscribe("room", hear)
    server.publish("room", "x")
    await fence(server)
    stopping = asyncio.ensure_future(server.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    gate.set()
    await stopping
    assert ended


async def test_a_callback_that_never_ends_is_cancelled_when_stop_timeout_has_passed(serve: Serve) -> None:
    server = await serve(wsev.Server(stop_timeout=0.01))
    cancelled = False

    async def hang(topic: str, message: str) -> None:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    server.subscribe("room", hang)
    server.publish("room", "x")
    await fence(server)
    await server.stop()
    assert cancelled


# What goes wrong.


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
async def test_what_it_raises_is_logged_and_told_and_the_next_message_comes(
    serve: Serve, expected_errors: list[logging.LogRecord], is_async: bool
) -> None:
    server = wsev.Server[Any]()
    told: list[Any] = []
    heard = Recorder()
    server.on_error(lambda error, is_fatal: told.append(error))

    def fail(topic: str, message: str) -> Any:
        heard(topic, message)
        if is_async:
            return fail_later()
        raise KeyError(message)

    async def fail_later() -> None:
        await asyncio.sleep(0)
        raise KeyError("later")

    server.subscribe("room", fail)
    await serve(server)
    server.publish("room", "one")
    server.publish("room", "two")
    assert [await heard.next(), await heard.next()] == [("room", "one"), ("room", "two")]
    await server.stop()
    assert [(error.callback, error.connection, type(error.__cause__)) for error in told] == [
        ("subscribe", None, KeyError)
    ] * 2
    assert expected_errors[0].getMessage().startswith("subscribe raised: KeyError")
    assert all(record.exc_info for record in expected_errors)


async def test_what_it_awaited_may_be_cancelled_and_ends_that_call_alone(serve: Serve, recorder: Recorder) -> None:
    server = await serve(wsev.Server())

    async def hear(topic: str, message: str) -> None:
        recorder(topic, message)
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    server.subscribe("room", hear)
    server.publish("room", "one")
    server.publish("room", "two")
    assert [(await recorder.next())[1], (await recorder.next())[1]] == ["one", "two"]


async def test_what_waits_is_bounded_and_what_finds_no_room_is_counted_and_told(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = wsev.Server[Any]()
    told: asyncio.Queue[Any] = asyncio.Queue()
    server.on_error(lambda error, is_fatal: told.put_nowait(error))
    gate = asyncio.Event()
    heard = 0

    async def slow(topic: str, message: bytes) -> None:
        nonlocal heard
        heard += 1
        await gate.wait()

    server.subscribe("room", slow)
    await serve(server)
    size = 1 << 20
    fits = MAX_WAITING // (size + OVERHEAD)
    for _ in range(fits + 5):
        server.publish("room", bytes(size))
    error = await told.get()
    assert isinstance(error, wsev.BrokerError)
    assert (error.dropped, str(error)) == (
        5,
        "dropped messages: 5; a callback of server.subscribe is too slow for them",
    )
    assert server.stats().broker_dropped == 5
    gate.set()
    await server.stop()
    assert heard == fits
    assert [record.levelname for record in caplog.records if record.name == "wsev.broker"] == ["WARNING"]


async def test_one_message_of_any_size_finds_room(serve: Serve, recorder: Recorder) -> None:
    server = await serve(wsev.Server())
    server.subscribe("room", recorder)
    server.publish("room", bytes(MAX_WAITING + 1))
    assert len((await recorder.next())[1]) == MAX_WAITING + 1


def test_system_exit_leaves_the_run() -> None:
    @asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[None]:
        server.publish("room", "leave")
        yield

    def leave(topic: str, message: str) -> None:
        raise SystemExit(7)

    server = wsev.Server[Any](lifespan=lifespan)
    server.subscribe("room", leave)
    with pytest.raises(SystemExit) as caught:
        server.run(0)
    assert caught.value.code == 7
