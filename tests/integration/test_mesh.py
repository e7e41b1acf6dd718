"""The mesh, held against raw members: what is said over a link, who is found, lost and refused, and what is dropped."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import wsev
from tests.conftest import Raw, Serve
from tests.member import BINARY_MESSAGE, HEARD, HELLO, SUBSCRIBE, TEXT_MESSAGE, UNSUBSCRIBE, VERSION, LinkPeer, Member
from tests.peer import BINARY, CLOSE, TEXT, Peer
from wsev.brokers.links import MAX_PAYLOAD, MAX_UNSENT
from wsev.brokers.mesh import Mesh


class Server(wsev.Server[Any]):
    """`errors` is what `on_error` was told; a client is subscribed to the topics in its path."""

    def __init__(self, directory: Path, **options: Any) -> None:
        super().__init__(broker=f"unix:{directory}", close_timeout=0.1, **options)
        self.errors: asyncio.Queue[Any] = asyncio.Queue()
        self.on_error(lambda error, is_fatal: self.errors.put_nowait(error))
        self.on_connect(lambda conn: [conn.subscribe(topic) for topic in conn.request.path[1:].split("+")])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "mesh"


def files(directory: Path) -> list[Path]:
    return list(directory.iterdir())


@pytest.fixture
async def server(serve: Serve, directory: Path) -> Server:
    return await serve(Server(directory))


@pytest.fixture
def name(server: Server, directory: Path) -> str:
    """The server's in the mesh."""
    (path,) = directory.glob("*.sock")
    return path.stem


Join = Callable[[], Awaitable[Member]]


@pytest.fixture
async def join(directory: Path) -> AsyncIterator[Join]:
    """`member = await join()`: a raw member that listens; it says nothing by itself."""
    members: list[Member] = []

    async def open_member() -> Member:
        members.append(Member(directory))
        await members[-1].open()
        return members[-1]

    yield open_member
    for member in members:
        await member.close()


@pytest.fixture
async def peer(raw: Raw, server: Server) -> Peer:
    """A client of the server, subscribed to "room"."""
    found = await raw(server)
    await found.upgrade("/room")
    assert await found.fence() == []
    return found


# What is said.


async def test_a_hello_names_the_members_socket_and_all_that_it_wants(
    server: Server, name: str, peer: Peer, join: Join
) -> None:
    server.subscribe("h\xe9", lambda topic, message: None)
    member = await join()
    hears = await member.dial(name)
    await hears.say(HELLO, member.hello())
    says = await member.accept()
    assert await says.hear_hello() == (name, {b"", b"room", "h\xe9".encode()})
    assert await says.heard() == bytes([HEARD, 0])


async def test_what_it_wants_and_wants_no_more_is_said_once(server: Server, name: str, raw: Raw, join: Join) -> None:
    says, _ = await (await join()).meet(name)
    peers = [await raw(server) for _ in range(2)]
    for each in peers:
        await each.upgrade("/room")
    assert await says.heard() == bytes([SUBSCRIBE, 4]) + b"room"
    server.subscribe("room", print)
    first, second = server.connections
    first.unsubscribe("room")
    second.unsubscribe("room")
    server.unsubscribe("room", print)
    assert await says.heard() == bytes([UNSUBSCRIBE, 4]) + b"room"
    first.subscribe("room")
    first.abort()
    assert await says.heard() == bytes([SUBSCRIBE, 4]) + b"room"
    assert await says.heard() == bytes([UNSUBSCRIBE, 4]) + b"room"


async def test_a_message_is_one_frame_and_goes_to_who_wants_it_alone(server: Server, name: str, join: Join) -> None:
    wants, _ = await (await join()).meet(name, b"room")
    does_not, _ = await (await join()).meet(name, b"hall")
    server.publish("room", "h\xe9")
    server.publish("room", b"\0")
    server.publish("hall", "")
    assert await wants.heard() == bytes([TEXT_MESSAGE, 4]) + "roomh\xe9".encode()
    assert await wants.heard() == bytes([BINARY_MESSAGE, 4]) + b"room\0"
    assert await does_not.heard() == bytes([TEXT_MESSAGE, 4]) + b"hall"


async def test_a_member_may_change_its_mind(server: Server, name: str, join: Join) -> None:
    says, hears = await (await join()).meet(name, b"room")
    await hears.say(UNSUBSCRIBE, b"\4room")
    await hears.say(SUBSCRIBE, b"\4hall")
    await hears.fence()
    server.publish("room", "not wanted")
    server.publish("hall", "wanted")
    assert await says.heard() == bytes([TEXT_MESSAGE, 4]) + b"hallwanted"


async def test_what_a_member_says_reaches_the_clients(name: str, peer: Peer, join: Join) -> None:
    _, hears = await (await join()).meet(name)
    await hears.say(TEXT_MESSAGE, b"\4roomhello")
    await hears.say(BINARY_MESSAGE, b"\4room\xff")
    await hears.say(TEXT_MESSAGE, b"\0to everybody")
    assert await peer.read_frame() == (True, TEXT, b"hello")
    assert await peer.read_frame() == (True, BINARY, b"\xff")
    assert await peer.read_frame() == (True, TEXT, b"to everybody")


async def test_a_message_that_nobody_here_wants_any_more_is_passed_over(name: str, peer: Peer, join: Join) -> None:
    _, hears = await (await join()).meet(name)
    await hears.say(TEXT_MESSAGE, b"\4hallhello")
    assert await hears.fence() == []
    assert await peer.fence() == []


async def test_a_fragmented_message_is_one(name: str, peer: Peer, join: Join) -> None:
    _, hears = await (await join()).meet(name)
    await hears.send_frame(BINARY, b"\1\4ro", fin=False)
    await hears.send_frame(0, b"omhello")
    assert await peer.read_frame() == (True, TEXT, b"hello")


# Bytes that no member says.

HOSTILE = {
    "a message before HELLO": [(BINARY, b"\1\4roomhello")],
    "SUBSCRIBE before HELLO": [(BINARY, b"\x12\4room")],
    "HEARD before HELLO": [(BINARY, b"\x11\0")],
    "nothing": [(BINARY, b"")],
    "one byte": [(BINARY, b"\x10")],
    "a text frame": [(TEXT, b"\x10\x01")],
    "a kind that is none": [(BINARY, b"\x63\0")],
    "kind 0": [(BINARY, b"\0\0")],
    "HELLO without a name": [(BINARY, b"\x10\x01")],
    "HELLO with a path for a name": [(BINARY, b"\x10\x01../../a.")],
    "HELLO with half a topic": [(BINARY, b"\x10\x0101234567\x09half")],
    "HELLO with a topic that is no UTF-8": [(BINARY, b"\x10\x0101234567\x01\xff")],
    "a reserved opcode": [(3, b"")],
    "a continuation of nothing": [(0, b"")],
    "half a Close": [(8, b"\x03")],
}


@pytest.mark.parametrize("frames", HOSTILE.values(), ids=HOSTILE)
async def test_a_stranger_who_says_what_no_member_says_is_closed_and_nobody_notices(
    server: Server, name: str, peer: Peer, join: Join, frames: list[tuple[int, bytes]]
) -> None:
    stranger = await (await join()).dial(name)
    for opcode, payload in frames:
        await stranger.send_frame(opcode, payload)
    await stranger.expect_close(1002)
    assert await peer.fence() == []
    assert server.errors.empty()


AFTER_HELLO = {
    "a second HELLO": (BINARY, b"\x10\x0101234567"),
    "half a SUBSCRIBE": (BINARY, b"\x12\x09half"),
    "SUBSCRIBE with more": (BINARY, b"\x12\x01ab"),
    "SUBSCRIBE to what is no UTF-8": (BINARY, b"\x12\x01\xff"),
    "a kind that is none": (BINARY, b"\x63\0"),
    "kind 0": (BINARY, b"\0\4roomhello"),
    "one byte": (BINARY, b"\1"),
    "a text frame": (TEXT, b"\1\4roomhello"),
}


@pytest.mark.parametrize(("opcode", "payload"), AFTER_HELLO.values(), ids=AFTER_HELLO)
async def test_a_member_who_says_what_no_member_says_is_closed_and_may_come_again(
    server: Server, name: str, peer: Peer, join: Join, opcode: int, payload: bytes
) -> None:
    member = await join()
    says, hears = await member.meet(name)
    await hears.send_frame(opcode, payload)
    await hears.expect_close(1002)
    again = await member.dial(name)
    await again.say(HELLO, member.hello(b"room"))
    assert await says.heard() == bytes([HEARD, 0])
    server.publish("room", "still here")
    assert await says.heard() == bytes([TEXT_MESSAGE, 4]) + b"roomstill here"
    assert await peer.read_frame() == (True, TEXT, b"still here")
    assert server.errors.empty()


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x82\x85\0\0\0\0\1\4roo", b"\x82\x7f\x40" + bytes(7), b"\xff" * 1000],
    ids=["HTTP", "a masked frame", "a frame of 2^62 bytes", "noise"],
)
async def test_a_stranger_who_speaks_no_such_frames_is_ended(
    server: Server, name: str, peer: Peer, join: Join, data: bytes
) -> None:
    stranger = await (await join()).dial(name)
    await stranger.send(data)
    await stranger.read_frame()
    await stranger.read_eof()
    assert await peer.fence() == []
    assert server.errors.empty()


async def test_a_stranger_who_vanishes_is_forgotten(server: Server, name: str, peer: Peer, join: Join) -> None:
    for size in range(0, 14, 3):
        stranger = await (await join()).dial(name)
        await stranger.send((b"\x82\x0a\x10\x01" + b"01234567")[:size])
        await stranger.close()
    assert await peer.fence() == []
    assert server.errors.empty()


async def test_who_says_no_hello_is_closed_when_its_time_is_over(directory: Path, join: Join) -> None:
    server = wsev.Server[Any](broker=Mesh(str(directory), hello_timeout=0.01))
    async with server.listen(0):
        (path,) = files(directory)
        stranger = await (await join()).dial(path.stem)
        await stranger.expect_close(1008)


async def test_another_version_is_refused_and_told_with_the_remedy(server: Server, name: str, join: Join) -> None:
    member = await join()
    stranger = await member.dial(name)
    await stranger.say(HELLO, bytes([VERSION + 1]) + b"whatever")
    await stranger.expect_close(1002)
    assert "run the same wsev in all workers" in str(await server.errors.get())


async def test_who_uses_the_members_own_name_is_refused(name: str, join: Join) -> None:
    member = await join()
    stranger = await member.dial(name)
    member_name, member.name = member.name, name
    await stranger.say(HELLO, member.hello())
    member.name = member_name
    await stranger.expect_close(1002)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user: run the tests as root")
async def test_a_process_of_another_user_is_refused(serve: Serve, raw: Raw, caplog: pytest.LogCaptureFixture) -> None:
    intruder = (
        "import os, socket, sys; os.setgid(12345); os.setuid(12345); sock = socket.socket(socket.AF_UNIX);"
        "sock.connect(sys.argv[1]); sock.settimeout(10);"
        "sys.exit(len(sock.recv(100)))"
    )
    with tempfile.TemporaryDirectory() as path:  # not in tmp_path, which is root's alone from its root on
        server = await serve(Server(Path(path)))
        (sock,) = files(Path(path))
        os.chmod(path, 0o711)
        os.chmod(sock, 0o777)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", intruder, str(sock))
        assert await process.wait() == 0, "it was let in, or could not even try"
        assert "a process of user 12345" in caplog.text
        peer = await raw(server)
        await peer.upgrade("/room")
        assert await peer.fence() == []
        await server.stop()


# Who is found, and who is lost.


async def test_a_dead_members_socket_is_removed_at_the_start(directory: Path, serve: Serve) -> None:
    dead = Member(directory)
    await dead.open()
    await dead.close(is_killed=True)
    assert dead.path.exists()
    server = await serve(Server(directory))
    assert not dead.path.exists()
    assert server.errors.empty()


async def test_a_member_that_is_killed_is_told_and_its_socket_removed(
    server: Server, name: str, peer: Peer, join: Join
) -> None:
    member = await join()
    await member.meet(name, b"room")
    await member.close(is_killed=True)
    error = await server.errors.get()
    assert isinstance(error, wsev.BrokerError)
    assert f"the link to the worker at {member.name} was lost" in str(error)
    server.publish("room", "goes on")
    assert await peer.read_frame() == (True, TEXT, b"goes on")
    other = await join()
    await other.meet(name)
    assert not member.path.exists()
    assert server.errors.empty()
    assert server.stats().broker_dropped == 0, "nothing is sent to who is gone"


async def test_a_member_that_leaves_is_no_trouble(server: Server, name: str, join: Join) -> None:
    member = await join()
    says, hears = await member.meet(name, b"room")
    member.path.unlink()
    await hears.send_close(1001)
    await hears.expect_close(1001)
    await says.send_close(1001)
    await says.expect_close(1001)
    await (await join()).meet(name)
    assert server.errors.empty()
    assert server.publish("room", "to nobody") == 0


async def test_what_is_said_to_a_link_that_is_being_closed_ends_it_no_other_way(
    server: Server, name: str, join: Join
) -> None:
    member = await join()
    says, _ = await member.meet(name)
    mesh = server._serving.fanout._broker  # type: ignore[union-attr]  # it is started
    mesh._peers[member.name].outgoing.close(1001)  # type: ignore[union-attr]  # it is a Mesh
    server.subscribe("new", print)
    frame = await says.read_frame()
    assert (frame.opcode, frame.payload) == (CLOSE, b"\x03\xe9")
    await says.send_close(1001)
    again = await member.accept()
    assert await again.hear_hello() == (name, {b"", b"new"})
    assert server.errors.empty()


async def test_a_link_that_is_lost_is_dialled_again_and_the_member_still_wants_what_it_wanted(
    server: Server, name: str, join: Join
) -> None:
    member = await join()
    says, hears = await member.meet(name, b"room")
    says.writer.transport.abort()
    again = await member.accept()
    assert (await again.hear_hello())[0] == name
    assert await again.heard() == bytes([HEARD, 0])
    await hears.say(HEARD, b"\0")
    server.publish("room", "hello")
    assert await again.heard() == bytes([TEXT_MESSAGE, 4]) + b"roomhello"
    assert "was lost" in str(await server.errors.get())


async def test_who_dials_again_is_heard_over_the_new_link_alone(
    server: Server, name: str, peer: Peer, join: Join
) -> None:
    member = await join()
    says, hears = await member.meet(name, b"attic", b"hall")
    again = await member.dial(name)
    await again.say(HELLO, member.hello(b"hall"))
    assert await says.heard() == bytes([HEARD, 0])
    await hears.read_eof()
    server.publish("attic", "not wanted any more")
    server.publish("hall", "wanted")
    assert await says.heard() == bytes([TEXT_MESSAGE, 4]) + b"hallwanted"
    await again.say(TEXT_MESSAGE, b"\4roomnew")
    assert await peer.read_frame() == (True, TEXT, b"new")


def _put(heard: asyncio.Queue[tuple[int, str]], number: int, topic: str, message: str) -> None:
    heard.put_nowait((number, message))


async def test_members_that_start_at_once_find_each_other(directory: Path) -> None:
    servers = [Server(directory) for _ in range(5)]
    heard: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
    for number, server in enumerate(servers):
        server.subscribe("room", partial(_put, heard, number))
    await asyncio.gather(*(server.start(0) for server in servers))
    for number, server in enumerate(servers):
        server.publish("room", str(number))
    found = {await heard.get() for _ in range(25)}
    assert found == {(number, str(other)) for number in range(5) for other in range(5)}
    await asyncio.gather(*(server.stop() for server in servers))
    assert files(directory) == []
    assert all(server.errors.empty() for server in servers)


@pytest.mark.slow
async def test_a_member_that_hangs_does_not_keep_others_from_starting(
    directory: Path, serve: Serve, raw: Raw, join: Join
) -> None:
    await join()  # its links are accepted, and nothing is ever said
    server = await serve(Server(directory))
    peer = await raw(server)
    await peer.upgrade("/room")
    server.publish("room", "hello")
    assert await peer.read_frame() == (True, TEXT, b"hello")


async def test_a_member_that_cannot_be_dialled_now_is_dialled_later(directory: Path, serve: Serve) -> None:
    os.mkdir(directory, 0o700)
    path = directory / "01234567.sock"
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        waiting = []
        with pytest.raises(BlockingIOError):
            for _ in range(10):
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                waiting[-1].connect(str(path))
        server = Server(directory)
        starting = asyncio.ensure_future(serve(server))
        busy.setblocking(False)
        error = await server.errors.get()
        assert "the worker at 01234567 cannot be dialled" in str(error)
        for _ in waiting[:-1]:
            busy.accept()[0].close()
        accepted, _ = await asyncio.get_running_loop().sock_accept(busy)
        reader, writer = await asyncio.open_connection(sock=accepted)
        assert len((await LinkPeer(reader, writer).hear_hello())[0]) == 8
        path.unlink()
        writer.close()
        await writer.wait_closed()
        for each in waiting:
            each.close()
        await starting


# What does not fit.


async def test_what_a_member_does_not_take_is_dropped_counted_and_told_and_the_others_get_it(
    server: Server, name: str, join: Join
) -> None:
    slow = await join()
    slow_says, _ = await slow.meet(name, b"room")
    slow_says.pause()
    quick_says, _ = await (await join()).meet(name, b"room")
    size, count = 1 << 20, 40
    for number in range(count):
        server.publish("room", bytes([number]) * size)
        assert (await quick_says.heard())[6] == number
    error = await server.errors.get()
    dropped = server.stats().broker_dropped
    assert isinstance(error, wsev.BrokerError)
    assert 1 <= error.dropped <= dropped
    assert "takes its messages too slowly" in str(error)
    least = MAX_UNSENT // size
    assert least <= count - dropped <= least + 4, "what the link holds, the kernel and the reader"
    slow_says.resume()
    taken = [(await slow_says.heard())[6] for _ in range(count - dropped)]
    assert taken == sorted(taken)
    server.publish("room", b"\xff")
    assert (await slow_says.heard())[6] == 0xFF


async def test_what_is_wanted_is_not_dropped_but_said_over_a_new_link(server: Server, name: str, join: Join) -> None:
    slow = await join()
    says, _ = await slow.meet(name, b"room")
    says.pause()
    for _ in range(MAX_UNSENT // (1 << 20) + 4):
        server.publish("room", bytes(1 << 20))
    dropped = server.stats().broker_dropped
    server.subscribe("new", print)
    server.publish("room", "over no link at all")
    assert server.stats().broker_dropped == dropped, "a link that has ended is no slow one"
    again = await slow.accept()
    assert await again.hear_hello() == (name, {b"", b"new"})


async def test_a_message_that_is_too_long_for_a_link_is_dropped_and_told(server: Server, name: str, join: Join) -> None:
    says, _ = await (await join()).meet(name, b"room")
    server.publish("room", bytes(MAX_PAYLOAD + 1))
    server.publish("room", "fits")
    assert await says.heard() == bytes([TEXT_MESSAGE, 4]) + b"roomfits"
    assert f"longer than {MAX_PAYLOAD} bytes" in str(await server.errors.get())
    assert server.stats().broker_dropped == 1


# Where they meet.


async def test_a_directory_that_cannot_be_used_is_an_error_of_the_start_and_leaves_nothing(directory: Path) -> None:
    os.mkdir(directory)
    os.chmod(directory, 0o755)
    server = Server(directory)
    with pytest.raises(wsev.BrokerError, match=f"chmod 700 {directory}"):
        await server.start(0)
    os.chmod(directory, 0o700)
    await server.start(0)
    await server.stop()
    assert files(directory) == []


async def test_without_a_broker_to_speak_of_nothing_is_made(serve: Serve) -> None:
    before = set(os.listdir("/proc/self/fd"))
    server = await serve(wsev.Server[Any]())
    server.publish("room", "x")
    made = set(os.listdir("/proc/self/fd")) - before
    assert len(made) <= 3, "its listening socket, and what the loop keeps for it: a set of epoll, a ring of io_uring"


def test_a_broker_of_a_system_without_unix_sockets_says_so() -> None:
    program = (
        "import socket, asyncio; del socket.AF_UNIX\n"
        "from wsev.brokers.directory import MeshDirectory\n"
        "from wsev.errors import BrokerError\n"
        "try: MeshDirectory('/x').open()\n"
        "except BrokerError as error: assert 'has no Unix sockets' in str(error)\n"
        "else: raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
