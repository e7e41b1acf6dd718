"""Sec-WebSocket-Extensions, read as RFC 6455 section 9.1 has it.

It owns the grammar.  It does not know any extension: none is accepted yet, and well-formed offers are passed over.

Invariant: one pass, in time linear to the length of the value; nothing is tried twice.
"""

from __future__ import annotations

import re

from wsev.handshake.response import TOKEN

__all__ = ["ExtensionOffer", "parse_extensions"]

ExtensionOffer = tuple[str, list[tuple[str, str | None]]]
"""An extension's name and its parameters in order; None: a parameter without a value."""

_SPACE = re.compile(r"[ \t]*")
_SPACE_AND_COMMAS = re.compile(r"[ \t,]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"')  # RFC 9110 section 5.6.4; *+ never goes back
_ESCAPE = re.compile(r"\\(.)")


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
