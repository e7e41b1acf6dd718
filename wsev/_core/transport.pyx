"""Transport: wsev's own for plain TCP and Unix sockets on Linux, on the epoll set of its loop.

Owns one connected socket: receiving, the queue of what an asyncio protocol wrote, FIN, errors, and the one call of
connection_lost().  Knows neither frames nor HTTP.

Invariants: it acts on what the system says, not on what an event claimed; is_blocked while EPOLLOUT is waited for;
the descriptor is closed once, behind connection_lost(), and out of the set by then.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint32_t

import asyncio
import os
import socket
from asyncio.trsock import TransportSocket

from wsev._core cimport linux, system
from wsev._core.addresses cimport Address, address_object, store_address, unix_name
from wsev._core.buffers cimport Buffer, Pool
from wsev._core.loop cimport LoopState
from wsev._core.output cimport Output, Sink
from wsev._core.poller cimport Poller

cdef enum:
    HIGH_WATER = 65536          # bytes; asyncio's own default of set_write_buffer_limits()


@cython.final
@cython.no_gc_clear         # __dealloc__ needs the pool
cdef class Rare:

    def __dealloc__(self):
        if self.head != NULL:
            self.pool.release_chain(self.head)


@cython.final
cdef class Transport(Output):

    def __cinit__(self):
        self.fd = -1

    def __dealloc__(self):
        if self.fd >= 0:
            system.close(self.fd)       # its loop ended without it

    def __repr__(self):
        where = "closed" if self.fd < 0 else f"fd={self.fd} peer={self.remote_address!r}"
        return f"<Transport {where}>"

    cdef int open(self, Poller poller, int fd, object protocol) except -1:
        """Take over a connected socket that does not block; it is read from, from now on."""
        self.poller = poller
        self.fd = fd
        self.set_protocol(protocol)
        try:
            poller.add(self, linux.EPOLLIN)
        except BaseException:
            self.fd = -1                # it stays the caller's
            raise
        return 0

    cdef int set_address(
        self, const system.sockaddr_storage* peer, system.socklen_t size, object local_name
    ) except -1:
        store_address(peer, &self.remote)
        if not self.remote.family:
            self.remote_name = unix_name(peer, size)
        self.local_name = local_name
        return 0

    cdef Rare _need_rare(self):
        if self.rare is None:
            self.rare = Rare.__new__(Rare)
            self.rare.pool = self.poller.loop_state.pool
            self.rare.high = HIGH_WATER
            self.rare.low = HIGH_WATER // 4
        return self.rare

    # ---------------------------------------------------------------- what the set reports

    cdef int ready(self, uint32_t events) except -1:
        try:
            if events & ~<uint32_t> linux.EPOLLOUT and not (self.is_paused or self.is_at_eof or self.is_leaving):
                self._receive()
            if self.is_blocked and events & ~<uint32_t> linux.EPOLLIN:
                self._can_write()
        except Exception as error:
            self._report(error, "a protocol failed on what its connection brought")
            self._end_with(error)
        return 0

    cdef int _receive(self) except -1:
        cdef LoopState state = self.poller.loop_state
        cdef Py_ssize_t size
        cdef object protocol = self.protocol        # it may be replaced meanwhile
        if self.is_buffered:
            return self._receive_into_protocol()
        state.prepare_read_buffer()
        size = system.recv(self.fd, state.read_buffer, state.read_size, 0)
        if not self._was_received(size):
            return 0
        if self.has_sink:
            (<Sink> protocol).data_came(state.read_buffer, size)
        else:
            protocol.data_received(PyBytes_FromStringAndSize(<char*> state.read_buffer, size))
        return 0

    cdef int _receive_into_protocol(self) except -1:
        cdef Py_buffer view
        cdef Py_ssize_t size
        cdef object protocol = self.protocol
        PyObject_GetBuffer(protocol.get_buffer(-1), &view, PyBUF_WRITABLE)
        try:
            if not view.len:
                raise RuntimeError("get_buffer() returned an empty buffer")
            size = system.recv(self.fd, view.buf, view.len, 0)
            if not self._was_received(size):
                return 0
        finally:
            PyBuffer_Release(&view)
        protocol.buffer_updated(size)
        return 0

    cdef int _was_received(self, Py_ssize_t size) except -1:
        cdef int number = errno
        if size > 0:
            return True
        if size == 0:
            self._eof_came()
        elif number != system.EAGAIN and number != system.EWOULDBLOCK and number != system.EINTR:
            self._end_with(OSError(number, os.strerror(number)))
        return False

    cdef int _eof_came(self) except -1:
        self.is_at_eof = True
        self._watch()
        if not self.protocol.eof_received():
            self.close()
        return 0

    cdef int _can_write(self) except -1:
        if self.rare is not None and self.rare.head != NULL:
            self._send_queue()
            if self.is_over or self.rare.head != NULL:
                return 0
        self.is_blocked = False
        if self.is_leaving:
            return self._end_with(None)
        if self.rare is not None and self.rare.has_eof:
            system.shutdown(self.fd, system.SHUT_WR)
        if self.has_sink:
            (<Sink> self.protocol).may_write()
        return self._watch()

    cdef int _watch(self) except -1:
        cdef uint32_t interest = 0
        if self.is_over:
            return 0
        if not (self.is_paused or self.is_at_eof or self.is_leaving):
            interest |= linux.EPOLLIN
        if self.is_blocked:
            interest |= linux.EPOLLOUT
        return self.poller.change(self, interest)

    # ---------------------------------------------------------------- Output

    cdef Buffer* send(self, Buffer* chain, Pool pool) except? NULL:
        if self.is_broken or self.is_leaving:
            pool.release_chain(chain)
            return NULL
        if self.is_blocked:
            return chain
        chain = self.send_directly(chain, pool)
        if chain != NULL:
            self.is_blocked = True
            self._watch()
        return chain

    cdef bint takes_batches(self) noexcept:
        return not (self.is_blocked or self.is_broken or self.is_leaving)

    cdef Py_ssize_t queued(self) except -1:
        return 0 if self.rare is None else self.rare.size

    cdef int pause(self) except -1:
        self.is_paused = True
        return self._watch()

    cdef int resume(self) except -1:
        self.is_paused = False
        return self._watch()

    cdef int finish(self) except -1:
        if self.is_leaving:
            return 0
        if self.is_at_eof:
            return self.close_transport()
        self.write_eof()
        return self.resume()

    cdef int close_transport(self) except -1:
        self.close()
        return 0

    cdef int abort_transport(self) except -1:
        return self._end_with(None)

    cdef int lost(self) except -1:
        if self.local_name is None:
            self.local_name = self.local_address
        return 0

    cdef bint is_ending(self) except -1:
        return self.is_leaving

    cdef bint can_finish(self) except -1:
        return True

    cdef object extra_info(self, str name, object default):
        return self.get_extra_info(name, default)

    @property
    def local_address(self):
        """As remote_address, of our side."""
        cdef Address local
        cdef system.sockaddr_storage storage
        cdef system.socklen_t size = sizeof(storage)
        if self.local_name is not None:
            return self.local_name
        if self.fd < 0 or system.getsockname(self.fd, <system.sockaddr*> &storage, &size):
            return ""
        store_address(&storage, &local)
        return address_object(&local, unix_name(&storage, size))

    # ---------------------------------------------------------------- asyncio.Transport

    def get_extra_info(self, name, default=None):
        if name == "peername":
            return self.remote_address
        if self.fd < 0:
            return default
        if name == "sockname":
            return self.local_address
        if name != "socket":
            return default
        if self._need_rare().sock is None:
            self.rare.sock = socket.socket(fileno=self.fd)
        return TransportSocket(self.rare.sock)

    def set_protocol(self, protocol not None):
        self.protocol = protocol
        self.has_sink = isinstance(protocol, Sink)
        self.is_buffered = not self.has_sink and isinstance(protocol, asyncio.BufferedProtocol)

    def get_protocol(self):
        return self.protocol

    def is_closing(self):
        return <bint> self.is_leaving

    def is_reading(self):
        return not (self.is_paused or self.is_at_eof or self.is_leaving)

    def pause_reading(self):
        if not self.is_leaving:
            self.pause()

    def resume_reading(self):
        if not self.is_leaving:
            self.resume()

    def set_write_buffer_limits(self, high=None, low=None):
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high}) must be at least low ({low}), which must be at least 0")
        self._need_rare().high = high
        self.rare.low = low

    def get_write_buffer_limits(self):
        cdef Rare rare = self._need_rare()
        return rare.low, rare.high

    def get_write_buffer_size(self):
        return self.queued()

    def can_write_eof(self):
        return True

    def write_eof(self):
        """FIN, behind what is queued."""
        if self.is_leaving or (self.rare is not None and self.rare.has_eof):
            return
        self._need_rare().has_eof = True
        if self.rare.head == NULL:
            system.shutdown(self.fd, system.SHUT_WR)    # that the peer has reset already, reading finds out

    def write(self, data):
        cdef Py_buffer view
        cdef Py_ssize_t sent = 0
        cdef Py_ssize_t size
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data: must be bytes, bytearray or memoryview, not {type(data).__name__}")
        if self.rare is not None and self.rare.has_eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self.is_leaving:
            return
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        size = view.len
        if size and not self.is_blocked:
            sent = system.send(self.fd, view.buf, size, system.MSG_NOSIGNAL)
        PyBuffer_Release(&view)
        if sent < 0:
            if errno != system.EAGAIN and errno != system.EWOULDBLOCK and errno != system.EINTR:
                self._end_with(OSError(errno, os.strerror(errno)))
                return
            sent = 0
        if sent < size:
            self._queue(data, sent)

    def writelines(self, data):
        self.write(b"".join(data))

    def close(self):
        """End it when what is queued has gone."""
        if self.is_leaving:
            return
        if self.queued() == 0:
            self._end_with(None)
        else:
            self.is_leaving = True
            self._watch()

    def abort(self):
        """End it now."""
        self._end_with(None)

    # ---------------------------------------------------------------- the queue of an asyncio protocol

    cdef int _queue(self, object data, Py_ssize_t offset) except -1:
        cdef bytes kept = data if type(data) is bytes else bytes(data)      # a view of what may change is of no use
        cdef Rare rare = self._need_rare()
        cdef Py_ssize_t size = PyBytes_GET_SIZE(kept) - offset
        cdef Buffer* buffer = rare.pool.refer(kept, <uint8_t*> PyBytes_AS_STRING(kept) + offset, size)
        if rare.tail == NULL:
            rare.head = buffer
        else:
            rare.tail.next = buffer
        rare.tail = buffer
        rare.size += size
        if not self.is_blocked:
            self.is_blocked = True
            self._watch()
        if rare.size > rare.high and not rare.has_paused_protocol:
            rare.has_paused_protocol = True
            self.protocol.pause_writing()
        return 0

    cdef int _send_queue(self) except -1:
        cdef Rare rare = self.rare
        cdef Buffer* chain = rare.head
        rare.head = rare.tail = NULL            # releasing may run a finalizer
        rare.size = 0
        try:
            chain = self.send_directly(chain, rare.pool)
        except OSError as error:
            return self._end_with(error)
        if self.is_broken:
            return self._end_with(ConnectionResetError("the peer has reset the connection"))
        while chain != NULL:
            rare.size += chain.end - chain.start
            if rare.head == NULL:
                rare.head = chain
            rare.tail = chain
            chain = chain.next
        if rare.has_paused_protocol and rare.size <= rare.low:
            rare.has_paused_protocol = False
            self.protocol.resume_writing()
        return 0

    # ---------------------------------------------------------------- the end

    cdef int _end_with(self, object error) except -1:
        """connection_lost(error) and the end of the descriptor, soon."""
        cdef Buffer* chain
        if self.is_over:
            return 0
        self.is_over = self.is_leaving = True
        self.is_blocked = False
        self.poller.change(self, 0)
        if error is not None:
            self._need_rare().error = error
        if self.rare is not None and self.rare.head != NULL:
            chain = self.rare.head
            self.rare.head = self.rare.tail = NULL
            self.rare.size = 0
            self.rare.pool.release_chain(chain)
        return self.poller.end_soon(self)

    cdef int end(self) except -1:
        cdef object protocol = self.protocol
        cdef Rare rare = self.rare
        try:
            protocol.connection_lost(None if rare is None else rare.error)
        except Exception as error:
            self._report(error, "a protocol failed at the end of its connection")
        finally:
            self.poller.remove(self)
            if rare is not None and rare.sock is not None:
                rare.sock.detach()
            system.close(self.fd)
            self.fd = -1
            self.protocol = None
            self.rare = None
        return 0

    cdef int _report(self, object error, str message) except -1:
        self.poller.loop_state.loop.call_exception_handler(
            {"message": message, "exception": error, "transport": self, "protocol": self.protocol}
        )
        return 0
