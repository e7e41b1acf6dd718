"""picows.websockets: the interface of websockets on picows' core."""

from __future__ import annotations

from picows.websockets.asyncio.server import ServerConnection, serve

from benchmarks.servers.program import BACKLOG, MAX_MESSAGE, Arguments, arguments, listener, run


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def main(args: Arguments) -> None:
    async with serve(
        echo,
        sock=listener(args.port),
        ssl=args.ssl_context(),
        compression=args.compression,
        max_size=MAX_MESSAGE,
        backlog=BACKLOG,
    ) as server:
        await server.serve_forever()


if __name__ == "__main__":
    run(main(arguments("echo")))
