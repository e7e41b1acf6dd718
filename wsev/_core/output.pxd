"""The seam between a connection and its transport.

A transport reports to a Sink; a Sink acts on its transport through an Output.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t

from wsev._core.buffers cimport Buffer, Pool
from wsev._core.loop cimport LoopMember


cdef struct Address:
    uint16_t port
    uint8_t family                      # 4, 6; 0: neither, ask the transport
    uint8_t ip[16]


cdef class Sink(LoopMember):
    """Who uses a transport."""
    cdef Output output

    cdef int may_write(self) except -1          # what the transport had queued is with the kernel


cdef class Output:
    """Around any asyncio transport; plain TCP and Unix sockets are written directly, by send(2).

    The transport's own queue holds at most what the kernel did not take of one buffer; is_blocked until it is empty.
    """
    cdef readonly object transport      # None after the end
    cdef int fd                         # for send(2); -1: the transport writes (TLS, other kinds), or has been closed
    cdef unsigned char is_blocked       # bool; Sink.may_write() will come
    cdef unsigned char is_broken        # bool; the kernel refused for good: what is sent from now on is dropped
    cdef unsigned char is_paused        # bool
    cdef Address remote
    cdef object remote_name             # where remote does not tell: a Unix path
    cdef object kept_local_address      # when the end has come, or the transport would forget it

    # Gives the kernel (or the transport) as much as it takes, releases what was taken, returns the rest of the chain.
    # Finalizers may run in it, and use the connection.  After an exception nothing of the chain is left.
    cdef Buffer* send(self, Buffer* chain, Pool pool) except? NULL
    cdef Buffer* _send_directly(self, Buffer* chain, Pool pool) except? NULL
    cdef int _hand_over(self, Buffer* buffer, Pool pool) except -1
    cdef Buffer* _break(self, Buffer* chain, Pool pool) noexcept
    cdef Py_ssize_t queued(self) except -1      # bytes that the transport holds
    cdef int pause(self) except -1
    cdef int resume(self) except -1
    cdef int finish(self) except -1             # FIN behind what is queued; reading goes on where the transport can
    cdef int close(self) except -1              # at once, but for what is queued
    cdef int abort(self) except -1              # at once
    cdef int lost(self) except -1
