"""The smallest server: what comes goes back, or goes to everybody.

    python examples/echo.py [--port 8000] [--host 127.0.0.1] [--mode echo|broadcast]

Text comes back as text and binary as binary, since a str is sent as one and bytes as the other.
"""

from __future__ import annotations

import argparse

import wsev


def echo(conn: wsev.Connection[None], message: str | bytes) -> None:
    conn.send(message)


def broadcast(conn: wsev.Connection[None], message: str | bytes) -> None:
    server.broadcast(message)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Echo messages, or broadcast them.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--mode", choices=["echo", "broadcast"], default="echo")
    args = parser.parse_args()
    server: wsev.Server[None] = wsev.Server()
    server.on_message(echo if args.mode == "echo" else broadcast)
    print(f"{args.mode}: ws://{args.host}:{args.port}/", flush=True)
    server.run(args.port, host=args.host)
