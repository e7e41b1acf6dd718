"""MeshDirectory: the directory in which the members of a mesh find each other.

Each member listens on a Unix socket there, ``<name>.sock``, whose name is eight random hexadecimal digits.  The
directory is its owner's alone (0700): who may enter it may publish.  Synchronous, and knows nothing of what is said.

Invariants: a file named ``.sock`` has been listened on since before it had that name, so that one that refuses is dead
and may be removed; a name is never used again.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import stat
from contextlib import suppress

from wsev.brokers.envelope import NAME
from wsev.errors import BrokerError

__all__ = ["MeshDirectory"]

SUFFIX = ".sock"
MAX_PATH = 107  # bytes; what sun_path holds on Linux without its NUL (103 on macOS, where bind() says so itself)
MODE = 0o700
BACKLOG = 128  # members that dial at once; one that finds it full comes again


class MeshDirectory:
    """One member's view of it.

    Args:
        path: absolute; it is made if it is missing, but not what is above it.

    Attributes:
        name: this member's, while it is open.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = ""

    def open(self) -> socket.socket:
        """Become a member: returns the listening socket, which the others can dial from now on.

        Raises:
            BrokerError: the directory cannot be used; it says what to do.
        """
        self._check()
        self.name = secrets.token_hex(4)
        path = self._path_of(self.name)
        if len(os.fsencode(path)) > MAX_PATH:
            raise self._error(
                f"its sockets would have paths of more than {MAX_PATH} bytes: take a shorter one (for 'local': TMPDIR)"
            )
        unnamed = path.removesuffix(SUFFIX) + ".new"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.bind(unnamed)
            sock.listen(BACKLOG)
            os.rename(unnamed, path)
        except OSError as error:
            sock.close()
            with suppress(OSError):
                os.unlink(unnamed)
            raise self._error(f"cannot be listened in: {error.strerror}") from None
        return sock

    def others(self) -> list[str]:
        """The names of the other members, and of dead ones that nobody has found yet."""
        names = (each.removesuffix(SUFFIX) for each in os.listdir(self.path) if each.endswith(SUFFIX))
        return [name for name in names if NAME.fullmatch(name) and name != self.name]

    def connect(self, name: str) -> socket.socket | None:
        """Dial a member; None if there is no such one any more.

        Raises:
            OSError: not now; it may be alive.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(self._path_of(name))  # at once, or EAGAIN if its backlog is full
        except OSError as error:
            sock.close()
            if error.errno == errno.ECONNREFUSED:
                self._remove(name)  # nobody listens on it, and nobody ever will again
                return None
            if error.errno == errno.ENOENT:
                return None
            raise
        return sock

    def close(self) -> None:
        """Be found by nobody any more.  The listening socket is its server's."""
        self._remove(self.name)

    def _check(self) -> None:
        if not hasattr(socket, "AF_UNIX"):
            raise self._error("this system has no Unix sockets")
        try:
            with suppress(FileExistsError):
                os.mkdir(self.path, MODE)
            status = os.stat(self.path)
        except OSError as error:
            raise self._error(f"cannot be made or entered: {error.strerror}") from None
        if not stat.S_ISDIR(status.st_mode):
            raise self._error("is no directory: name one, or one that does not exist yet")
        if status.st_uid != os.geteuid():
            raise self._error(f"belongs to user {status.st_uid}, not to {os.geteuid()}: take a directory of your own")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise self._error(
                f"other users may enter it (mode {stat.S_IMODE(status.st_mode):04o}), and who may enter may publish: "
                f"chmod 700 {self.path}"
            )

    def _path_of(self, name: str) -> str:
        return os.path.join(self.path, name + SUFFIX)

    def _remove(self, name: str) -> None:
        with suppress(OSError):
            os.unlink(self._path_of(name))

    def _error(self, what: str) -> BrokerError:
        return BrokerError(f"the broker's directory {self.path}: {what}")
