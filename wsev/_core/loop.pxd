"""What all connections of a loop share, and what all connections of one server in it share.

LoopMember <- Sink (output) <- Writer (writer) <- Dispatcher (dispatch) <- Connection: a layer adds what one file owns.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint64_t

from wsev._core.buffers cimport Buffer, Pool
from wsev._core.messages cimport Limits, Parser


cdef enum:
    SLOTS = 512             # of the wheel: at the usual four ticks a second, two minutes
    MOST_SENDS = 256        # of a SendBatch


cdef class LoopMember:
    """A connection, as its loop knows it."""
    cdef LoopState loop_state
    # The wheel's: a list per slot.  Borrowed references: a member leaves the wheel before it is freed.
    cdef PyObject* next_timed
    cdef PyObject* previous_timed
    cdef int64_t due                    # milliseconds of LoopState.now; 0: not in the wheel
    cdef short slot                     # whose list it stands in
    # The flush queues'.
    cdef unsigned char is_scheduled     # bool; stands in LoopState.soon
    cdef unsigned char is_delayed       # bool; what it has unsent has a turn in the queue of its write_buffer_deadline
    cdef int stale_turns                # that it has there for what was flushed earlier
    cdef int place                      # in Members, from 1 on; 0: it is in none

    cdef int run_scheduled(self) except -1
    # Its part in a SendBatch.  Neither runs code of the user's: what the kernel took goes to released.
    cdef bint join(self, SendBatch batch) noexcept          # with all of its unsent bytes, or False
    cdef void was_sent(self, Py_ssize_t size, Buffer** released) noexcept
    cdef Py_ssize_t buffered(self) except -1    # bytes that it was given and the kernel was not
    cpdef int64_t expire(self, int64_t now) except -1


cdef class Wheel:
    """Members by the time when somebody must look at them; a look may find that it is not yet time, and come again."""
    cdef PyObject* slots[SLOTS + 1]     # heads; the last: what advance() is going through
    cdef readonly int64_t granularity   # milliseconds
    cdef int64_t position               # the last slot gone through, not wrapped
    cdef readonly Py_ssize_t count

    cpdef int schedule(self, LoopMember member, int64_t due) except -1
    cpdef int remove(self, LoopMember member) except -1
    cpdef int advance(self, int64_t now) except -1
    cpdef int set_granularity(self, int64_t granularity) except -1
    cdef void _link(self, LoopMember member, int slot) noexcept
    cdef int _slot_of(self, int64_t due) noexcept
    cdef void _set_aside(self, int slot) noexcept
    cdef LoopMember _pop(self, int slot)


cdef class SendBatch:
    """Sends that go to the kernel together: a Ring (ring.pxd), where the system has that."""
    cdef int capacity                   # MOST_SENDS at most
    cdef int count                      # that were added
    cdef int results[MOST_SENDS]        # after submit(): bytes that the kernel took, or an error number below 0

    cdef bint add(self, int fd, Buffer* chain) noexcept     # the chain stays as it is until submit() returns
    cdef void submit(self) noexcept     # all that was added; each is done or refused when this returns


cdef class FlushQueue:
    """Members whose turn comes ``deadline`` seconds after they were added; equal deadlines, so a FIFO is in order."""
    cdef object loop
    cdef readonly double deadline       # seconds; 0: before the loop polls again
    # Lists, not memory of ours: the garbage collector must see who is held when a loop ends.
    cdef list members                   # in the order of their turns; None: has had it, or a free place
    cdef list dues                      # loop.time() of each (empty when deadline is 0)
    cdef Py_ssize_t first               # the place whose turn is next
    cdef Py_ssize_t last                # behind the last that is taken
    cdef readonly Py_ssize_t count
    cdef object timer                   # the handle of the call that is due; None: none is
    cdef object run_method
    cdef SendBatch batch                # None: each sends for itself
    cdef bint is_held                   # somebody who runs calls release() before the loop goes on: no call is needed

    cdef int add(self, LoopMember member) except -1
    cdef int release(self) except -1
    cdef void _send_together(self, Py_ssize_t turns) noexcept
    cdef int _tidy(self) except -1
    cdef int _arm(self) except -1
    cdef object _run_one(self, LoopMember member)
    cdef LoopMember _pop(self)


cdef class Members:
    """Members of one server: a set of 8 bytes each, where Python's takes 30 to 100, since each knows its place."""
    cdef list members                   # in no order

    cdef int add(self, LoopMember member) except -1
    cdef int discard(self, LoopMember member) except -1


cdef class LoopState:
    """Made on first use in a loop, held by the loop, freed with it."""
    cdef readonly object loop
    cdef readonly Pool pool
    cdef readonly Wheel wheel
    cdef readonly FlushQueue soon       # who has something to do before the loop polls again
    cdef dict delayed                   # write_buffer_deadline -> FlushQueue
    cdef public object poller           # the Poller (poller.pxd); None until something is watched by it
    # One read buffer: it belongs to the connection whose read event is running, until that ends.
    cdef uint8_t* read_buffer
    cdef Py_ssize_t read_size
    cdef Py_ssize_t read_wanted         # the largest read_buffer_size of this loop's servers
    cdef object read_view               # memoryview of read_buffer
    # The clock, read four times a second; everything that times out compares with it.
    cdef readonly int64_t now           # milliseconds since this was made; never 0
    cdef double origin                  # loop.time() then
    cdef object timer
    cdef uint64_t last_id
    cdef Py_ssize_t connections         # open ones: the clock goes while there are some

    cdef int prepare_read_buffer(self) except -1
    cdef int joined(self) except -1
    cdef int left(self) except -1

    cdef int schedule(self, LoopMember member) except -1
    cdef int watch(self, LoopMember member, int64_t due) except -1
    cdef int64_t clock(self) except -1


cdef class ServerState:
    """The options of one server as numbers, its counters, and the object that is called upward.

    With is_client frames from the peer must not be masked; ours never are, so two such ends make a link (RFC 6455
    section 5.3 masks because of proxies, and there is none between two processes of one machine).
    """
    cdef readonly LoopState loop_state
    cdef readonly object hooks          # ServerHooks (loop.pyi)
    cdef object get_buffer              # LoopState.get_buffer
    cdef readonly Limits limits
    cdef readonly Limits deflate_limits         # of connections with permessage-deflate; None: there are none
    cdef Parser spare_parser            # for the next connection that receives; None: make one
    cdef FlushQueue flush_queue         # LoopState.soon, or the one of write_buffer_deadline
    cdef readonly Members connections   # from open() to the end of TCP
    cdef readonly set leaving           # from then on, while on_disconnect and what runs before it have not ended
    cdef Py_ssize_t write_buffer_size, high_water, low_water, max_buffered_amount     # bytes; -1: no limit
    cdef public bint sends_together     # by the loop's SendBatch
    cdef bint drops_messages            # slow_consumer="drop"
    cdef Py_ssize_t max_queue           # events; -1: no limit
    cdef Py_ssize_t max_queue_size      # bytes
    # Milliseconds; 0: off
    cdef int64_t read_deadline, idle_timeout, write_timeout, close_timeout
    cdef int64_t control_interval, control_burst    # microseconds a control frame, and how many of them at once; 0: off
    cdef unsigned long debug_thread     # the loop's thread in asyncio's debug mode, else 0
    # Counters
    cdef readonly uint64_t messages_in, messages_out, bytes_in, bytes_out, dropped, pings_in, pongs_in
    cdef readonly uint64_t batched_sends
    cdef readonly dict closes           # close code -> connections that ended with it
    cdef readonly dict limits_passed    # the limit's name -> how often
    cdef dict limits_logged             # the limit's name -> LoopState.now when it was last logged

    cdef int check_thread(self) except -1
    cpdef int count_limit(self, str name, object connection) except -1
