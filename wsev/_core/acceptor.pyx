"""Acceptor: connections taken from a listening socket, each with its Transport and protocol.

Owns accept4(2), and what happens when there are no descriptors left.  Knows no protocol.
"""

cimport cython
from libc.errno cimport errno
from libc.stdint cimport uint32_t

import os

from wsev._core cimport linux, system
from wsev._core.descriptor cimport Descriptor
from wsev._core.loop cimport LoopState
from wsev._core.poller cimport Poller
from wsev._core.transport cimport Transport

cdef enum:
    MAX_AT_ONCE = 64        # connections accepted in a turn: some hundred microseconds of handshakes' beginnings
    RETRY_INTERVAL = 1      # seconds that a process without descriptors waits for some, as asyncio's loop does


@cython.final
cdef class Acceptor(Descriptor):

    def __init__(self, LoopState loop_state not None, sock not None, factory not None, report not None):
        self.poller = Poller.of(loop_state)
        sock.setblocking(False)
        self.sock = sock
        self.fd = -1
        self.factory = factory
        self.report = report
        name = sock.getsockname()
        if isinstance(name, str):
            self.local_name = name
        elif isinstance(name, tuple) and name[0] not in ("0.0.0.0", "::"):
            self.local_name = name[:2]

    def start(self):
        """Accept."""
        self.fd = self.sock.fileno()
        # Exclusive: where several workers wait on one socket, a connection wakes one of them.
        self.poller.add(self, linux.EPOLLIN | linux.EPOLLEXCLUSIVE)

    def close(self):
        """Accept no more; the socket stays open."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.fd >= 0:
            self.poller.remove(self)
            self.fd = -1

    cdef int ready(self, uint32_t events) except -1:
        cdef system.sockaddr_storage peer
        cdef system.socklen_t size
        cdef Transport transport
        cdef int fd, _
        for _ in range(MAX_AT_ONCE):
            size = sizeof(peer)
            fd = linux.accept4(
                self.fd, <system.sockaddr*> &peer, &size, linux.SOCK_NONBLOCK | linux.SOCK_CLOEXEC
            )
            if fd < 0:
                return self._failed(errno)
            transport = Transport.__new__(Transport)
            transport.set_address(&peer, size, self.local_name)
            self._take(fd, transport)
            if self.fd < 0:
                return 0                # a callback stopped the server
        return 0

    cdef int _take(self, int fd, object transport) except -1:
        try:
            protocol = self.factory()
            (<Transport> transport).open(self.poller, fd, protocol)
        except Exception as error:
            system.close(fd)
            self.poller.loop_state.loop.call_exception_handler(
                {"message": "a connection could not be taken", "exception": error}
            )
            return 0
        try:
            protocol.connection_made(transport)
        except Exception as error:
            self.poller.loop_state.loop.call_exception_handler(
                {"message": "a protocol failed on its connection", "exception": error, "transport": transport}
            )
            transport.abort()
        return 0

    cdef int _failed(self, int number) except -1:
        """Some errors are those of one connection that is gone (accept(2)): the next event goes on."""
        if number in (system.EMFILE, system.ENFILE, system.ENOBUFS, system.ENOMEM):
            self.poller.change(self, 0)
            self.timer = self.poller.loop_state.loop.call_later(RETRY_INTERVAL, self._retry)
            self.report(OSError(number, os.strerror(number)))
        return 0

    def _retry(self):
        self.timer = None
        self.poller.change(self, linux.EPOLLIN | linux.EPOLLEXCLUSIVE)
