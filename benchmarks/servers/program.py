"""What the Python servers of the suite share: their arguments, the open-files limit, the listening socket, the loop."""

from __future__ import annotations

import argparse
import resource
import socket
import ssl
from collections.abc import Coroutine
from dataclasses import dataclass

import uvloop

MAX_MESSAGE = 16 * 2**20  # bytes; every server that has such a limit gets this one
BACKLOG = 4096


@dataclass(frozen=True)
class Arguments:
    port: int
    mode: str
    is_async: bool
    certificate: str | None
    """Path of a PEM file with the chain and the key; None: no TLS."""
    compression: str | None
    """What this server calls it; None: without."""

    def ssl_context(self) -> ssl.SSLContext | None:
        if self.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        return context


def arguments(*modes: str) -> Arguments:
    """Read the command line, and raise the open-files limit, which every server needs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mode", choices=modes, default=modes[0])
    parser.add_argument("--async", dest="is_async", action="store_true", help="callbacks are coroutine functions")
    parser.add_argument("--certificate")
    parser.add_argument("--compression")
    raise_files()
    return Arguments(**vars(parser.parse_args()))


def raise_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def listener(port: int) -> socket.socket:
    sock = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
    sock.setblocking(False)
    return sock


def run(main: Coroutine[object, object, None]) -> None:
    uvloop.run(main)
