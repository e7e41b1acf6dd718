"""Mesh: the broker between workers of one machine, over Unix sockets in a directory.

Each member dials each other one.  What a member says, messages and what it wants, it says over the link that it
dialled, and it hears over the one that was dialled to it: who hears a message knows what its sender wanted before it,
so that an answer finds its way back.  A joiner listens first, then dials all that it finds; its HELLO names its own
socket, so that those dial it in turn: nobody watches the directory, and nobody stands in the middle.

Invariants: ``Peer.outgoing`` stands in the audiences of the topics that the peer wants, and no other link does; a peer
without it is being dialled, waits for a timer to be, or has been forgotten.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from wsev._core.connection import Connection
from wsev._core.dispatch import Callbacks
from wsev._core.writer import deliver, encode_message
from wsev.brokers.base import BrokerHost
from wsev.brokers.directory import MeshDirectory
from wsev.brokers.envelope import (
    HEARD,
    VERSION,
    Hello,
    Kind,
    decode_hello,
    decode_topic,
    encode_hello,
    encode_interest,
    head_of,
)
from wsev.brokers.interest import Interest
from wsev.brokers.links import Links
from wsev.close import CloseCode
from wsev.errors import BrokerError, ConnectionClosed

__all__ = ["Mesh"]

Link = Connection[Any]

JOIN_TIMEOUT = 2.0  # seconds that a start waits for the members that it finds, one of which may hang
HELLO_TIMEOUT = 5.0  # seconds; who dials says HELLO at once
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0  # seconds between attempts to dial, each twice the last; the first is at once


class Peer:
    """Another member, as this one knows it."""

    __slots__ = ("attempts", "dialling", "incoming", "joined", "name", "outgoing", "timer", "topics")

    def __init__(self, name: str, joined: asyncio.Future[None]) -> None:
        self.name = name
        self.outgoing: Link | None = None  # over which we speak to it
        self.incoming: Link | None = None  # over which it speaks to us
        self.topics: set[str] = set()  # that it wants; kept when incoming ends, until it says HELLO again
        self.joined = joined  # done when it has dealt with our HELLO: each knows what the other wants
        self.dialling: asyncio.Task[None]  # the last one
        self.timer: asyncio.TimerHandle | None = None  # until it is dialled again
        self.attempts = 0  # since it was last heard of


class Mesh:
    """A member of the mesh in a directory; a ``Broker``.

    Args:
        path: the directory, absolute.
        high_water: unsent bytes of a link above which ``drain`` waits; None: it never does.
        hello_timeout: seconds from an incoming link to its HELLO.
    """

    _host: BrokerHost  # these three from start() on
    _links: Links
    _max_payload: int

    def __init__(self, path: str, *, high_water: int | None = None, hello_timeout: float = HELLO_TIMEOUT) -> None:
        self._directory = MeshDirectory(path)
        self._high_water = high_water
        self._hello_timeout = hello_timeout
        self._server: asyncio.AbstractServer | None = None
        self._wanted: set[bytes] = set()  # topics, as UTF-8
        self._heads: dict[bytes, tuple[str, bool]] = {}  # of the messages that we want: the topic, and whether text
        self._peers: dict[str, Peer] = {}
        self._interest: Interest[Link] = Interest()
        self._strangers: dict[Link, asyncio.TimerHandle] = {}  # incoming links without a HELLO yet, and their time
        self._outgoing = Callbacks(on_connect=self._outgoing_opened, on_disconnect=self._outgoing_ended)
        self._incoming = Callbacks(
            on_connect=self._incoming_opened,
            on_text=self._refuse,
            on_binary=self._received,
            on_disconnect=self._incoming_ended,
        )

    def __repr__(self) -> str:
        return f"<Mesh {self._directory.path}, {len(self._peers)} peers>"

    # Broker; base.py says what each promises.

    async def start(self, host: BrokerHost) -> None:
        """Join."""
        self._host = host
        self._deliver = host.deliver
        self._links = Links(host.loop, max_message_size=host.options.max_message_size, high_water=self._high_water)
        self._max_payload = self._links.max_payload
        sock = self._directory.open()
        try:
            self._server = await self._links.listen(sock, self._incoming)
            present = [self._meet(name).joined for name in self._directory.others()]
            if present:
                await asyncio.wait(present, timeout=JOIN_TIMEOUT)
        except BaseException:
            sock.close()
            await self.stop()
            raise

    def publish(self, topic: str, payload: bytes, is_text: bool) -> None:
        """Send it to the members that want it, encoded once."""
        audience = self._interest.get(topic)
        if audience is None:
            return
        if len(payload) > self._max_payload:
            self._host.dropped(len(audience.links), f"longer than {self._max_payload} bytes, which links take at most")
            return
        message = encode_message((audience.text_head if is_text else audience.binary_head) + payload)
        missed = len(audience.links) - deliver(audience.links, message)
        if missed:
            self._missed(missed, audience.links)

    def subscribe(self, topic: str) -> None:
        """Tell everybody."""
        encoded = topic.encode()
        self._wanted.add(encoded)
        for is_text in (True, False):
            self._heads[head_of(topic, is_text=is_text)] = (topic, is_text)
        self._tell(encode_interest(Kind.SUBSCRIBE, encoded))

    def unsubscribe(self, topic: str) -> None:
        """Tell everybody."""
        encoded = topic.encode()
        self._wanted.discard(encoded)
        for is_text in (True, False):
            self._heads.pop(head_of(topic, is_text=is_text), None)
        self._tell(encode_interest(Kind.UNSUBSCRIBE, encoded))

    async def stop(self) -> None:
        """Leave."""
        self._directory.close()  # first, so that nobody dials again
        if self._server is not None:
            self._server.close()
            self._server = None
        # A dial that has begun ends by itself, in a turn or two of the loop; cut off it would leave its socket open.
        while dialling := [peer.dialling for peer in self._peers.values() if not peer.dialling.done()]:
            await asyncio.wait(dialling)
        for peer in self._peers.values():
            if peer.timer is not None:
                peer.timer.cancel()
        self._peers.clear()
        self._wanted.clear()
        self._heads.clear()
        await self._links.stop(CloseCode.GOING_AWAY)

    async def drain(self) -> None:
        """Wait until all that was said but ``high_water`` bytes a link is with the kernel, or the link has ended."""
        for peer in list(self._peers.values()):
            if peer.outgoing is not None:
                with suppress(ConnectionClosed):
                    await peer.outgoing.drain()

    # Speaking.

    def _missed(self, count: int, links: set[Link]) -> None:
        full = count - sum(not link.is_open for link in links)  # who has just left misses nothing
        if full:
            self._host.dropped(full, "another worker takes its messages too slowly")

    def _say(self, peer: Peer, frame: bytes) -> None:
        link = peer.outgoing
        if link is not None and not link.send(frame) and link.is_open:
            link.abort()  # what a member wants may not get lost as messages may: the next HELLO says it

    def _tell(self, frame: bytes) -> None:
        for peer in self._peers.values():
            self._say(peer, frame)

    def _meet(self, name: str) -> Peer:
        """The peer of that name; a new one is dialled."""
        peer = self._peers.get(name)
        if peer is None:
            peer = self._peers[name] = Peer(name, self._host.loop.create_future())
            self._dial(peer)
        return peer

    def _dial(self, peer: Peer) -> None:
        if peer.timer is not None:
            peer.timer.cancel()
            peer.timer = None
        peer.dialling = self._host.loop.create_task(self._connect(peer))

    async def _connect(self, peer: Peer) -> None:
        link = None
        try:
            sock = self._directory.connect(peer.name)
            if sock is None:
                self._forget(peer)
                return
            link = await self._links.dial(sock, self._outgoing, peer)
        except OSError as error:
            self._host.failed(BrokerError(f"the worker at {peer.name} cannot be dialled: {error.strerror}"))
        if link is None:
            self._dial_later(peer)

    def _dial_later(self, peer: Peer) -> None:
        pause = min(FIRST_PAUSE * 2 ** (peer.attempts - 1), LONGEST_PAUSE) if peer.attempts else 0.0
        peer.attempts += 1
        peer.timer = self._host.loop.call_later(pause, self._dial, peer)

    def _forget(self, peer: Peer) -> None:
        """There is no such member any more; what it said last may still be coming in."""
        del self._peers[peer.name]
        if not peer.joined.done():
            peer.joined.set_result(None)

    def _outgoing_opened(self, link: Link) -> None:
        peer: Peer = link.state
        peer.outgoing = link
        self._say(peer, encode_hello(self._directory.name, self._wanted))
        if peer.incoming is not None:
            self._say(peer, HEARD)
        for topic in peer.topics:
            self._interest.add(topic, link)

    def _outgoing_ended(self, link: Link, error: Exception | None) -> None:
        peer: Peer = link.state
        peer.outgoing = None
        for topic in peer.topics:
            self._interest.remove(topic, link)
        if self._peers.get(peer.name) is not peer:
            return  # we leave, too
        if error is not None:
            self._host.failed(BrokerError(f"the link to the worker at {peer.name} was lost: {error}"))
        elif link.close_code != CloseCode.GOING_AWAY:
            self._host.failed(
                BrokerError(f"the worker at {peer.name} closed the link: {link.close_code} {link.close_reason}")
            )
        self._dial_later(peer)

    # Hearing.

    def _received(self, link: Link, frame: bytes) -> None:
        """The path of each message; what is none leaves it early."""
        try:
            end = 2 + frame[1]
        except IndexError:
            self._refuse(link, frame)
            return
        wanted = self._heads.get(frame[:end])
        if wanted is None or link.state is None:
            self._heard(link, frame)
        else:
            self._deliver(wanted[0], frame[end:], wanted[1])

    def _heard(self, link: Link, frame: bytes) -> None:
        """What is no message that we want: what the peer wants, mostly."""
        peer: Peer | None = link.state
        kind = frame[0]
        if peer is None:
            hello = decode_hello(frame) if kind == Kind.HELLO else None
            if hello is None or hello.name == self._directory.name:
                self._refuse(link, frame)
            else:
                self._greeted(link, hello)
            return
        if kind in (Kind.TEXT, Kind.BINARY):
            return  # we have just said that we do not want it any more
        topic = decode_topic(frame)
        if topic is not None and kind == Kind.SUBSCRIBE:
            self._wants(peer, topic)
        elif topic is not None and kind == Kind.UNSUBSCRIBE:
            self._wants_no_more(peer, topic)
        elif frame == HEARD:
            peer.attempts = 0
            if not peer.joined.done():
                peer.joined.set_result(None)
        else:
            self._refuse(link, frame)

    def _greeted(self, link: Link, hello: Hello) -> None:
        """Who dialled us has said who it is, and all that it wants."""
        self._strangers.pop(link).cancel()
        if hello.version != VERSION:
            reason = f"version {hello.version} of the mesh is not ours, {VERSION}: run the same wsev in all workers"
            self._host.failed(BrokerError(reason))
            self._fail(link, CloseCode.PROTOCOL_ERROR, reason)
            return
        peer = self._meet(hello.name)
        if peer.incoming is not None:
            peer.incoming.abort()  # it dialled anew, and what it said before must not come after what it says now
        peer.incoming = link
        link.state = peer
        for topic in peer.topics.difference(hello.topics):
            self._wants_no_more(peer, topic)
        for topic in hello.topics:
            self._wants(peer, topic)
        self._say(peer, HEARD)
        if peer.timer is not None:
            self._dial(peer)  # it lives: no need to wait

    def _wants(self, peer: Peer, topic: str) -> None:
        peer.topics.add(topic)
        if peer.outgoing is not None:
            self._interest.add(topic, peer.outgoing)

    def _wants_no_more(self, peer: Peer, topic: str) -> None:
        peer.topics.discard(topic)
        if peer.outgoing is not None:
            self._interest.remove(topic, peer.outgoing)

    def _refuse(self, link: Link, message: object) -> None:
        self._fail(link, CloseCode.PROTOCOL_ERROR, "that is nothing that a member of the mesh says")

    def _fail(self, link: Link, code: CloseCode, reason: str) -> None:
        """End it without waiting for the other side (RFC 6455 section 7.1.7); the Close frame leaves before."""
        link.close(code, reason)
        self._host.loop.call_soon(link.abort)

    def _incoming_opened(self, link: Link) -> None:
        self._strangers[link] = self._host.loop.call_later(
            self._hello_timeout, self._fail, link, CloseCode.POLICY_VIOLATION, "no HELLO came"
        )

    def _incoming_ended(self, link: Link, error: Exception | None) -> None:
        timer = self._strangers.pop(link, None)
        if timer is not None:
            timer.cancel()
        peer: Peer | None = link.state
        if peer is not None and peer.incoming is link:
            peer.incoming = None
