"""What several workers have counted, asked of any of them."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from tests.peer import TEXT, Peer
from tests.processes.conftest import Start, Visit, ask, visit_place

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(60),  # several processes start and end in each, on a machine that may be busy
    pytest.mark.asyncio(loop_factories=["asyncio"]),  # this loop is only the clients'
]

COUNTING = """
import json
from dataclasses import asdict

@server.on_message
def said(conn, message):
    if message in ("stats", "total_stats"):
        conn.send(json.dumps(asdict(getattr(server, message)()), default=dict))
    else:
        who(conn, message)
"""


async def stats(peer: Peer, what: str = "total_stats") -> Any:
    await peer.send_frame(TEXT, what.encode())
    return json.loads((await peer.read_frame()).payload)


async def total(*peers: Peer) -> Any:
    """The totals, after each of these workers has told its latest."""
    found: Any = None
    for peer in peers:
        found = await stats(peer)
    return found


async def test_any_worker_knows_what_all_have_counted(start: Start, visit: Visit) -> None:
    run = await (await start(COUNTING)).started()
    peers = [await visit_place(visit, run.port, place) for place in (0, 1)]
    before = await total(*peers, *peers)
    for peer, times in zip(peers, (30, 70), strict=True):
        for _ in range(times):
            await ask(peer)
    for asked in (peers, peers[::-1]):
        after = await total(*asked)
        assert after["messages_in"] >= before["messages_in"] + 100
        assert after["workers"] == 2
        assert after["restarts"] == 0
    mine, his = [await stats(peer, "stats") for peer in peers]
    after = await total(*peers)
    assert after["connections"] == mine["connections"] + his["connections"]
    assert after["handshakes"] == {"101": mine["handshakes"]["101"] + his["handshakes"]["101"]}
    assert after["messages_in"] == mine["messages_in"] + his["messages_in"] + 2
    assert (mine["workers"], mine["restarts"]) == (1, 0)
    await run.stop()


async def test_no_total_goes_back_when_workers_die_or_are_replaced(start: Start, visit: Visit) -> None:
    run = await (await start(COUNTING)).started()
    victim, peer = [await visit_place(visit, run.port, place) for place in (0, 1)]
    for _ in range(50):
        await ask(victim)
    before = await total(victim, peer)
    os.kill(run.workers[0], signal.SIGKILL)
    await run.line("worker 0 .* is ready")
    after = await total(peer)
    assert after["messages_in"] == before["messages_in"] + 1
    assert after["restarts"] == 1
    assert after["workers"] == 2
    # The worker's own connections are gone, and are not counted as open.
    assert after["connections"] == (await stats(peer, "stats"))["connections"]

    run.signal(signal.SIGHUP)
    await run.line("all workers are replaced")
    again = await visit_place(visit, run.port, 0)
    last = await total(again)
    assert last["messages_in"] > after["messages_in"]
    assert last["closes"]["1012"] >= 1
    assert last["restarts"] == 1
    await run.stop()


async def test_with_one_worker_the_totals_are_its_own(start: Start, visit: Visit) -> None:
    run = await start(COUNTING, run="server.run(0)")
    found = await run.line(r"started on ws://127.0.0.1:(\d+)$")
    peer = await visit(int(found[1]))
    assert (await stats(peer))["messages_in"] == 1
    assert (await stats(peer, "stats"))["messages_in"] == 2
    await run.stop()
