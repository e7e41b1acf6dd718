"""Listening: where a server is reached, from its start to its stop, and that a start that fails leaves nothing."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl as tls
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from websockets.asyncio.client import connect as websockets_connect

import wsev
from tests.conftest import TURNS, Connect, Raw, Serve
from tests.peer import CLOSE, Peer, upgrade_request

Server = wsev.Server[Any]
Conn = wsev.Connection[Any]


def echo_server(**options: Any) -> Server:
    server: Server = wsev.Server(**options)
    server.on_message(lambda conn, message: conn.send(message))
    return server


async def is_served(connect: Connect, server: Server, **options: Any) -> bool:
    """A client gets its echo; ``options`` of `connect` say where, else it is the server's first address."""
    client = await connect(server, **options)
    await client.send("hello")
    is_echo = await client.recv() == "hello"
    await client.close()
    return is_echo


# Hosts and ports.


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


NEEDS_IPV6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no ::1; enable IPv6 on its loopback")


@pytest.mark.parametrize(
    "hosts",
    [
        ["127.0.0.1", "127.0.0.2", "127.0.0.3"],
        pytest.param(["127.0.0.1", "::1"], marks=NEEDS_IPV6),
        pytest.param(["::", "0.0.0.0"], marks=NEEDS_IPV6),
    ],
    ids=" ".join,
)
async def test_port_0_is_one_free_port_of_all_hosts_and_each_is_served(
    serve: Serve, connect: Connect, hosts: list[str]
) -> None:
    server = await serve(echo_server(), host=hosts)
    assert server.port
    assert server.addresses == tuple((host, server.port) for host in hosts)
    for host in hosts:
        assert await is_served(connect, server, host=host, port=server.port)


@NEEDS_IPV6
async def test_an_ipv6_address_is_a_host_and_a_port_like_any_other(serve: Serve, connect: Connect) -> None:
    server = await serve(echo_server(), host="::1")
    assert server.addresses == (("::1", server.port),)
    assert repr(server) == f"<Server RUNNING [::1]:{server.port}, 0 connections>"
    client = await connect(server)
    (conn,) = server.connections
    assert (conn.local_address, conn.remote_address) == (("::1", server.port), client.local_address[:2])


async def test_every_address_of_a_name_is_served(serve: Serve, connect: Connect) -> None:
    server = await serve(echo_server(), host="localhost")
    assert {address[1] for address in server.addresses} == {server.port}
    for address in server.addresses:
        assert await is_served(connect, server, host=address[0], port=server.port)


async def test_with_reuse_port_two_servers_share_a_port_and_one_serves_on_when_the_other_stops(
    connect: Connect,
) -> None:
    first, second = echo_server(), echo_server()
    async with second.listen(0, reuse_port=True):
        async with first.listen(second.port or 0, reuse_port=True):
            assert first.addresses == second.addresses
            for _ in range(8):
                assert await is_served(connect, second)
            assert first.stats().handshakes[101] + second.stats().handshakes[101] == 8
        before = second.stats().handshakes[101]
        for _ in range(8):
            assert await is_served(connect, second)
        assert second.stats().handshakes[101] == before + 8


async def test_a_port_that_another_server_has_is_an_error_with_a_remedy_and_disturbs_nobody(
    serve: Serve, connect: Connect
) -> None:
    first = await serve(echo_server())
    client = await connect(first)
    server = echo_server()
    places: list[dict[str, Any]] = [{}, {"host": ["127.0.0.2", "127.0.0.1"]}, {"reuse_port": True}]
    for listening in places:
        with pytest.raises(OSError, match=f"port {first.port} of 127.0.0.1 is in use: stop the .* take another port"):
            await server.start(first.port or 0, **listening)
        assert (repr(server), server.port) == ("<Server IDLE, 0 connections>", None)
    await client.send("still there?")
    assert await client.recv() == "still there?"
    port = first.port or 0
    await first.stop()
    async with server.listen(port):
        assert await is_served(connect, server)


# Unix sockets.


async def test_a_unix_path_has_its_mode_serves_and_is_removed_by_the_stop(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    server = await serve(echo_server(), unix=path, unix_mode=0o600)
    assert path.is_socket()
    assert path.stat().st_mode & 0o777 == 0o600
    assert (server.addresses, server.port, repr(server)) == (
        (str(path),),
        None,
        f"<Server RUNNING {path}, 0 connections>",
    )
    client = await connect(server)
    (conn,) = server.connections
    assert (conn.remote_address, conn.local_address) == ("", str(path))
    await client.send("hello")
    assert await client.recv() == "hello"
    await server.stop()
    assert not path.exists()


async def test_the_path_that_a_crash_left_is_taken_over(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()
    assert path.is_socket()
    assert await is_served(connect, await serve(echo_server(), unix=path))


async def test_the_path_of_a_running_server_is_an_error_and_stays_its_own(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    first = await serve(echo_server(), unix=path)
    server = echo_server()
    with pytest.raises(OSError, match=f"the path {path} is in use: stop the program that has it") as caught:
        await server.start(unix=path)
    assert caught.value.errno == errno.EADDRINUSE
    await server.stop()
    assert await is_served(connect, first)


@pytest.mark.skipif(sys.platform != "linux", reason="how many wait for a Unix socket is seen at once on Linux only")
async def test_backlog_is_how_many_may_wait_to_be_accepted(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    await serve(echo_server(), unix=path, backlog=3)
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        waiting = []
        with pytest.raises(BlockingIOError):
            while True:  # within one turn of the loop, so that nobody accepts
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
                waiting.append(client)
        assert len(waiting) == 4  # Linux compares before it adds one
        for client in waiting:
            await loop.sock_sendall(client, upgrade_request())
            assert (await loop.sock_recv(client, 1000)).startswith(b"HTTP/1.1 101 ")


# Sockets that exist already.


def bound_socket(place: str, tmp_path: Path) -> socket.socket:
    if place == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "socket"))
        return sock
    if place == "listening":
        return socket.create_server(("127.0.0.1", 0))
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


@pytest.mark.parametrize("place", ["bound", "listening", "unix"])
@pytest.mark.parametrize("kind", ["sock", "fd"])
async def test_a_socket_that_exists_is_served_and_closed_by_the_stop(
    serve: Serve, connect: Connect, tmp_path: Path, kind: str, place: str
) -> None:
    sock = bound_socket(place, tmp_path)
    address = sock.getsockname()
    descriptor = sock.fileno() if kind == "sock" else sock.detach()
    server = await serve(echo_server(), **{kind: sock if kind == "sock" else descriptor})
    assert server.addresses == (address,)
    assert await is_served(connect, server)
    await server.stop()
    assert sock.fileno() == -1
    with pytest.raises(ConnectionRefusedError if place != "unix" else OSError), socket.socket(sock.family) as client:
        client.connect(address)


async def test_the_path_of_a_socket_that_exists_is_left_to_who_made_it(serve: Serve, tmp_path: Path) -> None:
    server = await serve(echo_server(), sock=bound_socket("unix", tmp_path))
    await server.stop()
    assert (tmp_path / "socket").is_socket()


async def start_where_a_rival_listens() -> None:
    with socket.socket() as sock, socket.socket() as rival:
        for each in (rival, sock):  # both may bind the port, but one alone may listen
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(rival.getsockname() if each is sock else ("127.0.0.1", 0))
        rival.listen()
        async with wsev.Server().listen(sock=sock):
            pass


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_a_socket_on_whose_port_another_listens_is_an_error() -> None:
    with pytest.raises(OSError) as caught:
        await start_where_a_rival_listens()
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_in_uvloop_too_a_socket_on_whose_port_another_listens_is_an_error() -> None:
    with pytest.raises(OSError):
        await start_where_a_rival_listens()


async def test_who_waits_in_the_queue_of_a_socket_before_the_start_is_served(serve: Serve) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    with socket.create_connection(sock.getsockname()) as client:
        client.sendall(upgrade_request())
        client.setblocking(False)
        await serve(echo_server(), sock=sock)
        answer = await asyncio.get_running_loop().sock_recv(client, 1000)
    assert answer.startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("what", ["not bound", "connected", "closed"])
async def test_a_socket_that_cannot_listen_is_an_error_that_says_so(what: str) -> None:
    server = echo_server()
    with socket.create_server(("127.0.0.1", 0)) as other:
        sock = socket.create_connection(other.getsockname()) if what == "connected" else socket.socket()
        if what == "closed":
            sock.close()
        try:
            with pytest.raises(
                wsev.OptionError, match=r"sock=.*(is not bound|is connected|must be a bound stream socket)"
            ):
                await server.start(sock=sock)
        finally:
            await server.stop()
            sock.close()


# TLS.


class Certificate:
    """A certificate for this machine, as files and as contexts of both sides."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        self.chain, self.key = directory / "chain.pem", directory / "key.pem"
        self.chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        certificate.private_key_pem.write_to_path(self.key)
        self.server = tls.create_default_context(tls.Purpose.CLIENT_AUTH)
        certificate.configure_cert(self.server)
        self.client = tls.create_default_context()
        authority.configure_trust(self.client)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("certificate"))


TLS: dict[str, Callable[[Certificate, Path], dict[str, Any]]] = {
    "two files": lambda certificate, path: {"ssl": (certificate.chain, str(certificate.key))},
    "a context": lambda certificate, path: {"ssl": certificate.server},
    "a context on a Unix socket": lambda certificate, path: {"ssl": certificate.server, "unix": path},
}


@pytest.mark.parametrize("listening", TLS.values(), ids=TLS)
async def test_ssl_is_two_files_or_a_context(
    serve: Serve,
    connect: Connect,
    certificate: Certificate,
    tmp_path: Path,
    listening: Callable[[Certificate, Path], dict[str, Any]],
) -> None:
    server = await serve(echo_server(), **listening(certificate, tmp_path / "socket"))
    client = await connect(server, ssl=certificate.client)
    (conn,) = server.connections
    assert conn.get_extra_info("ssl_object").version().startswith("TLS")
    for message in ("hello", b"\0" * 100_000):
        await client.send(message)
        assert await client.recv() == message


async def test_a_renewed_certificate_counts_from_the_next_connection_on(
    serve: Serve, connect: Connect, certificate: Certificate, tmp_path: Path
) -> None:
    server = await serve(echo_server(), ssl=certificate.server)
    await connect(server, ssl=certificate.client)
    renewed = Certificate(tmp_path)
    certificate.server.load_cert_chain(renewed.chain, renewed.key)
    try:
        with pytest.raises(tls.SSLCertVerificationError):
            await connect(server, ssl=certificate.client)
        await connect(server, ssl=renewed.client)
    finally:
        certificate.server.load_cert_chain(certificate.chain, certificate.key)


@pytest.mark.parametrize("kind", ["plain", "tls"])
async def test_nothing_is_sent_with_delay(serve: Serve, connect: Connect, certificate: Certificate, kind: str) -> None:
    is_tls = kind == "tls"
    server = await serve(echo_server(), ssl=certificate.server if is_tls else None)
    await connect(server, ssl=certificate.client if is_tls else None)
    (conn,) = server.connections
    assert conn.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


# The start and the stop.


async def test_it_has_addresses_and_a_port_from_before_the_lifespan_to_the_stop() -> None:
    seen: list[tuple[str, str, bool]] = []

    def look(when: str) -> None:
        has_port = server.port is not None
        assert server.addresses == ((("127.0.0.1", server.port),) if has_port else ())
        seen.append((when, repr(server).split()[1].rstrip(","), has_port))

    @asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[None]:
        look("lifespan entered")
        yield
        look("lifespan left")

    server: Server = wsev.Server(lifespan=lifespan)
    server.on_disconnect(lambda conn, error: look("on_disconnect"))
    look("before")
    async with server.listen(0), websockets_connect(f"ws://127.0.0.1:{server.port}/", proxy=None) as client:
        look("block")
        await server.stop()
        await client.wait_closed()
    look("after")
    assert seen == [
        ("before", "IDLE", False),
        ("lifespan entered", "STARTING", True),
        ("block", "RUNNING", True),
        ("on_disconnect", "STOPPING", False),
        ("lifespan left", "STOPPING", False),
        ("after", "IDLE", False),
    ]


async def test_a_start_or_stop_within_another_is_an_error_that_says_what_to_await(connect: Connect) -> None:
    @asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[None]:
        with pytest.raises(RuntimeError, match=r"the server is starting: call stop\(\) before it is started again"):
            await server.start(0)
        with pytest.raises(RuntimeError, match=r"the server is starting: await start\(\) before stop\(\)"):
            await server.stop()
        yield
        with pytest.raises(RuntimeError, match=r"the server is stopping: call stop\(\) before"):
            await server.start(0)

    server = echo_server(lifespan=lifespan)
    async with server.listen(0):
        assert await is_served(connect, server)


async def test_it_may_be_started_again_on_its_port_though_connections_of_it_linger(connect: Connect) -> None:
    server = echo_server()
    port = 0
    for _ in range(3):
        async with server.listen(port):
            port = server.port or 0
            client = await connect(server)  # the server ends TCP first, so that its side stays in TIME_WAIT
            await client.send("hello")
            assert await client.recv() == "hello"
        await client.wait_closed()
        assert client.close_code == 1001


def test_it_may_be_started_again_in_another_loop() -> None:
    server = echo_server()
    loops = []

    async def serve_once() -> str | bytes:
        async with server.listen(0), websockets_connect(f"ws://127.0.0.1:{server.port}/", proxy=None) as client:
            loops.append(server.loop)
            await client.send(f"run {len(loops)}")
            return await client.recv()

    for number, factory in enumerate((asyncio.new_event_loop, uvloop.new_event_loop, asyncio.new_event_loop), 1):
        with asyncio.Runner(loop_factory=factory) as runner:
            assert runner.run(serve_once()) == f"run {number}"
            assert loops[-1] is runner.get_loop()


async def test_what_the_block_raises_comes_out_of_listen_when_the_server_has_stopped(connect: Connect) -> None:
    ended: list[Exception | None] = []
    server = echo_server()
    server.on_disconnect(lambda conn, error: ended.append(error))
    with pytest.raises(LookupError, match="of the block"):
        async with server.listen(0):
            client = await connect(server)
            raise LookupError("of the block")
    assert (server.port, ended) == (None, [None])
    await client.wait_closed()
    assert client.close_code == 1001


async def test_a_block_that_is_cancelled_stops_the_server_gracefully(connect: Connect) -> None:
    ended: list[Exception | None] = []
    server = echo_server()
    server.on_disconnect(lambda conn, error: ended.append(error))
    started = asyncio.Event()

    async def block() -> None:
        async with server.listen(0):
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await started.wait()
    client = await connect(server)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (server.port, ended) == (None, [None])
    await client.wait_closed()
    assert client.close_code == 1001


async def test_who_connects_while_the_lifespan_is_entered_is_served_after_it(serve: Serve, raw: Raw) -> None:
    early: list[Peer] = []

    @asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[None]:
        peer = await raw(server)
        await peer.send(upgrade_request())
        early.append(peer)
        await asyncio.sleep(0)
        assert not server.connections
        yield

    server = await serve(echo_server(lifespan=lifespan))
    assert (await early[0].read_head()).status == 101
    assert len(server.connections) == 1


@pytest.mark.parametrize("how", ["raises", "is cancelled"])
async def test_a_lifespan_that_fails_to_begin_fails_the_start_and_leaves_nothing_that_listens(
    raw: Raw, connect: Connect, how: str
) -> None:
    early: list[Peer] = []
    ports: list[int] = []
    entered = asyncio.Event()

    @asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[None]:
        if not early:
            early.append(await raw(server))
            ports.append(server.port or 0)
            entered.set()
            if how == "is cancelled":
                await asyncio.Event().wait()
            raise ConnectionError("no database")
        yield

    server = echo_server(lifespan=lifespan)
    starting = asyncio.create_task(server.start(0))
    await entered.wait()
    if how == "is cancelled":
        starting.cancel()
    with pytest.raises(asyncio.CancelledError if how == "is cancelled" else ConnectionError):
        await starting
    assert repr(server) == "<Server IDLE, 0 connections>"
    await early[0].read_eof()
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", ports[0])):
        pass
    async with server.listen(ports[0]):
        assert await is_served(connect, server)


@pytest.mark.asyncio(loop_factories=["asyncio"])  # uvloop waits for nothing behind the lifespan
async def test_a_start_that_is_cancelled_behind_the_lifespan_leaves_it() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[None]:
        log.append("entered")
        starting.cancel()
        try:
            yield
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    server = echo_server(lifespan=lifespan)
    starting = asyncio.create_task(server.start(0))
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert (log, repr(server)) == (["entered", "cancelled"], "<Server IDLE, 0 connections>")


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_a_start_that_is_cancelled_at_any_moment_leaves_nothing_in_the_loop() -> None:
    loop = asyncio.get_running_loop()
    for turns in range(5):
        server = echo_server()
        sock = socket.create_server(("127.0.0.1", 0))
        descriptor = sock.fileno()
        starting = asyncio.create_task(server.start(sock=sock))
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait((starting,))
        await server.stop()
        sock.close()
        assert not loop.remove_reader(descriptor), f"cancelled after {turns} turns of the loop"


def connect_once(address: Any) -> None:
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as client:
        client.connect(address)


@pytest.mark.parametrize("place", ["port", "unix"])
async def test_while_it_stops_nobody_is_accepted(serve: Serve, raw: Raw, tmp_path: Path, place: str) -> None:
    server = await serve(echo_server(), **({"unix": tmp_path / "socket"} if place == "unix" else {}))
    (address,) = server.addresses
    connect_once(address)
    peer = await raw(server)
    await peer.upgrade()
    stopping = asyncio.create_task(server.stop())
    assert (await peer.read_frame()).opcode == CLOSE
    with pytest.raises(ConnectionRefusedError if place == "port" else FileNotFoundError):
        connect_once(address)
    assert not stopping.done()
    await peer.send_close(1001)
    await stopping


async def received_by_who_connects_before_a_stop(turns: int) -> bytes:
    """What a client gets that asks for an upgrade, so many turns of the loop before a stop, until its connection ends.

    Raises:
        BlockingIOError: it has not ended, though the stop has.
    """
    received = b""
    async with echo_server(close_timeout=0.05).listen(0) as server:
        with socket.create_connection(("127.0.0.1", server.port or 0)) as client:
            client.sendall(upgrade_request())
            client.setblocking(False)
            for _ in range(turns):
                await asyncio.sleep(0)
            await server.stop()
            for _ in range(TURNS):
                await asyncio.sleep(0)
            try:
                while data := client.recv(1000):
                    received += data
            except ConnectionResetError:
                pass
    return received


def is_refusal_or_going_away(received: bytes) -> bool:
    return received == b"" or b" 503 " in received or received.endswith(b"\x88\x02\x03\xe9")


@pytest.mark.asyncio(loop_factories=["uvloop"])
@pytest.mark.parametrize("turns", range(6))
async def test_who_is_being_accepted_when_the_stop_begins_is_ended_all_the_same(turns: int) -> None:
    assert is_refusal_or_going_away(await received_by_who_connects_before_a_stop(turns))


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_in_asyncios_loop_too_who_is_being_accepted_when_the_stop_begins_is_ended() -> None:
    for turns in (0, 2, 3, 4, 5):  # not 1: what it has accepted in the very turn of a close, asyncio forgets
        assert is_refusal_or_going_away(await received_by_who_connects_before_a_stop(turns))
