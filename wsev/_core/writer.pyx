"""Writer: frames in, coalesced bytes out; the flush rules; one encoded frame to many connections.

Owns the write buffers of a connection and when they are sent.  Knows no socket (Output has it) and no user code.

The flush rules.  At once: a full buffer, and flush_now().  With write_buffer_deadline 0: at the end of the read event
that is running for this connection (with wsev's own transport: when all read events of the wake-up have been dealt
with), else before the loop polls again.  Above 0: so many seconds after the first unsent byte.

Invariants: unsent is the sum of the chain; each of its buffers starts with a frame, but for one that is partly sent and
a payload that is referred to, which follows the buffer with its header (is_inside).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from wsev._core.buffers cimport Buffer, take_out
from wsev._core.frames cimport MAX_HEADER, OPCODE_BINARY, OPCODE_TEXT, encode_header
from wsev._core.frames import encode_frame
from wsev._core.loop cimport SendBatch
from wsev._core.output cimport Sink

cdef enum:
    OPCODE_BITS = 0x0F          # of a frame's first byte


cdef class Writer(Sink):

    def __dealloc__(self):
        if self.head != NULL:
            self.loop_state.pool.release_chain(self.head)

    cdef bint queue_frame(self, int first_byte, const uint8_t* payload, Py_ssize_t size, object owner) except -1:
        """One unmasked frame (RFC 6455 section 5.1: a server never masks)."""
        cdef unsigned char state = self.ready_state
        cdef Py_ssize_t whole = size + MAX_HEADER
        cdef Buffer* buffer = self.tail
        cdef int header_size
        if whole > self.server.write_buffer_size:
            return self._queue_large_frame(first_byte, payload, size, owner)
        if buffer == NULL or buffer.capacity - buffer.end < whole:
            buffer = self._room(whole)
            if self.ready_state != state:
                return False
        header_size = encode_header(buffer.data + buffer.end, first_byte, size)
        buffer.end += header_size
        memcpy(buffer.data + buffer.end, payload, size)
        buffer.end += size
        self.unsent += header_size + size
        return True

    cdef bint _queue_large_frame(
        self, int first_byte, const uint8_t* payload, Py_ssize_t size, object owner
    ) except -1:
        # First what may fail for want of memory: a header must not be queued without its payload.
        cdef Buffer* large = self._refer(payload, size, owner)
        cdef Buffer* buffer
        cdef int header_size
        cdef unsigned char state = self.ready_state
        try:
            buffer = self._room(MAX_HEADER)
        except BaseException:
            self.loop_state.pool.release(large)
            raise
        if self.ready_state != state:
            self.loop_state.pool.release(large)
            return False
        header_size = encode_header(buffer.data + buffer.end, first_byte, size)
        buffer.end += header_size
        large.is_inside = True
        self._append(large)
        self.unsent += header_size + size
        return True

    cdef bint queue_bytes(self, const uint8_t* data, Py_ssize_t size, object owner) except -1:
        """Bytes that are encoded already."""
        cdef Buffer* buffer = self.tail
        cdef unsigned char state = self.ready_state
        if size > self.server.write_buffer_size:
            self._append(self._refer(data, size, owner))
            self.unsent += size
            return True
        if buffer == NULL or buffer.capacity - buffer.end < size:
            buffer = self._room(size)
            if self.ready_state != state:
                return False
        memcpy(buffer.data + buffer.end, data, size)
        buffer.end += size
        self.unsent += size
        return True

    cdef Buffer* _room(self, Py_ssize_t size) except NULL:
        """A tail with room for ``size`` bytes: a larger one in its place, or, when that is full, another one."""
        cdef Buffer* tail = self.tail
        cdef Buffer* buffer
        cdef Py_ssize_t used
        cdef bint is_full = False
        if tail != NULL and tail.owner == NULL:
            if tail.capacity - tail.end >= size:
                return tail
            used = tail.end - tail.start
            if used + size <= self.server.write_buffer_size:
                buffer = self.loop_state.pool.grow(tail, used + size)
                if self.head == tail:
                    self.head = buffer
                else:
                    self._set_last(buffer, tail)
                self.tail = buffer
                return buffer
            is_full = True
        if (is_full or tail != NULL) and not self.is_loop_closed():
            self.flush_now()
        buffer = self.loop_state.pool.acquire(size)
        self._append(buffer)
        return buffer

    cdef Buffer* _refer(self, const uint8_t* data, Py_ssize_t size, object owner) except NULL:
        """Kept by reference and sent from where it lies; bytes that may change are copied once."""
        cdef bytes copy
        if owner is None:
            copy = (<const char*> data)[:size]
            owner = copy
            data = <const uint8_t*> PyBytes_AS_STRING(copy)
        return self.loop_state.pool.refer(owner, data, size)

    cdef bint has_room(self) except -1:
        """Whether the bytes that wait before it let a message in, whatever its own size."""
        cdef Py_ssize_t most = self.server.max_buffered_amount
        if most < 0 or (self.unsent < most and not self.output.is_blocked):
            return True
        if self.buffered() < most:
            return True
        if self.output.is_blocked or self.is_loop_closed():
            return False
        self.flush_now()        # the kernel has not been asked yet
        return self.buffered() < most

    cdef Py_ssize_t buffered(self) except -1:
        return self.unsent + (self.output.queued() if self.output.is_blocked else 0)

    cdef int plan_flush(self) except -1:
        if self.is_reading and self.server.flush_queue.deadline <= 0:
            return 0
        if self.server.flush_queue.deadline <= 0:
            return self.loop_state.schedule(self)
        if self.unsent > self.server.write_buffer_size and not self.is_loop_closed():
            return self.flush_now()
        if not self.is_delayed:
            self.server.flush_queue.add(self)
            self.is_delayed = True
        return 0

    cdef int flush_with_others(self) except -1:
        """At the end of a read event: now, or behind the other read events of the same wake-up (poller.pyx)."""
        if self.loop_state.soon.is_held:
            return self.loop_state.schedule(self)
        return self.flush_now()

    cdef int flush_now(self) except -1:
        cdef Py_ssize_t before = self.unsent
        cdef Py_ssize_t left
        cdef bint was_batched = self.was_batched
        cdef Buffer* chain = self.head
        if self.is_flushing or (chain == NULL and not was_batched):
            return 0
        self.was_batched = False
        if chain == NULL:
            if self.is_congested or self.ready_state != OPEN:
                self.flushed(True)
            return 0
        if self.output.is_blocked:
            return self.piled_up()
        # A finalizer may send while this is under way: it begins a chain of its own, behind the rest of this one.
        self._forget_unsent()
        if self.is_delayed:
            self.is_delayed = False         # what is sent from now on has a deadline of its own
            self.stale_turns += 1
        self.is_flushing = True
        try:
            chain = self.output.send(chain, self.loop_state.pool)
        except BaseException as error:
            self.send_failed(error)
            if isinstance(error, Exception):
                return 0
            raise
        finally:
            self.is_flushing = False
        if self.head != NULL:
            self.loop_state.schedule(self)
        left = self._put_back(chain)
        self.server.bytes_out += before - left
        if left or self.is_congested or self.output.is_blocked or self.ready_state != OPEN:
            self.flushed(was_batched or left < before)
        return 0

    cdef bint join(self, SendBatch batch) noexcept:
        if self.head == NULL or self.is_flushing or self.is_delayed or not self.server.sends_together:
            return False
        return self.output.takes_batches() and batch.add(self.output.fd, self.head)

    cdef void was_sent(self, Py_ssize_t size, Buffer** released) noexcept:
        self.head = take_out(self.head, size, released)
        if self.head == NULL:
            self.tail = NULL
        self.unsent -= size
        self.was_batched = True
        self.server.bytes_out += size
        self.server.batched_sends += 1

    cdef bint is_loop_closed(self) except -1:
        """A loop that was closed without a stop has closed the descriptor, whose number may be somebody else's now."""
        return self.loop_state.loop.is_closed()

    cdef Py_ssize_t _put_back(self, Buffer* rest) noexcept:
        """What output did not take, first in the chain; returns how many bytes that is."""
        cdef Py_ssize_t size = 0
        cdef Buffer* last = rest
        if rest == NULL:
            return 0
        while True:
            size += last.end - last.start
            if last.next == NULL:
                break
            last = last.next
        last.next = self.head
        if self.head == NULL:
            self.tail = last
        self.head = rest
        self.unsent += size
        return size

    cdef void _forget_unsent(self) noexcept:
        self.head = self.tail = NULL
        self.unsent = 0

    cdef void drop_unsent(self) noexcept:
        cdef Buffer* chain = self.head
        self._forget_unsent()                   # first: releasing may run a finalizer
        self.loop_state.pool.release_chain(chain)

    cdef void drop_whole_frames(self) noexcept:
        """Drop what is unsent, but for the rest of a frame that has begun: nothing could be read behind half of it."""
        cdef Buffer* rest = self.head
        cdef Buffer* last = rest
        cdef Buffer* frames = rest
        self._forget_unsent()
        if rest != NULL and rest.is_inside:
            while last.next != NULL and last.next.is_inside:
                last = last.next        # the payload whose header is in the buffer before
            frames = last.next
            last.next = NULL
            self._put_back(rest)
        self.loop_state.pool.release_chain(frames)

    cdef int send_failed(self, object error) except -1:
        return 0

    cdef int flushed(self, bint progress) except -1:
        return 0

    cdef int piled_up(self) except -1:
        return 0

    cdef int overflowed(self) except -1:
        return 0

    cdef bint send_encoded(self, EncodedMessage message) except -1:
        """Queue a message for many; False if this connection does not take it."""
        cdef bytes frame
        if self.ready_state != OPEN:
            return False
        if not self.has_room():
            self.overflowed()
            return False
        if self.ready_state != OPEN:
            return False
        frame = message.frame if self.deflate is None else message.frame_for(self.deflate)
        if not self.queue_bytes(<const uint8_t*> PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame), frame):
            return False
        self.server.messages_out += 1
        self.plan_flush()
        return True

    cdef void _append(self, Buffer* buffer) noexcept:
        if self.tail == NULL:
            self.head = buffer
        else:
            self.tail.next = buffer
        self.tail = buffer

    cdef void _set_last(self, Buffer* buffer, Buffer* former) noexcept:
        """``former``, the last of the chain, has been replaced."""
        cdef Buffer* before = self.head
        while before.next != former:
            before = before.next
        before.next = buffer


@cython.final
cdef class EncodedMessage:

    def __repr__(self):
        return f"<EncodedMessage {self.size} bytes>"

    cdef bytes frame_for(self, object deflate):
        """The frame for a connection with permessage-deflate."""
        cdef object compressor = deflate.shared
        cdef bytes frame
        if compressor is not None and self.compressed is not None:
            frame = self.compressed.get(compressor)
            if frame is not None:
                return frame
        frame = encode_deflated(self.frame[0] & OPCODE_BITS, self.frame[len(self.frame) - self.size:], deflate, False)
        if compressor is not None:
            if self.compressed is None:
                self.compressed = {}
            self.compressed[compressor] = frame
        return frame


cdef bytes encode_deflated(int opcode, bytes payload, object deflate, bint is_forced):
    cdef object compressed = None
    if is_forced or len(payload) >= deflate.threshold:
        compressed = deflate.deflate(payload)
    if compressed is None:
        return encode_frame(opcode, payload)
    # RFC 7692 section 6: RSV1 of a message's first frame is its "Per-Message Compressed" bit.
    return encode_frame(opcode, compressed, rsv1=True)


def encode_message(message, bint text=False):
    """Encode a message once: a str (or, with ``text``, bytes that are UTF-8) as text, bytes as binary."""
    cdef EncodedMessage encoded = EncodedMessage.__new__(EncodedMessage)
    if isinstance(message, str):
        message = (<str> message).encode()
        text = True
    elif not isinstance(message, (bytes, bytearray, memoryview)):
        raise TypeError(f"message must be str, bytes, bytearray or memoryview, not {type(message).__name__}")
    encoded.frame = encode_frame(OPCODE_TEXT if text else OPCODE_BINARY, message)
    encoded.size = memoryview(message).nbytes
    return encoded


def deliver(connections, EncodedMessage message not None, exclude=None):
    """Queue ``message`` for each of ``connections``; returns how many took it.

    Runs no user code, so that a live set may be given.
    """
    cdef Py_ssize_t taken = 0
    cdef Writer writer
    for connection in connections:
        if connection is exclude:
            continue
        if not isinstance(connection, Writer):
            raise TypeError(f"connections: holds {connection!r}, which is no Connection")
        writer = <Writer> connection
        if writer.server.debug_thread:
            writer.server.check_thread()
        if writer.send_encoded(message):
            taken += 1
    return taken
