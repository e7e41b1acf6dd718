"""The options: defaults those of the docs, and errors that say what to do."""

from __future__ import annotations

import socket
import ssl
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from wsev.brokers.base import Broker
from wsev.brokers.mesh import Mesh
from wsev.errors import OptionError
from wsev.options import Listening, ListeningDict, Options, OptionsDict, check_mesh_directory

KIB = 1024

DEFAULTS = {
    "read_buffer_size": 256 * KIB,
    "write_buffer_size": 16 * KIB,
    "write_buffer_deadline": 0.0,
    "max_message_size": 1024 * KIB,
    "max_fragments": 16_384,
    "max_queue": 64,
    "high_water": 64 * KIB,
    "max_buffered_amount": 1024 * KIB,
    "slow_consumer": "close",
    "handshake_timeout": 10.0,
    "upgrade_timeout": 30.0,
    "read_deadline": 60.0,
    "idle_timeout": 60.0,
    "write_timeout": 60.0,
    "close_timeout": 5.0,
    "stop_timeout": 10.0,
    "max_connections": "auto",
    "max_connections_per_address": None,
    "max_handshakes": None,
    "max_subscriptions": 1_000,
    "max_request_line": 8 * KIB,
    "max_request_size": 16 * KIB,
    "max_headers": 100,
    "max_control_rate": 100,
    "origins": None,
    "subprotocols": (),
    "compression": None,
    "compression_level": 1,
    "compression_threshold": 256,
    "compression_window_bits": 12,
    "compression_memory_level": 5,
    "broker": "local",
    "decode_text": True,
    "transport": "auto",
}


def test_defaults_are_those_of_the_design() -> None:
    assert {item.name: item.default for item in fields(Options)} == DEFAULTS


def test_options_dict_names_every_option() -> None:
    assert list(OptionsDict.__annotations__) == [item.name for item in fields(Options)]


# Names are given as any iterable and kept as a tuple; the others are given as they are kept.
NORMALISED = {"origins", "subprotocols", "host", "unix", "ssl"}


def test_options_dict_has_the_types_of_the_options() -> None:
    above = {"Broker": Broker}  # named for type checkers alone: options stand below brokers
    given, kept = (get_type_hints(each, localns=above) for each in (OptionsDict, Options))
    assert {k: v for k, v in given.items() if k not in NORMALISED} == {
        k: v for k, v in kept.items() if k not in NORMALISED
    }


def test_listening_dict_names_every_place() -> None:
    assert ["port", *ListeningDict.__annotations__] == [item.name for item in fields(Listening)]


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_option_has_a_text_and_a_unit(name: str) -> None:
    rule = Options.rules()[name]
    assert rule.text.endswith(".")
    assert rule.unit in ("bytes", "seconds", "count", "choice", "flag", "names", "object")


def test_options_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Options().max_queue = 3  # type: ignore[misc]  # that is the claim


SWITCHED_OFF = [
    *("max_message_size", "max_fragments", "max_queue", "high_water", "max_buffered_amount", "handshake_timeout"),
    *("upgrade_timeout", "read_deadline", "idle_timeout", "write_timeout", "close_timeout", "stop_timeout"),
    *("max_connections", "max_connections_per_address", "max_handshakes", "max_subscriptions", "max_request_line"),
    *("max_request_size", "max_headers", "max_control_rate"),
]


@pytest.mark.parametrize("name", SWITCHED_OFF)
def test_none_switches_a_limit_off(name: str) -> None:
    options: Any = {name: None}
    assert getattr(Options.of(**options), name) is None


@pytest.mark.parametrize("name", ["read_buffer_size", "write_buffer_size", "write_buffer_deadline", "slow_consumer"])
def test_none_is_refused_where_there_is_no_limit_to_switch_off(name: str) -> None:
    options: Any = {name: None}
    with pytest.raises(OptionError, match=f"{name}=None"):
        Options.of(**options)


def test_seconds_are_floats() -> None:
    assert isinstance(Options(idle_timeout=3).idle_timeout, float)


UNFIT: list[tuple[str, object, str]] = [
    ("read_buffer_size", 100, "at least 4096 bytes"),
    ("read_buffer_size", "64K", "int of bytes"),
    ("read_buffer_size", True, "int of bytes"),
    ("write_buffer_size", 1 << 40, "at most"),
    ("write_buffer_deadline", -0.5, "0 or more seconds"),
    ("idle_timeout", 0, "more than 0 seconds"),
    ("idle_timeout", float("inf"), "None for never"),
    ("idle_timeout", float("nan"), "None for never"),
    ("idle_timeout", "5", "number of seconds"),
    ("max_queue", 0, "at least 1, or None for no limit"),
    ("max_message_size", 0, "at least 1 bytes, or None for no limit"),
    ("max_queue", 2**31, "at most"),
    ("max_connections", "many", "must be an int"),
    ("slow_consumer", "ignore", "'close' or 'drop'"),
    ("decode_text", 1, "True or False"),
    ("subprotocols", "chat", "sequence of names"),
    ("subprotocols", ("a b",), "no token"),
    ("subprotocols", ("a", "a"), "distinct"),
    ("origins", "https://example.com/", "without a path"),
    ("origins", ("example.com",), "scheme://host"),
    ("origins", ("https://*example.com",), "scheme://host"),
    ("origins", ("https://*.[::1]",), "scheme://host"),
    ("origins", ("https://example.com:65536",), "scheme://host:port"),
    ("origins", 3, "names of origins"),
    ("compression", "gzip", "'shared' or 'dedicated'"),
    ("compression_level", 0, "at least 1"),
    ("compression_level", 10, "at most 9"),
    ("compression_window_bits", 8, "at least 9"),
    ("compression_window_bits", 16, "at most 15"),
    ("compression_memory_level", 10, "at most 9"),
    ("compression_threshold", -1, "at least 0"),
    ("compression_threshold", None, "must be an int"),
    ("broker", "redis://localhost", "has no such broker"),
    ("broker", "locale", "must be 'local', 'unix:DIRECTORY'"),
    ("broker", "unix:app", "whole path"),
    ("broker", "unix:", "whole path"),
    ("broker", 3, "it has no start"),
    ("broker", Mesh, "is a class"),
]


@pytest.mark.parametrize(("name", "value", "remedy"), UNFIT, ids=[f"{name}={value!r}" for name, value, _ in UNFIT])
def test_an_unfit_value_is_named_with_its_remedy(name: str, value: object, remedy: str) -> None:
    options: Any = {name: value}
    with pytest.raises(OptionError) as caught:
        Options.of(**options)
    assert (caught.value.option, caught.value.value) == (name, value) or value != value
    assert remedy in caught.value.remedy
    assert str(caught.value).startswith(f"{name}={value!r}: ")
    assert "leave it out" in str(caught.value)


@pytest.mark.parametrize("value", ["local", "unix:/run/app", Mesh("/run/app")], ids=str)
def test_a_broker_is_kept_as_it_was_given(value: Any) -> None:
    assert Options.of(broker=value).broker is value


@pytest.mark.parametrize(("value", "path"), [("unix:/run/app", "/run/app"), ("unix:/run//app/", "/run/app")])
def test_a_mesh_directory_is_one_path_however_it_is_written(value: str, path: str) -> None:
    assert check_mesh_directory(value) == path


def test_an_unknown_option_names_the_one_that_was_meant() -> None:
    with pytest.raises(OptionError, match="did you mean max_message_size"):
        Options.of(max_mesage_size=3)  # type: ignore[call-arg]  # that is the claim


def test_an_unknown_option_without_a_likeness_names_all() -> None:
    with pytest.raises(OptionError, match="known are read_buffer_size"):
        Options.of(zzz=3)  # type: ignore[call-arg]  # that is the claim


@pytest.mark.parametrize(
    ("of", "name", "place"),
    [
        (Options, "port", "run, listen and start"),
        (Options, "ssl", "run, listen and start"),
        (Options, "workers", "run;"),
        (Listening, "workers", "run;"),
        (Listening, "max_message_size", "Server;"),
    ],
)
def test_an_option_given_in_the_wrong_place_names_the_right_one(of: Any, name: str, place: str) -> None:
    with pytest.raises(OptionError, match=f"belongs to {place}"):
        of.of(**{name: 1})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        ("*", ("*",)),
        ("https://Example.com", ("https://example.com",)),
        (["https://a.example:8443", "https://*.b.example", "null"],) * 2,
        (["http://[::1]:8000", "chrome-extension://abcdef"],) * 2,
    ],
    ids=str,
)
def test_origins_are_names_in_lower_case(given: Any, kept: Any) -> None:
    assert Options.of(origins=given).origins == (kept if kept is None else tuple(kept))


def test_a_server_listens_on_this_machine_alone_by_default() -> None:
    assert Listening.of() == Listening(port=8000, host=("127.0.0.1",), backlog=4096, reuse_port=False)


@pytest.mark.parametrize(
    ("listening", "remedy"),
    [
        ({"port": 65536}, "at most 65535"),
        ({"port": "80"}, "must be an int"),
        ({"host": ()}, "host name or address"),
        ({"unix": "/tmp/a", "fd": 3}, "give one of them"),
        ({"unix_mode": 0o660}, "goes with unix="),
        ({"unix": ""}, "path of a socket"),
        ({"unix": "/tmp/a", "reuse_port": True}, "for TCP ports"),
        ({"sock": 3}, "bound stream socket"),
        ({"ssl": "cert.pem"}, "pair of files"),
        ({"ssl": (1, 2)}, "pair of files"),
        ({"ssl": ("missing.pem", "key.pem")}, "no file 'missing.pem'"),
        ({"hots": "::"}, "did you mean host"),
    ],
    ids=str,
)
def test_an_unfit_place_is_named_with_its_remedy(listening: Any, remedy: str) -> None:
    with pytest.raises(OptionError, match=remedy):
        Listening.of(**listening)


def test_several_hosts_are_kept_in_order() -> None:
    assert Listening.of(host=["::1", "127.0.0.1"]).host == ("::1", "127.0.0.1")


def test_a_datagram_socket_is_no_place() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises(OptionError, match="stream socket"):
        Listening.of(sock=sock)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX], ids=lambda family: family.name)
def test_a_socket_that_is_not_bound_is_no_place(family: socket.AddressFamily) -> None:
    with socket.socket(family) as sock, pytest.raises(OptionError, match="is not bound"):
        Listening.of(sock=sock)


def test_a_closed_socket_is_no_place() -> None:
    sock = socket.socket()
    sock.close()
    with pytest.raises(OptionError, match="bound stream socket"):
        Listening.of(sock=sock)


def test_a_context_for_clients_is_told_from_a_servers() -> None:
    with pytest.raises(OptionError, match="CLIENT_AUTH"):
        Listening.of(ssl=ssl.create_default_context())


def test_a_context_is_taken_as_it_is() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    assert Listening.of(ssl=context).ssl is context


def test_files_that_hold_no_certificate_are_an_error(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    with pytest.raises(OptionError, match="cannot be loaded"):
        Listening.of(ssl=(empty, empty))
