"""socketify: uWebSockets with callbacks in Python; its broadcast is a topic."""

from __future__ import annotations

from typing import Any

from socketify import App, AppListenOptions, AppOptions, CompressOptions

from benchmarks.servers.program import MAX_MESSAGE, arguments

TOPIC = "room"


def echo(socket: Any, message: str | bytes, opcode: Any) -> None:
    socket.send(message, opcode, args.compression is not None)


def subscribe(socket: Any) -> None:
    socket.subscribe(TOPIC)


def publish(socket: Any, message: str | bytes, opcode: Any) -> None:
    app.publish(TOPIC, message, opcode)


if __name__ == "__main__":
    args = arguments("echo", "publish")
    # One PEM file holds chain and key.
    tls = args.certificate and AppOptions(key_file_name=args.certificate, cert_file_name=args.certificate)
    app = App(tls or None)
    behavior: dict[str, Any] = {
        "compression": CompressOptions[args.compression or "DISABLED"],
        "max_payload_length": MAX_MESSAGE,
        "max_backpressure": 64 * 2**20,
        "idle_timeout": 960,
        "message": echo if args.mode == "echo" else publish,
    }
    if args.mode == "publish":
        behavior["open"] = subscribe
    app.ws("/*", behavior)
    app.listen(AppListenOptions(port=args.port, host="127.0.0.1"), lambda config: None)
    app.run()
