"""Which sites' pages may connect: the Origin field against Host, or against the ``origins`` option.

A browser sends the user's cookies along with a WebSocket that any page opens (RFC 6455 section 10.2), so that the same
origin is the default.  Clients that are no browsers send no Origin, and could send any.

It does not read requests: upgrade.py hands it two values.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Authority", "OriginPolicy", "parse_authority"]

# RFC 3986 section 3.2.2: uri-host is an IP-literal or a reg-name.  Without userinfo: RFC 9110 section 4.2.4 forbids it.
_AUTHORITY = re.compile(
    r"(\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]++|%[0-9A-Fa-f]{2})++)(?::([0-9]{0,5}))?",
)
_LABELS = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Authority(NamedTuple):
    """A host, in lower case, and its port; None: not given, which means the scheme's own."""

    host: str
    port: int | None


@lru_cache(maxsize=16)  # most requests name the same host, and this was 4 % of a handshake; few: peers choose them
def parse_authority(text: str) -> Authority | None:
    """Read ``uri-host [":" port]``; None: it is something else."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    host, digits = match.groups()
    port = int(digits) if digits else None
    if port is not None and port > 65535:
        return None
    if host.startswith("["):
        try:
            socket.inet_pton(socket.AF_INET6, host[1:-1])
        except OSError:
            return None
    return Authority(host.lower(), port)


def _parse_origin(origin: str) -> tuple[str, Authority] | None:
    """The scheme and authority of ``("http" | "https") "://" host [":" port]``; None: it is something else."""
    scheme, _, rest = origin.partition("://")
    if scheme not in _DEFAULT_PORTS:
        return None
    authority = parse_authority(rest)
    # RFC 6454 section 6.1 serializes an origin without a dot at the end: who sends one is no browser at that site.
    if authority is None or authority.host.endswith(".") or rest.endswith(":"):
        return None
    return scheme, authority


class OriginPolicy:
    """The ``origins`` option, ready to be asked.

    Args:
        origins: as ``Options.origins``: None, or ``*``, ``null`` and names, in lower case and checked already.
    """

    def __init__(self, origins: Sequence[str] | None) -> None:
        self._is_same_origin = origins is None
        self._is_any = origins is not None and "*" in origins
        self._names: set[str] = set()
        self._wildcards: list[tuple[str, str, int | None]] = []  # scheme, ".example.com", port
        for name in origins or ():
            scheme, _, rest = name.partition("://")
            if rest.startswith("*."):
                host, _, port = rest[1:].partition(":")
                self._wildcards.append((scheme, host, int(port) if port else _DEFAULT_PORTS.get(scheme)))
            else:
                self._names.add(_normalize(name))

    def allows(self, origin: str, host: Authority) -> bool:
        """Whether a page of ``origin``, the Origin field's value, may connect to ``host``."""
        if self._is_any:
            return True
        if self._is_same_origin:
            return _is_same_origin(origin, host)
        return _normalize(origin) in self._names or self._matches_wildcard(origin)

    def _matches_wildcard(self, origin: str) -> bool:
        scheme, _, rest = origin.partition("://")
        authority = parse_authority(rest)
        if authority is None:
            return False
        port = authority.port if authority.port is not None else _DEFAULT_PORTS.get(scheme)
        return any(
            scheme == allowed_scheme and port == allowed_port and _is_subdomain(authority.host, parent)
            for allowed_scheme, parent, allowed_port in self._wildcards
        )


def _is_same_origin(origin: str, host: Authority) -> bool:
    """Whether host and port are the same.

    The scheme is not compared: where TLS ends at a proxy, the page is https and the request is not.  For the same
    reason a port that is missing on either side is the default of the origin's scheme.
    """
    scheme, _, rest = origin.partition("://")
    text = host.host if host.port is None else f"{host.host}:{host.port}"
    if rest == text and scheme in _DEFAULT_PORTS:  # the usual case: the same spelling, of what is known to be a host
        return not host.host.endswith(".")
    parsed = _parse_origin(origin)
    if parsed is None:
        return False
    scheme, (name, port) = parsed
    default = _DEFAULT_PORTS[scheme]
    return name == host.host and (default if port is None else port) == (default if host.port is None else host.port)


def _is_subdomain(host: str, parent: str) -> bool:
    """Whether ``host`` is one or more labels in front of ``parent``, which begins with a dot."""
    labels = host.removesuffix(parent)
    return labels != host and _LABELS.fullmatch(labels) is not None


def _normalize(origin: str) -> str:
    """The one spelling of an origin: host in lower case, no default port.  What is not http is compared as it is."""
    parsed = _parse_origin(origin)
    if parsed is None:
        return origin
    scheme, (host, port) = parsed
    return f"{scheme}://{host}" if port in (None, _DEFAULT_PORTS[scheme]) else f"{scheme}://{host}:{port}"
