"""The chat room as people see it: examples/chat.py in a process of its own, its page in real Chromium.

What the program answers to clients that are no browser is tests/integration/test_chat_example.py.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.async_api", reason="needs playwright: pip install playwright")
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect  # noqa: E402  # after the skip

from tests.program import Program  # noqa: E402  # as above

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(60),
    # The loop of the test only drives the browser; the program under test chooses its own.
    pytest.mark.asyncio(loop_factories=["asyncio"]),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium, or CHROMIUM=/path/to/it"),
]

QUIET = [
    *("--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
PHONE = {"viewport": {"width": 360, "height": 640}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}


TWO_WORKERS = str(Path(__file__).parents[1] / "chatroom.py")


@pytest.fixture
async def program(request: pytest.FixtureRequest) -> AsyncIterator[Program]:
    program = Program(getattr(request, "param", "chat.py"))
    await program.start()
    yield program
    await program.stop()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    sandbox = [] if os.geteuid() else ["--no-sandbox"]  # Chromium has none for root
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=[*sandbox, *QUIET])
        yield browser
        await browser.close()


Open = Callable[..., Awaitable[Page]]


@pytest.fixture
async def open_page(browser: Browser, program: Program) -> AsyncIterator[Open]:
    """`page = await open_page()`: the room's page in a browser profile of its own.

    An exception, a dialog or a complaint of the page fails the test; that the server is away for a while is none.
    """
    complaints: list[str] = []

    def heed(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and "WebSocket connection to" not in message.text:
            complaints.append(message.text)

    async def open_page(**context: Any) -> Page:
        page = await (await browser.new_context(**context)).new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
        page.on("console", heed)
        await page.goto(f"http://localhost:{program.port}/")
        return page

    yield open_page
    assert not complaints


async def enter(page: Page, name: str) -> None:
    await page.get_by_label("Your name").fill(name)
    await page.get_by_role("button", name="Join the room").click()
    await expect(page.get_by_role("status")).to_have_text("Connected")


async def watch_workers(page: Page) -> list[int]:
    """The process numbers of the workers that the page will have been with, the last one last."""
    workers: list[int] = []
    session = await page.context.new_cdp_session(page)
    session.on(
        "Network.webSocketHandshakeResponseReceived",
        lambda event: workers.append(int(event["response"]["headers"]["Worker"])),
    )
    await session.send("Network.enable")
    return workers


async def say(page: Page, text: str) -> None:
    await page.get_by_label("Message", exact=True).fill(text)
    await page.keyboard.press("Enter")


async def hears(page: Page, text: str) -> None:
    """A message of exactly this text stands last in the page's log."""
    await expect(page.locator("#log .message .body").last).to_have_text(text)


async def test_two_people_see_each_other_and_talk(open_page: Open) -> None:
    ada, grace = await open_page(), await open_page()
    await enter(ada, "Ada")
    await enter(grace, "Grace")
    await expect(ada.locator("#log .notice").last).to_have_text("Grace joined")
    for page in ada, grace:
        await expect(page.locator("#names bdi")).to_have_count(2)
    await say(ada, "Good morning, Grace")
    await hears(grace, "Good morning, Grace")
    await say(grace, "Good morning!")
    await hears(ada, "Good morning!")
    await expect(ada.locator("#log .message.mine")).to_have_count(1)
    await expect(ada.locator("#outbox .message")).to_have_count(0)


async def test_who_comes_later_reads_what_was_said(open_page: Open) -> None:
    ada = await open_page()
    await enter(ada, "Ada")
    for text in "first", "second":
        await say(ada, text)
        await hears(ada, text)
    late = await open_page()
    await enter(late, "Late")
    await expect(late.locator("#log .message .body")).to_have_text(["first", "second"])


async def test_leaving_is_seen(open_page: Open) -> None:
    ada, grace = await open_page(), await open_page()
    await enter(ada, "Ada")
    await enter(grace, "Grace")
    await grace.close()
    await expect(ada.locator("#log .notice").last).to_have_text("Grace left")
    await expect(ada.locator("#names bdi")).to_have_text(["Ada"])


async def test_taken_name_is_told_at_the_door(open_page: Open) -> None:
    ada, other = await open_page(), await open_page()
    await enter(ada, "Ada")
    await other.get_by_label("Your name").fill("ada")
    await other.keyboard.press("Enter")
    await expect(other.get_by_role("alert")).to_contain_text("is here already")
    await enter(other, "Another Ada")
    await expect(other.get_by_role("dialog")).to_be_hidden()


async def test_markup_is_shown_as_text_and_runs_nowhere(open_page: Open) -> None:
    name, text = "<b onclick=hit()>x</b>", "<script>window.hit=1</script><img src=x onerror='window.hit=1'>"
    ada, mallory = await open_page(), await open_page()
    await enter(ada, "Ada")
    await enter(mallory, name)
    await say(mallory, text)
    late = await open_page()
    await enter(late, "Late")
    for page in ada, mallory, late:
        await hears(page, text)
        await expect(page.locator("#names bdi", has_text=name)).to_have_count(1)
        await expect(page.locator("#log img, #log script, #log b, #names b")).to_have_count(0)
        assert await page.evaluate("window.hit") is None


async def test_policy_of_the_page_refuses_markup_even_from_its_own_script(browser: Browser, program: Program) -> None:
    page = await browser.new_page()
    await page.goto(f"http://localhost:{program.port}/")
    attempt = "() => { try { document.body.innerHTML = '<i>x</i>'; } catch (error) { return error.name; } }"
    assert await page.evaluate(attempt) == "TypeError"
    await expect(page.locator("i")).to_have_count(0)


async def test_server_comes_back_and_the_pages_with_it(open_page: Open, program: Program) -> None:
    ada, grace = await open_page(), await open_page()
    await enter(ada, "Ada")
    await enter(grace, "Grace")
    await program.stop()
    for page in ada, grace:
        await expect(page.get_by_text("Connection lost")).to_be_visible()
    await say(ada, "Written while nobody was there")
    await expect(ada.locator("#outbox .message")).to_contain_text("sending…")
    await ada.get_by_label("Message", exact=True).fill("a draft")
    await program.start()
    for page in ada, grace:
        await expect(page.get_by_role("status")).to_have_text("Connected", timeout=30_000)
        await expect(page.get_by_text("Connection lost")).to_be_hidden()
        await hears(page, "Written while nobody was there")
        await expect(page.locator("#names bdi")).to_have_count(2)
    await expect(ada.locator("#outbox .message")).to_have_count(0)
    await expect(ada.get_by_label("Message", exact=True)).to_have_value("a draft")
    await say(grace, "We are back")
    await hears(ada, "We are back")


@pytest.mark.parametrize("program", [TWO_WORKERS], indirect=True, ids=["two workers"])
async def test_worker_is_killed_and_only_its_own_page_notices(open_page: Open) -> None:
    ada, grace = await open_page(), await open_page()
    workers_of_ada, workers_of_grace = await watch_workers(ada), await watch_workers(grace)
    await enter(grace, "Grace")
    await enter(ada, "Ada")
    for _ in range(50):  # the kernel tosses a coin for each connection
        if workers_of_ada[-1] != workers_of_grace[-1]:
            break
        await ada.reload()
        await expect(ada.get_by_role("status")).to_have_text("Connected")
    await expect(ada.locator("#names bdi")).to_have_count(2)
    await say(ada, "Good morning, Grace")
    await hears(grace, "Good morning, Grace")
    noticed = await ada.locator("#log .notice").all_inner_texts()
    assert workers_of_ada[-1] != workers_of_grace[-1]
    os.kill(workers_of_grace[-1], signal.SIGKILL)
    await expect(grace.locator("#log .notice").last).to_have_text("You are back.")
    await say(grace, "Here I am again")
    for page in ada, grace:
        await hears(page, "Here I am again")
        await expect(page.locator("#log .message .body")).to_have_text(["Good morning, Grace", "Here I am again"])
        await expect(page.locator("#names bdi")).to_have_count(2)
    assert await ada.locator("#log .notice").all_inner_texts() == noticed
    await grace.reload()  # what she sees now is what her worker remembers
    await expect(grace.locator("#log .message .body")).to_have_text(["Good morning, Grace", "Here I am again"])


@pytest.mark.slow
async def test_connection_that_died_unnoticed_is_left_and_nothing_said_twice(open_page: Open, program: Program) -> None:
    ada, grace = await open_page(), await open_page()
    await enter(ada, "Ada")
    await enter(grace, "Grace")
    program.freeze()
    await say(ada, "Is anybody there?")
    await expect(ada.get_by_text("Connection lost")).to_be_visible(timeout=20_000)
    program.thaw()
    await expect(ada.get_by_role("status")).to_have_text("Connected", timeout=30_000)
    await expect(ada.locator("#outbox .message")).to_have_count(0)
    await say(ada, "Good.")
    for page in ada, grace:
        await expect(page.locator("#log .message .body")).to_have_text(["Is anybody there?", "Good."])
        await expect(page.locator("#names bdi")).to_have_count(2)


async def test_second_tab_of_the_same_person_takes_over(open_page: Open) -> None:
    first = await open_page()
    await enter(first, "Ada")
    async with first.expect_popup() as opened:
        await first.evaluate("void open(location.href)")  # as "Duplicate tab" does, it copies what the tab remembers
    second = await opened.value
    await expect(second.get_by_role("status")).to_have_text("Connected")
    await expect(first.get_by_role("alert")).to_contain_text("another tab")
    await enter(first, "Ada")
    await expect(second.get_by_role("alert")).to_contain_text("another tab")
    await expect(first.locator("#names bdi")).to_have_text(["Ada"])


async def test_reload_comes_back_under_the_same_name(open_page: Open) -> None:
    page = await open_page()
    await enter(page, "Ada")
    await page.reload()
    await expect(page.get_by_role("status")).to_have_text("Connected")
    await expect(page.locator("#names bdi")).to_have_text(["Ada"])


async def test_fast_writer_loses_nothing(open_page: Open) -> None:
    ada, grace = await open_page(), await open_page()
    await enter(ada, "Ada")
    await enter(grace, "Grace")
    texts = [f"message {number}" for number in range(12)]  # more than the server takes at once
    for text in texts:
        await say(ada, text)
    await expect(grace.locator("#log .message .body")).to_have_text(texts, timeout=20_000)


async def test_phone_has_no_sideways_scroll_and_the_composer_in_view(open_page: Open) -> None:
    page = await open_page(**PHONE)
    await enter(page, "A name of 24 letters wow")
    for text in "x" * 500, "many words " * 100:
        await say(page, text)
        await hears(page, text.strip())
    width = await page.evaluate(
        "Math.max(...[document.documentElement, ...document.querySelectorAll('*')]"
        ".map((each) => each.getBoundingClientRect().right))"
    )
    assert width <= 360
    for control in page.get_by_label("Message", exact=True), page.get_by_role("button", name="Send"):
        await expect(control).to_be_in_viewport(ratio=1)
    await page.get_by_role("button", name=re.compile("people here")).click()
    await expect(page.locator("#names bdi")).to_be_in_viewport()


async def test_keyboard_alone_is_enough(open_page: Open) -> None:
    page = await open_page()
    await expect(page.get_by_label("Your name")).to_be_focused()
    await page.keyboard.type("Ada")
    await page.keyboard.press("Enter")
    await expect(page.get_by_label("Message", exact=True)).to_be_focused()
    await page.keyboard.type("two")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("lines")
    await page.keyboard.press("Enter")
    await expect(page.locator("#log .message .body")).to_have_text("two\nlines", use_inner_text=True)
