"""A guest of the chat room of examples/chat.py, by the client `websockets`: what it says, and must hear next."""

from __future__ import annotations

import json
from typing import Any

from websockets.asyncio.client import ClientConnection

KEY = "0123456789abcdef" * 2
OTHER_KEY = KEY[::-1]


class Guest:
    """One client of the room."""

    def __init__(self, client: ClientConnection) -> None:
        self.client = client

    async def send(self, **message: object) -> None:
        await self.client.send(json.dumps(message))

    async def hear(self, type: str) -> dict[str, Any]:
        """The next message, which must be of this type."""
        message: dict[str, Any] = json.loads(await self.client.recv())
        assert message["type"] == type, message
        return message

    async def hear_error(self, code: str) -> None:
        assert (await self.hear("error"))["code"] == code

    async def hear_nothing(self) -> None:
        """All that was said so far has been heard: the next thing is the answer to a ping of ours."""
        await self.send(type="ping")
        await self.hear("pong")

    async def join(self, name: str, key: str = KEY) -> dict[str, Any]:
        await self.send(type="join", name=name, key=key)
        return await self.hear("welcome")

    async def say(self, text: str, id: str = "1") -> dict[str, Any]:
        await self.send(type="say", id=id, text=text)
        return await self.hear("message")
