"""Bystanders: a hundred connections that echo all the time; prints the latency that they have seen when asked.

bystanders.py PORT          each line of input: a line with their 99th percentile, in seconds, since the last one
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import uvloop

from tests.hostile.attacks import upgraded
from tests.peer import TEXT, Peer, encode_frame

SIZE = 100
PAUSE = 0.1  # seconds between an echo and the next message of one of them
FRAME = encode_frame(TEXT, b"b" * 64)


async def echo(peer: Peer, offset: float, seen: list[float]) -> None:
    await asyncio.sleep(offset)
    while True:
        begin = time.perf_counter()
        await peer.send(FRAME)
        await peer.reader.readexactly(2 + 64)
        seen.append(time.perf_counter() - begin)
        await asyncio.sleep(PAUSE)


async def main() -> None:
    seen: list[float] = []
    peers = [await upgraded(int(sys.argv[1])) for _ in range(SIZE)]
    tasks = [asyncio.create_task(echo(peer, PAUSE * number / SIZE, seen)) for number, peer in enumerate(peers)]
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        ordered = sorted(seen) or [0.0]
        seen.clear()
        print(ordered[int(len(ordered) * 0.99)], flush=True)
        if any(task.done() for task in tasks):
            raise SystemExit("a bystander was cut off")
    os._exit(0)


if __name__ == "__main__":
    uvloop.run(main())
