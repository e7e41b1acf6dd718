"""SIGHUP: workers are replaced one by one, and no client is refused, cut off or left waiting."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import socket
import ssl as tls
from collections import Counter
from pathlib import Path

import pytest
import trustme

from tests.crowd import Crowd
from tests.peer import CLOSE, Peer, upgrade_request
from tests.processes.conftest import ROOT, Start, Visit, ask, connect, visit_place

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(60),  # several processes start and end in each, on a machine that may be busy
    pytest.mark.asyncio(loop_factories=["asyncio"]),  # this loop is only the clients'
]

WHO = "server.on_message(who)"
ECHO = """
# The crowd shares one CPU, and some of it may take its time to answer a Close.
server = wsev.Server(close_timeout=60, stop_timeout=60)
server.on_message(lambda conn, message: conn.send(message))
"""


@pytest.mark.parametrize(
    ("size", "pause"),
    [
        pytest.param(500, 0.05, id="500 connections"),
        pytest.param(5000, 4.0, id="5000 connections", marks=pytest.mark.timeout(400)),
    ],
)
async def test_under_steady_traffic_nobody_is_refused_and_nobody_hangs(start: Start, size: int, pause: float) -> None:
    run = await (await start(ECHO)).started()
    before = set(run.workers.values())
    crowd = Crowd(run.port, size, pause=pause)
    await crowd.come()
    run.signal(signal.SIGHUP)
    await run.line("all workers are replaced")
    reports = await crowd.leave()
    assert [report.complaints for report in reports if report.complaints] == []
    assert {code for report in reports for code in report.closes} == {1012}
    assert all(report.welcomes == 1 + report.closes[1012] >= 2 for report in reports)
    await run.stop()
    replaced = {
        int(word) for line in run.lines if "and replaces" in line for word in line.split("pid ")[2].split(")")[:1]
    }
    assert replaced == before


async def test_clients_are_told_to_come_again_and_then_meet_the_new_workers(start: Start, visit: Visit) -> None:
    run = await (await start(WHO)).started()
    old = dict(run.workers)
    peers = [await visit_place(visit, run.port, place) for place in (0, 1)]
    run.signal(signal.SIGHUP)
    for peer in peers:
        frame = await peer.read_frame()
        assert (frame.opcode, frame.payload) == (CLOSE, b"\x03\xf4")
        await peer.send_close(1012)
        await peer.read_eof()
    await run.line("all workers are replaced")
    for place in (0, 1):
        assert await ask(await visit_place(visit, run.port, place)) == (place, run.workers[place])
        assert run.workers[place] != old[place]
    await run.stop()


async def test_the_second_worker_serves_until_the_first_is_replaced(start: Start, visit: Visit) -> None:
    run = await (await start(WHO)).started()
    first, second = [await visit_place(visit, run.port, place) for place in (0, 1)]
    run.signal(signal.SIGHUP)
    assert (await first.read_frame()).payload == b"\x03\xf4"
    await run.line("worker 0 .* and replaces")
    old = {place for place, pid in [await ask(second)] if pid == run.workers[1]}
    assert old == {1}
    os.kill(run.process.pid, signal.SIGTERM)
    await first.send_close(1012)
    assert (await second.read_frame()).payload == b"\x03\xe9"
    await second.send_close(1001)
    await run.end()


async def test_a_handshake_that_has_begun_is_finished_by_the_worker_that_leaves(start: Start, visit: Visit) -> None:
    run = await (await start(WHO)).started()
    request = upgrade_request()
    begun: list[Peer] = []
    for _ in range(20):
        begun.append(await connect(run.port))
        await begun[-1].send(request[:-2])
    first, _ = [await visit_place(visit, run.port, place) for place in (0, 1)]  # a fence: who came before was accepted
    run.signal(signal.SIGHUP)
    assert (await first.read_frame()).payload == b"\x03\xf4"  # the worker has been told, and goes
    for peer in begun:
        await peer.send(request[-2:])
    codes: Counter[bytes] = Counter()
    for peer in begun:
        assert (await peer.read_head()).status == 101
    run.signal(signal.SIGTERM)
    for peer in begun:
        frame = await peer.read_frame()
        assert frame.opcode == CLOSE
        codes[frame.payload] += 1
        await peer.close()
    assert set(codes) == {b"\x03\xf4", b"\x03\xe9"}  # those of the first worker, and those of the others
    await run.end()


async def test_a_new_worker_that_cannot_start_leaves_the_old_ones_alone(
    start: Start, visit: Visit, tmp_path: Path
) -> None:
    trouble = tmp_path / "trouble"
    run = await start(
        f"""
        @asynccontextmanager
        async def lifespan(server):
            if os.path.exists({str(trouble)!r}):
                raise LookupError("no database")
            yield

        server = Server(lifespan=lifespan)
        server.on_message(who)
        """
    )
    await run.started()
    old = dict(run.workers)
    peers = [await visit_place(visit, run.port, place) for place in (0, 1)]
    trouble.touch()
    run.signal(signal.SIGHUP)
    await run.line("worker 0 could not start")
    await run.line("LookupError: no database")
    await run.line(r"ERROR .*worker 0 .* ended before it was ready: exit status 3; the old workers go on")
    assert [await ask(peer) for peer in peers] == sorted(old.items())
    trouble.unlink()
    run.signal(signal.SIGHUP)
    await run.line("all workers are replaced")
    assert set(run.workers.values()).isdisjoint(old.values())
    run.signal(signal.SIGTERM)
    assert await run.end() == 0


async def test_without_room_for_a_process_the_old_workers_go_on_and_a_dead_one_is_started_later(
    start: Start, visit: Visit
) -> None:
    run = await (await start(WHO)).started()
    peers = [await visit_place(visit, run.port, place) for place in (0, 1)]
    old = dict(run.workers)
    limits = resource.prlimit(run.process.pid, resource.RLIMIT_NOFILE)
    in_use = max(int(name) for name in os.listdir(f"/proc/{run.process.pid}/fd")) + 1
    resource.prlimit(run.process.pid, resource.RLIMIT_NOFILE, (in_use, limits[1]))
    run.signal(signal.SIGHUP)
    await run.line("ERROR .*worker 0 cannot be replaced: .*Too many open files; the old workers go on")
    assert [await ask(peer) for peer in peers] == sorted(old.items())
    os.kill(run.workers[0], signal.SIGKILL)
    await run.line(r"ERROR .*worker 0 cannot be started: .*Too many open files; again in 0\.5 s")
    assert await ask(peers[1]) == (1, old[1])
    resource.prlimit(run.process.pid, resource.RLIMIT_NOFILE, limits)
    await run.line("worker 0 .* is ready")
    await run.stop()


async def test_sighup_starts_the_worker_of_an_empty_place_at_once(start: Start) -> None:
    run = await (await start("")).started()
    for delay in ("", " in 0.5 s", " in 1 s", " in 2 s"):
        os.kill(run.workers[0], signal.SIGKILL)
        await run.line(f"worker 0 .* ended: SIGKILL; starting another{delay}$")
        if delay != " in 2 s":
            await run.line("worker 0 .* is ready")
    run.signal(signal.SIGHUP)
    said = len(run.lines)
    await run.line("all workers are replaced")
    assert [line for line in run.lines[said:] if re.search(r"worker 0 \(pid \d+\) starts", line)]
    await run.stop()


async def test_a_second_sighup_begins_anew_though_a_new_worker_does_not_get_ready(
    start: Start, visit: Visit, tmp_path: Path
) -> None:
    trouble = tmp_path / "trouble"
    run = await start(
        f"""
        @asynccontextmanager
        async def lifespan(server):
            if os.path.exists({str(trouble)!r}):
                say("waits")
                await asyncio.Event().wait()
            yield

        from wsev.workers import process
        process.KILL_AFTER = 0.2  # instead of ten seconds
        server = Server(lifespan=lifespan)
        """
    )
    await run.started()
    old = dict(run.workers)
    trouble.touch()
    run.signal(signal.SIGHUP)
    await run.line("waits")
    trouble.unlink()
    run.signal(signal.SIGHUP)
    await run.line("does not stop; killing it")
    await run.line("all workers are replaced")
    assert set(run.workers.values()).isdisjoint(old.values())
    run.signal(signal.SIGTERM)
    assert await run.end() == 0


async def test_a_worker_that_dies_while_its_successor_starts_is_not_missed(
    start: Start, visit: Visit, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    trouble = tmp_path / "trouble"
    run = await start(
        f"""
        @asynccontextmanager
        async def lifespan(server):
            if os.path.exists({str(trouble)!r}) and server.worker_id == 0:
                say("waits")
                open({str(gate)!r}).close()
            yield

        server = Server(lifespan=lifespan)
        server.on_message(who)
        """
    )
    await run.started()
    old = run.workers[0]
    trouble.touch()
    run.signal(signal.SIGHUP)
    await run.line("^waits$")
    os.kill(old, signal.SIGKILL)
    found = await run.line(r"worker 0 .* ended: SIGKILL; worker 0 \(pid (\d+)\) takes its place")
    waiting = await asyncio.gather(*(connect(run.port) for _ in range(50)))
    answers = asyncio.gather(*(peer.upgrade() for peer in waiting))
    os.close(os.open(gate, os.O_WRONLY))
    await run.line("all workers are replaced")
    assert run.workers[0] == int(found[1])
    await answers
    for peer in waiting:
        await peer.close()
    await run.stop()


async def test_a_renewed_certificate_is_used_by_the_new_workers(start: Start, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = tls.create_default_context()
    authority.configure_trust(context)
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"

    def issue() -> None:
        certificate = authority.issue_cert("127.0.0.1")
        chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        certificate.private_key_pem.write_to_path(key)

    def serial_number(port: int) -> str:
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped,
        ):
            found = wrapped.getpeercert()
            assert found is not None
            return str(found["serialNumber"])

    issue()
    run = await start("", run=f"server.run(0, workers=2, ssl=({str(chain)!r}, {str(key)!r}))")
    await run.started()
    old = serial_number(run.port)
    issue()
    run.signal(signal.SIGHUP)
    await run.line("all workers are replaced")
    assert serial_number(run.port) != old
    await run.stop()


async def test_the_log_is_what_the_docs_show(start: Start) -> None:
    def facts(lines: list[str]) -> list[str]:
        """What the supervisor says, without its time and its numbers, which tell the two workers apart."""
        found = (re.search(r"(INFO|ERROR) wsev\.worker.*", line) for line in lines)
        return sorted(re.sub(r"\d+", "N", line[0]) for line in found if line)

    page = (ROOT / "docs" / "howto" / "workers.md").read_text()
    shown = page.split("```text\n")[1].split("```")[0].splitlines()
    run = await (await start("")).started()
    os.kill(run.workers[0], signal.SIGKILL)
    await run.line("worker 0 .* is ready")
    run.signal(signal.SIGHUP)
    await run.line("all workers are replaced")
    await run.stop()
    assert facts(run.lines) == facts(shown)
