"""websockets: its asyncio server."""

from __future__ import annotations

from websockets.asyncio.server import ServerConnection, broadcast, serve

from benchmarks.servers.program import BACKLOG, MAX_MESSAGE, Arguments, arguments, listener, run

clients: set[ServerConnection] = set()


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def to_all(connection: ServerConnection) -> None:
    clients.add(connection)
    try:
        async for message in connection:
            broadcast(clients, message)
    finally:
        clients.discard(connection)


async def main(args: Arguments) -> None:
    async with serve(
        echo if args.mode == "echo" else to_all,
        sock=listener(args.port),
        ssl=args.ssl_context(),
        compression=args.compression,
        max_size=MAX_MESSAGE,
        backlog=BACKLOG,
    ) as server:
        await server.serve_forever()


if __name__ == "__main__":
    run(main(arguments("echo", "broadcast")))
