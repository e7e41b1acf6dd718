"""ASGI applications for uvicorn: echo and broadcast."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

clients: set[Send] = set()


async def _accept(scope: Event, receive: Receive, send: Send) -> None:
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})


def _answer(event: Event) -> Event:
    if event.get("bytes") is not None:
        return {"type": "websocket.send", "bytes": event["bytes"]}
    return {"type": "websocket.send", "text": event["text"]}


async def echo(scope: Event, receive: Receive, send: Send) -> None:
    await _accept(scope, receive, send)
    while (event := await receive())["type"] == "websocket.receive":
        await send(_answer(event))


async def broadcast(scope: Event, receive: Receive, send: Send) -> None:
    await _accept(scope, receive, send)
    clients.add(send)
    try:
        while (event := await receive())["type"] == "websocket.receive":
            answer = _answer(event)
            for client in list(clients):
                await client(answer)
    finally:
        clients.discard(send)
