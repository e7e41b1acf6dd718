"""Transport: wsev's own for plain TCP and Unix sockets on Linux, on the epoll set of its loop."""

from wsev._core cimport system
from wsev._core.buffers cimport Buffer, Pool
from wsev._core.output cimport Output
from wsev._core.poller cimport Poller


cdef class Rare:
    """What few transports need, made when needed: most of all what write() could not give to the kernel."""
    cdef Pool pool                      # of the queue
    cdef Buffer* head
    cdef Buffer* tail
    cdef Py_ssize_t size                # bytes of the queue
    cdef Py_ssize_t high, low           # of it: where the protocol is told to pause, and to go on
    cdef bint has_paused_protocol
    cdef bint has_eof                   # write_eof(): FIN behind the queue
    cdef object sock                    # for get_extra_info("socket")
    cdef object error                   # for connection_lost()


cdef class Transport(Output):
    """To a protocol of asyncio's an asyncio transport; to a Sink C calls, and no queue but its own."""
    cdef object __weakref__
    cdef Poller poller
    cdef object protocol                # None after the end
    cdef Rare rare                      # None until needed
    cdef object local_name              # our address, if it is known without asking
    # Booleans of one byte each
    cdef unsigned char has_sink         # protocol is a Sink
    cdef unsigned char is_buffered      # protocol is a BufferedProtocol, and no Sink
    cdef unsigned char is_at_eof        # the peer's FIN was read
    cdef unsigned char is_leaving       # close(), abort() or an error: nothing is received or taken any more
    cdef unsigned char is_over          # connection_lost() is due, or was called

    cdef int open(self, Poller poller, int fd, object protocol) except -1
    cdef int set_address(self, const system.sockaddr_storage* peer, system.socklen_t size, object local_name) except -1
    cdef int _watch(self) except -1             # wait for what it can do next
    cdef int _receive(self) except -1
    cdef int _receive_into_protocol(self) except -1
    cdef int _was_received(self, Py_ssize_t size) except -1     # True: bytes; False: it has been dealt with
    cdef int _eof_came(self) except -1
    cdef int _can_write(self) except -1
    cdef Rare _need_rare(self)
    cdef int _send_queue(self) except -1
    cdef int _queue(self, object data, Py_ssize_t offset) except -1
    cdef int _end_with(self, object error) except -1
    cdef int _report(self, object error, str message) except -1
