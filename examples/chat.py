"""A chat room: the page and its WebSocket from one program, on one port, in as many processes as there are CPUs.

    python examples/chat.py [--port 8000] [--host 127.0.0.1] [--workers auto]

Page and program exchange JSON objects, told apart by "type". A page says "join" (name, key), then "say" (id, text).
It hears "welcome" (name, people, history) or "error" (code, text); then, from everybody in the room, "message",
"joined" and "left". A client may send what it likes: what is none of these is answered, and nobody else notices.

Each worker process has variables of its own. So the workers tell each other, on a topic that all of them listen to,
what was said ("message"), who is with them ("people": when that changes, and every two seconds), and to one that is new
what was said before and who was heard of ("history"). Each tells its own pages. A worker that dies or is replaced says
nothing, and is gone when it was silent for long; its people with it, unless they are back elsewhere.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

import wsev

BACKSTAGE = "chat"  # the topic that the workers listen to; no page is subscribed to it
BEAT, SILENCE = 2.0, 7.0  # seconds: how often a worker is heard of, and when it is given up
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
    proof: str = ""  # the hash of the page's own secret: with it the name can be had back, on another connection
    since: float = 0.0  # when it joined
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


@dataclass
class Person:
    """Somebody who is here, as the workers tell each other."""

    name: str
    proof: str
    since: float


@dataclass
class Elsewhere:
    """Another worker, as it has told of itself."""

    people: dict[str, Person]
    heard_at: float  # time.monotonic(), which is one clock for all processes of a machine
    is_hearsay: bool = False  # told by a third one; it may be dead


Conn = wsev.Connection[Visitor]

# Of this worker; with several, each has its own. People are by name in lower case: Ada and ada are the same.
people: dict[str, Conn] = {}
others: dict[str, Elsewhere] = {}  # by the token of the worker
told: dict[str, str] = {}  # whom the pages of this worker know to be here
history: deque[dict[str, Any]] = deque(maxlen=50)


@asynccontextmanager
async def in_touch(server: wsev.Server[Visitor]) -> AsyncIterator[str]:
    """Be one of the workers; what it yields, this one's token, is ``server.state``."""
    token = secrets.token_hex(8)  # not worker_id, which a successor has too
    met = asyncio.Event()

    def heard(topic: str, text: str | bytes) -> None:
        event = json.loads(text)
        if event["from"] != token:
            heard_backstage(token, event)
        if event.get("to") == token:
            met.set()

    async def beat() -> None:
        pause = 0.05
        while True:
            tell_people(token)
            pause = BEAT if met.is_set() else min(BEAT, 2 * pause)
            await asyncio.sleep(pause)
            for silent in [key for key, other in others.items() if time.monotonic() - other.heard_at > SILENCE]:
                del others[silent]
            tell_changes()

    server.subscribe(BACKSTAGE, heard)
    beating = asyncio.create_task(beat())
    if server.total_stats().workers > 1:
        with suppress(TimeoutError):
            async with asyncio.timeout(1):  # a successor knows what was said before it opens its door
                await met.wait()
    yield token
    beating.cancel()
    server.unsubscribe(BACKSTAGE, heard)
    people.clear()
    others.clear()
    told.clear()
    history.clear()


server: wsev.Server[Visitor] = wsev.Server(max_message_size=16 * 1024, lifespan=in_touch)


# What the workers tell each other.


def tell_workers(type: str, token: str, **fields: object) -> None:
    server.publish(BACKSTAGE, json.dumps({"type": type, "from": token, **fields}))


def tell_people(token: str) -> None:
    tell_workers("people", token, people={key: asdict(person_of(conn)) for key, conn in people.items()})


def person_of(conn: Conn) -> Person:
    return Person(conn.state.name, conn.state.proof, conn.state.since)


def heard_backstage(token: str, event: dict[str, Any]) -> None:
    match event:
        case {"type": "message", "message": message}:
            remember(message)
        case {"type": "people", "from": other, "people": told_people}:
            if other not in others or others[other].is_hearsay:
                tell_people(token)
                known = {key: asdict(each) for key, each in others.items()}
                tell_workers("history", token, to=other, messages=list(history), others=known)
            others[other] = Elsewhere(persons(told_people), time.monotonic())
            have_moved(others[other].people)
            shared = people.keys() & others[other].people.keys()
            for key in shared:
                settle(key, others[other].people[key])
            if shared - people.keys():
                tell_people(token)
            tell_changes()
        case {"type": "history", "to": to, "messages": messages, "others": known} if to == token:
            for key, each in known.items():
                if key != token:
                    others.setdefault(key, Elsewhere(persons(each["people"]), each["heard_at"], is_hearsay=True))
            tell_changes()
            catch_up(messages)


def persons(told_people: dict[str, Any]) -> dict[str, Person]:
    return {key: Person(**person) for key, person in told_people.items()}


def settle(key: str, there: Person) -> None:
    """One name with two workers: the same page has moved, or two took it at once, and the first has it."""
    here = person_of(people[key])
    if here.proof == there.proof and here.since < there.since:
        people.pop(key).close(4000, "joined again elsewhere")
    elif here.proof != there.proof and (here.since, here.proof) > (there.since, there.proof):
        people.pop(key).close(1013, "the name was taken at the same moment")


def have_moved(here: dict[str, Person]) -> None:
    """Who is with one worker is not any more with another that told of them before, and may be dead."""
    for other in others.values():
        for key in other.people.keys() & here.keys():
            if other.people[key].proof == here[key].proof and other.people[key].since < here[key].since:
                del other.people[key]


def whoever_is(key: str) -> Person | None:
    if key in people:
        return person_of(people[key])
    return next((other.people[key] for other in others.values() if key in other.people), None)


# What a worker tells its pages.


def tell_pages(type: str, /, *, but: Conn | None = None, **fields: object) -> None:
    wsev.broadcast([conn for conn in people.values() if conn is not but], encode(type, **fields))


def tell_changes(*, but: Conn | None = None) -> None:
    """Who has come and who has gone, in any worker, since the last time."""
    here = {key: person.name for other in others.values() for key, person in other.people.items()}
    here |= {key: conn.state.name for key, conn in people.items()}
    gone, come = [told[key] for key in told.keys() - here.keys()], [here[key] for key in here.keys() - told.keys()]
    told.clear()
    told.update(here)
    for name in gone:
        tell_pages("left", name=name)
    for name in come:
        tell_pages("joined", name=name, but=but)


def remember(message: dict[str, Any]) -> None:
    if not any(is_same(message, said) for said in history):  # else it came with another worker's history
        history.append(message)
        tell_pages("message", **message)  # to the sender too, who so learns that it has arrived


def catch_up(messages: list[dict[str, Any]]) -> None:
    """Take over what another worker remembers and this one has missed."""
    missed = [message for message in messages if not any(is_same(message, said) for said in history)]
    merged = sorted([*history, *missed], key=lambda said: said["at"])
    history.clear()
    history.extend(merged)
    for message in missed:
        if message in history:
            tell_pages("message", **message)


def is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["id"], one["name"]) == (other["id"], other["name"])


# The pages.


@server.on_connect
def connected(conn: Conn) -> None:
    conn.state = Visitor()


@server.on_message
def received(conn: Conn, message: str | bytes) -> None:
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
def disconnected(conn: Conn, error: Exception | None) -> None:
    key = conn.state.name.casefold()
    # It may have come back on another connection; and who is with a worker that stops comes back to another one.
    if people.get(key) is conn and server.addresses:
        del people[key]
        tell_people(server.state)
        tell_changes()


def join(conn: Conn, name: str, secret: str) -> None:
    # Without characters that nobody sees, and in one spelling of each, a name cannot be made to look like another one
    # (but for letters of other scripts that look the same), nor turn the writing around it.
    name = " ".join(normalize("NFKC", seen(normalize("NFKC", name))).split())
    if not 1 <= len(name) <= MAX_NAME:
        return refuse(conn, "bad_name", f"A name has 1 to {MAX_NAME} characters.")
    if not re.fullmatch("[0-9a-f]{32}", secret):
        return refuse(conn, "bad_request", "A key has 32 hexadecimal digits.")
    key, proof = name.casefold(), hashlib.sha256(secret.encode()).hexdigest()
    before = whoever_is(key)
    if before and not hmac.compare_digest(before.proof, proof):
        return refuse(conn, "name_taken", f"{name} is here already. Take another name.")
    if key in people:  # the same page again, perhaps before we know that its old connection is dead
        people[key].close(4000, "joined again elsewhere")
    conn.state.name, conn.state.proof, conn.state.since = before.name if before else name, proof, time.time()
    people[key] = conn
    have_moved({key: person_of(conn)})
    tell_people(server.state)
    tell_changes(but=conn)
    conn.send(encode("welcome", name=conn.state.name, people=list(told.values()), history=list(history)))


def seen(text: str) -> str:
    """What of a text can be seen: no control characters, no invisible ones."""
    return BLANKS.sub("", "".join(char for char in text if char.isprintable()))


def say(conn: Conn, id: str, text: str) -> None:
    text = text.strip()
    if not seen(text).strip() or len(text) > MAX_TEXT or len(id) > 64:
        return refuse(conn, "bad_text", f"A message has 1 to {MAX_TEXT} characters.")
    for said in history:
        if said["id"] == id and said["name"] == conn.state.name:
            conn.send(encode("message", **said))  # its connection broke before it heard that we had it already
            return
    message = {"id": id, "name": conn.state.name, "text": text, "at": time.time()}
    remember(message)
    tell_workers("message", server.state, message=message)


def refuse(conn: Conn, code: str, text: str) -> None:
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
    parser.add_argument("--workers", default="auto", type=lambda value: value if value == "auto" else int(value))
    args = parser.parse_args()
    print(f"The chat room: http://{args.host}:{args.port}/ (Ctrl-C ends it)", flush=True)
    server.run(args.port, host=args.host, workers=args.workers)
