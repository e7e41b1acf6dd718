"""Memory after connections that ended in every way."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from tests.hostile.conftest import Attacked
from tests.peer import BINARY, CLOSE, PING, TEXT, Peer, encode_frame
from wsev import Connection


async def end_in_every_way(attacked: Attacked, peer: Peer, way: int) -> None:
    endings = [
        encode_frame(CLOSE),
        encode_frame(TEXT, b"\xff"),
        encode_frame(TEXT, b"x", masked=False),
        encode_frame(BINARY, bytes(50_000))[:20_000],
        encode_frame(BINARY, bytes(100), fin=False),
        encode_frame(PING, b"x") + encode_frame(TEXT, b"hello"),
    ]
    await peer.send(endings[way % len(endings)])
    if way % 2:
        peer.reset()
    else:
        await peer.close()
    await attacked.end()
    attacked.got.clear()


@pytest.mark.slow
async def test_connections_that_ended_in_every_way_are_freed(attacked: Attacked) -> None:
    await attacked.start()
    seen: weakref.WeakSet[Connection[Any]] = weakref.WeakSet()

    async def rounds(count: int) -> None:
        for way in range(count):
            peer = await attacked.open()
            seen.update(attacked.server.connections)
            await end_in_every_way(attacked, peer, way)
        del peer
        gc.collect()

    await rounds(300)
    assert not list(seen)
