"""Each attack's fate, against a server in a process of its own; and that it then serves on, with no descriptor more.

What an attack costs the others, and memory, is shown by `make hostile`: figures that a busy machine would spoil here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.hostile.attacks import ATTACKS, Attack, upgraded
from tests.hostile.subject import Subject
from tests.peer import TEXT, encode_frame

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def subject() -> Iterator[Subject]:
    with Subject() as subject:
        yield subject


@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_the_fate_of(attack: Attack, subject: Subject) -> None:
    before = subject.descriptors()
    assert await attack.run(subject.port) == attack.fate
    client = await upgraded(subject.port)
    async with asyncio.timeout(1):
        await client.send(encode_frame(TEXT, b"still there?"))
        await client.expect_frame(TEXT, b"still there?")
    await client.close()
    async with asyncio.timeout(10):  # some wait for close_timeout
        while subject.descriptors() > before:  # noqa: ASYNC110 - another process's table: nothing tells when it changes
            await asyncio.sleep(0.01)
    assert subject.is_alive()
