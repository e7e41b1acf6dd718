"""AsyncioOutput: the Output around a transport of asyncio's kind."""

from wsev._core.buffers cimport Buffer, Pool
from wsev._core.output cimport Output


cdef class AsyncioOutput(Output):
    """Plain TCP and Unix sockets are written directly, by send(2); all else by the transport.

    The transport's own queue holds at most what the kernel did not take of one write; is_blocked until it is empty.
    """
    # fd, of Descriptor: for send(2); -1: the transport writes (TLS, other kinds), or has been closed
    cdef readonly object transport      # None after the end
    cdef object kept_local_address      # when the end has come, or the transport would forget it

    cdef int _hand_over(self, Buffer* chain, Pool pool) except -1
