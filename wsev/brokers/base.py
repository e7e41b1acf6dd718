"""Broker and BrokerHost: what a broker must do, and what it may ask of the server that runs it.

A broker carries what is published in one worker to the workers that have subscribers for it.  Any object with these
five members is one: ``Server(broker=MyBroker())``.  It never sees a connection; what it delivers, its host hands on.

What every broker promises:

- **At most once.**  What cannot be carried now is dropped and counted (``BrokerHost.dropped``); nothing is kept to come
  late, and nothing comes twice.
- **In order.**  Messages of one publisher on one topic arrive in the order in which they were published.
- **Not back.**  A message is not delivered to the host that published it: that has served its own subscribers.
- **Unchanged.**  A payload is any bytes, of any size that the server may publish, and a topic any str of 1 to 255 bytes
  of UTF-8.  The topic "" is the server's own: ``Server.broadcast`` travels by it.
- **By itself well again.**  When what it depends on is lost, it says so (``BrokerHost.failed``), connects again with
  growing pauses, and restores its subscriptions.  Meanwhile the worker's own subscribers get their messages all the
  same.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from wsev.errors import BrokerError
    from wsev.options import Options

__all__ = ["Broker", "BrokerHost"]


class BrokerHost(Protocol):
    """What a broker is given: one run of a server, or a publisher.  All of it is called in the loop's thread."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that it runs in."""

    @property
    def options(self) -> Options:
        """The server's options."""

    def deliver(self, topic: str, payload: bytes, is_text: bool) -> None:
        """Hand a message that another worker published to the subscribers here; never raises."""

    def dropped(self, messages: int, reason: str) -> None:
        """Count messages that could not be carried; told to ``on_error`` once a second at most, with how many."""

    def failed(self, error: BrokerError) -> None:
        """Tell what went wrong; logged and given to ``on_error``, once a second at most."""


class Broker(Protocol):
    """The five members.  All but ``start`` and ``stop`` return at once and never raise."""

    async def start(self, host: BrokerHost) -> None:
        """Begin to carry.  When it has returned, what others publish on the topics subscribed to is delivered.

        An exception means that the server cannot be started; then nothing may be left, and ``stop`` is not called.  It
        may be called again then, and after a ``stop``.
        """

    def publish(self, topic: str, payload: bytes, is_text: bool) -> None:
        """Carry a message to the other workers; between ``start`` and ``stop`` only."""

    def subscribe(self, topic: str) -> None:
        """The worker has its first subscriber of ``topic``.

        It is called before ``start`` too, for "" and what is subscribed to by then, and not twice for one topic without
        an ``unsubscribe`` between.  What this worker publishes later reaches no other worker before that knows of the
        subscription, so that an answer finds its way back.
        """

    def unsubscribe(self, topic: str) -> None:
        """The worker has no subscriber of ``topic`` any more."""

    async def stop(self) -> None:
        """End: what was published has left, nothing is delivered any more, and no task or descriptor is left.

        Subscriptions end with it, as with a ``start`` that failed.  What takes longer than five seconds is cancelled.
        """
