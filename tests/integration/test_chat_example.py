"""The chat room's protocol: what examples/chat.py says to pages, and to clients that are none.

The page itself is tested in tests/browser. Each test has a room of its own: the program's module is loaded anew.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import importlib.util
import json
import re
import sys
from types import ModuleType

import pytest
from websockets.exceptions import ConnectionClosed

from tests.conftest import Connect, Raw, Serve
from tests.guest import KEY, OTHER_KEY, Guest
from tests.peer import TEXT, Head
from tests.program import EXAMPLES


@pytest.fixture
async def chat(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The running program: its `server`, its `people`, its `history`."""
    spec = importlib.util.spec_from_file_location("chat_example", EXAMPLES / "chat.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    await serve(module.server)
    return module


async def visit(connect: Connect, chat: ModuleType) -> Guest:
    return Guest(await connect(chat.server))


# -------------------------------------------------------------------------------------------------------- among friends


async def test_first_guest_is_welcomed_to_an_empty_room(chat: ModuleType, connect: Connect) -> None:
    ada = await visit(connect, chat)
    assert await ada.join("Ada") == {"type": "welcome", "name": "Ada", "people": ["Ada"], "history": []}


async def test_joining_is_told_to_the_others_only(chat: ModuleType, connect: Connect) -> None:
    ada, grace = await visit(connect, chat), await visit(connect, chat)
    await ada.join("Ada")
    assert (await grace.join("Grace"))["people"] == ["Ada", "Grace"]
    assert await ada.hear("joined") == {"type": "joined", "name": "Grace"}
    await grace.hear_nothing()


async def test_leaving_is_told_and_frees_the_name(chat: ModuleType, connect: Connect) -> None:
    ada, grace = await visit(connect, chat), await visit(connect, chat)
    await ada.join("Ada")
    await grace.join("Grace")
    await grace.client.close()
    await ada.hear("joined")
    assert await ada.hear("left") == {"type": "left", "name": "Grace"}
    assert (await (await visit(connect, chat)).join("Grace", OTHER_KEY))["people"] == ["Ada", "Grace"]


async def test_message_reaches_the_others_and_its_sender(chat: ModuleType, connect: Connect) -> None:
    ada, grace = await visit(connect, chat), await visit(connect, chat)
    await ada.join("Ada")
    await grace.join("Grace")
    said = await grace.say("  <b>Good</b> morning\nto you ✨  ", id="abc")
    assert said | {"at": 0} == {
        "type": "message",
        "id": "abc",
        "name": "Grace",
        "text": "<b>Good</b> morning\nto you ✨",
        "at": 0,
    }
    await ada.hear("joined")
    assert await ada.hear("message") == said


async def test_last_fifty_messages_wait_for_who_joins(chat: ModuleType, connect: Connect) -> None:
    for author in range(8):  # each within what one connection may say at once
        guest = await visit(connect, chat)
        await guest.join(f"Author {author}")
        for number in range(7):
            await guest.say(f"{author}.{number}", id=str(number))
        await guest.client.close()
    late = await visit(connect, chat)
    history = (await late.join("Late"))["history"]
    assert [said["text"] for said in history] == [f"{n // 7}.{n % 7}" for n in range(6, 56)]


# ---------------------------------------------------------------------------------------------------------- coming back


async def test_same_key_takes_the_name_over_without_notice(chat: ModuleType, connect: Connect) -> None:
    ada, before, after = [await visit(connect, chat) for _ in range(3)]
    await ada.join("Ada", OTHER_KEY)
    await before.join("Grace")
    assert (await after.join("grace"))["name"] == "Grace"
    with pytest.raises(ConnectionClosed) as closed:
        await before.client.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4000
    await ada.hear("joined")
    await ada.hear_nothing()
    assert list(chat.people) == ["ada", "grace"]


async def test_connection_replaced_and_lost_late_changes_nothing(chat: ModuleType, connect: Connect, raw: Raw) -> None:
    ada, after = await visit(connect, chat), await visit(connect, chat)
    await ada.join("Ada", OTHER_KEY)
    before = await raw(chat.server)  # it never answers the Close
    await before.upgrade()
    await before.send_frame(TEXT, json.dumps({"type": "join", "name": "Grace", "key": KEY}).encode())
    await ada.hear("joined")
    await after.join("Grace")
    await after.client.close()
    await ada.hear("left")
    before.reset()
    await ada.hear_nothing()
    assert list(chat.people) == ["ada"]


async def test_message_sent_again_is_said_once(chat: ModuleType, connect: Connect) -> None:
    ada, grace = await visit(connect, chat), await visit(connect, chat)
    await ada.join("Ada")
    await grace.join("Grace", OTHER_KEY)
    said = await grace.say("Did this arrive?", id="abc")
    assert await grace.say("Did this arrive?", id="abc") == said
    await ada.hear("joined")
    await ada.hear("message")
    assert await ada.say("Yes, and this id is mine.", id="abc") != said


# -------------------------------------------------------------------------------------------------------- other workers

# With real ones: tests/processes/test_chat_workers.py. Here the test speaks as one, on the topic that they listen to.


def tell_as_another_worker(chat: ModuleType, type: str, **fields: object) -> None:
    chat.server.publish(chat.BACKSTAGE, json.dumps({"type": type, "from": "another", **fields}))


async def test_message_and_a_history_that_has_it_are_heard_once(chat: ModuleType, connect: Connect) -> None:
    ada = await visit(connect, chat)
    await ada.join("Ada")
    first, second = [{"id": str(at), "name": "Grace", "text": "Good morning", "at": at} for at in (1.0, 2.0)]
    history = {"to": chat.server.state, "messages": [first, second], "others": {}}
    tell_as_another_worker(chat, "message", message=first)
    tell_as_another_worker(chat, "history", **history)
    tell_as_another_worker(chat, "message", message=second)
    tell_as_another_worker(chat, "history", **history)
    assert await ada.hear("message") == {"type": "message", **first}
    assert await ada.hear("message") == {"type": "message", **second}
    await ada.hear_nothing()
    assert list(chat.history) == [first, second]


async def test_history_older_than_what_is_remembered_is_not_heard_again(chat: ModuleType, connect: Connect) -> None:
    ada = await visit(connect, chat)
    await ada.join("Ada")
    said = [{"id": str(at), "name": "Grace", "text": "Good morning", "at": at} for at in range(51)]
    for message in said:
        tell_as_another_worker(chat, "message", message=message)
    tell_as_another_worker(chat, "history", to=chat.server.state, messages=said[:50], others={})
    for message in said:
        assert await ada.hear("message") == {"type": "message", **message}
    await ada.hear_nothing()
    assert list(chat.history) == said[1:]


# ---------------------------------------------------------------------------------------------------------- rude guests


@pytest.mark.parametrize(
    "name",
    ["Ada", "ADA", "  ada ", "A\u200bda", "\u202eAda", "Ａｄａ", "Ada\ufe0f", "A\u034fda", "Ada\u3164"],
    ids=["same", "case", "spaces", "zero-width", "direction", "full-width", "variation", "joiner", "filler"],
)
async def test_name_of_somebody_here_is_refused(chat: ModuleType, connect: Connect, name: str) -> None:
    ada, other = await visit(connect, chat), await visit(connect, chat)
    await ada.join("Ada")
    await other.send(type="join", name=name, key=OTHER_KEY)
    await other.hear_error("name_taken")
    await other.join("Grace", OTHER_KEY)


async def test_name_spelled_from_parts_is_the_same_name(chat: ModuleType, connect: Connect) -> None:
    zoe, other = await visit(connect, chat), await visit(connect, chat)
    await zoe.join("Zoë")
    await other.send(type="join", name="Zoe\u034f\u0308", key=OTHER_KEY)
    await other.hear_error("name_taken")


@pytest.mark.parametrize(
    "name",
    ["", " \n ", "\u200b\u202e\x00", "\u3164 \u2800", "\ufe0f", "x" * 25, "\ud800"],
    ids=["empty", "blank", "invisible", "filler", "variation", "long", "surrogate"],
)
async def test_name_that_is_none_is_refused(chat: ModuleType, connect: Connect, name: str) -> None:
    guest = await visit(connect, chat)
    await guest.send(type="join", name=name, key=KEY)
    await guest.hear_error("bad_name")


@pytest.mark.parametrize(
    "message",
    [
        "",
        "hello",
        "null",
        "17",
        "[]",
        "{}",
        "[" * 10_000,
        "1" * 10_000,
        '{"type": ["join"]}',
        '{"type": "join", "name": "Ada"}',
        json.dumps({"type": "join", "name": 5, "key": KEY}),
        '{"type": "join", "name": "Ada", "key": "short"}',
        '{"type": "join", "name": "Ada", "key": "\\ud800"}',
        '{"type": "say", "id": "1", "text": "not in the room yet"}',
        '{"type": "welcome", "name": "Ada"}',
        b"\xff\xfe\x00",
        b"\x00" * 100,
    ],
    ids=lambda message: repr(message[:40]),
)
async def test_nonsense_is_answered_and_goes_no_further(
    chat: ModuleType, connect: Connect, message: str | bytes
) -> None:
    guest = await visit(connect, chat)
    await guest.client.send(message)
    await guest.hear_error("bad_request")
    await guest.join("Ada")


async def test_second_join_is_refused(chat: ModuleType, connect: Connect) -> None:
    guest = await visit(connect, chat)
    await guest.join("Ada")
    await guest.send(type="join", name="Grace", key=KEY)
    await guest.hear_error("bad_request")
    assert list(chat.people) == ["ada"]


@pytest.mark.parametrize(
    ("id", "text"),
    [("1", ""), ("1", " \n\t"), ("1", "\u200b \u3164\n\u202e"), ("1", "x" * 2001), ("1" * 65, "x")],
    ids=["empty", "blank", "invisible", "long", "id"],
)
async def test_text_out_of_bounds_is_not_said(chat: ModuleType, connect: Connect, id: str, text: str) -> None:
    guest = await visit(connect, chat)
    await guest.join("Ada")
    await guest.send(type="say", id=id, text=text)
    await guest.hear_error("bad_text")
    assert not chat.history


async def test_lone_surrogate_is_passed_on_as_it_came(chat: ModuleType, connect: Connect) -> None:
    guest = await visit(connect, chat)
    await guest.join("Ada")
    assert (await guest.say("half an emoji: \ud83d"))["text"] == "half an emoji: \ud83d"


async def test_flood_is_told_to_slow_down_and_others_are_spared(chat: ModuleType, connect: Connect) -> None:
    flooder, ada = await visit(connect, chat), await visit(connect, chat)
    await flooder.join("Flooder", OTHER_KEY)
    await ada.join("Ada")
    for number in range(500):
        await flooder.send(type="say", id=str(number), text="buy this")
    answers = [json.loads(await flooder.client.recv()) for _ in range(501)]  # Ada's coming is one of them
    refused = sum(answer.get("code") == "slow_down" for answer in answers)
    assert refused >= 400
    for _ in range(500 - refused):
        await ada.hear("message")
    await ada.hear_nothing()


async def test_huge_message_ends_its_connection_only(chat: ModuleType, connect: Connect) -> None:
    rude, ada = await visit(connect, chat), await visit(connect, chat)
    await ada.join("Ada")
    with contextlib.suppress(ConnectionClosed):
        await rude.send(type="say", id="1", text="x" * 20_000)
    await rude.client.wait_closed()
    assert rude.client.close_code == 1009
    await ada.hear_nothing()


async def test_hundred_guests_gone_at_once_leave_the_room_empty(chat: ModuleType, connect: Connect, raw: Raw) -> None:
    ada = await visit(connect, chat)
    await ada.join("Ada")
    rude = [await raw(chat.server) for _ in range(100)]
    for number, peer in enumerate(rude):
        await peer.upgrade()
        await peer.send_frame(TEXT, json.dumps({"type": "join", "name": f"Guest {number}", "key": KEY}).encode())
    for _ in rude:
        await ada.hear("joined")
    for peer in rude:
        peer.reset()
    for _ in rude:
        await ada.hear("left")
    assert list(chat.people) == ["ada"]


# ------------------------------------------------------------------------------------------------------------- the page


async def get(raw: Raw, chat: ModuleType, target: str, method: str = "GET") -> tuple[Head, bytes]:
    peer = await raw(chat.server)
    await peer.send(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = await peer.read_head()
    body = b"" if method == "HEAD" else await peer.reader.readexactly(int(head["content-length"]))
    await peer.read_eof()
    return head, body


async def test_page_allows_its_own_script_and_style_only(chat: ModuleType, raw: Raw) -> None:
    head, body = await get(raw, chat, "/")
    assert head.status == 200
    assert head["content-type"] == "text/html; charset=utf-8"
    assert head["x-content-type-options"] == "nosniff"
    policy = dict(directive.strip().split(" ", 1) for directive in head["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    for tag in "script", "style":
        (content,) = re.findall(rb"<%s>(.*?)</%s>" % (tag.encode(), tag.encode()), body, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"


async def test_page_asks_for_nothing_from_elsewhere(chat: ModuleType, raw: Raw) -> None:
    _, body = await get(raw, chat, "/")
    page = body.decode().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|src=|@import|url\(", page)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", page)


async def test_head_is_answered_without_the_page(chat: ModuleType, raw: Raw) -> None:
    head, _ = await get(raw, chat, "/", "HEAD")
    assert head.status == 200


async def test_other_paths_are_not_found(chat: ModuleType, raw: Raw) -> None:
    head, _ = await get(raw, chat, "/favicon.ico")
    assert head.status == 404


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_page_may_connect_under_either_name(chat: ModuleType, raw: Raw, host: str) -> None:
    peer = await raw(chat.server)
    authority = f"{host}:{chat.server.port}"
    await peer.upgrade(headers={"Host": authority, "Origin": f"http://{authority}"})


async def test_page_of_another_site_may_not_connect(chat: ModuleType, raw: Raw) -> None:
    peer = await raw(chat.server)
    authority = f"localhost:{chat.server.port}"
    assert (await peer.request(headers={"Host": authority, "Origin": "http://evil.example"})).status == 403


async def test_room_can_be_stopped_with_guests_in_it(chat: ModuleType, connect: Connect) -> None:
    guests = [await visit(connect, chat) for _ in range(3)]
    for number, guest in enumerate(guests):
        await guest.join(f"Guest {number}")
    await chat.server.stop()
    await asyncio.gather(*(guest.client.wait_closed() for guest in guests))
    assert {guest.client.close_code for guest in guests} == {1001}
    assert not chat.people
