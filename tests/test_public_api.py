"""What is public: the names of the package, that each says what it is for, and that stubs and types are true."""

from __future__ import annotations

import asyncio
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import wsev
from wsev import errors
from wsev.options import Listening, ListeningDict, Options, OptionsDict

ROOT = Path(__file__).parents[1]

NAMES = {
    "Accept",
    "BrokerError",
    "CallbackError",
    "CloseCode",
    "Connection",
    "ConnectionClosed",
    "Handler",
    "HandshakeError",
    "MessageTooBig",
    "OptionError",
    "ProtocolError",
    "Publisher",
    "Request",
    "Response",
    "Route",
    "Server",
    "SlowConsumer",
    "Stats",
    "TimedOut",
    "WsevError",
    "asgi",
    "broadcast",
}

CONNECTION = {
    "id", "state", "request", "subprotocol", "remote_address", "local_address", "is_open", "close_code", "close_reason",
    "buffered_amount", "latency", "topics", "send", "ping", "flush", "close", "abort", "drain", "wait_closed",
    "create_task", "subscribe", "unsubscribe", "publish", "get_extra_info",
}  # fmt: skip
# What asyncio and the server call; not for users, and so without a place in the docs.
FOR_THE_SERVER = {"open", "expire", *dir(asyncio.BufferedProtocol)}


def _public_members() -> Iterator[tuple[str, Any]]:
    """Yield each public name, and the public methods and properties that its class defines itself."""
    for name in wsev.__all__:
        value = getattr(wsev, name)
        yield name, value
        if inspect.isclass(value):
            for attribute, member in vars(value).items():
                if attribute.startswith("_") or (name == "Connection" and attribute in FOR_THE_SERVER):
                    continue
                if callable(member) or isinstance(member, property) or inspect.isdatadescriptor(member):
                    yield f"{name}.{attribute}", member


def test_all_names_what_is_public_and_nothing_else() -> None:
    assert set(wsev.__all__) == NAMES
    modules = {name for name, value in vars(wsev).items() if inspect.ismodule(value)}
    assert {name for name in vars(wsev) if not name.startswith("_")} - modules == NAMES


def test_connection_has_what_the_design_names() -> None:
    public = {name for name in dir(wsev.Connection) if not name.startswith("_")}
    assert public - FOR_THE_SERVER == CONNECTION


@pytest.mark.parametrize(("name", "value"), [pytest.param(*member, id=member[0]) for member in _public_members()])
def test_a_public_name_has_a_docstring(name: str, value: Any) -> None:
    documented_by_its_class = inspect.ismemberdescriptor(value) or inspect.isgetsetdescriptor(value)
    owner = getattr(wsev, name.partition(".")[0])
    says = value.__doc__ or (documented_by_its_class and f"{name.partition('.')[2]}:" in (owner.__doc__ or ""))
    assert says, f"{name} has no docstring"


REFERENCE = "\n".join(path.read_text() for path in sorted((ROOT / "docs" / "reference").glob("*.md")))


@pytest.mark.parametrize("name", sorted(set(wsev.__all__) - set(errors.__all__)))
def test_a_public_name_stands_in_the_reference(name: str) -> None:
    assert re.search(rf"^\.\. auto\w+:: wsev\.{name}$", REFERENCE, re.MULTILINE)


@pytest.mark.parametrize(("of", "names"), [(wsev.Server, set(vars(wsev.Server))), (wsev.Connection, CONNECTION)])
def test_the_reference_lists_all_members(of: type[Any], names: set[str]) -> None:
    listed = re.search(rf"autoclass:: wsev\.{of.__name__}\n   :members: (.*)", REFERENCE)
    assert listed is not None
    in_docstring = set(re.findall(r"^ +(\w+): ", (of.__doc__ or "").partition("Attributes:")[2], re.MULTILINE))
    wanted = {name for name in names if not name.startswith(("_", "on_"))}  # callbacks are told of with Handler
    assert set(listed[1].split(", ")) | in_docstring == wanted


@pytest.mark.parametrize(("of", "names"), [(Options, OptionsDict), (Listening, ListeningDict)])
def test_keyword_arguments_are_the_options(of: type[Any], names: type[Any]) -> None:
    assert [item.name for item in fields(of) if item.name != "port"] == list(names.__annotations__)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_stubs_say_what_is_there() -> None:
    pytest.importorskip("mypy", reason="no mypy: pip install --group lint")
    check = [sys.executable, "-m", "mypy.stubtest", "wsev", "--concise", "--ignore-disjoint-bases"]
    check += ["--allowlist", "tests/typing/stubtest.txt"]
    found = subprocess.run(check, capture_output=True, text=True, cwd=ROOT, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
