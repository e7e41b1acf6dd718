"""Memory of the core: the only malloc and free.

A Buffer has one owner at a time.  Whoever acquired it releases it, or hands it on in a chain.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t


cdef struct Buffer:
    Buffer* next            # the next of a chain (the owner's), or of a free list (the pool's)
    PyObject* owner         # whose memory data points into (one reference is held); NULL: it lies behind this struct
    uint8_t* data
    Py_ssize_t start        # the first byte not yet taken out
    Py_ssize_t end          # one past the last byte put in
    Py_ssize_t capacity     # bytes at data
    bint is_inside         # its first byte is inside a frame whose beginning went before; else it starts with a frame


cdef enum:
    SMALLEST = 256          # bytes; holds one small frame (a coalesced write starts with it)
    CLASSES = 12            # sizes that are pooled: 256 bytes to 512 KiB, each twice the one before


cdef void* allocate(size_t size) except NULL
cdef void deallocate(void* memory) noexcept
# The chain without its first size bytes; buffers that this empties go to released.
cdef Buffer* take_out(Buffer* chain, Py_ssize_t size, Buffer** released) noexcept


cdef class Pool:
    """Buffers by size, kept for the next who needs one; what a burst left is given back by trim()."""
    cdef Buffer* free[CLASSES]
    cdef Py_ssize_t counts[CLASSES]         # buffers on the free list
    cdef Py_ssize_t lows[CLASSES]           # the smallest of it since the last trim(): so many were not needed
    cdef readonly Py_ssize_t idle_bytes     # held by the free lists
    cdef readonly Py_ssize_t lent           # buffers that are out, references included

    cdef Buffer* acquire(self, Py_ssize_t capacity) except NULL
    cdef Buffer* refer(self, object owner, const uint8_t* data, Py_ssize_t size) except NULL
    cdef Buffer* grow(self, Buffer* buffer, Py_ssize_t capacity) except NULL
    cdef void release(self, Buffer* buffer) noexcept
    cdef void release_chain(self, Buffer* buffer) noexcept
    cpdef void trim(self) noexcept
