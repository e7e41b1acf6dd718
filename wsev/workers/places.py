"""Places: where workers serve, one after the other; their listening sockets outlive them.

On Linux each place has sockets of its own on the one port, and the kernel spreads connections over them
(SO_REUSEPORT).  A Unix path, a socket from elsewhere, and other systems, where the kernel does not spread, have sockets
that all places share.

Invariant: what waits to be accepted at a place is not lost when its worker ends, but served by the next, as long as the
place is not closed.  One that is closed gets no connections, and none again before its next worker listens.
"""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass

from wsev.options import Listening
from wsev.workers.scoreboard import Score
from wsev.workers.sockets import ListeningSocket, open_reserved, open_sockets, reserve_ports

__all__ = ["Place", "Places"]


@dataclass(frozen=True)
class Place:
    """What a worker is given.

    Attributes:
        number: from 0 on; ``Server.worker_id``.
        sockets: to listen on; the worker's own to close.
        score: where it tells what it has counted.
        directory: private to the workers of this run, for sockets between them; None if there is one place only.
    """

    number: int
    sockets: list[ListeningSocket]
    score: Score
    directory: str | None


class Places:
    """The sockets of all places, all listening.

    Raises:
        OSError: the port or path is in use, or not ours to use.
        OptionError: what was given is no socket, or a host that is not known.
    """

    def __init__(self, listening: Listening, count: int) -> None:
        self._backlog = listening.backlog
        self._reserved: list[socket.socket] = []
        self._shared: list[ListeningSocket] = []
        self._own: list[list[ListeningSocket]] = [[] for _ in range(count)]
        try:
            if _spreads(listening):
                self._reserved = reserve_ports(listening)
                for own in self._own:
                    own.extend(open_reserved(each, self._backlog) for each in self._reserved)
            else:
                self._shared = open_sockets(listening)
        except BaseException:
            self.close()
            raise

    def sockets_of(self, number: int) -> list[ListeningSocket]:
        """The sockets for a place's next worker, which are made anew if the place was closed.

        Raises:
            OSError: they cannot be made.
        """
        own = self._own[number]
        if not own:
            # Not listening yet: its worker makes them so when it serves, and until then the others get all connections.
            own.extend(open_reserved(each, None) for each in self._reserved)
        # Their path, if they have one, is removed by the one who made them, and not by a worker that leaves.
        return [ListeningSocket(each.sock) for each in (*own, *self._shared)]

    def close_place(self, number: int) -> None:
        """Stop the kernel from giving connections to a place where nobody will accept them soon."""
        for each in self._own[number]:
            each.close()
        self._own[number].clear()

    def close(self) -> None:
        """Stop listening, as far as it is up to this process, and give the port up."""
        for number in range(len(self._own)):
            self.close_place(number)
        for each in self._shared:
            each.close()
        for sock in self._reserved:
            sock.close()
        self._shared.clear()
        self._reserved.clear()

    def leave_to(self, number: int) -> None:
        """In the worker of one place: close what belongs to the others, and keep its own."""
        self._own[number].clear()
        self._shared.clear()
        self.close()


def _spreads(listening: Listening) -> bool:
    is_given = listening.unix is not None or listening.sock is not None or listening.fd is not None
    return sys.platform == "linux" and not is_given
