"""Request: what the client asked for, as its bytes.

It owns the head of one HTTP request and gives views of it.  It judges nothing: that is upgrade.py.

Invariants: the bytes are those of a Head, so their lines end in CR LF and each field has a name and a colon.  Nothing
parsed is kept: an idle connection costs its request's bytes and two references.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar, overload
from urllib.parse import parse_qsl, unquote

__all__ = ["Address", "Fields", "Headers", "Request", "address_of", "parse_list", "path_of", "split_target"]

Address = tuple[str, int] | str
"""The address of a TCP peer (host, port); of a Unix socket its path, which is mostly empty."""


T = TypeVar("T")


class HasExtraInfo(Protocol):
    """What is asked of a transport."""

    def get_extra_info(self, name: str, default: object = None) -> Any: ...


def address_of(transport: HasExtraInfo) -> Address:
    """The address of a transport's peer, in the form of ``Request.remote_address``."""
    address = transport.get_extra_info("peername")
    if isinstance(address, tuple):
        return (address[0], address[1])  # IPv6 has a flow label and a scope behind them
    if isinstance(address, bytes):
        return address.decode("utf-8", "surrogateescape")
    return address or ""


class Fields(Mapping[str, str]):
    """Names and their values, each name once or more often; a mapping of a name to its first value."""

    __slots__ = ("_values",)

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> str:
        return self._values[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def get_all(self, name: str) -> list[str]:
        """Every value that was given to ``name``, in order; none: an empty list."""
        return list(self._values.get(name, ()))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(self)}>"  # no values: they may be secret


class Headers(Mapping[str, str]):
    """The header fields of a request; their names in any case, iterated in lower case.

    A field of several lines is one value, joined by commas as RFC 9110 section 5.3 has it; ``get_all`` gives its lines.
    Bytes that are not ASCII are read as Latin-1.
    """

    __slots__ = ("_repeated", "_values")

    def __init__(self, head: str) -> None:
        values: dict[str, str] = {}
        repeated: dict[str, list[str]] | None = None
        # Not splitlines(), which also splits at VT, FF, FS, GS, RS and U+0085; nor strip(), which takes as many away.
        for line in head.split("\r\n")[1:-2]:
            name, _, value = line.partition(":")
            name = name.lower()
            if name not in values:
                values[name] = value.strip(" \t")
            else:
                repeated = repeated or {}
                repeated.setdefault(name, [values[name]]).append(value.strip(" \t"))
        if repeated:
            values.update((name, ", ".join(lines)) for name, lines in repeated.items())
        self._values = values
        self._repeated = repeated

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    @overload
    def get(self, name: str, default: None = None) -> str | None: ...
    @overload
    def get(self, name: str, default: T) -> str | T: ...
    def get(self, name: str, default: T | None = None) -> str | T | None:
        """The value of the field ``name``, or ``default``."""
        return self._values.get(name.lower(), default)  # Mapping's own raises and catches a KeyError for it

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def get_all(self, name: str) -> list[str]:
        """The value of each line of the field ``name``, in order; none: an empty list."""
        name = name.lower()
        if self._repeated and name in self._repeated:
            return list(self._repeated[name])
        return [self._values[name]] if name in self._values else []

    def __repr__(self) -> str:
        return f"<Headers {', '.join(self)}>"  # no values: they may be secret


class Request:
    """The HTTP request that a connection began with.

    Only its bytes are kept.  Each attribute is read from them when asked for, so take ``request.headers`` into a
    variable where you look at several.
    """

    __slots__ = ("_peer", "_raw")

    def __init__(self, raw: bytes, peer: HasExtraInfo) -> None:
        self._raw = raw
        # Asked for the address when that is wanted: the transport, or the Connection, which knows it after the end.
        self._peer = peer

    def __bytes__(self) -> bytes:
        """The head of the request as it came, up to and with its empty line."""
        return self._raw

    @property
    def method(self) -> str:
        """The method, such as ``GET``."""
        return self._raw[: self._raw.index(b" ")].decode("ascii")

    @property
    def target(self) -> str:
        """The request target as it came: path and query, not decoded."""
        return self._raw[: self._raw.index(b"\r\n")].split(b" ")[1].decode("latin-1")

    @property
    def path(self) -> str:
        """The path, percent-decoded as UTF-8 (``%2F`` too); bytes that are not UTF-8 become U+FFFD."""
        return path_of(self.target)

    @property
    def query(self) -> Fields:
        """The query's names and values, decoded; empty values are kept."""
        return Fields(parse_qsl(split_target(self.target)[2], keep_blank_values=True))

    @property
    def headers(self) -> Headers:
        """The header fields."""
        return Headers(self._raw.decode("latin-1"))

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies; of one that came twice the first, which is the one with the longer path (RFC 6265 5.4)."""
        cookies: dict[str, str] = {}
        for line in self.headers.get_all("cookie"):
            for pair in line.split(";"):
                name, equals, value = pair.partition("=")
                name, value = name.strip(" \t"), value.strip(" \t")
                if len(value) >= 2 and value[0] == value[-1] == '"':
                    value = value[1:-1]
                if equals and name:
                    cookies.setdefault(name, value)
        return cookies

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """The subprotocols that the client offers, its favourite first."""
        return tuple(parse_list(self.headers.get("sec-websocket-protocol", "")))

    @property
    def remote_address(self) -> Address:
        """The address of the client, ``(host, port)``; on a Unix socket a path or ``""``.  Readable after the end."""
        return address_of(self._peer)

    def __repr__(self) -> str:
        return f"<Request {self.method} {split_target(self.target)[1]}>"  # no query: it may hold a token


def parse_list(value: str) -> list[str]:
    """The elements of a comma-separated field value; empty ones are none (RFC 9110 section 5.6.1.2)."""
    return [element for part in value.split(",") if (element := part.strip(" \t"))]


def path_of(target: str) -> str:
    """A request target's path, percent-decoded as UTF-8; bytes that are not UTF-8 become U+FFFD."""
    path = split_target(target)[1]
    return unquote(path) if "%" in path else path


def split_target(target: str) -> tuple[str | None, str, str]:
    """A request target's authority (None in origin-form), path and query (RFC 9112 section 3.2), none decoded."""
    authority = None
    if not target.startswith("/"):
        _, scheme, rest = target.partition("://")
        if scheme:
            end = min(at for at in (rest.find("/"), rest.find("?"), len(rest)) if at >= 0)
            authority, target = rest[:end], rest[end:]
            # RFC 9112 section 3.2.1: "If the target URI's path component is empty, the client MUST send "/""
            target = target if target.startswith("/") else "/" + target
    path, _, query = target.partition("?")
    return authority, path, query
