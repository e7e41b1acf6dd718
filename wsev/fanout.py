"""Fanout: what is published in a worker, to its own subscribers, and by the broker to the other workers'.

Owns who subscribed to what in one run of a server, connections and listeners, and the broker, which hears of a topic's
first subscriber and of its last, whichever of the two they are.

Invariants: publishing calls no callback; what comes from the broker is not given to it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol

from wsev._core.connection import Connection
from wsev._core.writer import deliver as deliver_encoded
from wsev._core.writer import encode_message
from wsev.brokers.base import Broker
from wsev.brokers.mesh import Mesh
from wsev.brokers.reports import Reports
from wsev.errors import BrokerError
from wsev.listeners import Listener, ListenerHost, OnPublished
from wsev.options import Options, check_mesh_directory
from wsev.topics import Message, Topics, payload_of

__all__ = ["EVERYBODY", "Fanout", "FanoutHost", "choose_broker"]

logger = logging.getLogger("wsev.broker")

EVERYBODY = ""  # what Server.broadcast travels by between workers; no topic of a user's is empty
STOP_TIMEOUT = 5.0  # seconds for a broker to stop; the mesh takes 2 at most


class FanoutHost(ListenerHost, Protocol):
    """The run of a server, as its fanout needs it."""

    def broker_failed(self, error: BrokerError) -> None:
        """Log it, and give it to on_error."""


def choose_broker(options: Options, mesh_directory: str | None) -> Broker | None:
    """The broker that ``options`` asks for; None where it has nothing to carry.

    Args:
        options: the server's.
        mesh_directory: where the workers of one ``run`` meet; None: there is only this one.
    """
    if not isinstance(options.broker, str):
        return options.broker
    path = mesh_directory if options.broker == "local" else check_mesh_directory(options.broker)
    return None if path is None else Mesh(path)


class Fanout:
    """Subscriptions, and publishing, of one run of a server; the ``BrokerHost`` of its broker.

    Args:
        host: the run.
        connections: its open ones, a live view.
        broker: what carries messages to other workers; None: there are none.
        subscriptions: of ``Server.subscribe``; their callbacks are called from ``release`` on.

    Attributes:
        topics: who subscribed to what.
        reports: what the broker could not do.
        messages_in: how many the broker has delivered.
    """

    def __init__(
        self,
        host: FanoutHost,
        connections: Collection[Connection[Any]],
        broker: Broker | None,
        subscriptions: Iterable[tuple[str, OnPublished]],
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = host.loop
        self.options: Options = host.options
        self.reports = Reports(host.loop, host.broker_failed)
        self.dropped = self.reports.dropped
        self.failed = self.reports.failed
        self.messages_in = 0
        self._host = host
        self._connections = connections
        self._broker = broker
        self._carry: Callable[[str, bytes, bool], None] | None = None  # the broker's publish, while it is started
        self._holders: dict[str, int] = {}  # topic -> 1 or 2: connections, listeners; kept for the broker alone
        self._listeners: dict[str, list[Listener]] = {}
        if broker is None:
            self.topics = Topics(host.options.max_subscriptions)
        else:
            self.topics = Topics(host.options.max_subscriptions, self._appeared, self._vanished)
            self._appeared(EVERYBODY)
        self._subscribers_of = self.topics.subscribers_of
        for topic, callback in subscriptions:
            self.listen(topic, callback, is_held=True)

    # Its life.

    async def start(self) -> None:
        """Begin to carry messages."""
        if self._broker is not None:
            await self._broker.start(self)
            self._carry = self._broker.publish

    def release(self) -> None:
        """Call the callbacks of listeners that had to wait until now."""
        for listener in self._all_listeners():
            listener.release()

    def finish(self) -> None:
        """Give the listeners nothing more; what they have got is still called for, by tasks of the host."""
        for listener in self._all_listeners():
            listener.finish()

    async def stop(self) -> None:
        """Carry no more; what was published has left."""
        if self._carry is not None and self._broker is not None:
            self._carry = None
            try:
                await asyncio.wait_for(self._broker.stop(), STOP_TIMEOUT)
            except Exception as error:
                self.failed(_raised(self._broker, "stop", error))
        self.reports.close()

    # Subscribing.

    def listen(self, topic: str, callback: OnPublished, *, is_held: bool = False) -> None:
        """``Server.subscribe``; twice is once."""
        listeners = self._listeners.setdefault(topic, [])
        if any(listener.callback == callback for listener in listeners):
            return
        listeners.append(Listener(topic, callback, host=self._host, dropped=self.dropped, is_held=is_held))
        if len(listeners) == 1 and self._broker is not None:
            self._appeared(topic)

    def unlisten(self, topic: str, callback: OnPublished) -> None:
        """``Server.unsubscribe``; what waits for the callback is forgotten."""
        listeners = self._listeners.get(topic, [])
        for listener in listeners:
            if listener.callback == callback:
                listener.cancel()
                listeners.remove(listener)
                break
        else:
            return
        if not listeners:
            del self._listeners[topic]
            if self._broker is not None:
                self._vanished(topic)

    def _all_listeners(self) -> list[Listener]:
        return [listener for listeners in self._listeners.values() for listener in listeners]

    def _appeared(self, topic: str) -> None:
        holders = self._holders.get(topic, 0)
        self._holders[topic] = holders + 1
        if not holders and self._broker is not None:
            self._ask("subscribe", self._broker.subscribe, topic)

    def _vanished(self, topic: str) -> None:
        self._holders[topic] -= 1
        if not self._holders[topic] and self._broker is not None:
            del self._holders[topic]
            self._ask("unsubscribe", self._broker.unsubscribe, topic)

    def _ask(self, name: str, member: Callable[[str], None], topic: str) -> None:
        try:
            member(topic)
        except Exception as error:
            self.failed(_raised(self._broker, name, error))

    # Publishing.

    def publish(self, topic: str, message: Message, text: bool, exclude: Connection[Any] | None = None) -> int:
        """Send a message to a topic's subscribers, to every connection if it is EVERYBODY, but not to ``exclude``.

        The topic has been checked.  Returns how many connections of this worker took it.
        """
        connections = self._subscribers_of(topic) if topic else self._connections
        if type(message) is not bytes:
            message, text = payload_of(message, text)
        taken = 0
        if connections:
            taken = deliver_encoded(connections, encode_message(message, text), exclude)
        if self._listeners:
            for listener in self._listeners.get(topic, ()):
                listener.put(message, text)
        if self._carry is not None:
            try:
                self._carry(topic, message, text)
            except Exception as error:
                self.failed(_raised(self._broker, "publish", error))
        return taken

    # BrokerHost, with ``loop``, ``options``, ``dropped`` and ``failed``.

    def deliver(self, topic: str, payload: bytes, is_text: bool) -> None:
        """A message from another worker."""
        self.messages_in += 1
        connections = self._subscribers_of(topic) if topic else self._connections
        if connections:
            deliver_encoded(connections, encode_message(payload, is_text))
        if self._listeners:
            for listener in self._listeners.get(topic, ()):
                listener.put(payload, is_text)


def _raised(broker: Broker | None, member: str, error: Exception) -> BrokerError:
    raised = BrokerError(f"{type(broker).__name__}.{member} raised {type(error).__name__}: {error}")
    raised.__cause__ = error
    return raised
