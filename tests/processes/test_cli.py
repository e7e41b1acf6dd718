"""`wsev serve`: programs served as a user serves them, by the command line in processes of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import ssl as tls
import sys
import textwrap
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest
import trustme

from tests.peer import TEXT
from tests.processes.conftest import ROOT, Run, Visit, ask, visit_place

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_factories=["asyncio"])]  # this loop is only the clients'

PROGRAM = """
import asyncio, logging, os, sys
from contextlib import asynccontextmanager
import wsev

def say(*what):
    sys.stdout.write(" ".join(map(str, what)) + "\\n")
    sys.stdout.flush()

server = wsev.Server(close_timeout=0.5)

@server.on_message
def who(conn, message):
    conn.send(f"{server.worker_id} {os.getpid()}")

"""


class Wsev(Protocol):
    async def __call__(
        self, *arguments: str, variables: dict[str, str] | None = ..., descriptors: tuple[int, ...] = ...
    ) -> Run: ...


@pytest.fixture
async def wsev(tmp_path: Path) -> AsyncIterator[Wsev]:
    """`run = await wsev("serve", "chat:server")`: the command, in tmp_path, where programs are written."""
    runs: list[Run] = []

    async def start(*arguments: str, variables: dict[str, str] | None = None, descriptors: tuple[int, ...] = ()) -> Run:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "wsev", *arguments),  # -P: as the script, it has no directory of the user's
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            start_new_session=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{ROOT}", **(variables or {})},
            pass_fds=descriptors,
        )
        runs.append(Run(process))
        return runs[-1]

    yield start
    for each in runs:
        if each.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(each.process.pid, signal.SIGKILL)
        await each.end()


class Write(Protocol):
    def __call__(self, body: str = ..., *, name: str = ...) -> None: ...


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(body)`: the program `application.py`, with a server and this."""

    def write_program(body: str = "", *, name: str = "application.py") -> None:
        (tmp_path / name).write_text(PROGRAM + textwrap.dedent(body))

    return write_program


async def alone(run: Run) -> int:
    """Wait until the one process serves; its port."""
    return int((await run.line(r"started on wss?://127\.0\.0\.1:(\d+)$"))[1])


# One process.


@pytest.mark.parametrize(("source", "number"), [("application", signal.SIGTERM), ("application.py", signal.SIGINT)])
async def test_it_serves_in_its_own_process_and_stops_gracefully(
    wsev: Wsev, write: Write, visit: Visit, source: str, number: signal.Signals
) -> None:
    write()
    run = await wsev("serve", f"{source}:server", "--port", "0")
    peer = await visit(await alone(run))
    assert await ask(peer) == (0, run.process.pid)
    run.signal(number)
    await peer.expect_close(1001)
    assert await run.end() == 0
    assert run.lines[-1].endswith(": stopped")
    assert "Traceback" not in run.text


async def test_a_program_elsewhere_is_found_by_app_dir(wsev: Wsev, write: Write, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    write(name="code/application.py")
    run = await wsev("serve", "--app-dir", "code", "application:server", "--port", "0")
    await alone(run)
    await run.stop()


async def test_a_function_makes_the_server_where_it_serves(wsev: Wsev, write: Write) -> None:
    write("def make():\n    asyncio.get_running_loop()\n    return server")
    run = await wsev("serve", "--factory", "application:make", "--port", "0")
    await alone(run)
    await run.stop()


# What is given, and where.


@pytest.mark.parametrize(
    ("flag", "variable", "limit"),
    [(None, None, 40), (None, "50", 50), ("60", None, 60), ("60", "50", 60), ("none", "50", None)],
    ids=["the program's", "variable", "flag", "flag before variable", "none"],
)
async def test_options_reach_the_server(
    wsev: Wsev, write: Write, visit: Visit, flag: str | None, variable: str | None, limit: int | None
) -> None:
    write(
        """
        server = wsev.Server(max_message_size=40, close_timeout=0.5)
        server.on_message(lambda conn, message: conn.send(message))
        """
    )
    run = await wsev(
        *("serve", "application:server", "--port", "0"),
        *(("--max-message-size", flag) if flag else ()),
        variables={"WSEV_MAX_MESSAGE_SIZE": variable} if variable else {},
    )
    peer = await visit(await alone(run))
    allowed = limit if limit is not None else 2 << 20
    await peer.send_frame(TEXT, b"x" * allowed)
    await peer.expect_frame(TEXT, b"x" * allowed)
    if limit is not None:
        await peer.send_frame(TEXT, b"x" * (limit + 1))
        await peer.expect_close(1009)
    await run.stop()


async def test_a_variable_says_where_to_listen(wsev: Wsev, write: Write) -> None:
    write()
    run = await wsev("serve", "application:server", variables={"WSEV_PORT": "0", "WSEV_WORKERS": "2"})
    await run.started()
    await run.stop()


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_it_listens_on_a_path_with_its_mode(
    wsev: Wsev, write: Write, visit: Visit, tmp_path: Path, workers: str
) -> None:
    write()
    run = await wsev("serve", "application:server", "--uds", "server.sock", "--uds-mode", "600", "--workers", workers)
    await run.line("started on unix:server.sock")
    assert (tmp_path / "server.sock").stat().st_mode & 0o777 == 0o600
    await ask(await visit(str(tmp_path / "server.sock")))
    await run.stop()


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_it_listens_on_an_inherited_socket(wsev: Wsev, write: Write, visit: Visit, workers: str) -> None:
    write()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        number = sock.fileno()
        run = await wsev(
            "serve", "application:server", "--fd", str(number), "--workers", workers, descriptors=(number,)
        )
        await run.line("started on ws://127.0.0.1")
        await ask(await visit(sock.getsockname()[1]))
        await run.stop()


@pytest.mark.parametrize(
    ("workers", "files"),
    [("1", ("both.pem",)), ("2", ("chain.pem", "--ssl-keyfile", "key.pem"))],
    ids=["one file", "two files"],
)
async def test_it_speaks_tls(wsev: Wsev, write: Write, tmp_path: Path, workers: str, files: tuple[str, ...]) -> None:
    write()
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "chain.pem")
    run = await wsev("serve", "application:server", "--port=0", "--workers", workers, "--ssl-certfile", *files)
    port = int((await run.line(r"started on wss://127\.0\.0\.1:(\d+)"))[1])
    context = tls.create_default_context()
    authority.configure_trust(context)
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.close()
    with contextlib.suppress(tls.SSLError):  # an end without more is as good as one with
        await writer.wait_closed()
    await run.stop()


async def test_sighup_brings_new_certificates(wsev: Wsev, write: Write, tmp_path: Path) -> None:
    write()
    authority = trustme.CA()

    async def served(port: int) -> bytes:
        context = tls.create_default_context()
        authority.configure_trust(context)
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        assert isinstance(certificate, bytes)
        return certificate

    def issue() -> bytes:
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
        return tls.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())

    old = issue()
    run = await wsev("serve", "application:server", "--port=0", "--workers=2", "--ssl-certfile", "both.pem")
    await run.started()
    assert await served(run.port) == old
    new = issue()
    run.signal(signal.SIGHUP)
    await run.line("all workers are replaced")
    assert await served(run.port) == new
    await run.stop()


async def test_the_level_of_the_log_is_the_one_that_is_given(wsev: Wsev, write: Write) -> None:
    write(
        """
        logging.getLogger("wsev.application").warning("a warning")
        logging.getLogger("wsev.application").info("an info")
        raise SystemExit
        """
    )
    run = await wsev("serve", "application:server", "--log-level", "warning")
    assert await run.end() == 0
    assert "a warning" in run.text
    assert "an info" not in run.text
    run = await wsev("serve", "application:server")
    assert await run.end() == 0
    assert "an info" in run.text


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_program_that_sets_up_logging_has_it_as_it_wants(
    wsev: Wsev, write: Write, visit: Visit, workers: str
) -> None:
    write(
        """
        logging.basicConfig(format="in its own way: %(message)s", level=logging.INFO)
        server = wsev.Server(close_timeout=0.5)
        server.on_message(lambda conn, message: logging.getLogger("wsev.application").info("said"))
        """
    )
    run = await wsev("serve", "application:server", "--port", "0", "--workers", workers)
    peer = await visit(int((await run.line(r"started on ws://127\.0\.0\.1:(\d+)"))[1]))
    await peer.send_frame(TEXT, b"hello")
    await peer.fence()
    await run.stop()
    assert [line for line in run.lines if line.endswith("said")] == ["in its own way: said"]


# Several workers.


async def test_workers_import_the_program_and_their_supervisor_does_not(wsev: Wsev, write: Write, visit: Visit) -> None:
    write('say("imported by", os.getpid())')
    run = await (await wsev("serve", "application:server", "--port", "0", "--workers", "2")).started()
    assert [(await ask(await visit_place(visit, run.port, place)))[1] for place in (0, 1)] == [
        run.workers[0],
        run.workers[1],
    ]
    await run.stop()
    assert {int(number) for number in re.findall(r"imported by (\d+)", run.text)} == set(run.workers.values())
    assert run.process.pid not in run.workers.values()


async def test_sighup_brings_new_code(wsev: Wsev, write: Write, visit: Visit) -> None:
    write()
    run = await (await wsev("serve", "application:server", "--port", "0", "--workers", "2")).started()
    write('server = wsev.Server(close_timeout=0.5)\nserver.on_message(lambda conn, message: conn.send("new"))')
    run.signal(signal.SIGHUP)
    await run.line("all workers are replaced")
    for _ in range(4):
        peer = await visit(run.port)
        await peer.send_frame(TEXT, b"hello")
        await peer.expect_frame(TEXT, b"new")
    await run.stop()


async def test_with_code_that_fails_sighup_leaves_the_workers_as_they_are(
    wsev: Wsev, write: Write, visit: Visit
) -> None:
    write()
    run = await (await wsev("serve", "application:server", "--port", "0", "--workers", "2")).started()
    old = dict(run.workers)
    write("raise LookupError('not yet')")
    run.signal(signal.SIGHUP)
    await run.line("LookupError: not yet")
    await run.line("wsev serve: application cannot be imported: mend the error above")
    await run.line("ended before it was ready: exit status 3; the old workers go on")
    for place in (0, 1):
        assert await ask(await visit_place(visit, run.port, place)) == (place, old[place])
    run.signal(signal.SIGTERM)
    assert await run.end() == 0


# Ends, and what they say.


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_an_error_of_the_program_is_told_with_its_traceback_alone(
    wsev: Wsev, write: Write, tmp_path: Path, workers: str
) -> None:
    write("def configure():\n    raise LookupError('no configuration')\nconfigure()")
    run = await wsev("serve", "application:server", "--port", "0", "--workers", workers)
    assert await run.end() == 3
    begin = run.lines.index("Traceback (most recent call last):")
    end = run.lines.index("wsev serve: application cannot be imported: mend the error above")
    files = [line.split('"')[1] for line in run.lines[begin:end] if line.startswith('  File "')]
    assert files == [str(tmp_path / "application.py")] * 2
    assert run.lines[end - 1] == "LookupError: no configuration"


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_program_that_runs_its_server_is_told_how_not_to(wsev: Wsev, write: Write, workers: str) -> None:
    write("server.run(0)")
    run = await wsev("serve", "application:server", "--port", "0", "--workers", workers)
    assert await run.end() == 3
    assert 'have `if __name__ == "__main__":` before run' in run.text


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_port_in_use_is_told_in_one_line(wsev: Wsev, write: Write, workers: str) -> None:
    write()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = await wsev("serve", "application:server", "--port", str(port), "--workers", workers)
        assert await run.end() == 3
    assert run.lines == [
        f"wsev serve: port {port} of 127.0.0.1 is in use: stop the program that has it, or take another port "
        "(0 is one that is free)"
    ]


async def test_a_wrong_flag_is_told_before_anything_is_imported(wsev: Wsev, write: Write) -> None:
    write('say("imported")')
    run = await wsev("serve", "application:server", "--max-queue", "0")
    assert await run.end() == 2
    assert run.lines == ["wsev serve: Invalid value for --max-queue: must be at least 1, or None for no limit"]


LIFESPAN = """
@asynccontextmanager
async def lifespan(server):
    {}
    yield
    {}

server = wsev.Server(lifespan=lifespan)
"""


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_lifespan_that_fails_at_the_start_ends_it_with_status_3(wsev: Wsev, write: Write, workers: str) -> None:
    write(LIFESPAN.format("raise ConnectionRefusedError(111, 'no database')", ""))
    run = await wsev("serve", "application:server", "--port", "0", "--workers", workers)
    assert await run.end() == 3
    assert "ConnectionRefusedError: [Errno 111] no database" in run.lines
    assert "in lifespan" in run.text  # with its traceback
    assert "could not start" in run.text


async def test_a_failure_later_ends_it_with_status_1(wsev: Wsev, write: Write) -> None:
    write(LIFESPAN.format("", "raise LookupError('at the end')"))
    run = await wsev("serve", "application:server", "--port", "0")
    await alone(run)
    run.signal(signal.SIGTERM)
    assert await run.end() == 1
    assert run.lines[-1] == "LookupError: at the end"


@pytest.mark.parametrize(("raised", "status"), [("SystemExit(7)", 7), ("KeyboardInterrupt", 130)])
async def test_a_program_ends_it_with_a_status_of_its_own(
    wsev: Wsev, write: Write, visit: Visit, raised: str, status: int
) -> None:
    write(f"server = wsev.Server(close_timeout=0.5)\n@server.on_message\ndef said(conn, message):\n    raise {raised}")
    run = await wsev("serve", "application:server", "--port", "0")
    peer = await visit(await alone(run))
    await peer.send_frame(TEXT, b"hello")
    assert await run.end() == status
    assert "Traceback" not in run.text
