"""The server that the attacks of attacks.py are made against: an echo, in a process of its own.

Prints its port, and serves until its input ends.  Its limits are the defaults but for time, so that attacks that wait
for one end soon.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys

import uvloop

import wsev

HANDSHAKE_TIMEOUT = 1.0  # seconds
READ_DEADLINE = 1.0
CLOSE_TIMEOUT = 1.0

LIBC = ctypes.CDLL(None)

server: wsev.Server[None] = wsev.Server(
    compression="shared",
    handshake_timeout=HANDSHAKE_TIMEOUT,
    read_deadline=READ_DEADLINE,
    close_timeout=CLOSE_TIMEOUT,
)


@server.on_message
def echo(conn: wsev.Connection[None], message: str | bytes) -> None:
    conn.send(message)


async def main() -> None:
    async with server.listen(0):
        print(server.port, flush=True)
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            # A line asks for it: what only the collector frees, or the C library has kept, is not what an attack left.
            gc.collect()
            LIBC.malloc_trim(0)
            print("collected", flush=True)


if __name__ == "__main__":
    uvloop.run(main())
