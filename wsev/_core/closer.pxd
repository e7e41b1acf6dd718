"""Closer: the ready state of a connection and the ways to its end."""

from libc.stdint cimport int64_t

from wsev._core.buffers cimport Buffer, Pool
from wsev._core.dispatch cimport Dispatcher
from wsev._core.writer cimport ReadyState


cdef class Rare:
    """What few connections have, or only for a while; made when needed."""
    cdef list drain_waiters             # futures of drain()
    cdef list end_waiters               # futures of wait_closed()
    cdef object close_reason            # str
    cdef object error                   # why it ended, for on_disconnect; None: both Close frames were exchanged
    cdef bytes pong                     # of the newest ping that came while output was blocked
    cdef Pool pool                      # of the backlog
    cdef Buffer* backlog                # bytes received and not parsed, while it is held
    # Milliseconds of LoopState.now; 0: not set
    cdef int64_t held_at                # since when its reading is paused
    cdef int64_t closing_due            # when TCP must have ended
    cdef int64_t progress_at            # when the kernel last took output that was stuck
    cdef Py_ssize_t stuck               # bytes that were stuck then

    cdef void drop_backlog(self) noexcept


cdef class Closer(Dispatcher):
    cdef Rare rare                      # None until needed
    cdef unsigned short own_code        # of the Close frame that we sent; 0: none
    cdef unsigned short peer_code       # of the peer's
    # Booleans of one byte each
    cdef unsigned char delivers         # events reach the callbacks: until our own close(), abort() or failure
    cdef unsigned char flushes_early    # a pong or Close waits for the end of the read event
    cdef unsigned char is_clean         # both Close frames were exchanged
    cdef unsigned char is_trailed       # something came behind the peer's
    cdef unsigned char is_drained       # on_drain and drain() are due

    cdef int set_state(self, ReadyState state) except -1
    cdef Rare need_rare(self)
    cdef int watch(self, int64_t timeout) except -1
    cdef int queue_control(self, int opcode, bytes payload) except -1
    cdef int queue_close(self, int code, bytes reason) except -1
    cdef int flush_soon(self) except -1
    # Four ways to the end.  Each may be called at any time; what is over stays over.
    cdef int stop_delivering(self) except -1                # nothing more reaches the callbacks but on_disconnect
    cdef int fail(self, object error, int code) except -1   # Close with code, then the end of TCP
    cdef int end_with(self, object error) except -1         # the end of TCP behind what is unsent; None: a clean close
    cdef int abort_with(self, object error) except -1       # the end of TCP at once
    cdef int finish(self) except -1                         # of end_with(): what was unsent has gone
    cdef int end_within(self, int64_t timeout) except -1
    cdef int keep_error(self, object error) except -1
    cdef int disconnected(self) except -1
    cdef int wake_drain_waiters(self) except -1
    cdef int final_code(self) noexcept
    cdef str final_reason(self)

    cdef int stop_receiving(self) except -1     # for the layer above: let go of what has come
