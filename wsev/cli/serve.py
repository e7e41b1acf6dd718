"""``wsev serve``: serve the Server of a program.

Owns the flags of the command and the order of a start.  The program is imported where it serves: with several workers
in each of them and never in the supervisor, so that workers that take the others' place bring new code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from traceback import walk_tb
from types import TracebackType
from typing import Any

import click

from wsev.cli.flags import NAMES, Flag, GroupedCommand, flags_of, given
from wsev.cli.program import Program, ProgramError
from wsev.errors import OptionError, WsevError
from wsev.options import Listening, Options
from wsev.server import Server, ServerRun
from wsev.workers import worker
from wsev.workers.cpus import check_workers
from wsev.workers.places import Place

__all__ = ["serve"]

logger = logging.getLogger("wsev.worker")

LEVELS = ("critical", "error", "warning", "info", "debug")

WHERE, HOW, BEHAVIOUR = "Where it listens", "How it runs", "What it does"

ABOUT = """Serve the Server that a program has made, MODULE:SERVER or PATH/FILE.py:SERVER, until SIGINT or SIGTERM.

Each flag is a variable of the environment too: --max-queue is WSEV_MAX_QUEUE.  A flag comes before its variable, and
both before what the program gave to Server.  In a variable, several values stand with spaces between them; a flag is
repeated.  "none" switches a limit off.

With several workers, SIGHUP replaces them one by one, which brings new code.
"""


def _read_program(context: click.Context, parameter: click.Parameter, text: str) -> Program:
    try:
        return Program.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


def _read_workers(text: str) -> int:
    return check_workers(int(text) if text.isdecimal() else text)


FLAGS = (
    *flags_of(Listening, section=WHERE),
    Flag("ssl-certfile", "The certificate chain, in PEM; with it, TLS is spoken.", section=WHERE, metavar="FILE"),
    Flag("ssl-keyfile", "Its private key, if that is in a file of its own.", section=WHERE, metavar="FILE"),
    Flag(
        "workers",
        "How many processes serve; auto: as many as this one may use CPUs.  [default: 1]",
        section=HOW,
        metavar="N|auto",
        read=_read_workers,
    ),
    Flag(
        "log-level",
        f"What wsev logs: {', '.join(LEVELS)}.  [default: info]",
        section=HOW,
        metavar="LEVEL",
        type=click.Choice(LEVELS, case_sensitive=False),
    ),
    Flag("app-dir", "Where the program is looked for first.  [default: .]", section=HOW, metavar="DIRECTORY"),
    Flag("factory", "SERVER is a function that makes the server.", section=HOW, is_flag=True, type=bool),
    *flags_of(Options, section=BEHAVIOUR),
)


@click.command(
    cls=GroupedCommand,
    params=[click.Argument(["program"], metavar="MODULE:SERVER", callback=_read_program), *FLAGS],
    help=ABOUT,
)
@click.pass_context
def serve(context: click.Context, /, program: Program, workers: int | None, log_level: str | None, **_: Any) -> None:
    """Serve the server of a program; what it says to users is ``ABOUT``."""
    listening = _listening(context)
    if log_level is not None:
        logging.getLogger("wsev").setLevel(log_level.upper())
    count = workers or 1
    with ExitStack() as log:
        log.enter_context(worker.console("%(name)s[%(process)d]" if count > 1 else "%(name)s"))

        def make_server() -> Server[Any]:
            server = _load(program, context.params)
            if logging.getLogger().handlers:  # the program has set up logging, in this process: that says it all
                log.close()
            return server

        def make_service(place: Place | None) -> ServerRun:
            # Files of a certificate are read by each worker anew, so that SIGHUP renews it.
            return ServerRun(make_server, Listening.of(**listening), place, options=given(context, Options))

        if count == 1:
            _run_alone(make_service(None))
        else:
            _supervise(make_service, Listening.of(**listening), count)


def _listening(context: click.Context) -> dict[str, Any]:
    """Where to listen, checked, as ``Listening.of`` takes it."""
    listening = given(context, Listening)
    chain, key = context.params["ssl_certfile"], context.params["ssl_keyfile"]
    if chain is not None:
        listening["ssl"] = (chain, key if key is not None else chain)
    elif key is not None:
        raise click.UsageError("--ssl-keyfile goes with --ssl-certfile, the certificate chain", context)
    try:
        Listening.of(**listening)
    except OptionError as error:
        flag = "ssl-certfile" if error.option == "ssl" else NAMES.get(error.option, error.option.replace("_", "-"))
        raise click.UsageError(f"--{flag}: {error.remedy}", context) from None
    return listening


def _load(program: Program, params: dict[str, Any]) -> Server[Any]:
    try:
        return program.load(params["app_dir"] or ".", is_factory=bool(params["factory"]))
    except ProgramError as error:
        raise _start_failed(f"{error.trace}wsev serve: {error}") from None


def _start_failed(what: str) -> SystemExit:
    click.echo(what, err=True)
    return SystemExit(worker.START_FAILED)


def _run_alone(service: ServerRun) -> None:
    try:
        worker.run(service)
    except Exception as error:
        if _says_what_to_do(error):
            raise _start_failed(f"wsev serve: {_sentence(error)}") from None
        logger.exception("%s", "failed" if service.has_started else "could not start")
        raise SystemExit(worker.FAILED if service.has_started else worker.START_FAILED) from None


def _supervise(make_service: Callable[[Place], ServerRun], listening: Listening, count: int) -> None:
    from wsev.workers.supervisor import Supervisor  # here, for it needs what Windows has not

    try:
        Supervisor(make_service, listening, count).run()
    except (OSError, WsevError) as error:
        raise _start_failed(f"wsev serve: {_sentence(error)}") from None


def _says_what_to_do(error: Exception) -> bool:
    """Whether it is an error of ours, about what we were told, and none that the program's code has raised."""
    return isinstance(error, OSError | WsevError) and not _has_code_of_program(error.__traceback__)


def _has_code_of_program(trace: TracebackType | None) -> bool:
    names = [str(frame.f_globals.get("__name__", "")) for frame, _ in walk_tb(trace)]
    return any(name.partition(".")[0] not in ("wsev", "asyncio", "uvloop") for name in names)


def _sentence(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
