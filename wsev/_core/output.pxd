"""The seam between a connection and its transport.

A transport reports to a Sink; a Sink acts on its transport through an Output.
"""

from libc.stdint cimport uint8_t

from wsev._core.addresses cimport Address
from wsev._core.buffers cimport Buffer, Pool
from wsev._core.descriptor cimport Descriptor
from wsev._core.loop cimport LoopMember


cdef class Sink(LoopMember):
    """Who uses a transport."""
    cdef Output output

    # One read event: bytes that stay valid until it returns.  eof_received() and connection_lost(error) are asyncio's.
    cdef int data_came(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int may_write(self) except -1          # after output was blocked


cdef class Output(Descriptor):
    """A transport, for who sends by it: wsev's own (Transport), or any of asyncio's (AsyncioOutput)."""
    cdef unsigned char is_blocked       # bool; Sink.may_write() will come
    cdef unsigned char is_broken        # bool; the kernel refused for good: what is sent from now on is dropped
    cdef unsigned char is_paused        # bool
    cdef Address remote
    cdef object remote_name             # where remote does not tell: a Unix path

    # Gives the kernel (or the transport) as much as it takes, releases what was taken, returns the rest of the chain.
    # Finalizers may run in it, and use the connection.  After an exception nothing of the chain is left.
    cdef Buffer* send(self, Buffer* chain, Pool pool) except? NULL
    cdef bint takes_batches(self) noexcept      # its descriptor may be sent to by others, now
    cdef Py_ssize_t queued(self) except -1      # bytes that the transport itself holds
    cdef int pause(self) except -1
    cdef int resume(self) except -1
    cdef int finish(self) except -1             # FIN behind what is queued; reading goes on where the transport can
    cdef int close_transport(self) except -1    # at once, but for what is queued
    cdef int abort_transport(self) except -1    # at once
    cdef int lost(self) except -1               # the end was told
    cdef bint is_ending(self) except -1         # one of the last three was called
    cdef bint can_finish(self) except -1        # FIN is not the end of reading
    cdef object extra_info(self, str name, object default)

    # For those below
    cdef Buffer* send_directly(self, Buffer* chain, Pool pool) except? NULL
    cdef Buffer* break_off(self, Buffer* chain, Pool pool) noexcept
