"""Memory of the core: Buffer and Pool.

Owns every malloc and free of the core.  Knows nothing of frames or sockets.

Invariants: 0 <= start <= end <= capacity; a buffer is on a free list or lent, never both; a pooled buffer's
capacity is SMALLEST << class, and its bytes from an earlier use are never sent: only start to end ever is.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy


cdef void* allocate(size_t size) except NULL:
    cdef void* memory = malloc(size)
    if memory == NULL:
        raise MemoryError(f"{size} bytes")
    return memory


cdef void deallocate(void* memory) noexcept:
    free(memory)


cdef Buffer* take_out(Buffer* chain, Py_ssize_t size, Buffer** released) noexcept:
    cdef Buffer* empty
    while chain != NULL and size >= chain.end - chain.start:
        size -= chain.end - chain.start
        empty = chain
        chain = chain.next
        empty.next = released[0]
        released[0] = empty
    if size:
        chain.start += size
        chain.is_inside = True
    return chain


cdef inline int _size_class(Py_ssize_t capacity) noexcept:
    """The class whose buffers hold so many bytes; CLASSES or more for what is not pooled."""
    cdef int size_class = 0
    cdef Py_ssize_t size = SMALLEST
    while size < capacity:
        size <<= 1
        size_class += 1
    return size_class


cdef class Pool:

    def __dealloc__(self):
        cdef int size_class
        cdef Buffer* buffer
        for size_class in range(CLASSES):
            while self.free[size_class] != NULL:
                buffer = self.free[size_class]
                self.free[size_class] = buffer.next
                free(buffer)

    cdef Buffer* acquire(self, Py_ssize_t capacity) except NULL:
        """A buffer for at least ``capacity`` bytes, empty."""
        cdef int size_class = _size_class(capacity)
        cdef Buffer* buffer
        if size_class < CLASSES and self.free[size_class] != NULL:
            buffer = self.free[size_class]
            self.free[size_class] = buffer.next
            self.counts[size_class] -= 1
            if self.counts[size_class] < self.lows[size_class]:
                self.lows[size_class] = self.counts[size_class]
            self.idle_bytes -= buffer.capacity
        else:
            capacity = <Py_ssize_t> SMALLEST << size_class
            buffer = <Buffer*> allocate(sizeof(Buffer) + capacity)
            buffer.owner = NULL
            buffer.data = <uint8_t*> buffer + sizeof(Buffer)
            buffer.capacity = capacity
        buffer.next = NULL
        buffer.start = buffer.end = 0
        buffer.is_inside = False
        self.lent += 1
        return buffer

    cdef Buffer* refer(self, object owner, const uint8_t* data, Py_ssize_t size) except NULL:
        """A buffer that is ``owner``'s memory, which must not change: for bytes too many to copy."""
        cdef Buffer* buffer = <Buffer*> allocate(sizeof(Buffer))
        Py_INCREF(owner)                    # its Py_DECREF: release()
        buffer.owner = <PyObject*> owner
        buffer.data = <uint8_t*> data
        buffer.next = NULL
        buffer.start = 0
        buffer.end = buffer.capacity = size
        buffer.is_inside = False
        self.lent += 1
        return buffer

    cdef Buffer* grow(self, Buffer* buffer, Py_ssize_t capacity) except NULL:
        """A larger buffer with the same bytes, in the chain's place of the one given, which is released."""
        cdef Buffer* larger = self.acquire(capacity)
        larger.next = buffer.next
        larger.is_inside = buffer.is_inside
        larger.end = buffer.end - buffer.start
        memcpy(larger.data, buffer.data + buffer.start, larger.end)
        self.release(buffer)
        return larger

    cdef void release(self, Buffer* buffer) noexcept:
        cdef int size_class
        cdef object owner
        self.lent -= 1
        if buffer.owner != NULL:
            owner = <object> buffer.owner
            free(buffer)
            Py_DECREF(owner)                # of refer(); last, since it may run a destructor
            return
        size_class = _size_class(buffer.capacity)
        if size_class >= CLASSES:
            free(buffer)
            return
        buffer.next = self.free[size_class]
        self.free[size_class] = buffer
        self.counts[size_class] += 1
        self.idle_bytes += buffer.capacity

    cdef void release_chain(self, Buffer* buffer) noexcept:
        cdef Buffer* following
        while buffer != NULL:
            following = buffer.next
            self.release(buffer)
            buffer = following

    cpdef void trim(self) noexcept:
        """Give back half of the buffers that nobody needed since the last call (and the last one)."""
        cdef int size_class
        cdef Py_ssize_t surplus
        cdef Buffer* buffer
        for size_class in range(CLASSES):
            surplus = (self.lows[size_class] + 1) // 2
            while surplus > 0:
                buffer = self.free[size_class]
                self.free[size_class] = buffer.next
                self.counts[size_class] -= 1
                self.idle_bytes -= buffer.capacity
                free(buffer)
                surplus -= 1
            self.lows[size_class] = self.counts[size_class]
