"""AsyncioOutput: a transport of asyncio's kind (uvloop's, asyncio's own, TLS), as an Output.

Owns what such a transport is asked for.  Knows no frame and no rule.

Invariants: while the transport's own queue is not empty, nothing is sent past it (is_blocked); what the transport
queues is immutable, since both loops keep a view of it.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

import socket

from wsev._core.addresses cimport Address, address_object, read_address
from wsev._core.buffers cimport Buffer, Pool
from wsev._core.output cimport Output

cdef enum:
    GATHERED = 65536        # bytes: to copy more costs what a write of its own does, a record of TLS and a system call


@cython.final
cdef class AsyncioOutput(Output):

    def __init__(self, transport not None):
        self.transport = transport
        self.fd = -1
        sock = transport.get_extra_info("socket")
        if sock is None:
            return
        descriptor = sock.fileno()
        read_address(descriptor, True, &self.remote)
        if not self.remote.family:
            self.remote_name = _name(transport.get_extra_info("peername"))
        if transport.get_extra_info("sslcontext") is None and sock.family in (
            socket.AF_INET, socket.AF_INET6, socket.AF_UNIX
        ):
            self.fd = descriptor
        else:
            self.kept_local_address = self.local_address    # asyncio's TLS forgets its socket before the end is told

    @property
    def local_address(self):
        """As remote_address, of our side."""
        cdef Address local
        if self.kept_local_address is not None:
            return self.kept_local_address
        sock = self.transport.get_extra_info("socket")
        local.family = 0
        if sock is not None and sock.fileno() >= 0:
            read_address(sock.fileno(), False, &local)
        return address_object(&local, None if local.family else _name(self.transport.get_extra_info("sockname")))

    cdef Buffer* send(self, Buffer* chain, Pool pool) except? NULL:
        cdef Buffer* rest
        if self.is_broken or self.transport is None:
            pool.release_chain(chain)
            return NULL
        while chain != NULL and not self.is_blocked:
            if self.fd >= 0:
                chain = self.send_directly(chain, pool)
            if chain != NULL:
                rest = _cut(chain)
                try:
                    self._hand_over(chain, pool)
                except BaseException:
                    self.break_off(rest, pool)
                    raise
                chain = rest
        return chain

    cdef int _hand_over(self, Buffer* chain, Pool pool) except -1:
        """The transport takes a chain in one write, to tell us when the kernel takes more."""
        cdef object data
        try:
            self.transport.set_write_buffer_limits(1, 0) if self.fd < 0 else self.transport.set_write_buffer_limits(0)
            data = _bytes_of(chain)
        finally:
            pool.release_chain(chain)
        self.transport.write(data)
        self.is_blocked = self.queued() > 0
        return 0

    cdef Py_ssize_t queued(self) except -1:
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    cdef int pause(self) except -1:
        if self.transport is not None and not self.is_paused:
            self.is_paused = True
            self.transport.pause_reading()
        return 0

    cdef int resume(self) except -1:
        if self.transport is not None and self.is_paused:
            self.is_paused = False
            self.transport.resume_reading()
        return 0

    cdef int finish(self) except -1:
        self.fd = -1
        if self.is_ending():
            return 0
        if self.can_finish():
            try:
                self.transport.write_eof()
            except OSError:         # asyncio's: the peer has reset already
                self.transport.abort()
                return 0
            self.resume()
        else:
            self.transport.close()
        return 0

    cdef int close_transport(self) except -1:
        self.fd = -1
        # Not twice: asyncio's TLS transport is of no use after a second close().
        if not self.is_ending():
            self.transport.close()
        return 0

    cdef int abort_transport(self) except -1:
        self.fd = -1
        if self.transport is not None:
            self.transport.abort()
        return 0

    cdef int lost(self) except -1:
        self.kept_local_address = self.local_address
        self.fd = -1
        self.is_blocked = False
        self.transport = None
        return 0

    cdef bint is_ending(self) except -1:
        return self.transport is None or self.transport.is_closing()

    cdef bint can_finish(self) except -1:
        return self.transport is not None and self.transport.can_write_eof()

    cdef object extra_info(self, str name, object default):
        return default if self.transport is None else self.transport.get_extra_info(name, default)


cdef Buffer* _cut(Buffer* chain) noexcept:
    """Leave of a chain what goes in one write; returns the rest."""
    cdef Py_ssize_t size = chain.end - chain.start
    cdef Buffer* rest
    while chain.next != NULL:
        size += chain.next.end - chain.next.start
        if size > GATHERED:
            break
        chain = chain.next
    rest = chain.next
    chain.next = NULL
    return rest


cdef object _bytes_of(Buffer* chain):
    """The bytes of a chain, as an object that never changes."""
    cdef Py_ssize_t size = chain.end - chain.start
    cdef Py_ssize_t offset
    cdef Buffer* buffer = chain.next
    cdef bytes data
    cdef char* to
    if buffer == NULL and chain.owner != NULL and PyBytes_CheckExact(<object> chain.owner):
        # Kept by the view: no copy.
        offset = chain.data + chain.start - <uint8_t*> PyBytes_AS_STRING(<object> chain.owner)
        return memoryview(<object> chain.owner)[offset:offset + size]
    while buffer != NULL:
        size += buffer.end - buffer.start
        buffer = buffer.next
    data = PyBytes_FromStringAndSize(NULL, size)
    to = PyBytes_AS_STRING(data)
    while chain != NULL:
        memcpy(to, chain.data + chain.start, chain.end - chain.start)
        to += chain.end - chain.start
        chain = chain.next
    return data


def _name(address):
    """What a transport says of an address that is no IP address: a path, often an empty one."""
    if isinstance(address, (bytes, bytearray)):
        return bytes(address).decode("utf-8", "surrogateescape")
    return address if isinstance(address, (str, tuple)) else ""
