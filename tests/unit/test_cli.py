"""The command line: flags made of the options, their variables, how a program is found, and how errors are told."""

from __future__ import annotations

import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import fields
from importlib.metadata import distributions
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import click
import pytest

from wsev.cli import main
from wsev.cli.flags import Flag, given
from wsev.cli.program import Program, ProgramError
from wsev.cli.serve import serve
from wsev.options import Listening, Options
from wsev.server import Server

Write = Callable[..., None]

FLAGS = [parameter for parameter in serve.params if isinstance(parameter, Flag)]
OPTIONS = [item.name for item in fields(Options)]
LISTENING = [item.name for item in fields(Listening) if item.name not in ("sock", "ssl")]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for flag in FLAGS:
        monkeypatch.delenv(flag.variable, raising=False)


def parse(*arguments: str) -> click.Context:
    return serve.make_context("serve", ["chat:server", *arguments])


def options(*arguments: str) -> dict[str, Any]:
    return given(parse(*arguments), Options)


def listening(*arguments: str) -> dict[str, Any]:
    return given(parse(*arguments), Listening)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is told of a command that cannot be understood: one line, and the status is 2."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err.removesuffix("\n")


# Flags and variables.


@pytest.mark.parametrize("name", [*OPTIONS, *LISTENING])
def test_every_option_is_a_flag_and_a_variable(name: str) -> None:
    flag = next(flag for flag in FLAGS if flag.name == name)
    written = {"unix": "uds", "unix_mode": "uds_mode"}.get(name, name)
    assert flag.opts == ["--" + written.replace("_", "-")]
    assert flag.envvar == "WSEV_" + written.upper()
    assert flag.help


@pytest.mark.parametrize(
    "flag",
    [
        *("host", "port", "uds", "fd", "backlog", "ssl-certfile", "ssl-keyfile"),
        *("workers", "log-level", "app-dir", "factory"),
    ],
)
def test_flags_that_uvicorn_has_are_called_as_there(flag: str) -> None:
    assert f"--{flag}" in [name for each in FLAGS for name in each.opts]


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ("--max-message-size 2048", {"max_message_size": 2048}),
        ("--max-message-size none", {"max_message_size": None}),
        ("--idle-timeout 2.5", {"idle_timeout": 2.5}),
        ("--idle-timeout none", {"idle_timeout": None}),
        ("--write-buffer-deadline 0", {"write_buffer_deadline": 0.0}),
        ("--max-queue 7", {"max_queue": 7}),
        ("--max-connections auto", {"max_connections": "auto"}),
        ("--max-connections 9", {"max_connections": 9}),
        ("--slow-consumer drop", {"slow_consumer": "drop"}),
        ("--no-decode-text", {"decode_text": False}),
        ("--decode-text", {"decode_text": True}),
        ("--origins https://a.example --origins https://b.example", {"origins": ("https://a.example", "https://b.example")}),
        ("--origins none", {"origins": None}),
        ("--subprotocols v2 --subprotocols v1", {"subprotocols": ("v2", "v1")}),
        ("--compression none", {"compression": None}),
        ("--broker unix:/run/app", {"broker": "unix:/run/app"}),
    ],
)  # fmt: skip
def test_an_option_is_read_as_its_type_wants_it(arguments: str, value: dict[str, Any]) -> None:
    assert options(*arguments.split()) == value


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ("--port 0", {"port": 0}),
        ("--host ::1 --host 127.0.0.1", {"host": ("::1", "127.0.0.1")}),
        ("--uds /run/app.sock --uds-mode 660", {"unix": "/run/app.sock", "unix_mode": 0o660}),
        ("--uds-mode 0o600", {"unix_mode": 0o600}),
        ("--fd 3", {"fd": 3}),
        ("--backlog 100", {"backlog": 100}),
        ("--reuse-port", {"reuse_port": True}),
    ],
)
def test_where_to_listen_is_read_as_its_type_wants_it(arguments: str, value: dict[str, Any]) -> None:
    assert listening(*arguments.split()) == value


def test_what_is_not_given_says_nothing() -> None:
    assert options() == listening() == {}


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("WSEV_MAX_MESSAGE_SIZE", "2048", {"max_message_size": 2048}),
        ("WSEV_IDLE_TIMEOUT", "none", {"idle_timeout": None}),
        ("WSEV_DECODE_TEXT", "false", {"decode_text": False}),
        ("WSEV_SUBPROTOCOLS", "v2 v1", {"subprotocols": ("v2", "v1")}),
        ("WSEV_ORIGINS", "none", {"origins": None}),
        ("WSEV_MAX_QUEUE", "", {}),
    ],
)
def test_a_variable_is_read_as_its_flag(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, value: dict[str, Any]
) -> None:
    monkeypatch.setenv(variable, text)
    assert options() == value


def test_a_flag_comes_before_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSEV_MAX_QUEUE", "8")
    monkeypatch.setenv("WSEV_HOST", "::1")
    assert options("--max-queue", "7") == {"max_queue": 7}
    assert listening("--host", "127.0.0.1") == {"host": ("127.0.0.1",)}


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.name in OPTIONS], ids=lambda flag: flag.flag)
def test_the_default_that_help_names_is_the_default(flag: Flag) -> None:
    assert flag.help is not None
    written = flag.help.rpartition("[default: ")[2].removesuffix("]")
    default = getattr(Options(), str(flag.name))
    if isinstance(default, bool):
        assert written == ("on" if default else "off")
    elif default == ():
        assert written == "none"
    else:
        assert options(flag.flag, written) == {flag.name: default}


# Help and version.


def test_help_names_every_flag_and_says_how_variables_are_called(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == 0
    out = capsys.readouterr().out
    assert "WSEV_MAX_QUEUE" in out
    for flag in FLAGS:
        assert f"  {flag.flag} " in out
    headings = [line for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == [
        *("Where it listens:", "How it runs:", "Sizes, in bytes:", "Times, in seconds:", "Counts:"),
        *("What it does:", "Help:"),
    ]


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    if not list(distributions(name="wsev")):
        pytest.skip("the package is not installed, so it has no version: pip install -e .")
    assert main(["--version"]) == 0
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"wsev {project['version']}\n"


def test_the_script_of_the_package_is_the_command() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert resolve_name(project["scripts"]["wsev"]) is main


# Commands that cannot be understood.


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "wsev: Missing command. (see 'wsev --help')"),
        ("serve", "Missing argument 'MODULE:SERVER'."),
        ("serve chat", "'chat': write module:attribute or path/file.py:attribute, such as chat:server"),
        ("serve examples/chat:server", "write module:attribute or path/file.py:attribute"),
        ("serve chat.py:", "write module:attribute or path/file.py:attribute"),
        ("serve chat:server --max-queu 7", "--max-queue"),
        ("serve chat:server --max-queue 0", "--max-queue: must be at least 1, or None for no limit"),
        ("serve chat:server --max-message-size 1MiB", "--max-message-size: must be an int of bytes"),
        ("serve chat:server --idle-timeout soon", "--idle-timeout: must be a number of seconds"),
        ("serve chat:server --read-buffer-size none", "--read-buffer-size: must be an int of bytes"),
        ("serve chat:server --slow-consumer wait", "--slow-consumer: must be 'close' or 'drop'"),
        ("serve chat:server --origins example.com", "--origins: 'example.com' is not an origin"),
        ("serve chat:server --broker redis://host", "--broker: this version of wsev has no such broker"),
        ("serve chat:server --workers 0", "--workers: must be at least 1, or 'auto'"),
        ("serve chat:server --workers many", "--workers: must be at least 1, or 'auto'"),
        ("serve chat:server --log-level loud", "--log-level: 'loud' is not one of"),
        ("serve chat:server --port 65536", "--port: must be at most 65535"),
        ("serve chat:server --uds-mode 888", "--uds-mode: must be octal, such as 660"),
        ("serve chat:server --uds-mode 660", "--uds-mode: goes with unix="),
        ("serve chat:server --uds /a --fd 3", "--fd: unix is given too; give one of them"),
        ("serve chat:server --ssl-keyfile key.pem", "--ssl-keyfile goes with --ssl-certfile"),
        ("serve chat:server --ssl-certfile /no/such/file", "--ssl-certfile: there is no file '/no/such/file'"),
    ],
)
def test_a_wrong_command_is_told_in_one_line(capsys: pytest.CaptureFixture[str], arguments: str, told: str) -> None:
    assert told in complaint(capsys, *arguments.split())


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("WSEV_MAX_QUEUE", "WSEV_MAX_QUEUE: must be an int"),
        ("WSEV_WORKERS", "WSEV_WORKERS: must be at least 1"),
        ("WSEV_DECODE_TEXT", "WSEV_DECODE_TEXT: 'tcp://10.0.0.1' is not a valid boolean"),
    ],
)
def test_a_wrong_variable_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, variable: str, told: str
) -> None:
    monkeypatch.setenv(variable, "tcp://10.0.0.1")
    assert told in complaint(capsys, "serve", "chat:server")


# Programs.


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """`write("name.py", source)` below tmp_path; what was imported from there is forgotten afterwards."""
    path, modules = list(sys.path), set(sys.modules)

    def write_file(name: str, source: str) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(source))

    yield write_file
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


PROGRAM = """
import wsev
server = wsev.Server(max_queue=3)
backup = wsev.Server()
number = 7
class Holder:
    server = server
def make():
    return server
def make_nothing():
    pass
def make_trouble():
    raise LookupError("no configuration")
"""


def load(tmp_path: Path, text: str, *, is_factory: bool = False) -> Server[Any]:
    return Program.parse(text).load(str(tmp_path), is_factory=is_factory)


@pytest.mark.parametrize("text", ["application:server", "application:Holder.server", "package.inner:server"])
def test_a_server_is_found_by_its_module(write: Write, tmp_path: Path, text: str) -> None:
    write("application.py", PROGRAM)
    write("package/inner.py", PROGRAM)
    assert load(tmp_path, text)._options.max_queue == 3


@pytest.mark.parametrize("name", ["application.py", "my-application.py"])
def test_a_server_is_found_by_its_file_which_finds_its_neighbours(write: Write, tmp_path: Path, name: str) -> None:
    write(f"folder/{name}", "from neighbour_of_program import server")
    write("folder/neighbour_of_program.py", PROGRAM)
    assert load(tmp_path, f"{tmp_path}/folder/{name}:server")._options.max_queue == 3


def test_classes_of_a_file_know_their_module(write: Write, tmp_path: Path) -> None:
    write(
        "application.py",
        """
        from __future__ import annotations
        import wsev
        from dataclasses import dataclass
        from typing import ClassVar
        @dataclass
        class User:
            name: str
            kind: ClassVar[str] = "user"
        server = wsev.Server(subprotocols=[User("v1").name])
        """,
    )
    assert load(tmp_path, f"{tmp_path}/application.py:server")._options.subprotocols == ("v1",)


def test_a_function_that_makes_the_server_is_called(write: Write, tmp_path: Path) -> None:
    write("application.py", PROGRAM)
    assert load(tmp_path, "application:make", is_factory=True)._options.max_queue == 3


@pytest.mark.parametrize(
    ("text", "is_factory", "told"),
    [
        ("nothing_here:server", False, "there is no module 'nothing_here' in {tmp_path}, nor elsewhere on sys.path"),
        ("application.inner:server", False, "there is no module 'application.inner'"),
        ("{tmp_path}/nothing.py:server", False, "there is no file {tmp_path}/nothing.py"),
        ("{tmp_path}/select.py:server", False, "the name of a module that is in use already, select: rename the file"),
        ("application:sever", False, "application has no 'sever': did you mean server"),
        ("application:app", False, "application has no 'app'; the servers there are server, backup"),
        ("application:Holder.sever", False, "application has no 'Holder.sever': did you mean server?"),
        ("application:number", False, "is no wsev.Server, but of type int; the servers there are server, backup"),
        ("application:Holder", False, "is no wsev.Server, but the class Holder"),
        ("application:make", False, "is no wsev.Server, but of type function: if it makes one, add --factory"),
        ("application:server", True, "is no function that makes a server: leave --factory out"),
        ("application:make_nothing", True, "returned no wsev.Server, but a value of type NoneType"),
        ("empty:server", False, "empty has no 'server'; make one there: server = wsev.Server()"),
    ],
)
def test_where_no_server_is_it_is_said_what_to_do(
    write: Write, tmp_path: Path, text: str, is_factory: bool, told: str
) -> None:
    write("application.py", PROGRAM)
    write("select.py", PROGRAM)
    write("empty.py", "")
    with pytest.raises(ProgramError) as caught:
        load(tmp_path, text.format(tmp_path=tmp_path), is_factory=is_factory)
    assert told.format(tmp_path=tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.trace == ""


@pytest.mark.parametrize("text", ["application:server", "{tmp_path}/application.py:server"])
@pytest.mark.parametrize(
    ("source", "ends_with"),
    [
        ("def configure():\n    raise LookupError('lost')\n\nconfigure()", "LookupError: lost"),
        ("import not_installed_at_all", "ModuleNotFoundError: No module named 'not_installed_at_all'"),
        ("import wsev\nserver = wsev.Server(max_queue=0)", "leave it out for the default (64)"),
    ],
    ids=["exception", "import", "option"],
)
def test_an_error_of_the_program_is_told_from_its_own_first_line_on(
    write: Write, tmp_path: Path, text: str, source: str, ends_with: str
) -> None:
    write("application.py", source)
    with pytest.raises(ProgramError, match=r"application(\.py)? cannot be imported: mend the error above") as caught:
        load(tmp_path, text.format(tmp_path=tmp_path))
    heading, first, *_ = caught.value.trace.splitlines()
    assert heading == "Traceback (most recent call last):"
    assert first.startswith(f'  File "{tmp_path}/application.py", line ')
    assert caught.value.trace.endswith(f"{ends_with}\n")


def test_a_syntax_error_is_told_without_a_traceback(write: Write, tmp_path: Path) -> None:
    write("application.py", "def (")
    with pytest.raises(ProgramError) as caught:
        load(tmp_path, "application:server")
    assert caught.value.trace.startswith(f'  File "{tmp_path}/application.py", line 1\n')


def test_an_error_of_a_factory_is_told_from_its_own_first_line_on(write: Write, tmp_path: Path) -> None:
    write("application.py", PROGRAM)
    with pytest.raises(ProgramError, match="application:make_trouble made no server: mend the error above") as caught:
        load(tmp_path, "application:make_trouble", is_factory=True)
    assert caught.value.trace.splitlines()[1].startswith(f'  File "{tmp_path}/application.py", line ')
    assert caught.value.trace.endswith("LookupError: no configuration\n")
