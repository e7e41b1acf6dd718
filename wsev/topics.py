"""Topics of one worker: which of its connections subscribed to what.

Knows no broker and no other worker.  Topics are opaque strings; none exists before its first subscriber, nor after its
last.

Invariants: a connection stands in a topic's set exactly if the topic stands in the connection's; no set is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

from wsev._core.writer import deliver, encode_message

if TYPE_CHECKING:
    from wsev._core.connection import Connection

__all__ = ["Message", "Topics", "broadcast", "check_topic", "payload_of"]

Message = str | bytes | bytearray | memoryview

MAX_TOPIC_SIZE = 255  # bytes of UTF-8; ours: what one length byte holds on the links between workers


def _nothing(topic: str) -> None:
    pass


def broadcast(connections: Iterable[Connection[Any]], message: Message, *, text: bool = False) -> int:
    """Send one message to each of some connections, encoding it once.

    Nothing that is called by it changes ``connections``: callbacks run later, from the loop.

    Args:
        connections: any collection of open or ended ones; those that have ended are passed over.
        message: str goes out as text, bytes as binary.
        text: bytes that are UTF-8 go out as text.

    Returns:
        How many connections took it.

    Raises:
        TypeError: ``message`` is neither str nor bytes-like.
        UnicodeEncodeError: it is a str with a lone surrogate.
    """
    return deliver(connections, encode_message(message, text))


class Topics:
    """The subscriptions of the connections of one worker.

    Args:
        max_subscriptions: the most topics of one connection; None: no limit.
        appeared: is called with a topic that has got its first subscriber.
        vanished: is called with a topic that has lost its last.
    """

    def __init__(
        self,
        max_subscriptions: int | None,
        appeared: Callable[[str], object] = _nothing,
        vanished: Callable[[str], object] = _nothing,
    ) -> None:
        self._max_subscriptions = max_subscriptions
        self._appeared = appeared
        self._vanished = vanished
        self._subscribers: dict[str, set[Connection[Any]]] = {}
        self._subscriptions: dict[Connection[Any], set[str]] = {}
        # The path of each message: the connections of a topic, None if there are none.
        self.subscribers_of: Callable[[str], Collection[Connection[Any]] | None] = self._subscribers.get

    def subscribe(self, connection: Connection[Any], topic: str) -> bool:
        """Subscribe; False if ``max_subscriptions`` is reached, True if it is subscribed now or was before."""
        check_topic(topic)
        topics = self._subscriptions.setdefault(connection, set())
        if topic in topics:
            return True
        if self._max_subscriptions is not None and len(topics) >= self._max_subscriptions:
            return False
        topics.add(topic)
        subscribers = self._subscribers.get(topic)
        if subscribers is not None:
            subscribers.add(connection)
        else:
            self._subscribers[topic] = {connection}
            self._appeared(topic)
        return True

    def unsubscribe(self, connection: Connection[Any], topic: str) -> bool:
        """End a subscription; False if there was none."""
        check_topic(topic)
        topics = self._subscriptions.get(connection)
        if topics is None or topic not in topics:
            return False
        topics.remove(topic)
        if not topics:
            del self._subscriptions[connection]
        self._discard(topic, connection)
        return True

    def topics_of(self, connection: Connection[Any]) -> frozenset[str]:
        """The topics that a connection is subscribed to."""
        return frozenset(self._subscriptions.get(connection, ()))

    def forget(self, connection: Connection[Any]) -> None:
        """End all subscriptions of a connection that has ended."""
        for topic in self._subscriptions.pop(connection, ()):
            self._discard(topic, connection)

    def _discard(self, topic: str, connection: Connection[Any]) -> None:
        subscribers = self._subscribers[topic]
        subscribers.discard(connection)
        if not subscribers:
            del self._subscribers[topic]
            self._vanished(topic)


def check_topic(topic: str) -> None:
    """Raise TypeError or ValueError for what is no topic."""
    if not isinstance(topic, str):
        raise TypeError(f"topic={topic!r}: must be a str, not {type(topic).__name__}")
    if topic.isascii() and 1 <= len(topic) <= MAX_TOPIC_SIZE:
        return  # the usual ones, on the path of each message
    try:
        size = len(topic.encode())
    except UnicodeEncodeError:
        raise ValueError(f"topic={topic!r}: has a lone surrogate, which UTF-8 cannot encode") from None
    if not 1 <= size <= MAX_TOPIC_SIZE:
        raise ValueError(f"topic={topic[:40]!r}: must be 1 to {MAX_TOPIC_SIZE} bytes of UTF-8, not {size}")


def payload_of(message: Message, text: bool) -> tuple[bytes, bool]:
    """The payload of a message, and whether it is text.

    Raises:
        TypeError: it is neither str nor bytes-like.
        UnicodeEncodeError: it is a str with a lone surrogate.
    """
    if isinstance(message, str):
        return message.encode(), True
    if isinstance(message, bytes | bytearray | memoryview):
        return bytes(message), text
    raise TypeError(f"message must be str, bytes, bytearray or memoryview, not {type(message).__name__}")
