"""LoopState: what all connections of a loop share; ServerState: what those of one server in it share.

Owns the timer wheel, the flush queues, the read buffer, the cached clock and the counters.
Knows a connection as LoopMember only.  Nothing here runs user code but through LoopMember's two methods.

Invariants: a member stands in the wheel at most once and leaves it before it is freed; a queue holds one
reference to each of its members; the clock is read in LoopState.clock() alone.
"""

cimport cython
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.object cimport PyObject
from cpython.buffer cimport PyBUF_WRITE
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memset

import logging
import threading

from wsev._core.buffers cimport Buffer, Pool, allocate, deallocate
from wsev._core.messages cimport Limits

logger = logging.getLogger("wsev.connection")

cdef enum:
    TICK = 250              # milliseconds; a timeout of seconds is found out a fraction of a second late
    FINEST_TICK = 5         # milliseconds; below it the ticks themselves would be a load
    SMALLEST_READ = 4096    # bytes; what read_buffer_size may be at least
    LOG_INTERVAL = 1000     # milliseconds between two log records of one limit
    FEWEST_TOGETHER = 4     # sends; with as many it is about even, with fewer system calls of their own are cheaper
    KEPT_PLACES = 1024      # of a flush queue, 8 KiB; more of them are given back

cdef str ATTRIBUTE = "_wsev_loop_state"


@cython.no_gc_clear         # who frees a member takes it out of its loop's wheel and gives its buffers back
cdef class LoopMember:

    cdef int run_scheduled(self) except -1:
        """Its turn in a flush queue has come."""
        return 0

    cdef bint join(self, SendBatch batch) noexcept:
        return False

    cdef void was_sent(self, Py_ssize_t size, Buffer** released) noexcept:
        pass

    cdef Py_ssize_t buffered(self) except -1:
        return 0

    cpdef int64_t expire(self, int64_t now) except -1:
        """Its time in the wheel has come.  Returns when to look next, 0 for never."""
        return 0


@cython.final
cdef class Wheel:

    def __cinit__(self, int64_t granularity=TICK):
        memset(self.slots, 0, sizeof(self.slots))
        self.granularity = granularity

    cdef int _slot_of(self, int64_t due) noexcept:
        """The slot that is gone through at ``due`` or up to one granularity later, never before."""
        cdef int64_t place = (due + self.granularity - 1) // self.granularity
        if place <= self.position:
            place = self.position + 1
        elif place >= self.position + SLOTS:
            place = self.position + SLOTS - 1
        return <int> (place % SLOTS)

    cdef void _link(self, LoopMember member, int slot) noexcept:
        cdef PyObject* head = self.slots[slot]
        member.slot = <short> slot
        member.next_timed = head
        member.previous_timed = NULL
        if head != NULL:
            (<LoopMember> head).previous_timed = <PyObject*> member
        self.slots[slot] = <PyObject*> member

    cpdef int schedule(self, LoopMember member, int64_t due) except -1:
        """Look at ``member`` at ``due``; a member that stands at an earlier time stays there."""
        if member.due:
            if member.due <= due:
                return 0
            self.remove(member)
        member.due = due
        self.count += 1
        self._link(member, self._slot_of(due))
        return 0

    cpdef int remove(self, LoopMember member) except -1:
        if not member.due:
            return 0
        member.due = 0
        self.count -= 1
        if member.previous_timed != NULL:
            (<LoopMember> member.previous_timed).next_timed = member.next_timed
        else:
            self.slots[member.slot] = member.next_timed
        if member.next_timed != NULL:
            (<LoopMember> member.next_timed).previous_timed = member.previous_timed
        member.next_timed = member.previous_timed = NULL
        return 0

    cdef LoopMember _pop(self, int slot):
        cdef PyObject* head = self.slots[slot]
        cdef LoopMember member
        if head == NULL:
            return None
        member = <LoopMember> head
        self.slots[slot] = member.next_timed
        if member.next_timed != NULL:
            (<LoopMember> member.next_timed).previous_timed = NULL
        member.next_timed = member.previous_timed = NULL
        return member

    cdef void _set_aside(self, int slot) noexcept:
        cdef PyObject* head = self.slots[slot]
        self.slots[SLOTS] = head
        self.slots[slot] = NULL
        while head != NULL:
            (<LoopMember> head).slot = SLOTS
            head = (<LoopMember> head).next_timed

    cpdef int advance(self, int64_t now) except -1:
        """Go through the slots up to ``now`` and let each member whose time has come look at its clocks."""
        cdef int64_t target = now // self.granularity
        cdef int64_t rounds = target - self.position
        cdef LoopMember member
        cdef object wish = None
        cdef int64_t due
        cdef int slot
        if rounds > SLOTS:
            self.position = target - SLOTS
        while self.position < target:
            self.position += 1
            slot = <int> (self.position % SLOTS)
            # Set aside first: who is scheduled again into this slot waits for the next round.
            self._set_aside(slot)
            while (member := self._pop(SLOTS)) is not None:
                due = member.due
                member.due = 0
                self.count -= 1
                if due <= now:
                    try:
                        due = member.expire(now)
                    except Exception:
                        # A defect of ours (or no memory): the others' times come all the same.
                        logger.exception("a connection's timeouts failed")
                        due = 0
                    except BaseException as error:
                        wish = error        # KeyboardInterrupt, SystemExit: not before the others were looked at
                        due = 0
                if due and not member.due:
                    self.schedule(member, due)
        if wish is not None:
            raise wish
        return 0

    cpdef int set_granularity(self, int64_t granularity) except -1:
        """Change the ticks' length; members keep their times."""
        cdef list members = []
        cdef LoopMember member
        cdef int slot
        cdef int64_t elapsed = self.position * self.granularity
        for slot in range(SLOTS):
            while (member := self._pop(slot)) is not None:
                members.append(member)
        self.granularity = granularity
        self.position = elapsed // granularity
        for member in members:
            self._link(member, self._slot_of(member.due))
        return 0


cdef class SendBatch:

    cdef bint add(self, int fd, Buffer* chain) noexcept:
        return False

    cdef void submit(self) noexcept:
        pass


@cython.final
cdef class FlushQueue:

    def __cinit__(self, object loop, double deadline):
        self.loop = loop
        self.deadline = deadline
        self.run_method = self.run
        self.members = []
        self.dues = []

    cdef int add(self, LoopMember member) except -1:
        """``member`` is called once, when its turn comes; the caller has seen that it does not stand here yet."""
        if self.deadline > 0:
            self.dues.append(self.loop.time() + self.deadline)
        if self.last < len(self.members):
            self.members[self.last] = member    # 3 % of a small echo less than to let the list shrink and grow
        else:
            self.members.append(member)
        self.last += 1
        self.count += 1
        if self.timer is None and not self.is_held:
            self._arm()
        return 0

    cdef int release(self) except -1:
        """End a hold: the turn of all that were added, now."""
        self.is_held = False
        if self.count:
            self.run()
        return 0

    cdef LoopMember _pop(self):
        cdef LoopMember member = self.members[self.first]
        self.members[self.first] = None
        self.first += 1
        self.count -= 1
        return member

    cdef int _tidy(self) except -1:
        """Free the places of those that had their turn: half of them at once, so that each moves once."""
        if not self.count and self.last <= KEPT_PLACES:
            self.dues.clear()
            self.first = self.last = 0
        elif 2 * self.first >= self.last:
            del self.members[:self.first]
            if self.deadline > 0:
                del self.dues[:self.first]
            self.last -= self.first
            self.first = 0
        return 0

    def run(self):
        """The turn of those that are due; who is added meanwhile comes next time."""
        cdef Py_ssize_t turns = self.count
        cdef Py_ssize_t together = 0            # of them, whose sends have been tried
        cdef LoopMember member
        cdef object wish = None
        cdef double now
        if self.deadline > 0:
            # A hundredth of a millisecond: timers fire at the clock's grain, not a hair later.
            now = self.loop.time() + 1e-5
            while turns > 0 and self.dues[self.first] <= now:
                member = self._pop()
                turns -= 1
                if member.stale_turns:
                    member.stale_turns -= 1
                    continue
                member.is_delayed = False
                wish = self._run_one(member) or wish
        else:
            while turns > 0:
                if not together:
                    together = turns
                    if self.batch is not None and turns >= FEWEST_TOGETHER:
                        together = min(turns, <Py_ssize_t> self.batch.capacity)
                        self._send_together(together)
                member = self._pop()
                turns -= 1
                together -= 1
                member.is_scheduled = False
                wish = self._run_one(member) or wish
        self._tidy()
        self._arm()
        if wish is not None:
            raise wish

    cdef void _send_together(self, Py_ssize_t turns) noexcept:
        """What the next ``turns`` members have unsent, in one system call.  What was refused they try by themselves."""
        cdef Py_ssize_t[MOST_SENDS] places
        cdef Buffer* released = NULL
        cdef LoopMember member
        cdef Py_ssize_t place
        cdef int index
        self.batch.count = 0
        for place in range(self.first, self.first + turns):
            member = self.members[place]
            if member.join(self.batch):
                places[self.batch.count - 1] = place
        if not self.batch.count:
            return
        self.batch.submit()
        for index in range(self.batch.count):
            if self.batch.results[index] > 0:
                member = self.members[places[index]]
                member.was_sent(self.batch.results[index], &released)
        member.loop_state.pool.release_chain(released)      # last: a finalizer may run

    cdef int _arm(self) except -1:
        """Only here, behind all turns, so that who is added by one of them does not put off those that wait."""
        if not self.count:
            self.timer = None
        elif self.deadline > 0:
            self.timer = self.loop.call_at(self.dues[self.first], self.run_method)
        else:
            self.timer = self.loop.call_soon(self.run_method)
        return 0

    cdef object _run_one(self, LoopMember member):
        """One turn; returns a KeyboardInterrupt or SystemExit, which waits until the others had theirs."""
        try:
            member.run_scheduled()
        except Exception:
            # A defect of ours (or no memory): the others' turns come all the same.
            logger.exception("a connection's flush failed")
        except BaseException as wish:
            return wish
        return None


@cython.final
cdef class Members:

    def __cinit__(self):
        self.members = []

    def __len__(self):
        return len(self.members)

    def __iter__(self):
        """Those that are members now, whatever happens meanwhile."""
        return iter(self.members[:])

    def __contains__(self, member):
        cdef int place
        if not isinstance(member, LoopMember):
            return False
        place = (<LoopMember> member).place
        return 0 < place <= len(self.members) and self.members[place - 1] is member

    cdef int add(self, LoopMember member) except -1:
        self.members.append(member)
        member.place = <int> len(self.members)
        return 0

    cdef int discard(self, LoopMember member) except -1:
        """The last takes its place."""
        cdef LoopMember last
        if not member.place:
            return 0
        last = self.members.pop()
        if last is not member:
            self.members[member.place - 1] = last
            last.place = member.place
        member.place = 0
        return 0


@cython.final
@cython.no_gc_clear         # the members need wheel and pool until they are freed; the loop breaks the cycle
cdef class LoopState:

    def __cinit__(self, object loop):
        self.loop = loop
        self.pool = Pool()
        self.wheel = Wheel()
        self.soon = FlushQueue(loop, 0)
        self.delayed = {}
        self.read_wanted = SMALLEST_READ
        self.origin = loop.time() - 0.001       # now is never 0, which means "not set" to who stores it
        self.now = 1

    def __dealloc__(self):
        deallocate(self.read_buffer)

    @staticmethod
    def of(loop):
        """The one of this loop.  An attribute of the loop, so that it is freed with it and no table knows all loops."""
        state = getattr(loop, ATTRIBUTE, None)
        if state is None:
            state = LoopState(loop)
            setattr(loop, ATTRIBUTE, state)
        return state

    cdef int64_t clock(self) except -1:
        """Read the clock."""
        self.now = <int64_t> ((<double> self.loop.time() - self.origin) * 1000)
        return self.now

    cdef int schedule(self, LoopMember member) except -1:
        """``member.run_scheduled()`` before the loop polls again."""
        if not member.is_scheduled:
            self.soon.add(member)
            member.is_scheduled = True
        return 0

    cdef int watch(self, LoopMember member, int64_t due) except -1:
        """``member.expire()`` at ``due``, or earlier if it asked for that already."""
        if self.timer is None:
            self.clock()
            self._arm()
        return self.wheel.schedule(member, due)

    cdef int joined(self) except -1:
        """A connection was opened."""
        self.connections += 1
        if self.timer is None:
            self.clock()
            self._arm()
        return 0

    cdef int left(self) except -1:
        """A connection has ended."""
        self.connections -= 1
        return 0

    def _arm(self):
        self.timer = self.loop.call_later(<double> self.wheel.granularity / 1000.0, self._tick)

    def _tick(self):
        self.timer = None
        try:
            self.wheel.advance(self.clock())
            self.pool.trim()
        finally:
            if self.timer is None and (self.connections or self.wheel.count or self.pool.idle_bytes):
                self._arm()

    cdef int prepare_read_buffer(self) except -1:
        """Between read events: make it, or enlarge it if a server asked for more."""
        if self.read_size < self.read_wanted:
            deallocate(self.read_buffer)
            self.read_buffer = NULL
            self.read_buffer = <uint8_t*> allocate(self.read_wanted)
            self.read_size = self.read_wanted
            self.read_view = PyMemoryView_FromMemory(<char*> self.read_buffer, self.read_size, PyBUF_WRITE)
        return 0

    def get_buffer(self, sizehint):
        """asyncio.BufferedProtocol's."""
        self.prepare_read_buffer()
        return self.read_view


cdef int64_t _milliseconds(object seconds) except -1:
    """None, or so short that it would read as off, aside: the option in milliseconds."""
    if seconds is None:
        return 0
    return max(1, <int64_t> round(seconds * 1000))


cdef Py_ssize_t _limit(object number) except -2:
    return -1 if number is None else number


@cython.final
cdef class ServerState:

    def __init__(self, LoopState loop_state not None, object hooks, object options, *, bint is_client=False):
        self.loop_state = loop_state
        self.hooks = hooks
        self.get_buffer = loop_state.get_buffer
        limits = {
            "is_client": is_client,
            "max_message_size": options.max_message_size or 0,
            "max_fragments": options.max_fragments or 0,
            "decode_text": options.decode_text,
        }
        self.limits = Limits(**limits)
        if options.compression is not None:
            self.deflate_limits = Limits(rsv1_allowed=True, **limits)
        self.connections = Members()
        self.leaving = set()
        self.closes = {}
        self.limits_passed = {}
        self.limits_logged = {}
        self.write_buffer_size = options.write_buffer_size
        self.high_water = _limit(options.high_water)
        self.low_water = self.high_water // 4
        self.max_buffered_amount = _limit(options.max_buffered_amount)
        self.drops_messages = options.slow_consumer == "drop"
        self.max_queue = _limit(options.max_queue)
        self.max_queue_size = _limit(options.max_message_size)
        self.read_deadline = _milliseconds(options.read_deadline)
        self.idle_timeout = _milliseconds(options.idle_timeout)
        self.write_timeout = _milliseconds(options.write_timeout)
        self.close_timeout = _milliseconds(options.close_timeout)
        self._set_control_rate(options.max_control_rate)
        self._set_flush_queue(options.write_buffer_deadline)
        self._set_tick()
        loop_state.read_wanted = max(loop_state.read_wanted, options.read_buffer_size)
        self.debug_thread = threading.get_ident() if loop_state.loop.get_debug() else 0

    def _set_control_rate(self, rate):
        """``rate`` a second; ten seconds' worth at once (1,000 of the default 100)."""
        if rate is not None:
            self.control_interval = max(1, <int64_t> (1_000_000 / rate))
            self.control_burst = self.control_interval * max(1, 10 * rate)

    def _set_flush_queue(self, double deadline):
        cdef LoopState state = self.loop_state
        if deadline <= 0:
            self.flush_queue = state.soon
            return
        if deadline not in state.delayed:
            state.delayed[deadline] = FlushQueue(state.loop, deadline)
        self.flush_queue = state.delayed[deadline]

    def _set_tick(self):
        """Two ticks are what a timeout may be late, and a quarter of it is the most that it may be."""
        timeouts = (self.read_deadline, self.idle_timeout, self.write_timeout, self.close_timeout)
        shortest = min((timeout for timeout in timeouts if timeout), default=TICK * 8)
        tick = max(FINEST_TICK, min(TICK, shortest // 8))
        if tick < self.loop_state.wheel.granularity:
            self.loop_state.wheel.set_granularity(tick)

    cdef int check_thread(self) except -1:
        """In asyncio's debug mode, as its own call_soon() does."""
        if self.debug_thread and threading.get_ident() != self.debug_thread:
            raise RuntimeError(
                "called from another thread than the loop's: use server.loop.call_soon_threadsafe(...)"
            )
        return 0

    cpdef int count_limit(self, str name, object connection) except -1:
        """A peer passed a limit: counted each time, logged once a second at most, since peers can cause it at will."""
        cdef int64_t now = self.loop_state.now
        self.limits_passed[name] = self.limits_passed.get(name, 0) + 1
        if now - self.limits_logged.get(name, -LOG_INTERVAL) >= LOG_INTERVAL:
            self.limits_logged[name] = now
            logger.info("%r passed %s", connection, name)
        return 0

    @property
    def unsent(self):
        """Bytes that were taken and not yet given to the kernel, of all connections."""
        cdef Py_ssize_t unsent = 0
        for member in self.connections.members:
            unsent += (<LoopMember> member).buffered()
        return unsent
