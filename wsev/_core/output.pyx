"""Sink and Output: the seam between a connection and its transport.

Owns the system calls that send.  Knows no frame, no rule, and no kind of transport.

Invariants: while is_blocked nothing is sent; after close(), abort() and lost() the descriptor, which may be somebody
else's by then, is not used.
"""

from libc.errno cimport errno
from libc.stdint cimport uint8_t
from libc.string cimport memset

import os

from wsev._core cimport system
from wsev._core.addresses cimport address_object
from wsev._core.buffers cimport Buffer, Pool, take_out
from wsev._core.descriptor cimport Descriptor
from wsev._core.loop cimport LoopMember

cdef enum:
    MAX_PARTS = 64          # buffers of one sendmsg(2); 1,024 is the kernel's limit, and 64 of 16 KiB fill any socket


cdef class Sink(LoopMember):

    cdef int data_came(self, const uint8_t* data, Py_ssize_t size) except -1:
        return 0

    cdef int may_write(self) except -1:
        return 0


cdef class Output(Descriptor):

    @property
    def remote_address(self):
        """(host, port), or a path or "" for a Unix socket; readable after the end."""
        return address_object(&self.remote, self.remote_name)

    cdef Buffer* send_directly(self, Buffer* chain, Pool pool) except? NULL:
        """send(2) until all is taken or the socket is full."""
        cdef system.iovec parts[MAX_PARTS]
        cdef system.msghdr message
        cdef Buffer* buffer
        cdef Buffer* released
        cdef Py_ssize_t sent, wanted
        cdef int count, number
        while chain != NULL:
            if chain.next == NULL:
                wanted = chain.end - chain.start
                sent = system.send(self.fd, chain.data + chain.start, wanted, system.MSG_NOSIGNAL)
            else:
                count = 0
                wanted = 0
                buffer = chain
                while buffer != NULL and count < MAX_PARTS:
                    parts[count].iov_base = buffer.data + buffer.start
                    parts[count].iov_len = buffer.end - buffer.start
                    wanted += buffer.end - buffer.start
                    count += 1
                    buffer = buffer.next
                memset(&message, 0, sizeof(message))
                message.msg_iov = parts
                message.msg_iovlen = count
                sent = system.sendmsg(self.fd, &message, system.MSG_NOSIGNAL)
            if sent < 0:
                if errno == system.EINTR:
                    continue
                if errno == system.EAGAIN or errno == system.EWOULDBLOCK:
                    return chain
                if errno == system.EPIPE or errno == system.ECONNRESET or self.fd < 0:
                    return self.break_off(chain, pool)
                number = errno              # before anything else is called
                self.break_off(chain, pool)
                raise OSError(number, os.strerror(number))
            released = NULL
            chain = take_out(chain, sent, &released)
            pool.release_chain(released)
            if sent < wanted:
                return chain            # it took a part: it is full
        return NULL

    cdef Buffer* break_off(self, Buffer* chain, Pool pool) noexcept:
        """The peer is gone.  What it sent before may still be in the socket, so reading goes on and finds the end."""
        self.is_broken = True
        pool.release_chain(chain)
        return NULL

    # ---------------------------------------------------------------- what each kind of transport does its own way

    cdef Buffer* send(self, Buffer* chain, Pool pool) except? NULL:
        raise NotImplementedError

    cdef bint takes_batches(self) noexcept:
        return False

    cdef Py_ssize_t queued(self) except -1:
        return 0

    cdef int pause(self) except -1:
        return 0

    cdef int resume(self) except -1:
        return 0

    cdef int finish(self) except -1:
        return 0

    cdef int close_transport(self) except -1:
        return 0

    cdef int abort_transport(self) except -1:
        return 0

    cdef int lost(self) except -1:
        return 0

    cdef bint is_ending(self) except -1:
        return True

    cdef bint can_finish(self) except -1:
        return False

    cdef object extra_info(self, str name, object default):
        return default
