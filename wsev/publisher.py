"""Publisher: publishing from a program that is no server.

A member of the mesh that wants nothing.  In a program with a loop it lives in that; in one without, in a thread of its
own, which alone touches it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from wsev.brokers.mesh import Mesh
from wsev.brokers.reports import Reports
from wsev.errors import BrokerError, OptionError
from wsev.options import MIB, Options, check_mesh_directory
from wsev.topics import Message, check_topic, payload_of
from wsev.workers.worker import new_event_loop

__all__ = ["Publisher"]

logger = logging.getLogger("wsev.broker")

T = TypeVar("T")

MAX_AHEAD = 1 * MIB  # bytes that a program without a loop may publish before it waits for the kernel to take them
OVERHEAD = 256  # bytes that a message takes on its way to the thread beside its payload


class Publisher:
    """Publishes to the servers that have ``broker="unix:DIRECTORY"``, from a program that is no server.

    In a program with a loop::

        async with wsev.Publisher("unix:/run/app") as publisher:
            publisher.publish("room", "hello")

    and in one without::

        with wsev.Publisher("unix:/run/app") as publisher:
            publisher.publish("room", "hello")

    Entering waits until the servers that are there have been found, two seconds at most; those that come later are
    found, too.  Leaving waits until the kernel has taken what was published.  Delivery is at most once: what is
    published while no server is there is lost.

    Args:
        url: ``"unix:"`` and the directory, as the servers have it.

    Raises:
        OptionError: it is none.
    """

    def __init__(self, url: str) -> None:
        try:
            self._path = check_mesh_directory(url)
        except ValueError as error:
            raise OptionError("url", url, str(error)) from None
        self._url = url
        self._member: _Member | None = None
        self._thread: _LoopThread | None = None  # of a program without a loop
        self._ahead = 0  # bytes that were given to it since it was waited for

    async def __aenter__(self) -> Self:
        self._check_closed()
        member = _Member(self._path, asyncio.get_running_loop())
        await member.open()
        self._member = member
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        member, self._member = self._member, None
        if member is not None:
            await member.close(is_quiet=error is not None)

    def __enter__(self) -> Self:
        self._check_closed()
        thread = _LoopThread()
        try:
            member = _Member(self._path, thread.loop)
            thread.run(member.open())
        except BaseException:
            thread.close()
            raise
        self._thread, self._member = thread, member
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        member, self._member = self._member, None
        thread, self._thread = self._thread, None
        if member is None or thread is None:
            return
        try:
            thread.run(member.close(is_quiet=error is not None))
        finally:
            thread.close()

    def publish(self, topic: str, message: Message, *, text: bool = False) -> None:
        """Send a message to every subscriber of a topic, in every server.

        In a program with a loop it returns at once, and more than 16 MiB that a server has not taken are dropped: who
        publishes much awaits ``drain`` now and then.  In one without it waits by itself for servers that are slow.

        Args:
            topic: 1 to 255 bytes of UTF-8.
            message: str goes out as text, bytes as binary.
            text: bytes that are UTF-8 go out as text.

        Raises:
            TypeError, ValueError: as for ``Server.publish``.
            RuntimeError: it is not entered.
            BrokerError: in a program without a loop, messages were dropped.
        """
        check_topic(topic)
        payload, is_text = payload_of(message, text)
        if self._member is None:
            raise RuntimeError("the publisher is not open: publish inside `with` or `async with`")
        if self._thread is None:
            self._member.publish(topic, payload, is_text)
            return
        self._thread.call(self._member.publish, topic, payload, is_text)
        self._ahead += len(payload) + OVERHEAD
        if self._ahead > MAX_AHEAD:
            self._ahead = 0
            self._thread.run(self._member.drain())

    async def drain(self) -> None:
        """Wait until the kernel has taken what was published.  For programs with a loop; the others wait by themselves.

        Raises:
            BrokerError: messages were dropped since the last time; it says how many.
        """
        if self._member is not None and self._thread is None:
            await self._member.drain()

    def _check_closed(self) -> None:
        if self._member is not None:
            raise RuntimeError("the publisher is open already: make one for each block")

    def __repr__(self) -> str:
        return f"<Publisher {self._url} {'CLOSED' if self._member is None else 'OPEN'}>"


class _Member:
    """The publisher's membership, in a loop; the ``BrokerHost`` of its mesh."""

    def __init__(self, path: str, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.options = Options()
        self._mesh = Mesh(path, high_water=1)  # so that drain() waits for all
        self._reports = Reports(loop, _log)
        self._told = 0  # of the dropped messages
        self.dropped = self._reports.dropped
        self.failed = self._reports.failed
        self.publish = self._mesh.publish

    async def open(self) -> None:
        await self._mesh.start(self)

    async def drain(self) -> None:
        await self._mesh.drain()
        dropped = self._reports.messages - self._told
        if dropped:
            self._told += dropped
            raise BrokerError(f"dropped messages: {dropped}", dropped=dropped)

    async def close(self, *, is_quiet: bool) -> None:
        """Leave, behind what was published; ``is_quiet``: an exception is under way already."""
        try:
            await self.drain()
        except BrokerError:
            if not is_quiet:
                raise
        finally:
            await self._mesh.stop()
            self._reports.close()

    def deliver(self, topic: str, payload: bytes, is_text: bool) -> None:
        """Nothing comes to who wants nothing."""


class _LoopThread:
    """A thread that runs a loop."""

    def __init__(self) -> None:
        self.loop = new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="wsev-publisher", daemon=True)
        self._thread.start()

    def call(self, function: Callable[..., object], *args: Any) -> None:
        self.loop.call_soon_threadsafe(function, *args)

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coro, self.loop).result()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


def _log(error: BrokerError) -> None:
    logger.warning("%s", error)
