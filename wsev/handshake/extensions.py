"""Sec-WebSocket-Extensions, read as RFC 6455 section 9.1 has it, and what of it is agreed on: permessage-deflate.

Owns the grammar, and RFC 7692 section 7.1.  Does not know how anything is compressed.  Extensions with other names are
passed over.

Invariant: one pass, in time linear to the length of the value; nothing is tried twice.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from wsev.deflate import Parameters
from wsev.handshake.response import TOKEN

__all__ = ["DeflatePolicy", "ExtensionOffer", "agree", "encode_parameters", "parse_extensions"]

ExtensionOffer = tuple[str, list[tuple[str, str | None]]]
"""An extension's name and its parameters in order; None: a parameter without a value."""

_SPACE = re.compile(r"[ \t]*")
_SPACE_AND_COMMAS = re.compile(r"[ \t,]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"')  # RFC 9110 section 5.6.4; *+ never goes back
_ESCAPE = re.compile(r"\\(.)")
_WINDOW_BITS = re.compile(r"[89]|1[0-5]")  # RFC 7692 section 7.1.2: "a decimal integer value without leading zeroes"

_DEFLATE = "permessage-deflate"
_PARAMETERS = frozenset(Parameters._fields)


class DeflatePolicy(NamedTuple):
    """What we agree to.

    Attributes:
        is_shared: neither side takes over any context.
        window_bits: else, the largest window of a connection.
    """

    is_shared: bool
    window_bits: int


def parse_extensions(value: str) -> list[ExtensionOffer] | None:
    """The offers in a Sec-WebSocket-Extensions field, in order; None: it is malformed.

    ::

        extension-list  = 1#extension
        extension       = token *( ";" extension-param )
        extension-param = token [ "=" ( token | quoted-string ) ]
    """
    offers: list[ExtensionOffer] = []
    at = _end(_SPACE_AND_COMMAS, value, 0)  # RFC 9110 section 5.6.1.2: empty elements of a list are passed over
    while at < len(value):
        name = TOKEN.match(value, at)
        if name is None:
            return None
        parameters: list[tuple[str, str | None]] = []
        at = _end(_SPACE, value, name.end())
        while value.startswith(";", at):
            found = _parse_parameter(value, _end(_SPACE, value, at + 1))
            if found is None:
                return None
            parameter, at = found
            parameters.append(parameter)
            at = _end(_SPACE, value, at)
        if at < len(value) and value[at] != ",":
            return None
        offers.append((name[0], parameters))
        at = _end(_SPACE_AND_COMMAS, value, at)
    return offers or None


def agree(offers: list[ExtensionOffer], policy: DeflatePolicy) -> Parameters | None:
    """The first offer of permessage-deflate that can be had, as we have it; None: there is none.

    RFC 7692 section 7.1: "A server MUST decline an extension negotiation offer for this extension if": a parameter is
    not defined, has an invalid value, stands there twice, or the server does not support it.
    """
    for name, given in offers:
        if name == _DEFLATE:
            parameters = _agree_to(given, policy)
            if parameters is not None:
                return parameters
    return None


def _agree_to(given: list[tuple[str, str | None]], policy: DeflatePolicy) -> Parameters | None:
    offered = dict(given)
    if len(offered) != len(given) or not offered.keys() <= _PARAMETERS:
        return None
    for name in ("server_no_context_takeover", "client_no_context_takeover"):
        if offered.get(name) is not None:
            return None
    for name in ("server_max_window_bits", "client_max_window_bits"):
        bits = offered.get(name)
        if bits is not None and not _WINDOW_BITS.fullmatch(bits):
            return None
    server_bits = client_bits = None
    if "server_max_window_bits" in offered:
        bits = offered["server_max_window_bits"]
        # Section 7.1.2.1: it has a value.  zlib has no window of 8 bits for raw streams.
        if bits is None or bits == "8":
            return None
        server_bits = int(bits) if policy.is_shared else min(int(bits), policy.window_bits)
    if "client_max_window_bits" in offered and not policy.is_shared:
        # Section 7.1.2.2: "If a received extension negotiation offer doesn't have the "client_max_window_bits"
        # extension parameter, the corresponding extension negotiation response ... MUST NOT include" it.
        client_bits = min(int(offered["client_max_window_bits"] or 15), policy.window_bits)
    return Parameters(
        # Sections 7.1.1.1 and 7.1.1.2: "A server may include" them even if the client did not.
        server_no_context_takeover=policy.is_shared or "server_no_context_takeover" in offered,
        client_no_context_takeover=policy.is_shared or "client_no_context_takeover" in offered,
        server_max_window_bits=server_bits,
        client_max_window_bits=client_bits,
    )


def encode_parameters(parameters: Parameters) -> str:
    """What the 101 says of them."""
    answer = _DEFLATE
    for name, value in parameters._asdict().items():
        if value is True:
            answer += f"; {name}"
        elif value:
            answer += f"; {name}={value}"
    return answer


def _parse_parameter(value: str, at: int) -> tuple[tuple[str, str | None], int] | None:
    """The parameter that begins ``at``, and where it ends."""
    name = TOKEN.match(value, at)
    if name is None:
        return None
    at = _end(_SPACE, value, name.end())
    if not value.startswith("=", at):
        return (name[0], None), name.end()
    at = _end(_SPACE, value, at + 1)
    if value.startswith('"', at):
        quoted = _QUOTED.match(value, at)
        # RFC 6455 section 9.1: "When using the quoted-string syntax variant, the value after quoted-string unescaping
        # MUST conform to the 'token' ABNF."
        text = _ESCAPE.sub(r"\1", quoted[1]) if quoted else ""
        return ((name[0], text), quoted.end()) if quoted and TOKEN.fullmatch(text) else None
    token = TOKEN.match(value, at)
    return ((name[0], token[0]), token.end()) if token else None


def _end(pattern: re.Pattern[str], value: str, at: int) -> int:
    """Where the text ends that ``pattern``, which may match nothing, finds at ``at``."""
    match = pattern.match(value, at)
    assert match is not None
    return match.end()
