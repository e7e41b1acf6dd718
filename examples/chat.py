"""A chat room: the page and its WebSocket from one program, on one port.

    python examples/chat.py [--port 8000] [--host 127.0.0.1]

Page and program exchange JSON objects, told apart by "type". A page says "join" (name, key), then "say" (id, text).
It hears "welcome" (name, people, history) or "error" (code, text); then, from everybody in the room, "message",
"joined" and "left". A client may send what it likes: what is none of these is answered, and nobody else notices.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import re
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

import wsev

ROOM = "room"  # the topic that everybody in the room is subscribed to
MAX_NAME, MAX_TEXT = 24, 2000  # characters
BURST, PER_SECOND = 10, 2  # messages that one connection may send: at once, and in the long run
# Letters and marks that show nothing, which Python takes for printable: fillers, blanks, variation selectors.
BLANKS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U0001d159\U000e0100-\U000e01ef]"
)


@dataclass
class Visitor:
    """What we know of one connection, in its ``conn.state``."""

    name: str = ""  # until it joins
    key: str = ""  # the page's own secret: with it the name can be had back, on another connection
    credit: float = BURST
    credited_at: float = 0.0

    def spend(self) -> bool:
        """Pay for one message; False if it was one too many."""
        now = time.monotonic()
        self.credit = min(BURST, self.credit + (now - self.credited_at) * PER_SECOND)
        self.credited_at = now
        if self.credit < 1:
            return False
        self.credit -= 1
        return True


server: wsev.Server[Visitor] = wsev.Server(max_message_size=16 * 1024)
people: dict[str, wsev.Connection[Visitor]] = {}  # by name in lower case: Ada and ada are the same
history: deque[dict[str, object]] = deque(maxlen=50)


@server.on_connect
def connected(conn: wsev.Connection[Visitor]) -> None:
    conn.state = Visitor()


@server.on_message
def received(conn: wsev.Connection[Visitor], message: str | bytes) -> None:
    if not conn.state.spend():
        return refuse(conn, "slow_down", "That was a little fast. Wait a moment.")
    try:
        asked = json.loads(message)
    except (ValueError, RecursionError):  # no JSON, or [[[[[[ without end
        asked = None
    match asked:
        case {"type": "join", "name": str(name), "key": str(key)} if not conn.state.name:
            join(conn, name, key)
        case {"type": "say", "id": str(id), "text": str(text)} if conn.state.name:
            say(conn, id, text)
        case {"type": "ping"}:  # scripts can neither send the protocol's own pings nor see them
            conn.send(encode("pong"))
        case _:
            refuse(conn, "bad_request", "This is nothing that the room understands.")


@server.on_disconnect
def disconnected(conn: wsev.Connection[Visitor], error: Exception | None) -> None:
    name = conn.state.name
    if name and people.get(name.casefold()) is conn:  # it may have come back on another connection
        del people[name.casefold()]
        server.publish(ROOM, encode("left", name=name))


def join(conn: wsev.Connection[Visitor], name: str, key: str) -> None:
    # Without characters that nobody sees, and in one spelling of each, a name cannot be made to look like another one
    # (but for letters of other scripts that look the same), nor turn the writing around it.
    name = " ".join(normalize("NFKC", seen(normalize("NFKC", name))).split())
    if not 1 <= len(name) <= MAX_NAME:
        return refuse(conn, "bad_name", f"A name has 1 to {MAX_NAME} characters.")
    if not re.fullmatch("[0-9a-f]{32}", key):
        return refuse(conn, "bad_request", "A key has 32 hexadecimal digits.")
    before = people.get(name.casefold())
    if before and not hmac.compare_digest(before.state.key, key):
        return refuse(conn, "name_taken", f"{name} is here already. Take another name.")
    if before:  # the same page again, perhaps before we know that its old connection is dead
        name = before.state.name
        before.close(4000, "joined again elsewhere")
    else:
        server.publish(ROOM, encode("joined", name=name))
    conn.state.name, conn.state.key = name, key
    people[name.casefold()] = conn
    conn.subscribe(ROOM)
    here = [member.state.name for member in people.values()]
    conn.send(encode("welcome", name=name, people=here, history=list(history)))


def seen(text: str) -> str:
    """What of a text can be seen: no control characters, no invisible ones."""
    return BLANKS.sub("", "".join(char for char in text if char.isprintable()))


def say(conn: wsev.Connection[Visitor], id: str, text: str) -> None:
    text = text.strip()
    if not seen(text).strip() or len(text) > MAX_TEXT or len(id) > 64:
        return refuse(conn, "bad_text", f"A message has 1 to {MAX_TEXT} characters.")
    for said in history:
        if said["id"] == id and said["name"] == conn.state.name:
            conn.send(encode("message", **said))  # its connection broke before it heard that we had it already
            return
    history.append({"id": id, "name": conn.state.name, "text": text, "at": time.time()})
    server.publish(ROOM, encode("message", **history[-1]))  # to the sender too, who so learns that it has arrived


def refuse(conn: wsev.Connection[Visitor], code: str, text: str) -> None:
    conn.send(encode("error", code=code, text=text))


def encode(type: str, /, **fields: object) -> str:
    return json.dumps({"type": type, **fields})


PAGE = Path(__file__).with_name("chat.html").read_text("utf-8")


def hash_of(tag: str) -> str:
    """Name the page's one ``<script>`` or ``<style>`` as Content-Security-Policy does; no other one may run."""
    (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {hash_of('script')}; style-src {hash_of('style')}; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


@server.on_request
def requested(request: wsev.Request) -> wsev.Response:
    return wsev.Response(200, PAGE, HEADERS) if request.path == "/" else wsev.Response(404, "The room is at /\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A chat room in the browser.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets the whole network in")
    args = parser.parse_args()
    print(f"The chat room: http://{args.host}:{args.port}/ (Ctrl-C ends it)", flush=True)
    server.run(args.port, host=args.host)
