"""wsev.  Its core is imported from where PYTHONPATH says, so that two commits can be compared.

Modes: echo; broadcast, by `server.broadcast`; publish, by a topic to which all are subscribed.
"""

from __future__ import annotations

from typing import Any

import wsev
from benchmarks.servers.program import BACKLOG, MAX_MESSAGE, arguments, listener

TOPIC = "room"

args = arguments("echo", "broadcast", "publish")
# A commit that this one is compared with may not know it.
more: dict[str, Any] = {"compression": args.compression} if args.compression else {}
server: wsev.Server[None] = wsev.Server(max_message_size=MAX_MESSAGE, **more)


def echo(conn: wsev.Connection[None], message: str | bytes) -> None:
    conn.send(message)


async def echo_async(conn: wsev.Connection[None], message: str | bytes) -> None:
    conn.send(message)


def broadcast(conn: wsev.Connection[None], message: str | bytes) -> None:
    server.broadcast(message)


def subscribe(conn: wsev.Connection[None]) -> None:
    conn.subscribe(TOPIC)


def publish(conn: wsev.Connection[None], message: str | bytes) -> None:
    server.publish(TOPIC, message)


if __name__ == "__main__":
    if args.mode == "echo":
        server.on_message(echo_async if args.is_async else echo)
    elif args.mode == "broadcast":
        server.on_message(broadcast)
    else:
        server.on_connect(subscribe)
        server.on_message(publish)
    server.run(sock=listener(args.port), ssl=args.ssl_context(), backlog=BACKLOG)
