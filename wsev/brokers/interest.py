"""Interest: which links want which topic, so that a message goes only where it has subscribers.

Knows links as things to put into a set.  Invariants: no audience is empty; a link stands in an audience once.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from wsev.brokers.envelope import head_of

__all__ = ["Audience", "Interest"]

L = TypeVar("L")


class Audience(Generic[L]):
    """The links that want one topic, and the two heads of the envelope, made once and not for each message."""

    __slots__ = ("binary_head", "links", "text_head")

    def __init__(self, topic: str) -> None:
        self.links: set[L] = set()
        self.text_head = head_of(topic, is_text=True)
        self.binary_head = head_of(topic, is_text=False)


class Interest(Generic[L]):
    """Topic -> its audience; ``get(topic)`` is None where nobody wants it."""

    def __init__(self) -> None:
        self._audiences: dict[str, Audience[L]] = {}
        self.get = self._audiences.get  # as it is: it stands on the path of each message

    def add(self, topic: str, link: L) -> None:
        """``link`` wants ``topic``."""
        audience = self._audiences.get(topic)
        if audience is None:
            audience = self._audiences[topic] = Audience(topic)
        audience.links.add(link)

    def remove(self, topic: str, link: L) -> None:
        """``link`` wants it no more, if it did."""
        audience = self._audiences.get(topic)
        if audience is None:
            return
        audience.links.discard(link)
        if not audience.links:
            del self._audiences[topic]

    def __len__(self) -> int:
        return len(self._audiences)
