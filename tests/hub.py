"""A broker as a user may write one, between the servers of one process; it passes the same tests as the mesh.

It keeps what `wsev/brokers/base.py` asks for: nothing is delivered from inside `publish`, messages of one publisher
stay in order, none comes back, and what a server published after it subscribed finds it subscribed.
"""

from __future__ import annotations

from wsev.brokers.base import BrokerHost


class Hub:
    """What the brokers of one process share."""

    def __init__(self) -> None:
        self.brokers: list[HubBroker] = []


class HubBroker:
    """`Server(broker=HubBroker(hub))`."""

    host: BrokerHost

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._topics: set[str] = set()

    async def start(self, host: BrokerHost) -> None:
        self.host = host
        self._hub.brokers.append(self)

    def publish(self, topic: str, payload: bytes, is_text: bool) -> None:
        for other in self._hub.brokers:
            if other is not self and topic in other._topics:
                other.host.loop.call_soon(other._deliver, topic, payload, is_text)

    def subscribe(self, topic: str) -> None:
        self._topics.add(topic)

    def unsubscribe(self, topic: str) -> None:
        self._topics.discard(topic)

    async def stop(self) -> None:
        self._hub.brokers.remove(self)
        self._topics.clear()

    def _deliver(self, topic: str, payload: bytes, is_text: bool) -> None:
        if topic in self._topics:
            self.host.deliver(topic, payload, is_text)
