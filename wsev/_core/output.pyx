"""Sink and Output: the seam between a connection and its transport.

Owns the system calls that send, and what an asyncio transport is asked for.  Knows no frame and no rule.

Invariants: while the transport's own queue is not empty, nothing is sent past it (is_blocked); what the transport
queues is immutable, since both loops keep a view of it; after close(), abort() and lost() the descriptor, which
may be somebody else's by then, is not used.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize
from libc.errno cimport errno
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

import os
import socket

from wsev._core cimport system
from wsev._core.buffers cimport Buffer, Pool
from wsev._core.loop cimport LoopMember

cdef enum:
    MAX_PARTS = 64          # buffers of one sendmsg(2); 1,024 is the kernel's limit, and 64 of 16 KiB fill any socket


cdef class Sink(LoopMember):

    cdef int may_write(self) except -1:
        return 0


@cython.final
cdef class Output:

    def __init__(self, transport not None):
        self.transport = transport
        self.fd = -1
        sock = transport.get_extra_info("socket")
        if sock is None:
            return
        descriptor = sock.fileno()
        _read_address(descriptor, True, &self.remote)
        if not self.remote.family:
            self.remote_name = _name(transport.get_extra_info("peername"))
        if transport.get_extra_info("sslcontext") is None and sock.family in (
            socket.AF_INET, socket.AF_INET6, socket.AF_UNIX
        ):
            self.fd = descriptor
        else:
            self.kept_local_address = self.local_address    # asyncio's TLS forgets its socket before the end is told

    @property
    def remote_address(self):
        """(host, port), or a path or "" for a Unix socket; readable after the end."""
        return _address(&self.remote, self.remote_name)

    @property
    def local_address(self):
        """As remote_address, of our side."""
        cdef Address local
        if self.kept_local_address is not None:
            return self.kept_local_address
        sock = self.transport.get_extra_info("socket")
        local.family = 0
        if sock is not None and sock.fileno() >= 0:
            _read_address(sock.fileno(), False, &local)
        return _address(&local, None if local.family else _name(self.transport.get_extra_info("sockname")))

    cdef Buffer* send(self, Buffer* chain, Pool pool) except? NULL:
        cdef Buffer* buffer
        if self.is_broken or self.transport is None:
            pool.release_chain(chain)
            return NULL
        while chain != NULL and not self.is_blocked:
            if self.fd >= 0:
                chain = self._send_directly(chain, pool)
            if chain != NULL:
                buffer = chain
                chain = chain.next
                try:
                    self._hand_over(buffer, pool)
                except BaseException:
                    self._break(chain, pool)
                    raise
        return chain

    cdef Buffer* _send_directly(self, Buffer* chain, Pool pool) except? NULL:
        """send(2) until all is taken or the socket is full."""
        cdef system.iovec parts[MAX_PARTS]
        cdef system.msghdr message
        cdef Buffer* buffer
        cdef Buffer* following
        cdef Py_ssize_t sent, wanted
        cdef int count, number
        while chain != NULL:
            if chain.next == NULL:
                wanted = chain.end - chain.start
                sent = system.send(self.fd, chain.data + chain.start, wanted, system.MSG_NOSIGNAL)
            else:
                count = 0
                wanted = 0
                buffer = chain
                while buffer != NULL and count < MAX_PARTS:
                    parts[count].iov_base = buffer.data + buffer.start
                    parts[count].iov_len = buffer.end - buffer.start
                    wanted += buffer.end - buffer.start
                    count += 1
                    buffer = buffer.next
                memset(&message, 0, sizeof(message))
                message.msg_iov = parts
                message.msg_iovlen = count
                sent = system.sendmsg(self.fd, &message, system.MSG_NOSIGNAL)
            if sent < 0:
                if errno == system.EINTR:
                    continue
                if errno == system.EAGAIN or errno == system.EWOULDBLOCK:
                    return chain
                if errno == system.EPIPE or errno == system.ECONNRESET or self.fd < 0:
                    return self._break(chain, pool)
                number = errno              # before anything else is called
                self._break(chain, pool)
                raise OSError(number, os.strerror(number))
            wanted -= sent
            while chain != NULL and sent >= chain.end - chain.start:
                sent -= chain.end - chain.start
                following = chain.next
                pool.release(chain)
                chain = following
            if chain != NULL:
                chain.start += sent
                if wanted > 0:
                    return chain        # it took a part: it is full
        return NULL

    cdef int _hand_over(self, Buffer* buffer, Pool pool) except -1:
        """The transport takes one buffer, to tell us when the kernel takes more."""
        cdef Py_ssize_t size = buffer.end - buffer.start
        cdef Py_ssize_t offset
        cdef object data
        try:
            self.transport.set_write_buffer_limits(1, 0) if self.fd < 0 else self.transport.set_write_buffer_limits(0)
            if buffer.owner != NULL and PyBytes_CheckExact(<object> buffer.owner):
                # Immutable, and kept by the view: no copy.
                offset = buffer.data + buffer.start - <uint8_t*> PyBytes_AS_STRING(<object> buffer.owner)
                data = memoryview(<object> buffer.owner)[offset:offset + size]
            else:
                data = PyBytes_FromStringAndSize(<char*> buffer.data + buffer.start, size)
        finally:
            pool.release(buffer)
        self.transport.write(data)
        self.is_blocked = self.queued() > 0
        return 0

    cdef Buffer* _break(self, Buffer* chain, Pool pool) noexcept:
        """The peer is gone.  What it sent before may still be in the socket, so reading goes on and finds the end."""
        self.is_broken = True
        pool.release_chain(chain)
        return NULL

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
        if self.transport.is_closing():
            return 0
        if self.transport.can_write_eof():
            try:
                self.transport.write_eof()
            except OSError:         # asyncio's: the peer has reset already
                self.transport.abort()
                return 0
            self.resume()
        else:
            self.transport.close()
        return 0

    cdef int close(self) except -1:
        self.fd = -1
        # Not twice: asyncio's TLS transport is of no use after a second close().
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()
        return 0

    cdef int abort(self) except -1:
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


cdef int _read_address(int descriptor, bint of_peer, Address* address) noexcept:
    """Packed into 20 bytes, where Python's tuple takes 160."""
    cdef system.sockaddr_storage storage
    cdef system.socklen_t size = sizeof(storage)
    cdef system.sockaddr_in* four
    cdef system.sockaddr_in6* six
    cdef int failed
    if of_peer:
        failed = system.getpeername(descriptor, <system.sockaddr*> &storage, &size)
    else:
        failed = system.getsockname(descriptor, <system.sockaddr*> &storage, &size)
    if failed:
        return 0
    if storage.ss_family == system.AF_INET:
        four = <system.sockaddr_in*> &storage
        address.family = 4
        memcpy(address.ip, &four.sin_addr, 4)
        address.port = system.ntohs(four.sin_port)
    elif storage.ss_family == system.AF_INET6:
        six = <system.sockaddr_in6*> &storage
        address.family = 6
        memcpy(address.ip, &six.sin6_addr, 16)
        address.port = system.ntohs(six.sin6_port)
    return 0


cdef object _address(Address* address, object name):
    cdef char text[64]
    if not address.family:
        return "" if name is None else name
    system.inet_ntop(system.AF_INET if address.family == 4 else system.AF_INET6, address.ip, text, sizeof(text))
    return ((<bytes> text).decode("ascii"), address.port)


def _name(address):
    """What a transport says of an address that is no IP address: a path, often an empty one."""
    if isinstance(address, (bytes, bytearray)):
        return bytes(address).decode("utf-8", "surrogateescape")
    return address if isinstance(address, (str, tuple)) else ""
