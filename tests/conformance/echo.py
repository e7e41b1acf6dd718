"""The echo server that the Autobahn testsuite runs against; prints its port, and serves until its input ends.

Only its limits differ from the defaults: the suite sends messages of 16 MiB and of 65,536 fragments (cases 9).
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

import wsev

server = wsev.Server(max_message_size=16 * 1024 * 1024, max_fragments=1 << 17, max_buffered_amount=None)


@server.on_message
def echo(conn: wsev.Connection, message: str | bytes) -> None:
    conn.send(message)


async def main() -> None:
    async with server.listen(0):
        print(server.port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main())
