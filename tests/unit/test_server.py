"""Server: what it refuses at the call, its routes, and its life without a client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from wsev import Handler, OptionError, Server

# What it is made of.


def test_an_unfit_option_is_an_error_at_once() -> None:
    with pytest.raises(OptionError, match="idle_timeout=0"):
        Server(idle_timeout=0)


def test_an_unknown_option_is_an_error_at_once() -> None:
    with pytest.raises(OptionError, match="did you mean idle_timeout"):
        Server(idle_timout=3)  # type: ignore[call-arg]  # that is the claim


def test_http_must_be_a_factory() -> None:
    with pytest.raises(OptionError, match=r"http=.*factory of asyncio protocols"):
        Server(http="app")  # type: ignore[arg-type]  # that is the claim


async def _undecorated(server: Any) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def _without_parameters() -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize(
    ("lifespan", "remedy"),
    [(_undecorated, "contextlib.asynccontextmanager"), (_without_parameters, "give it one parameter")],
    ids=["undecorated", "without parameters"],
)
def test_a_lifespan_that_cannot_be_entered_is_an_error_at_once(lifespan: Any, remedy: str) -> None:
    with pytest.raises(OptionError, match=f"lifespan=.*{remedy}"):
        Server(lifespan=lifespan)


def test_a_handlers_callbacks_are_the_servers() -> None:
    class Chat(Handler[Any]):
        def on_message(self, conn: Any, message: Any) -> None: ...

        def on_error(self, error: Any, is_fatal: bool) -> None: ...

    assert set(Server(Chat())._registered) == {"on_message", "on_error"}


# Before it is started.


def test_an_idle_server_has_neither_port_nor_connections() -> None:
    server: Server[Any] = Server()
    assert (server.port, server.addresses, list(server.connections), server.state) == (None, (), [], None)
    assert (server.publish("room", "m"), server.broadcast("m"), server.worker_id) == (0, 0, 0)
    assert repr(server) == "<Server IDLE, 0 connections>"


def test_an_idle_server_has_no_loop_and_no_stats() -> None:
    with pytest.raises(RuntimeError, match="not started"):
        _ = Server().loop
    with pytest.raises(RuntimeError, match="never started"):
        Server().stats()


async def test_stopping_an_idle_server_does_nothing() -> None:
    await Server().stop()


# Its life.


async def test_a_started_server_tells_where_it_listens() -> None:
    server: Server[Any] = Server()
    await server.start(0)
    assert server.addresses == (("127.0.0.1", server.port),)
    assert repr(server) == f"<Server RUNNING 127.0.0.1:{server.port}, 0 connections>"
    await server.stop()
    assert [server.port, *server.addresses] == [None]


async def test_a_second_start_is_an_error_and_changes_nothing() -> None:
    async with Server().listen(0) as server:
        with pytest.raises(RuntimeError, match=r"is running: call stop\(\) before"):
            await server.start(0)
        assert server.port


async def test_a_second_stop_waits_for_the_first() -> None:
    server: Server[Any] = Server()
    await server.start(0)
    await asyncio.gather(server.stop(), server.stop())
    assert server.port is None


async def test_callbacks_and_routes_are_refused_while_it_runs_and_taken_again_afterwards() -> None:
    server: Server[Any] = Server()
    route = server.route("/chat")
    async with server.listen(0):
        for register in (
            lambda: server.on_drain(lambda conn: None),
            lambda: route.on_drain(lambda conn: None),
            lambda: server.route("/more"),
        ):
            with pytest.raises(OptionError, match="the server is started"):
                register()
    server.on_drain(lambda conn: None)
    server.route("/more")


@pytest.mark.parametrize(("code", "reason"), [(1005, ""), (1000, "x" * 124)], ids=["code", "reason"])
async def test_a_close_that_may_not_be_sent_is_an_error_and_does_not_stop(code: int, reason: str) -> None:
    async with Server().listen(0) as server:
        with pytest.raises(ValueError):
            await server.stop(code, reason)
        assert server.port


async def test_run_in_a_running_loop_is_an_error_that_names_listen() -> None:
    with pytest.raises(RuntimeError, match=r"async with server.listen\(...\)"):
        Server().run(0)


@pytest.mark.parametrize("workers", [0, -1, "2", True, 1.5, None], ids=repr)
def test_a_number_of_workers_that_is_none_is_an_error_that_names_what_to_give(workers: Any) -> None:
    with pytest.raises(OptionError, match=r"workers=.*at least 1, or 'auto'"):
        Server().run(0, workers=workers)


def test_several_workers_are_not_run_from_another_thread() -> None:
    raised: list[RuntimeError] = []

    def run() -> None:
        try:
            Server().run(0, workers=2)
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert "main thread" in str(raised[0])


async def test_stats_of_the_last_run_can_be_read_after_it() -> None:
    server: Server[Any] = Server()
    async with server.listen(0):
        pass
    assert server.stats().connections == 0


# Where it listens.


async def test_an_unknown_place_is_an_error() -> None:
    with pytest.raises(OptionError, match="did you mean host"):
        await Server().start(0, hosts="::1")  # type: ignore[call-arg]  # that is the claim


# The lifespan.


async def test_the_lifespan_surrounds_the_run_and_gives_the_state() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(server: Server[Any]) -> AsyncIterator[str]:
        events.append(f"entered {server.port}")
        yield "database"
        events.append(f"left {server.port}")

    server: Server[Any] = Server(lifespan=lifespan)
    async with server.listen(0):
        port = server.port
        events.append(server.state)
    assert events == [f"entered {port}", "database", "left None"]
    assert server.state is None


async def test_a_lifespan_that_fails_to_end_fails_the_stop_and_leaves_it_idle() -> None:
    @asynccontextmanager
    async def lifespan(server: Server[Any]) -> AsyncIterator[None]:
        yield
        raise ConnectionError("no database")

    server: Server[Any] = Server(lifespan=lifespan)
    await server.start(0)
    with pytest.raises(ConnectionError, match="no database"):
        await server.stop()
    assert repr(server) == "<Server IDLE, 0 connections>"
