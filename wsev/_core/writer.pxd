"""Writer: frames in, coalesced bytes out."""

from libc.stdint cimport uint8_t

from wsev._core.buffers cimport Buffer
from wsev._core.loop cimport ServerState
from wsev._core.output cimport Sink


cdef enum ReadyState:           # of a connection (RFC 6455 sections 4 to 7); changed by Connection._set_state() alone
    OPENING = 0                 # made, its 101 not yet sent
    OPEN = 1
    CLOSING = 2                 # our Close is sent, the peer's awaited
    ENDING = 3                  # nothing more is sent or looked at: TCP is being ended
    CLOSED = 4                  # the transport is gone


cdef class Writer(Sink):
    """The unsent bytes of one connection: a chain of buffers, held only while there are some."""
    cdef ServerState server
    cdef object deflate         # MessageDeflate (wsev/deflate.py); None: permessage-deflate was not agreed on
    cdef Buffer* head           # sent first
    cdef Buffer* tail           # filled; head where there is one buffer only
    cdef Py_ssize_t unsent      # bytes of the chain
    # One byte each, and together, so that they share their padding
    cdef unsigned char ready_state      # ReadyState
    cdef unsigned char is_flushing      # bool; its chain is with Output
    cdef unsigned char was_batched      # bool; a batch has sent some of it or all, which flush_now() is to tell
    cdef unsigned char is_reading       # bool; its read event is running, at whose end it flushes
    cdef unsigned char is_congested     # bool; unsent bytes passed high_water, and are not yet down to a quarter of it

    # One frame.  owner: whose bytes payload are, if they never change (a large payload is then not copied); else None.
    # False: not taken, since a finalizer ended the connection when a full buffer was flushed to make room.
    cdef bint queue_frame(self, int first_byte, const uint8_t* payload, Py_ssize_t size, object owner) except -1
    cdef bint queue_bytes(self, const uint8_t* data, Py_ssize_t size, object owner) except -1
    cdef bint _queue_large_frame(
        self, int first_byte, const uint8_t* payload, Py_ssize_t size, object owner
    ) except -1
    cdef void _append(self, Buffer* buffer) noexcept
    cdef void _set_last(self, Buffer* buffer, Buffer* former) noexcept
    cdef Buffer* _room(self, Py_ssize_t size) except NULL
    cdef Buffer* _refer(self, const uint8_t* data, Py_ssize_t size, object owner) except NULL
    cdef bint has_room(self) except -1
    cdef int plan_flush(self) except -1         # by the flush rules
    cdef int flush_with_others(self) except -1
    cdef int flush_now(self) except -1
    cdef bint is_loop_closed(self) except -1    # where the caller may be outside the loop, before flush_now()
    cdef Py_ssize_t _put_back(self, Buffer* rest) noexcept
    cdef void _forget_unsent(self) noexcept
    cdef void drop_unsent(self) noexcept
    cdef void drop_whole_frames(self) noexcept

    cdef int flushed(self, bint progress) except -1     # for the layers above: some of it, or all, has been sent
    cdef int send_failed(self, object error) except -1  # for the layers above: what was unsent is lost
    cdef int piled_up(self) except -1           # for the layers above: more waits behind output that is blocked
    cdef int overflowed(self) except -1         # for the layers above: a message was refused for want of room
    cdef bint send_encoded(self, EncodedMessage message) except -1


cdef class EncodedMessage:
    """A whole message, encoded once for many connections, and compressed once for those that share a compressor."""
    cdef readonly bytes frame
    cdef readonly Py_ssize_t size       # bytes of the payload
    cdef dict compressed                # the compressor -> its frame; None until there is one

    cdef bytes frame_for(self, object deflate)


# One frame of what the parameters of a connection make of a message.
cdef bytes encode_deflated(int opcode, bytes payload, object deflate, bint is_forced)
