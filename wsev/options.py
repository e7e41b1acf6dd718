"""Options: name, type, default, unit and check of every option of wsev, once.

Checks, the docs' table, and later the command line and the ``WSEV_*`` variables come from the fields here; each field's
``Rule`` (in its metadata) holds what its type cannot say.  ``OptionsDict`` and ``ListeningDict`` repeat the names for
type checkers, and a test keeps them equal.  Knows nothing of servers and sockets.

Invariant: an instance that exists is valid, and its values are normalised (seconds are floats, names are tuples).
"""

from __future__ import annotations

import math
import os
import re
import socket
import ssl as tls
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, Unpack

from wsev.errors import OptionError

if TYPE_CHECKING:
    from wsev.brokers.base import Broker

__all__ = ["Listening", "ListeningDict", "Options", "OptionsDict", "Rule"]

KIB = 1024
MIB = 1024 * KIB

MAX_SECONDS = 366 * 24 * 3600.0  # a year: what the timer wheel's tick numbers certainly hold
MAX_COUNT = 2**31 - 1  # what the core's C ints hold
MAX_SIZE = 2**62  # what its 64-bit sizes hold, with room to add two of them
MAX_PORT = 65535

BROKER_MEMBERS = ("start", "publish", "subscribe", "unsubscribe", "stop")

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_ORIGIN = re.compile(
    r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True)
class Rule:
    """What one option accepts, for people and for programs.

    Attributes:
        unit: ``seconds``, ``bytes``, ``count``, ``mode`` (of a file), ``choice``, ``flag``, ``names`` or ``object``.
        check: returns the value, normalised, or raises ValueError whose text is the remedy.
        text: what the option does, in a sentence or two, for the docs' table and ``--help``.
        is_optional: None is accepted, and switches the limit off.
    """

    unit: str
    check: Callable[[Any], Any]
    text: str
    is_optional: bool


def _option(default: Any, unit: str, check: Callable[[Any], Any], text: str, *, is_optional: bool = False) -> Any:
    return field(default=default, metadata={"rule": Rule(unit, check, text, is_optional)})


def _integer(unit: str, low: int, high: int, *, is_optional: bool = False) -> Callable[[Any], int]:
    noun = " bytes" if unit == "bytes" else ""

    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"must be an int{' of bytes' if noun else ''}")
        if value < low:
            # Who writes 0 for "no limit" learns how that is said here.
            raise ValueError(f"must be at least {low}{noun}{', or None for no limit' if is_optional else ''}")
        if value > high:
            raise ValueError(f"must be at most {high}{noun}")
        return int(value)

    return check


def _size(default: int, text: str, *, low: int = 1, high: int = MAX_SIZE, is_optional: bool = True) -> Any:
    return _option(
        default, "bytes", _integer("bytes", low, high, is_optional=is_optional), text, is_optional=is_optional
    )


def _count(default: int | None, text: str, *, low: int = 1) -> Any:
    return _option(default, "count", _integer("count", low, MAX_COUNT, is_optional=True), text, is_optional=True)


def _seconds(default: float, text: str, *, is_zero_allowed: bool = False, is_optional: bool = True) -> Any:
    def check(value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError("must be a number of seconds")
        if not math.isfinite(value) or value > MAX_SECONDS:
            raise ValueError(f"must be at most {MAX_SECONDS:.0f} seconds{', or None for never' if is_optional else ''}")
        if value < 0 or (value == 0 and not is_zero_allowed):
            raise ValueError("must be 0 or more seconds" if is_zero_allowed else "must be more than 0 seconds")
        return float(value)

    return _option(default, "seconds", check, text, is_optional=is_optional)


def _within(default: int, low: int, high: int, text: str) -> Any:
    return _option(default, "count", _integer("count", low, high), text)


def _choice(default: str | None, choices: tuple[str, ...], text: str) -> Any:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be {'None, ' if default is None else ''}{' or '.join(map(repr, choices))}")
        return str(value)

    return _option(default, "choice", check, text, is_optional=default is None)


def _flag(default: bool, text: str) -> Any:
    def check(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("must be True or False")
        return value

    return _option(default, "flag", check, text)


def _check_max_connections(value: Any) -> int | str:
    if value == "auto":
        return "auto"
    return _integer("count", 1, MAX_COUNT, is_optional=True)(value)


def _check_origins(value: Any) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (value,)
    if not all(isinstance(name, str) for name in names):
        raise ValueError("must be '*' or names of origins, such as ('https://example.com',)")
    names = tuple(name.lower() for name in names)
    for name in names:
        match = _ORIGIN.fullmatch(name)
        if name not in ("*", "null") and (match is None or int(match["port"] or 0) > MAX_PORT):
            raise ValueError(
                f"{name!r} is not an origin: write scheme://host or scheme://host:port, as in "
                "'https://example.com' or 'https://*.example.com', without a path or a slash at the end"
            )
    return names


def _check_subprotocols(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError("must be a sequence of names, such as ('chat.v2', 'chat.v1')")
    names = tuple(value)
    for name in names:
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is no token (RFC 9110 section 5.6.2): use letters, digits, '-', '.' and '_'")
    if len(set(names)) != len(names):
        raise ValueError("names a subprotocol twice; each must be distinct")
    return names


def _check_broker(value: Any) -> Any:
    if isinstance(value, str):
        return _check_broker_name(value)
    missing = [name for name in BROKER_MEMBERS if not callable(getattr(value, name, None))]
    if missing or isinstance(value, type):
        raise ValueError(
            "must be 'local', 'unix:DIRECTORY', or an object with the methods "
            f"{', '.join(BROKER_MEMBERS)}" + (f"; it has no {missing[0]}" if missing else "; it is a class")
        )
    return value


def _check_broker_name(value: str) -> str:
    if value.startswith("unix:"):
        check_mesh_directory(value)
    elif value != "local":
        scheme = value.partition(":")[0]
        remedy = "this version of wsev has no such broker; " if scheme in ("redis", "rediss", "nats") else ""
        raise ValueError(f"{remedy}must be 'local', 'unix:DIRECTORY', or an object with a broker's methods")
    return value


def check_mesh_directory(value: Any) -> str:
    """The directory of a ``unix:DIRECTORY``.

    Raises:
        ValueError: it is none; its text is the remedy.
    """
    if not isinstance(value, str) or not value.startswith("unix:"):
        raise ValueError("must be 'unix:' and a directory, as in 'unix:/run/app'")
    path = value.removeprefix("unix:")
    if not os.path.isabs(path) or "\0" in path:
        raise ValueError("must name a directory by its whole path, as in 'unix:/run/app'")
    return os.path.normpath(path)


def _check_all(instance: Any) -> None:
    """Check and normalise every field of an options dataclass that has just been made."""
    for item in fields(instance):
        rule: Rule = item.metadata["rule"]
        value = getattr(instance, item.name)
        if value is None and rule.is_optional:
            continue
        try:
            checked = rule.check(value)
        except ValueError as error:
            default = "" if item.default is MISSING else f"; leave it out for the default ({item.default!r})"
            remedy = str(error)
            raise OptionError(item.name, value, remedy if "leave it out" in remedy else remedy + default) from None
        object.__setattr__(instance, item.name, checked)


def _check_names(given: dict[str, Any], of: type[Any], elsewhere: dict[str, str]) -> None:
    """Raise OptionError for a name that is no field of ``of``.

    Args:
        elsewhere: where names that are known, but not here, belong.
    """
    names = [item.name for item in fields(of)]
    for name, value in given.items():
        if name in names:
            continue
        if name in elsewhere:
            raise OptionError(name, value, f"belongs to {elsewhere[name]}; give it there")
        close = get_close_matches(name, names, n=2)
        remedy = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(names)}"
        raise OptionError(name, value, f"there is no such option; {remedy}")


_OF_RUN = {"workers": "run"}


class OptionsDict(TypedDict, total=False):
    """The options of ``Server`` as keyword arguments, for type checkers; ``Options`` says what each means."""

    read_buffer_size: int
    write_buffer_size: int
    write_buffer_deadline: float
    max_message_size: int | None
    max_fragments: int | None
    max_queue: int | None
    high_water: int | None
    max_buffered_amount: int | None
    slow_consumer: Literal["close", "drop"]
    handshake_timeout: float | None
    upgrade_timeout: float | None
    read_deadline: float | None
    idle_timeout: float | None
    write_timeout: float | None
    close_timeout: float | None
    stop_timeout: float | None
    max_connections: int | Literal["auto"] | None
    max_connections_per_address: int | None
    max_handshakes: int | None
    max_subscriptions: int | None
    max_request_line: int | None
    max_request_size: int | None
    max_headers: int | None
    max_control_rate: int | None
    origins: str | Iterable[str] | None
    subprotocols: Iterable[str]
    compression: Literal["shared", "dedicated"] | None
    compression_level: int
    compression_threshold: int
    compression_window_bits: int
    compression_memory_level: int
    broker: str | Broker
    decode_text: bool
    transport: Literal["auto", "epoll", "loop"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Every option of ``Server``.  Seconds are floats, sizes bytes, and None switches a limit off."""

    read_buffer_size: int = _size(
        256 * KIB,
        "The buffer that all connections of a loop receive into; one per loop.",
        low=4 * KIB,
        high=1024 * MIB,
        is_optional=False,
    )
    write_buffer_size: int = _size(
        16 * KIB,
        "How much a connection gathers before it is sent; a larger message is sent from where it lies.",
        low=256,
        high=1024 * MIB,
        is_optional=False,
    )
    write_buffer_deadline: float = _seconds(
        0.0,
        "How long what was sent may wait for more to go with it; 0: no longer than this turn of the loop.",
        is_zero_allowed=True,
        is_optional=False,
    )
    max_message_size: int | None = _size(
        1 * MIB, "The longest message, all fragments together, after inflation; past it close code 1009."
    )
    max_fragments: int | None = _count(
        16_384, "The most fragments of one message, empty ones counted; past it close code 1009."
    )
    max_queue: int | None = _count(
        64, "The most events that wait behind a suspended async callback; then reading of its connection pauses."
    )
    high_water: int | None = _size(
        64 * KIB, "With more unsent bytes a connection is not read from and drain() waits, until a quarter is left."
    )
    max_buffered_amount: int | None = _size(
        1 * MIB, "With that many unsent bytes no further message is taken; slow_consumer says what happens then."
    )
    slow_consumer: Literal["close", "drop"] = _choice(
        "close",
        ("close", "drop"),
        "Past max_buffered_amount: close the connection with 1013, or drop the message.",
    )
    handshake_timeout: float | None = _seconds(
        10.0, "From accepting a connection to the end of its request's head, TLS included; bytes do not put it off."
    )
    upgrade_timeout: float | None = _seconds(
        30.0, "How long an async on_upgrade or on_request may take; then it is cancelled and 503 answered."
    )
    read_deadline: float | None = _seconds(
        60.0,
        "From a message's first byte to its last, plus 1 s for each 16 KiB of it; it stands still while reading is "
        "paused by us; past it close code 1008.",
    )
    idle_timeout: float | None = _seconds(
        60.0, "With nothing received: a ping after half of it, close code 1011 after all of it."
    )
    write_timeout: float | None = _seconds(
        60.0, "How long the kernel may take nothing of what waits to be sent; then the connection is ended."
    )
    close_timeout: float | None = _seconds(
        5.0, "From our Close frame, or our refusal of a request, to the end of TCP; then the connection is reset."
    )
    stop_timeout: float | None = _seconds(
        10.0, "How long callbacks may still run after a stop; then they are cancelled."
    )
    max_connections: int | Literal["auto"] | None = _option(
        "auto",
        "count",
        _check_max_connections,
        "The most connections of a worker, those in their opening handshake counted; past it 503 with Retry-After.  "
        "'auto': the limit of open files (raised as far as the system lets us) less 100.",
        is_optional=True,
    )
    max_connections_per_address: int | None = _count(
        None, "The most connections from one address; past it 503.  Behind a proxy everybody has one address."
    )
    max_handshakes: int | None = _count(
        None, "The most opening handshakes at once, TLS included; past it 503 with Retry-After."
    )
    max_subscriptions: int | None = _count(1_000, "The most topics of one connection; past it subscribe() is False.")
    max_request_line: int | None = _size(8 * KIB, "The longest request line; past it 414.", low=64)
    max_request_size: int | None = _size(
        16 * KIB, "The largest head of a request, its request line included; past it 431.", low=256
    )
    max_headers: int | None = _count(100, "The most header fields of a request; past it 431.")
    max_control_rate: int | None = _count(
        100,
        "The most pings and pongs of a connection a second; ten seconds' worth may come at once; past it close code "
        "1008.",
    )
    origins: tuple[str, ...] | None = _option(
        None,
        "names",
        _check_origins,
        "Which sites' pages may connect: None: only those whose host and port are those of the request's Host; '*': "
        "all; or names, where 'https://*.example.com' stands for its subdomains.  Clients that send no Origin (no "
        "browsers) always may.",
        is_optional=True,
    )
    subprotocols: tuple[str, ...] = _option(
        (), "names", _check_subprotocols, "Subprotocols that we speak, best first: the first that the client offers."
    )
    compression: Literal["shared", "dedicated"] | None = _choice(
        None,
        ("shared", "dedicated"),
        "permessage-deflate (RFC 7692) for clients that offer it.  shared: each message by itself, by one compressor "
        "for all, so that a connection costs no memory; dedicated: each connection has contexts of its own, which "
        "compress small messages better; None: off.",
    )
    compression_level: int = _within(1, 1, 9, "How hard to compress: 1 is the fastest, 9 the smallest.")
    compression_threshold: int = _option(
        256,
        "bytes",
        _integer("bytes", 0, MAX_SIZE),
        "Messages smaller than this go uncompressed, unless send(..., compress=True) asks for it.",
    )
    compression_window_bits: int = _within(
        12, 9, 15, "With compression='dedicated': how far back a message may refer, as a power of two bytes."
    )
    compression_memory_level: int = _within(
        5, 1, 9, "With compression='dedicated': of a connection's compressor; 5 takes 16 KiB, each step doubles it."
    )
    broker: str | Broker = _option(  # noqa: RUF009 - it returns a dataclass field
        "local",
        "object",
        _check_broker,
        "What carries published messages between workers.  'local': between those of one run(); 'unix:/run/app': "
        "between all processes of yours that name the same directory; or an object with a broker's five methods.",
    )
    decode_text: bool = _flag(True, "False: text messages arrive as bytes, validated but not decoded.")
    transport: Literal["auto", "epoll", "loop"] = _choice(
        "auto",
        ("auto", "epoll", "loop"),
        "auto: plain TCP and Unix sockets by wsev's own transport, on Linux, which sends by io_uring where that is "
        "allowed; epoll: the same without io_uring; loop: all by the event loop's.",
    )

    def __post_init__(self) -> None:
        _check_all(self)

    @classmethod
    def of(cls, **options: Unpack[OptionsDict]) -> Self:
        """Make the options from what a user gave.

        Raises:
            OptionError: a name that is no option, or a value that cannot be used; it names what to do.
        """
        given: dict[str, Any] = dict(options)
        listening = dict.fromkeys((item.name for item in fields(Listening)), "run, listen and start")
        _check_names(given, cls, listening | _OF_RUN)
        return cls(**given)

    @classmethod
    def rules(cls) -> dict[str, Rule]:
        """The rule of each option, in the order of the docs' table."""
        return {item.name: item.metadata["rule"] for item in fields(cls)}


class ListeningDict(TypedDict, total=False):
    """Where to listen, as keyword arguments, for type checkers; ``Listening`` says what each means."""

    host: str | Iterable[str]
    unix: str | os.PathLike[str] | None
    unix_mode: int | None
    sock: socket.socket | None
    fd: int | None
    ssl: tls.SSLContext | tuple[str | os.PathLike[str], str | os.PathLike[str]] | None
    backlog: int
    reuse_port: bool


def _check_host(value: Any) -> tuple[str, ...]:
    hosts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (value,)
    if not hosts or not all(isinstance(host, str) for host in hosts):
        raise ValueError("must be a host name or address, or several; '0.0.0.0' and '::' stand for all addresses")
    return hosts


def _check_unix(value: Any) -> str:
    try:
        path = os.fspath(value)
    except TypeError:
        path = None
    if not isinstance(path, str) or not path:
        raise ValueError("must be the path of a socket, a str or PathLike")
    return path


def _check_sock(value: Any) -> socket.socket:
    if not isinstance(value, socket.socket) or value.type != socket.SOCK_STREAM or value.fileno() < 0:
        raise ValueError("must be a bound stream socket")
    name = value.getsockname()
    # listen() binds one that is not to all addresses, and to a port that nobody chose.
    if not name or (isinstance(name, tuple) and name[1] == 0):
        raise ValueError("is not bound; call its bind() first")
    try:
        value.getpeername()
    except OSError:
        return value
    raise ValueError("is connected to a peer; give one that is bound and not connected")


def _check_ssl(value: Any) -> tls.SSLContext:
    if isinstance(value, tls.SSLContext):
        if value.protocol == tls.PROTOCOL_TLS_CLIENT:
            raise ValueError("is a client's context; make it with ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)")
        return value
    try:
        chain, key = map(os.fspath, value if isinstance(value, tuple) else ())
    except (TypeError, ValueError):
        raise ValueError("must be an ssl.SSLContext, or a pair of files (certificate chain, private key)") from None
    for path in (chain, key):
        if not os.path.isfile(path):
            raise ValueError(f"there is no file {path!r}; give the paths of the certificate chain and its private key")
    context = tls.create_default_context(tls.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(chain, key)
    except OSError as error:  # SSLError among them: no certificate in it, or a key that does not fit
        raise ValueError(f"cannot be loaded ({error}); give a PEM certificate chain and its private key") from error
    return context


@dataclass(frozen=True, kw_only=True, slots=True)
class Listening:
    """Where a server listens: on a port of one or several hosts, or a Unix path, or a socket that exists already."""

    port: int = _option(8000, "count", _integer("count", 0, MAX_PORT), "The TCP port; 0: one that is free.")
    host: tuple[str, ...] = _option(
        ("127.0.0.1",), "names", _check_host, "The hosts or addresses to listen on; '0.0.0.0' and '::' are all."
    )
    unix: str | None = _option(
        None, "object", _check_unix, "The path of a Unix socket to listen on instead of a port.", is_optional=True
    )
    unix_mode: int | None = _option(
        None, "mode", _integer("mode", 0, 0o777), "Its permissions, such as 0o660.", is_optional=True
    )
    sock: socket.socket | None = _option(  # noqa: RUF009 - it returns a dataclass field
        None, "object", _check_sock, "A bound socket to listen on instead of a port.", is_optional=True
    )
    fd: int | None = _option(
        None, "count", _integer("count", 0, MAX_COUNT), "The number of an open descriptor of one.", is_optional=True
    )
    ssl: tls.SSLContext | None = _option(  # noqa: RUF009 - it returns a dataclass field
        None, "object", _check_ssl, "TLS: a context, or the files of certificate chain and key.", is_optional=True
    )
    backlog: int = _option(
        4096, "count", _integer("count", 1, MAX_COUNT), "How many connections may wait to be accepted."
    )
    reuse_port: bool = _flag(False, "Share the port with other processes that ask for the same.")

    def __post_init__(self) -> None:
        _check_all(self)
        places = [name for name in ("unix", "sock", "fd") if getattr(self, name) is not None]
        if len(places) > 1:
            raise OptionError(places[1], getattr(self, places[1]), f"{places[0]} is given too; give one of them")
        if self.unix_mode is not None and self.unix is None:
            raise OptionError("unix_mode", self.unix_mode, "goes with unix=, the path of a Unix socket; leave it out")
        if self.reuse_port and places:
            raise OptionError("reuse_port", True, f"is for TCP ports; leave it out with {places[0]}=")

    @classmethod
    def of(cls, port: int = 8000, **listening: Unpack[ListeningDict]) -> Self:
        """Make it from what a user gave to ``run``, ``listen`` or ``start``.

        Raises:
            OptionError: a name that is no option of listening, or a value that cannot be used.
        """
        given: dict[str, Any] = dict(listening)
        _check_names(given, cls, dict.fromkeys((item.name for item in fields(Options)), "Server") | _OF_RUN)
        return cls(port=port, **given)
