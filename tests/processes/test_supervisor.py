"""run(workers=N): who serves, what happens when one dies, and how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peer import CLOSE, TEXT, Peer
from tests.processes.conftest import Start, Visit, ask, connect, visit_place

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(60),  # several processes start and end in each, on a machine that may be busy
    pytest.mark.asyncio(loop_factories=["asyncio"]),  # this loop is only the clients'
]

WHO = "server.on_message(who)"


@pytest.fixture
def temporary() -> Iterator[str]:
    """A directory for temporary files, with a path as short as usual."""
    with tempfile.TemporaryDirectory() as directory:
        yield directory


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# Who serves.


async def test_several_workers_serve_on_one_port(start: Start, visit: Visit) -> None:
    run = await (await start(WHO)).started()
    met = {await ask(await visit_place(visit, run.port, place)) for place in (0, 1)}
    assert met == set(run.workers.items())
    assert run.process.pid not in run.workers.values()
    await run.stop()


async def test_each_start_and_end_is_a_line_of_the_log(start: Start) -> None:
    run = await (await start("")).started()
    await run.stop()
    told = [re.sub(r"pid \d+|:\d{5}", "", line.split(": ", 1)[1]) for line in run.lines]
    assert sorted(told[:5]) == [
        "started on ws://127.0.0.1, with 2 workers",
        "worker 0 () is ready",
        "worker 0 () starts",
        "worker 1 () is ready",
        "worker 1 () starts",
    ]
    assert told[5] == "SIGTERM: stopping; a second one ends at once"
    assert sorted(told[6:8]) == ["worker 0 () stopped", "worker 1 () stopped"]
    assert told[8:] == ["stopped"]


async def test_lifespan_is_entered_and_left_once_in_each_worker(start: Start) -> None:
    run = await start(
        """
        @asynccontextmanager
        async def lifespan(server):
            say("entered", server.worker_id)
            yield
            say("left", server.worker_id)

        server = Server(lifespan=lifespan)
        """
    )
    await (await run.started()).stop()
    told = Counter(line for line in run.lines if re.match("entered|left", line))
    assert told == {f"{what} {place}": 1 for what in ("entered", "left") for place in (0, 1)}


async def test_what_is_global_is_each_workers_own_and_begins_as_it_was_at_run(start: Start, visit: Visit) -> None:
    run = await start(
        """
        said = ["before"]

        @server.on_message
        def count(conn, message):
            said.append(message)
            conn.send(f"{server.worker_id} {len(said)}")
        """
    )
    await run.started()
    for place in (0, 1):
        assert (await ask(await visit_place(visit, run.port, place)))[0] == place
    peers = [await visit_place(visit, run.port, place) for place in (0, 1)]
    counts = [[(await ask(peer))[1] for _ in range(3)] for peer in peers]
    assert [[later - first for later in own] for own in counts for first in own[:1]] == [[0, 1, 2], [0, 1, 2]]
    await run.stop()


async def test_connections_spread_over_the_workers(start: Start) -> None:
    """2,000 connections on two workers: neither has less than 40 %."""
    run = await (await start(WHO)).started()
    met: Counter[int] = Counter()
    peers: list[Peer] = []
    for _ in range(20):
        lot = await asyncio.gather(*(connect(run.port) for _ in range(100)))
        peers += lot
        await asyncio.gather(*(peer.upgrade() for peer in lot))
        met.update(place for place, _ in await asyncio.gather(*(ask(peer) for peer in lot)))
    for peer in peers:
        peer.writer.transport.abort()
    assert sum(met.values()) == 2000
    assert min(met[0], met[1]) >= 800
    await run.stop()


async def test_as_many_workers_as_there_are_cpus(start: Start) -> None:
    """On one CPU that is this process alone."""
    (cpu, *_) = os.sched_getaffinity(0)
    body = f"os.sched_setaffinity(0, {{{cpu}}})"
    alone = await start(body, run='server.run(0, workers="auto")')
    await alone.line(r"wsev.worker: started on ws://[^ ]*$")
    alone.signal(signal.SIGTERM)
    assert await alone.end() == 0
    assert "pid" not in alone.text


# Where it listens.


async def test_a_port_in_use_is_an_error_before_a_worker_starts(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = await start("", run=f"server.run({port}, workers=2)")
        assert await run.end() == 1
    assert f"port {port} of 127.0.0.1 is in use: stop the program that has it, or take another" in run.text
    assert "starts" not in run.text


async def test_a_port_of_another_wsev_is_in_use_too_unless_both_ask_to_share_it(start: Start) -> None:
    first = await (await start("")).started()
    second = await start("", run=f"server.run({first.port}, workers=2)")
    assert await second.end() == 1
    assert "is in use" in second.text
    await first.stop()
    first = await (await start("", run="server.run(0, workers=2, reuse_port=True)")).started()
    second = await (await start("", run=f"server.run({first.port}, workers=2, reuse_port=True)")).started()
    assert second.port == first.port
    await second.stop()
    await first.stop()


async def test_a_port_can_be_had_again_at_once_after_a_run(start: Start, visit: Visit) -> None:
    run = await (await start(WHO)).started()
    await ask(await visit(run.port))
    await run.stop()  # which closed connections from our side: they linger in TIME_WAIT
    again = await (await start(WHO, run=f"server.run({run.port}, workers=2)")).started()
    await again.stop()


async def test_several_hosts_have_one_port_in_every_worker(start: Start, visit: Visit) -> None:
    run = await start(WHO, run='server.run(0, host=["127.0.0.1", "127.0.0.2"], workers=2)')
    await run.line("started on ws://127.0.0.1:(\\d+), ws://127.0.0.2:\\1, with 2 workers")
    run.signal(signal.SIGTERM)
    await run.end()


async def test_a_unix_path_is_shared_by_all_workers_and_outlives_each(
    start: Start, visit: Visit, tmp_path: Path
) -> None:
    path = tmp_path / "sock"
    run = await (await start(WHO, run=f"server.run(unix={str(path)!r}, workers=2)")).started()
    identity = path.stat().st_ino
    for place in (0, 1):
        await visit_place(visit, str(path), place)
    os.kill(run.workers[0], signal.SIGTERM)  # a graceful end, which alone could remove the path
    await run.line("worker 0 .* is ready")
    run.signal(signal.SIGHUP)
    await run.line("all workers are replaced")
    assert path.stat().st_ino == identity
    for place in (0, 1):
        await visit_place(visit, str(path), place)
    await run.stop()
    assert not path.exists()


async def test_an_inherited_descriptor_is_shared_by_all_workers(start: Start, visit: Visit) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        number = given.fileno()
        run = await start(WHO, run=f"server.run(fd={number}, workers=2)", pass_fds=[number])
        await run.started()
    for place in (0, 1):
        await visit_place(visit, run.port, place)
    await run.stop()


# A worker dies.


async def test_a_worker_that_is_killed_disturbs_no_other_and_loses_nobody_who_waits(start: Start, visit: Visit) -> None:
    """200 and more wait in its accept queue, and are served by its successor; the others' connections see nothing."""
    run = await start(
        """
        @server.on_message
        def said(conn, message):
            if message == "block":
                say("blocked")
                signal.pause()
            who(conn, message)
        """
    )
    await run.started()
    killed = run.workers[0]
    others = [await visit_place(visit, run.port, 1) for _ in range(5)]
    victim = await visit_place(visit, run.port, 0)
    await victim.send_frame(TEXT, b"block")
    await run.line("^blocked$")  # from here on it accepts nobody

    waiting = await asyncio.gather(*(connect(run.port) for _ in range(500)))
    answers = asyncio.gather(*(peer.upgrade() for peer in waiting))
    assert {await ask(peer) for peer in others} == {(1, run.workers[1])}
    os.kill(killed, signal.SIGKILL)
    await victim.read_eof()
    await run.line(rf"worker 0 \(pid {killed}\) ended: SIGKILL; starting another$")
    await run.line("worker 0 .* is ready")
    await answers
    met = Counter(await asyncio.gather(*(ask(peer) for peer in waiting)))
    assert set(met) == {(0, run.workers[0]), (1, run.workers[1])}
    assert met[0, run.workers[0]] >= 200
    assert run.workers[0] != killed
    assert {await ask(peer) for peer in others} == {(1, run.workers[1])}
    for peer in waiting:
        await peer.close()
    await run.stop()


async def test_a_worker_that_ends_by_itself_is_followed_by_another(start: Start, visit: Visit) -> None:
    run = await start(
        """
        @server.on_message
        def said(conn, message):
            if message == "exit":
                raise SystemExit(7)
            who(conn, message)
        """
    )
    await run.started()
    peer = await visit_place(visit, run.port, 1)
    await peer.send_frame(TEXT, b"exit")
    frame = await peer.read_frame()
    assert (frame.opcode, frame.payload) == (CLOSE, b"\x03\xe9")
    await peer.send_close(1001)
    await run.line(rf"ERROR .*worker 1 \(pid {run.workers[1]}\) ended: exit status 7; starting another$")
    await run.line("worker 1 .* is ready")
    assert await ask(await visit_place(visit, run.port, 1)) == (1, run.workers[1])
    await run.stop()


async def test_a_worker_that_keeps_dying_waits_longer_and_longer_and_gets_no_connections(
    start: Start, visit: Visit
) -> None:
    run = await start(WHO)
    await run.started()
    for when in ("another$", r"another in 0\.5 s$", "another in 1 s$"):
        os.kill(run.workers[0], signal.SIGKILL)
        await run.line(f"worker 0 .* ended: SIGKILL; starting {when}")
        await run.line("worker 0 .* is ready")
    os.kill(run.workers[0], signal.SIGKILL)
    await run.line("worker 0 .* ended: SIGKILL; starting another in 2 s$")
    run.signal(signal.SIGSTOP)  # so that the two seconds are as long as these clients need
    met = {(await ask(await visit(run.port)))[0] for _ in range(40)}
    assert met == {1}
    run.signal(signal.SIGCONT)
    await run.line("worker 0 .* is ready")
    await visit_place(visit, run.port, 0)
    await run.stop()


async def test_a_successor_that_cannot_start_is_tried_again_while_the_others_serve(
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
    other = await visit_place(visit, run.port, 1)
    trouble.touch()
    os.kill(run.workers[0], signal.SIGKILL)
    await run.line("worker 0 could not start")
    await run.line("LookupError: no database")
    await run.line(r"worker 0 .* ended: exit status 3; starting another in 0\.5 s")
    assert await ask(other) == (1, run.workers[1])
    trouble.unlink()
    await run.line("worker 0 .* is ready")
    run.signal(signal.SIGTERM)
    assert await run.end() == 0


# The start fails.


async def test_a_worker_that_cannot_start_ends_the_run_with_its_error_and_status_3(start: Start) -> None:
    run = await start(
        """
        entered = os.pipe()

        @asynccontextmanager
        async def lifespan(server):
            if server.worker_id == 1:
                os.read(entered[0], 1)
                raise LookupError("no database")
            os.write(entered[1], b"!")
            yield
            say("left", server.worker_id)

        server = Server(lifespan=lifespan)
        """
    )
    assert await run.end() == 3
    assert "ERROR wsev.worker" in run.text
    assert "worker 1 could not start\nTraceback" in run.text
    assert "\nLookupError: no database" in run.text
    assert "left 0" in run.lines
    assert re.search(r"worker 1 \(pid \d+\) ended before it was ready: exit status 3; stopping", run.text)
    assert run.lines[-1].endswith(": stopped")


async def test_a_worker_that_is_killed_before_it_ever_served_ends_the_run_too(start: Start) -> None:
    run = await start(
        """
        @asynccontextmanager
        async def lifespan(server):
            os.kill(os.getpid(), signal.SIGKILL)
            yield

        server = Server(lifespan=lifespan)
        """
    )
    assert await run.end() == 3
    assert "ended before it was ready: SIGKILL; stopping" in run.text


# The end.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_all_workers_gracefully(start: Start, visit: Visit, number: signal.Signals) -> None:
    run = await start(
        """
        server.on_message(who)

        @server.on_disconnect
        async def left(conn, error):
            await asyncio.sleep(0)
            say("left", error)
        """,
        run="""
        before = {number: signal.getsignal(number) for number in signal.valid_signals()}
        server.run(0, workers=2)
        assert before == {number: signal.getsignal(number) for number in signal.valid_signals()}
        assert signal.set_wakeup_fd(-1) == -1
        say("returned")
        """,
    )
    await run.started()
    peers = [await visit_place(visit, run.port, place) for place in (0, 1)]
    run.signal(number)
    for peer in peers:
        frame = await peer.read_frame()
        assert (frame.opcode, frame.payload) == (CLOSE, b"\x03\xe9")
        await peer.send_close(1001)
        await peer.read_eof()
    assert await run.end() == 0, run.text
    assert run.lines.count("left None") >= 2
    assert f"{number.name}: stopping; a second one ends at once" in run.text
    assert run.lines[-1] == "returned"
    assert not any(is_running(pid) for pid in run.workers.values())


async def test_ctrl_c_which_all_processes_get_stops_gracefully_too(start: Start, visit: Visit) -> None:
    run = await (await start(WHO)).started()
    peer = await visit(run.port)
    os.killpg(run.process.pid, signal.SIGINT)
    assert (await peer.read_frame()).payload == b"\x03\xe9"
    await peer.send_close(1001)
    assert await run.end() == 0
    assert run.text.count("SIGINT") == 1
    assert "Traceback" not in run.text


async def test_who_comes_after_the_stop_has_begun_is_refused_at_once(start: Start, visit: Visit) -> None:
    """And does not wait for a worker that will not come."""
    run = await (await start("server = wsev.Server(close_timeout=60)\nserver.on_message(who)")).started()
    peers = [await visit_place(visit, run.port, place) for place in (0, 1)]
    run.signal(signal.SIGTERM)
    for peer in peers:
        assert (await peer.read_frame()).opcode == CLOSE  # which these do not answer yet, so the workers stay
    with pytest.raises(ConnectionRefusedError):
        await connect(run.port)
    for peer in peers:
        await peer.send_close(1001)
    assert await run.end() == 0


async def test_a_second_signal_ends_all_at_once_though_a_callback_never_returns(start: Start, visit: Visit) -> None:
    run = await start(
        """
        @server.on_message
        def said(conn, message):
            say("in it")
            while True:
                signal.pause()
        """
    )
    await run.started()
    peer = await visit(run.port)
    await peer.send_frame(TEXT, b"hello")
    await run.line("in it")
    run.signal(signal.SIGTERM)
    await run.line("SIGTERM: stopping")
    run.signal(signal.SIGINT)
    assert await run.end() == -signal.SIGINT
    assert not any(is_running(pid) for pid in run.workers.values())


async def test_a_worker_that_does_not_stop_is_killed(start: Start, visit: Visit) -> None:
    run = await start(
        """
        from wsev.workers import process
        process.KILL_AFTER = 0.2  # instead of ten seconds
        server = Server(stop_timeout=0.1)

        @server.on_message
        def said(conn, message):
            say("in it")
            while True:
                signal.pause()
        """
    )
    await run.started()
    peer = await visit(run.port)
    await peer.send_frame(TEXT, b"hello")
    await run.line("in it")
    run.signal(signal.SIGTERM)
    await run.line(r"ERROR .*worker \d \(pid \d+\) does not stop; killing it")
    assert await run.end() == 0
    assert re.search(r"worker \d \(pid \d+\) stopped: SIGKILL", run.text)


async def test_workers_whose_supervisor_is_gone_stop_gracefully_and_leave_nothing(
    start: Start, visit: Visit, temporary: str
) -> None:
    body = "server = wsev.Server(close_timeout=60, stop_timeout=60)\n" + WHO
    run = await start(body, env=os.environ | {"TMPDIR": temporary})
    await run.started()
    assert len(os.listdir(temporary)) == 1  # the private directory of the workers
    peers = [await visit_place(visit, run.port, place) for place in (0, 1)]
    run.process.kill()
    for peer in peers:  # none waits for the other's end
        frame = await peer.read_frame()
        assert (frame.opcode, frame.payload) == (CLOSE, b"\x03\xe9")
    for peer in peers:
        await peer.send_close(1001)
        await peer.read_eof()
    await run.end()  # both workers have ended
    assert run.text.count("the supervisor is gone; stopping") == 2
    assert os.listdir(temporary) == []


async def test_nothing_is_left_in_the_temporary_directory(start: Start, temporary: str) -> None:
    run = await start("", env=os.environ | {"TMPDIR": temporary})
    await (await run.started()).stop()
    assert os.listdir(temporary) == []


async def test_a_temporary_directory_with_a_long_path_is_none_for_sockets(start: Start, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    run = await (await start("", env=os.environ | {"TMPDIR": str(long)})).started()
    assert os.listdir(long) == []
    await run.stop()


async def test_a_terminal_that_is_closed_ends_the_run(start: Start) -> None:
    """Which sends SIGHUP as well, but with nobody there who could want the workers replaced."""
    ours, terminal = os.openpty()
    run = await start(
        "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)", stdin=terminal
    )  # in a session of its own, whose terminal this becomes
    os.close(terminal)
    await run.started()
    os.close(ours)
    assert await run.end() == 0
    assert "SIGHUP: stopping" in run.text


async def test_threads_that_run_already_are_warned_of_by_name(start: Start) -> None:
    run = await start(
        """
        threading.Thread(target=threading.Event().wait, name="poller", daemon=True).start()
        """
    )
    await run.line(r"WARNING .*threads run already \(poller\)")
    await (await run.started()).stop()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_loop_that_ran_before_the_workers_were_forked_harms_none(start: Start, visit: Visit, loop: str) -> None:
    """As that of a program that prepares its database before."""
    run = await start(
        f"""
        import uvloop

        async def prepare():
            await (await asyncio.create_subprocess_exec("true")).wait()

        {loop}.run(prepare())
        server.on_message(who)
        """
    )
    await run.started()
    for place in (0, 1):
        await visit_place(visit, run.port, place)
    await run.stop()


async def test_what_was_printed_before_the_run_is_printed_once(start: Start) -> None:
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    run = await start('print("before")', env=buffered)
    await (await run.started()).stop()
    assert run.lines.count("before") == 1
