"""What a message costs that crosses from one worker to another: `python benchmarks/mesh.py` (Linux, 2 CPUs).

Two servers, each a process of its own, are pinned to CPU 0; this program, on CPU 1, is their clients: some send to the
one, whose on_message publishes, and one is subscribed at the other.  Counted is the CPU time of both processes, from
the receiving of the client's frame to the sending of the subscriber's, over what arrived.  Every message must arrive.

It runs in short windows; the best tells what it costs on an idle machine, all together what it cost on this one.
`--at none` has no subscriber, `--at same` one at the server that publishes: the differences are what crossing costs.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

SERVER = """
import asyncio, os, sys, time
import uvloop, wsev

async def main():
    server = wsev.Server(broker=sys.argv[1])
    server.on_connect(lambda conn: conn.request.path == "/subscriber" and conn.subscribe("room"))
    server.on_message(lambda conn, message: server.publish("room", message))
    async with server.listen(0):
        print(server.port, flush=True)
        questions = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(questions), sys.stdin
        )
        while await questions.readline():
            print(time.process_time(), flush=True)

os.sched_setaffinity(0, {0})
uvloop.run(main())
"""

WINDOW = 0.25  # seconds
TICK = 0.001  # seconds between two bursts of the clients


class Server:
    """A process; `cpu()` is the CPU time that it has used, in seconds."""

    def __init__(self, directory: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, f"unix:{directory}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.port = int(self._read())

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def cpu(self) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return float(self._read())

    def connect(self, path: str) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += sock.recv(1)
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        return sock

    def close(self) -> None:
        self._process.communicate()


@dataclass
class Cost:
    """Of one message, in seconds of CPU."""

    publisher: float
    other: float
    rate: float  # messages a second

    def __str__(self) -> str:
        both = (self.publisher + self.other) * 1e6
        parts = f"{self.publisher * 1e6:.2f} where it is published, {self.other * 1e6:.2f} in the other"
        return f"{both:.2f} us a message ({parts}) at {self.rate:,.0f} a second"


class Traffic:
    """Clients that send, and the one that must get all of it."""

    def __init__(self, senders: list[socket.socket], subscriber: socket.socket | None, size: int) -> None:
        self._senders = senders
        self._subscriber = subscriber
        length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        self._frame = b"\x82" + length + bytes(4) + b"x" * size
        self._received_size = len(self._frame) - 4  # unmasked

    def run(self, rate: int, seconds: float) -> int:
        """Send at this rate; how many messages were sent, and arrived."""
        sent = received = 0
        begin = time.perf_counter()
        while (now := time.perf_counter()) < begin + seconds:
            each = (int((now - begin) * rate) - sent) // len(self._senders)
            if each:
                for sender in self._senders:
                    sender.sendall(self._frame * each)
                sent += each * len(self._senders)
            received += self._receive(is_waiting=False)
            time.sleep(max(0.0, now + TICK - time.perf_counter()))
        while self._subscriber is not None and received < sent * self._received_size:
            received += self._receive(is_waiting=True)
        assert self._subscriber is None or received == sent * self._received_size, "a message came twice"
        return sent

    def _receive(self, *, is_waiting: bool) -> int:
        if self._subscriber is None:
            return 0
        self._subscriber.settimeout(5 if is_waiting else 0)
        try:
            return len(self._subscriber.recv(1 << 20))
        except BlockingIOError:
            return 0


def measure(publisher: Server, other: Server, traffic: Traffic, rate: int, seconds: float) -> None:
    traffic.run(rate, WINDOW)
    windows = []
    for _ in range(max(1, int(seconds / WINDOW))):
        before, began = (publisher.cpu(), other.cpu()), time.perf_counter()
        sent = traffic.run(rate, WINDOW)
        took = time.perf_counter() - began
        windows.append(Cost((publisher.cpu() - before[0]) / sent, (other.cpu() - before[1]) / sent, sent / took))
    count = len(windows)
    print("best window:", min(windows, key=lambda cost: cost.publisher + cost.other))
    print(
        "all windows:",
        Cost(
            sum(cost.publisher for cost in windows) / count,
            sum(cost.other for cost in windows) / count,
            sum(cost.rate for cost in windows) / count,
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", choices=["other", "same", "none"], default="other", help="where the subscriber is")
    parser.add_argument("--rate", type=int, default=50_000, help="messages a second")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--size", type=int, default=64, help="bytes")
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory() as directory:
        publisher, other = Server(directory), Server(directory)
        subscriber = {"other": other, "same": publisher, "none": None}[args.at]
        senders = [publisher.connect("/") for _ in range(args.clients)]
        received_by = None if subscriber is None else subscriber.connect("/subscriber")
        time.sleep(0.2)  # until the subscription is known
        measure(publisher, other, Traffic(senders, received_by, args.size), args.rate, args.seconds)
        for sock in (*senders, *([received_by] if received_by else ())):
            sock.close()
        publisher.close()
        other.close()


if __name__ == "__main__":
    main()
