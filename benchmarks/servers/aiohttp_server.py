"""aiohttp, without access log."""

from __future__ import annotations

import asyncio

from aiohttp import WSMsgType, web

from benchmarks.servers.program import BACKLOG, MAX_MESSAGE, Arguments, arguments, listener, run

clients: set[web.WebSocketResponse] = set()


async def echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(compress=args.compression is not None, max_msg_size=MAX_MESSAGE)
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


async def broadcast(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(compress=False, max_msg_size=MAX_MESSAGE)
    await socket.prepare(request)
    clients.add(socket)
    try:
        async for message in socket:
            for client in list(clients):
                if message.type is WSMsgType.TEXT:
                    await client.send_str(message.data)
                elif message.type is WSMsgType.BINARY:
                    await client.send_bytes(message.data)
    finally:
        clients.discard(socket)
    return socket


async def main(args: Arguments) -> None:
    app = web.Application()
    app.router.add_get("/", echo if args.mode == "echo" else broadcast)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener(args.port), ssl_context=args.ssl_context(), backlog=BACKLOG).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    args = arguments("echo", "broadcast")
    run(main(args))
