"""Ring: an io_uring, by which the sends of many connections leave in one system call.

Owns the ring and what it shares with the kernel.  Knows buffers and descriptors, no connection.

Every send has MSG_DONTWAIT: it is done, or refused, before the system call returns, so that buffers stay their owners'
and nothing is ever under way.  What tells that a socket has room again is epoll, as without a ring.
"""

cimport cython
from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

import socket

from wsev._core cimport linux, system
from wsev._core.buffers cimport Buffer
from wsev._core.loop cimport SendBatch


@cython.final
cdef class Ring(SendBatch):

    def __cinit__(self):
        self.fd = -1
        self.capacity = SENDS

    def __dealloc__(self):
        if self.rings != NULL:
            linux.munmap(self.rings, self.rings_size)
        if self.entries != NULL:
            linux.munmap(self.entries, self.entries_size)
        if self.fd >= 0:
            system.close(self.fd)

    @staticmethod
    def open():
        """A new one; None where the system or a sandbox does not allow it."""
        cdef Ring ring = Ring()
        return ring if ring._open() and ring._works() else None

    cdef bint add(self, int fd, Buffer* chain) noexcept:
        cdef linux.io_uring_sqe* entry
        cdef system.iovec* part
        cdef system.msghdr* message
        if self.count == SENDS:
            return False
        if chain.next == NULL:
            entry = self._next_entry(linux.IORING_OP_SEND, fd)
            entry.addr = <uint64_t> <size_t> (chain.data + chain.start)
            entry.len = <uint32_t> min(chain.end - chain.start, <Py_ssize_t> 0x7FFFF000)    # the most of send(2), too
            return True
        message = &self.messages[self.count]
        message.msg_iov = part = &self.parts[self.count * MAX_PARTS]
        message.msg_iovlen = 0
        while chain != NULL:
            if message.msg_iovlen == MAX_PARTS:
                return False
            part.iov_base = chain.data + chain.start
            part.iov_len = chain.end - chain.start
            part += 1
            message.msg_iovlen += 1
            chain = chain.next
        entry = self._next_entry(linux.IORING_OP_SENDMSG, fd)
        entry.addr = <uint64_t> <size_t> message
        entry.len = 1
        return True

    cdef linux.io_uring_sqe* _next_entry(self, int opcode, int fd) noexcept:
        cdef linux.io_uring_sqe* entry = &self.entries[self.next_tail & self.submission_mask]
        memset(entry, 0, sizeof(linux.io_uring_sqe))
        entry.opcode = <uint8_t> opcode
        entry.fd = fd
        entry.msg_flags = system.MSG_DONTWAIT | system.MSG_NOSIGNAL
        entry.user_data = self.count
        self.results[self.count] = -system.EAGAIN       # until the kernel says what else
        self.next_tail += 1
        self.count += 1
        return entry

    cdef void submit(self) noexcept:
        cdef int untaken = self.count
        cdef int unfinished = 0
        cdef int taken
        linux.__atomic_store_n(self.submission_tail, self.next_tail, linux.__ATOMIC_RELEASE)
        while untaken or unfinished:            # once, but for what does not happen
            taken = <int> linux.syscall(
                linux.SYS_IO_URING_ENTER, self.fd, untaken, unfinished, linux.IORING_ENTER_GETEVENTS, NULL, 0
            )
            if taken > 0:
                untaken -= taken
                unfinished += taken
            elif taken < 0 and errno == system.EINTR:
                continue
            elif untaken:
                # No memory for it, say.  What the kernel has not taken it must not find later.
                self.next_tail -= untaken
                linux.__atomic_store_n(self.submission_tail, self.next_tail, linux.__ATOMIC_RELEASE)
                untaken = 0
            elif taken < 0:
                return                          # nor can it be waited for
            unfinished -= self._collect()

    cdef int _collect(self) noexcept:
        """What the kernel has done; returns how many sends."""
        cdef int finished = 0
        cdef uint32_t head = self.completion_head[0]
        cdef uint32_t tail = linux.__atomic_load_n(self.completion_tail, linux.__ATOMIC_ACQUIRE)
        cdef linux.io_uring_cqe* completion
        while head != tail:
            completion = &self.completions[head & self.completion_mask]
            self.results[completion.user_data] = completion.res
            head += 1
            finished += 1
        linux.__atomic_store_n(self.completion_head, head, linux.__ATOMIC_RELEASE)
        return finished

    # ---------------------------------------------------------------- the beginning

    cdef bint _open(self) except -1:
        """False: not here."""
        cdef linux.io_uring_params params
        memset(&params, 0, sizeof(params))
        params.flags = linux.IORING_SETUP_SUBMIT_ALL
        self.fd = <int> linux.syscall(linux.SYS_IO_URING_SETUP, SENDS, &params)
        if self.fd < 0:
            return False
        return self._map(&params)

    cdef int _map(self, linux.io_uring_params* params) except -1:
        cdef uint32_t* indices
        cdef uint32_t index
        cdef void* mapped
        if not params.features & linux.IORING_FEAT_SINGLE_MMAP:
            return False
        self.rings_size = max(
            params.sq_off.array + params.sq_entries * sizeof(uint32_t),
            params.cq_off.cqes + params.cq_entries * sizeof(linux.io_uring_cqe),
        )
        mapped = _map_shared(self.fd, self.rings_size, linux.IORING_OFF_SQ_RING)
        if mapped == linux.MAP_FAILED:
            return False
        self.rings = <uint8_t*> mapped
        self.entries_size = params.sq_entries * sizeof(linux.io_uring_sqe)
        mapped = _map_shared(self.fd, self.entries_size, linux.IORING_OFF_SQES)
        if mapped == linux.MAP_FAILED:
            return False
        self.entries = <linux.io_uring_sqe*> mapped
        self.submission_tail = <uint32_t*> (self.rings + params.sq_off.tail)
        self.submission_mask = (<uint32_t*> (self.rings + params.sq_off.ring_mask))[0]
        self.completion_head = <uint32_t*> (self.rings + params.cq_off.head)
        self.completion_tail = <uint32_t*> (self.rings + params.cq_off.tail)
        self.completion_mask = (<uint32_t*> (self.rings + params.cq_off.ring_mask))[0]
        self.completions = <linux.io_uring_cqe*> (self.rings + params.cq_off.cqes)
        # Entries are submitted in their own order.
        indices = <uint32_t*> (self.rings + params.sq_off.array)
        for index in range(params.sq_entries):
            indices[index] = index
        return True

    cdef bint _works(self) except -1:
        """Whether a send through it arrives: a sandbox may allow a ring and not what it is for."""
        cdef Buffer buffer
        cdef uint8_t byte = 33
        memset(&buffer, 0, sizeof(buffer))
        buffer.data = &byte
        buffer.end = buffer.capacity = 1
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            return False                # no descriptors left: it may not be the time for a ring either
        with ours, theirs:
            self.add(ours.fileno(), &buffer)
            self.submit()
            self.count = 0
            return self.results[0] == 1


cdef void* _map_shared(int fd, size_t size, long offset) noexcept:
    cdef void* mapped = linux.mmap(
        NULL, size, linux.PROT_READ | linux.PROT_WRITE, linux.MAP_SHARED | linux.MAP_POPULATE, fd, offset
    )
    if mapped != linux.MAP_FAILED:
        linux.madvise(mapped, size, linux.MADV_DONTFORK)        # a child would share it, and send in our name
    return mapped
