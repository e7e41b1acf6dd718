"""HeadReader: bytes in, the head of one HTTP request out, within its limits and right in its grammar."""

from libc.stdint cimport uint8_t


# Why bytes are not the head of a request.
cpdef enum Fault:
    NOT_VALID = 1               # RFC 9112 does not allow it
    LINE_TOO_LONG = 2
    HEAD_TOO_LARGE = 3
    TOO_MANY_FIELDS = 4


cdef class HeadLimits:
    cdef Py_ssize_t max_line    # bytes, without its CR LF
    cdef Py_ssize_t max_size    # bytes, all that came counted
    cdef Py_ssize_t max_fields


# A whole head, and of its fields those that an opening handshake is judged by; None where there is none.
cdef class Head:
    cdef readonly bytes raw     # up to and with the empty line
    cdef readonly bytes rest    # what came behind it
    cdef readonly str method
    cdef readonly str target
    cdef readonly str version   # such as "HTTP/1.1"
    cdef readonly str host
    cdef readonly str origin
    cdef readonly str upgrade
    cdef readonly str connection
    cdef readonly str content_length
    cdef readonly str transfer_encoding
    cdef readonly str websocket_key
    cdef readonly str websocket_version
    cdef readonly str websocket_protocol
    cdef readonly str websocket_extensions
    cdef readonly bint is_origin_repeated       # whether it came in several lines

    # The parts of a head, each from where it begins; where the next begins, or NULL: it is not valid.
    cdef const uint8_t* _read_line(self, const uint8_t* at) except? NULL
    cdef const uint8_t* _read_field(self, const uint8_t* at, list values) except? NULL
    cdef bint _read(self) except -1


# Feed it until it gives a Head or a Fault; then it is used up.
cdef class HeadReader:
    cdef HeadLimits limits
    cdef object data            # what has come: mostly the whole head at once, which is not copied
    cdef Py_ssize_t start       # behind the one blank line that may come first
    cdef Py_ssize_t line        # where the line begins that has not ended yet
    cdef Py_ssize_t scanned     # no line ends between there and here
    cdef Py_ssize_t lines       # that have ended

    cdef const uint8_t* _take(self, bytes data) except NULL
    cdef object _whole(self, const uint8_t* begin, Py_ssize_t size)
