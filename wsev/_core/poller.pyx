"""Poller: one epoll set for a loop, whose own descriptor the loop watches.

Owns the set, who is watched, and the order of a wake-up: all that is ready receives, and its callbacks are called; then
all answers are sent; then what ended is told so.  Knows no socket and no protocol.

Invariants: who is watched is held until remove(), so an event never meets freed memory; a descriptor is closed outside
of run() or behind its events; what was reported and not yet dealt with comes first in the next wake-up.
"""

cimport cython
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint32_t

import logging
import os

from wsev._core cimport linux, system
from wsev._core.descriptor cimport Descriptor
from wsev._core.loop cimport LoopState
from wsev._core.ring cimport Ring

logger = logging.getLogger("wsev.connection")

cdef enum:
    LONGEST = 2_000_000     # nanoseconds of one wake-up: then other callbacks of the loop have their turn
    STRIDE = 8              # descriptors between two looks at the clock (40 ns each)


@cython.final
cdef class Poller:

    def __cinit__(self, LoopState loop_state not None):
        self.loop_state = loop_state
        self.fd = -1
        self.watched = []
        self.endings = []

    def __dealloc__(self):
        if self.fd >= 0:
            system.close(self.fd)

    @staticmethod
    def of(LoopState loop_state not None):
        """The one of this loop."""
        if loop_state.poller is None:
            loop_state.poller = Poller(loop_state)
        return loop_state.poller

    def use_ring(self):
        """Let those of this loop that may (ServerState.sends_together) send together, as long as something is watched.

        False where the system or a sandbox does not allow it.
        """
        if self.loop_state.soon.batch is None and not self.has_no_ring:
            self.loop_state.soon.batch = Ring.open()
            self.has_no_ring = self.loop_state.soon.batch is None
        return not self.has_no_ring

    cdef int add(self, Descriptor descriptor, uint32_t interest) except -1:
        if self.fd < 0:
            self._open()
        while len(self.watched) <= descriptor.fd:
            self.watched.append(None)
        self.watched[descriptor.fd] = descriptor
        self.count += 1
        try:
            self.change(descriptor, interest)
        except BaseException:
            self.remove(descriptor)
            raise
        return 0

    cdef int change(self, Descriptor descriptor, uint32_t interest) except -1:
        """What is waited for; with 0 it leaves the set, which reports errors and hang-ups whether asked or not."""
        cdef linux.epoll_event event
        cdef int operation
        if interest == descriptor.interest:
            return 0
        if not interest:
            operation = linux.EPOLL_CTL_DEL
        else:
            operation = linux.EPOLL_CTL_MOD if descriptor.interest else linux.EPOLL_CTL_ADD
        event.events = interest
        event.data.fd = descriptor.fd
        if linux.epoll_ctl(self.fd, operation, descriptor.fd, &event) < 0:
            raise OSError(errno, os.strerror(errno))
        descriptor.interest = interest
        return 0

    cdef int remove(self, Descriptor descriptor) except -1:
        if descriptor.interest:
            # Also where close(2) would do it: a copy of the descriptor, a child's say, would keep it in the set.
            linux.epoll_ctl(self.fd, linux.EPOLL_CTL_DEL, descriptor.fd, NULL)
            descriptor.interest = 0
        self.watched[descriptor.fd] = None
        self.count -= 1
        if not self.count and not self.is_dealing:
            self._close()
        return 0

    cdef int end_soon(self, Descriptor descriptor) except -1:
        self.endings.append(descriptor)
        if not self.is_dealing and self.end_timer is None:
            self.end_timer = self.loop_state.loop.call_soon(self._end)
        return 0

    def run(self):
        """The loop's callback: the set has something to tell."""
        cdef Descriptor descriptor
        cdef int64_t began = _clock()
        if self.dealt == self.reported and self._wait() == 0:
            return
        self.is_dealing = True
        self.loop_state.soon.is_held = True
        try:
            while self.dealt < self.reported:
                descriptor = self.watched[self.events[self.dealt].data.fd]
                self.dealt += 1
                if descriptor is not None:
                    descriptor.ready(self.events[self.dealt - 1].events)
                if self.dealt % STRIDE == 0 and _clock() - began > LONGEST:
                    break
        finally:
            self.loop_state.soon.release()
            self.is_dealing = False
            if self.endings or not self.count:
                self._end()

    cdef int _wait(self) except -1:
        self.dealt = self.reported = 0
        self.reported = max(0, linux.epoll_wait(self.fd, self.events, MAX_EVENTS, 0))
        return self.reported

    def _end(self):
        """Tell those that ended.  Who ends meanwhile comes next time."""
        cdef list endings = self.endings
        cdef Descriptor descriptor
        cdef object wish = None
        self.end_timer = None
        self.endings = []
        for descriptor in endings:
            try:
                descriptor.end()
            except Exception:
                logger.exception("the end of a connection could not be dealt with")
            except BaseException as error:
                wish = error            # KeyboardInterrupt, SystemExit: not before the others were told
        if self.endings and self.end_timer is None:
            self.end_timer = self.loop_state.loop.call_soon(self._end)
        if not self.count and not self.is_dealing:
            self._close()
        if wish is not None:
            raise wish

    cdef int _open(self) except -1:
        self.fd = linux.epoll_create1(linux.EPOLL_CLOEXEC)
        if self.fd < 0:
            raise OSError(errno, os.strerror(errno))
        self.dealt = self.reported = 0
        try:
            self.loop_state.loop.add_reader(self.fd, self.run)
        except BaseException:
            system.close(self.fd)
            self.fd = -1
            raise
        return 0

    cdef int _close(self) except -1:
        if self.fd >= 0:
            if not self.loop_state.loop.is_closed():
                self.loop_state.loop.remove_reader(self.fd)
            system.close(self.fd)
            self.fd = -1
        self.loop_state.soon.batch = None
        return 0


cdef int64_t _clock() noexcept:
    """Nanoseconds."""
    cdef system.timespec now
    system.clock_gettime(system.CLOCK_MONOTONIC, &now)
    return <int64_t> now.tv_sec * 1_000_000_000 + now.tv_nsec
