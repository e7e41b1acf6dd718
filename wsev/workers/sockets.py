"""What a process takes from the system before it serves: listening sockets and descriptors.

Synchronous, so that it can be done before there is a loop, or a worker.  Knows no WebSocket.

Invariants: a socket that is returned is bound, and no one else's; on failure none stays open.  The errors are OSErrors
with the number that the system gave and a sentence that names the remedy.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from contextlib import suppress
from typing import Any

from wsev.errors import OptionError
from wsev.options import Listening

if sys.platform != "win32":
    import resource

__all__ = ["ListeningSocket", "open_files_limit", "open_reserved", "open_sockets", "reserve_ports"]

REMEDIES = {
    errno.EADDRINUSE: "is in use: stop the program that has it, or take another port (0 is one that is free)",
    errno.EACCES: "is not allowed to this user: take a port from 1024 on",
    errno.EADDRNOTAVAIL: "is no address of this machine: '0.0.0.0' and '::' stand for all that it has",
}


class ListeningSocket:
    """A bound stream socket; of a Unix path, it removes the path when it is closed.

    Attributes:
        sock: the socket.
        address: ``(host, port)`` or the Unix path.
    """

    def __init__(self, sock: socket.socket, *, owns_path: bool = False) -> None:
        self.sock = sock
        name = sock.getsockname()
        if isinstance(name, tuple):
            # What it accepts inherits this.  asyncio sets it of sockets alone that know that they are TCP's.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address: tuple[str, int] | str = (name[0], name[1]) if isinstance(name, tuple) else os.fsdecode(name)
        self._path = self._path_identity() if owns_path else None

    @property
    def is_unix(self) -> bool:
        """Whether it is a Unix socket."""
        return isinstance(self.address, str)

    def close(self) -> None:
        """Close it, and remove its path if that is still ours."""
        if self._path is not None and self._path == self._path_identity():
            os.unlink(str(self.address))
        self.sock.close()

    def _path_identity(self) -> tuple[int, int] | None:
        try:
            status = os.stat(str(self.address))
        except OSError:
            return None
        return status.st_dev, status.st_ino


def open_sockets(listening: Listening) -> list[ListeningSocket]:
    """Make, or take over, the sockets to listen on.

    They listen already: what connects from now on waits until someone accepts.  A port is bound without SO_REUSEPORT
    unless ``reuse_port`` asks for it, so that one in use is an error and not a silent share.

    Raises:
        OSError: the port or path is in use, or not ours to use.
        OptionError: what was given is no socket, or a host that is not known.
    """
    if listening.sock is not None:
        _listen(listening.sock, listening.backlog)
        return [ListeningSocket(listening.sock)]
    if listening.fd is not None:
        sock = _from_descriptor(listening.fd)
        _listen(sock, listening.backlog)
        return [ListeningSocket(sock)]
    if listening.unix is not None:
        return [_open_unix(listening.unix, listening)]
    bound = _bind_hosts(listening)
    try:
        for sock in bound:
            _listen(sock, listening.backlog)
    except BaseException:
        for sock in bound:
            sock.close()
        raise
    return [ListeningSocket(sock) for sock in bound]


def reserve_ports(listening: Listening) -> list[socket.socket]:
    """Bind where several sockets are to listen on one port, each for some of the connections; Linux.

    Nothing is accepted by these: they keep the port ours as long as they are open, and ``open_reserved`` makes those
    that listen.  One in use, by another wsev too, is an error, unless ``reuse_port`` asks for the share.

    Raises:
        OSError, OptionError: as of ``open_sockets``.
    """
    bound = _bind_hosts(listening)
    for sock in bound:
        # Bound alone, and only then open to others of ours: so there is no moment at which the port is nobody's.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Without this nobody else can bind it, as nobody could if it listened.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return bound


def open_reserved(reserved: socket.socket, backlog: int | None) -> ListeningSocket:
    """Make one more socket on a reserved port; it listens at once if ``backlog`` is given."""
    sock = _bind_tcp(reserved.family, reserved.getsockname(), reuse_port=True)
    if backlog is not None:
        _listen(sock, backlog)
    return ListeningSocket(sock)


def _bind_hosts(listening: Listening) -> list[socket.socket]:
    """Bind every address of every host, all on one port."""
    bound: list[socket.socket] = []
    try:
        port = listening.port
        for host in listening.host:
            for family, address in _resolve(host, port):
                bound.append(_bind_tcp(family, (address[0], port, *address[2:]), reuse_port=listening.reuse_port))
                port = port or int(bound[0].getsockname()[1])
    except BaseException:
        for sock in bound:
            sock.close()
        raise
    return bound


def _resolve(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:  # gaierror among them
        raise OptionError("host", host, f"is no address and no known name ({error.strerror})") from None
    # A name may be known twice; and without IPv6 it is good for its other addresses only.
    places: dict[tuple[int, tuple[Any, ...]], None] = dict.fromkeys((each[0], each[4]) for each in found)
    usable = [place for place in places if place[0] != socket.AF_INET6 or socket.has_ipv6]
    return usable or list(places)


def _bind_tcp(family: int, address: tuple[Any, ...], *, reuse_port: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # Connections of an earlier run that linger in TIME_WAIT do not keep the port (on Windows it is a share).
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # so that "0.0.0.0" and "::" go together
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise _explain_tcp(error, address) from None
    sock.setblocking(False)
    return sock


def _listen(sock: socket.socket, backlog: int) -> None:
    try:
        sock.listen(backlog)
    except OSError as error:  # bound to what someone else listens on already, as SO_REUSEADDR lets us
        name = sock.getsockname()
        raise (_explain_tcp(error, name) if isinstance(name, tuple) else _explain(error, f"the path {name}")) from None


def _explain_tcp(error: OSError, address: tuple[Any, ...]) -> OSError:
    return _explain(error, f"port {address[1]} of {address[0]}")


def _explain(error: OSError, what: str) -> OSError:
    if error.errno is None:
        return OSError(f"{what}: {error}")
    return OSError(error.errno, f"{what} {REMEDIES.get(error.errno, f'cannot be listened on: {error.strerror}')}")


def _from_descriptor(number: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=number)
    except OSError as error:
        raise OptionError("fd", number, f"is no open socket ({error.strerror}); give an inherited one") from None
    if sock.type != socket.SOCK_STREAM:
        sock.detach()
        raise OptionError("fd", number, "is no stream socket; give a bound one")
    return sock


def _open_unix(path: str, listening: Listening) -> ListeningSocket:
    if not path.startswith("\0"):  # Linux's abstract names are no files
        _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        if listening.unix_mode is not None:
            os.chmod(path, listening.unix_mode)  # before listen(): until then nobody can connect
        sock.listen(listening.backlog)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise _in_use(path) from None
        raise _explain(error, f"the path {path}") from None
    sock.setblocking(False)
    return ListeningSocket(sock, owns_path=not path.startswith("\0"))


def _in_use(path: str) -> OSError:
    return OSError(errno.EADDRINUSE, f"the path {path} is in use: stop the program that has it, or take another path")


def _remove_stale(path: str) -> None:
    """Remove the socket that a program left which did not end well; who listens on it is not disturbed."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # bind() will tell what is wrong, if anything is
    if not stat.S_ISSOCK(mode):
        raise OptionError("unix", path, "exists and is no socket; take another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog answers EAGAIN at once
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                os.unlink(path)
            return
        except OSError:
            pass
    raise _in_use(path)


def open_files_limit() -> int | None:
    """How many descriptors this process may have, after raising the limit as far as the system lets us."""
    if sys.platform == "win32":
        return None  # it has no such limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):  # macOS: "unlimited" is more than its kernel grants
            pass
    return None if soft == resource.RLIM_INFINITY else soft
