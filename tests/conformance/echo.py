"""The echo server that the Autobahn testsuite runs against; prints its port, and serves until its input ends.

    echo.py [COMPRESSION [LOOP]]        none, shared or dedicated; uvloop or asyncio

Only its limits differ from the defaults: the suite sends messages of 16 MiB and of 65,536 fragments (cases 9).
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

import wsev

compression, loop = (sys.argv[1:] + ["none", "uvloop"][len(sys.argv) - 1 :])[:2]
server = wsev.Server(
    max_message_size=16 * 1024 * 1024,
    max_fragments=1 << 17,
    max_buffered_amount=None,
    compression=None if compression == "none" else compression,  # type: ignore[arg-type]  # Server checks it
)


@server.on_message
def echo(conn: wsev.Connection, message: str | bytes) -> None:
    conn.send(message)


async def main() -> None:
    async with server.listen(0):
        print(server.port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    if loop == "uvloop":
        uvloop.run(main())
    else:
        asyncio.run(main())
