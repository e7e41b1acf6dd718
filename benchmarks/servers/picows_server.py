"""picows, as its README has it: a listener in Python, everything at its default."""

from __future__ import annotations

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

from benchmarks.servers.program import BACKLOG, Arguments, arguments, listener, run

clients: set[WSTransport] = set()


class Echo(WSListener):  # type: ignore[misc]  # picows has no types where mypy runs
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())


class Broadcast(Echo):
    def on_ws_connected(self, transport: WSTransport) -> None:
        clients.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        clients.discard(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            super().on_ws_frame(transport, frame)
        else:
            kind, payload = frame.msg_type, frame.get_payload_as_bytes()
            for client in clients:
                client.send(kind, payload)


async def main(args: Arguments) -> None:
    make = Echo if args.mode == "echo" else Broadcast
    server = await ws_create_server(
        lambda request: make(), sock=listener(args.port), ssl=args.ssl_context(), backlog=BACKLOG
    )
    await server.serve_forever()


if __name__ == "__main__":
    run(main(arguments("echo", "broadcast")))
