"""RSGI applications for granian, its own interface and its fastest: echo and broadcast."""

from __future__ import annotations

from typing import Any

BYTES, TEXT = 1, 2  # kinds of a message

clients: set[Any] = set()


async def echo(scope: Any, protocol: Any) -> None:
    transport = await protocol.accept()
    while True:
        message = await transport.receive()
        if message.kind == BYTES:
            await transport.send_bytes(message.data)
        elif message.kind == TEXT:
            await transport.send_str(message.data)
        else:
            return


async def broadcast(scope: Any, protocol: Any) -> None:
    transport = await protocol.accept()
    clients.add(transport)
    try:
        while True:
            message = await transport.receive()
            if message.kind == BYTES:
                for client in list(clients):
                    await client.send_bytes(message.data)
            elif message.kind == TEXT:
                for client in list(clients):
                    await client.send_str(message.data)
            else:
                return
    finally:
        clients.discard(transport)
