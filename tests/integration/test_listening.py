"""Listening: where a server is reached, from its start to its stop, and that a start that fails leaves nothing."""

from __future__ import annotations

import socket
import ssl as tls
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

import wsev
from tests.conftest import Connect, Serve

Server = wsev.Server[Any]


def echo_server(**options: Any) -> Server:
    server: Server = wsev.Server(**options)
    server.on_message(lambda conn, message: conn.send(message))
    return server


# Where.


async def test_a_unix_path_is_listened_on_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with wsev.Server().listen(unix=path) as server:
        assert (server.addresses, server.port) == ((str(path),), None)
        assert path.is_socket()
    assert not path.exists()


async def test_several_hosts_share_a_port() -> None:
    async with wsev.Server().listen(0, host=["127.0.0.1", "127.0.0.2"]) as server:
        assert server.addresses == (("127.0.0.1", server.port), ("127.0.0.2", server.port))


@pytest.mark.parametrize("kind", ["sock", "fd"])
async def test_a_socket_that_exists_is_listened_on_and_closed_at_the_end(kind: str) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    address = sock.getsockname()
    given: Any = sock if kind == "sock" else sock.detach()
    async with wsev.Server().listen(**{kind: given}) as server:
        assert server.addresses == (address,)
    with socket.create_server(address):
        pass


async def test_two_files_are_enough_for_tls(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(key)
    context = tls.create_default_context()
    authority.configure_trust(context)
    client = await connect(await serve(echo_server(), ssl=(chain, key)), ssl=context)
    await client.send("hello")
    assert await client.recv() == "hello"


# The start and the stop.


async def test_it_may_be_started_again_after_a_stop() -> None:
    server: Server = wsev.Server()
    for _ in range(3):
        async with server.listen(0):
            assert server.port


async def test_a_port_is_free_again_after_a_stop() -> None:
    server: Server = wsev.Server()
    await server.start(0)
    port = server.port
    assert port
    await server.stop()
    await server.start(port)
    await server.stop()


async def test_a_busy_port_is_an_error_and_leaves_it_idle() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server: Server = wsev.Server()
        with pytest.raises(OSError, match=f"port {port} of 127.0.0.1 is in use"):
            await server.start(port)
    async with server.listen(port):
        assert server.port == port


async def test_a_lifespan_that_fails_to_begin_fails_the_start_and_frees_the_port() -> None:
    @asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[None]:
        if server.port:
            raise ConnectionError("no database")
        yield

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server: Server = wsev.Server(lifespan=lifespan)
    with pytest.raises(ConnectionError, match="no database"):
        await server.start(port)
    assert repr(server) == "<Server IDLE, 0 connections>"
    with socket.create_server(("127.0.0.1", port)):
        pass
