"""The command ``wsev``: its commands, one file each, and how its errors are told.

Invariants: an error is one line on stderr that says what to do; the exit status is 0, 1 if serving failed, 2 if the
command cannot be understood, 3 if the start failed, or what the program itself exits with.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

import click

from wsev.cli.serve import serve

__all__ = ["main"]

INTERRUPTED = 128 + signal.SIGINT  # as a shell has it


@click.group(
    commands=[serve],
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="wsev", prog_name="wsev", message="%(prog)s %(version)s")
def commands() -> None:
    """An event-callback WebSocket server for asyncio."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: without the command's own name; None: those of this process.

    Returns:
        The exit status.

    Raises:
        SystemExit: the program that is served wants this status, or the start failed.
    """
    try:
        # Not standalone: click would print three lines for an error.
        status = commands.main(arguments, prog_name="wsev", standalone_mode=False)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "wsev"
        more = "" if isinstance(error, click.BadParameter) else f" (see '{command} --help')"
        click.echo(f"{command}: {error.format_message()}{more}", err=True)
        return error.exit_code
    except click.Abort:  # KeyboardInterrupt, as click has it
        return INTERRUPTED
    return status or 0
