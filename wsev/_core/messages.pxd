"""The sans-IO parser: bytes in, messages and control frames out.  It calls nobody; it is pulled:

    parser.feed_bytes(data, size)
    while (event := parser.next_event()) != NEED_DATA: ...
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from wsev._core.frames cimport FrameHeader, HeaderPart
from wsev._core.rules cimport Violation


cpdef enum Event:               # what next_event() found
    NEED_DATA = 0               # everything fed is used up
    TEXT = 1                    # payload: str (bytes that are UTF-8 where decode_text is off)
    BINARY = 2                  # payload: bytes
    COMPRESSED_TEXT = 65        # payload: bytes, as they are on the wire (RFC 7692 section 6), and not validated
    COMPRESSED_BINARY = 66      # the same
    CLOSE = 8                   # close_code (1005: none given), close_reason; nothing more will come
    PING = 9                    # payload: bytes
    PONG = 10                   # payload: bytes
    FAILED = 16                 # violation; nothing more will come


cdef enum State:
    IN_HEADER = 0               # between frames, or inside a header
    IN_PAYLOAD = 1              # of the frame described in Unfinished
    ENDED = 2                   # CLOSE or FAILED was returned; no byte is looked at any more


cdef extern from "utf8.h":
    ctypedef struct utf8_state:
        uint8_t missing


# What has come of a header, frame or message that is not complete.  Made when needed, freed when nothing needs it.
cdef struct Unfinished:
    PyObject* fed               # what keeps the bytes of a Python-level feed() alive (one reference), or NULL
    # The message
    PyObject* message           # bytes, its capacity is its size (one reference); NULL before its first byte
    Py_ssize_t size             # bytes of it that have come
    uint64_t fragments          # frames of it that have begun
    utf8_state utf8             # of a text message: where its bytes stop inside a code point
    bint is_compressed
    # The frame, while IN_PAYLOAD
    uint64_t remaining          # bytes of its payload that have not come
    uint64_t position           # bytes of its payload that have come
    uint8_t masking_key[4]
    uint8_t opcode
    bint fin
    # A header or a control frame's payload, which may come between the fragments of a message
    uint8_t header_size
    uint8_t header[14]
    uint8_t control_size
    uint8_t control[125]


cdef class Limits:
    """What all parsers of a server share: their role and the bounds of a message."""
    cdef readonly bint is_client                # the role that the parser plays: frames to a client are not masked
    cdef readonly bint decode_text              # False: TEXT is bytes
    cdef readonly bint rsv1_allowed             # permessage-deflate was negotiated
    cdef readonly uint64_t max_message_size     # bytes; 0: no limit
    cdef readonly uint64_t max_fragments        # frames of one message, empty ones too; 0: no limit


cdef class Parser:
    # The event just returned (payload: None once it was taken, and when nothing more is there)
    cdef readonly object payload                # take_payload() hands it over
    cdef readonly object close_reason           # str; of the peer's Close
    cdef readonly Violation violation
    cdef readonly unsigned short close_code     # of the peer's Close

    cdef uint8_t _state                         # State; changed by _set_state() only
    cdef uint8_t _message_opcode                # of the unfinished message, 0 if there is none
    cdef Limits limits
    cdef const uint8_t* _data                   # the bytes fed and not looked at: _data to _end, the caller's
    cdef const uint8_t* _end
    cdef Unfinished* _unfinished                # NULL: there is none

    # The bytes must stay valid until next_event() says NEED_DATA or rest() was taken.  Only when the last are used up.
    cdef void feed_bytes(self, const uint8_t* data, Py_ssize_t size) noexcept
    cdef int next_event(self) except -1
    cdef object take_payload(self)
    # Stop parsing between two events: the bytes not looked at, and how many; the parser forgets them.  After CLOSE and
    # FAILED: what came behind.
    cdef Py_ssize_t rest(self, const uint8_t** data) noexcept
    # An unfinished message, frame or header.  After CLOSE and FAILED there is none; such a parser is of no more use.
    cdef bint is_inside(self) noexcept
    cdef uint64_t inside_size(self) noexcept    # bytes of it that have come

    # A header
    cdef int _next_frame(self) except -1
    cdef HeaderPart _read_header(self, FrameHeader* header) except <HeaderPart> -1
    cdef Violation _check(self, const FrameHeader* header, HeaderPart part) noexcept
    # A frame that lies whole in the bytes fed
    cdef int _whole_message(self, const FrameHeader* header) except -1
    cdef int _whole_text(self, const uint8_t* data, Py_ssize_t size, const uint8_t* masking_key) except -1
    cdef int _whole_control(self, const FrameHeader* header) except -1
    # A message in fragments, and a frame in pieces
    cdef int _begin_payload(self, const FrameHeader* header) except -1
    cdef int _next_payload(self) except -1
    cdef bint _take_in(self, uint8_t* dst, const uint8_t* src, Py_ssize_t size) noexcept
    cdef int _finish_message(self) except -1
    cdef object _message(self)
    # The memory of the unfinished
    cdef Unfinished* _need_unfinished(self) except NULL
    cdef void _drop_message(self) noexcept
    cdef Py_ssize_t _room(self) noexcept
    cdef uint8_t* _message_end(self) noexcept
    cdef int _grow(self, uint64_t come) except -1
    cdef void _drop_unfinished(self) noexcept
    # Events and ends
    cdef int _control_event(self, int opcode, const uint8_t* payload, Py_ssize_t size) except -1
    cdef int _close_event(self, const uint8_t* payload, Py_ssize_t size) except -1
    cdef int _need_data(self) noexcept
    cdef int _fail(self, Violation violation) noexcept
    cdef void _stop(self) noexcept
    cdef void _set_state(self, State state) noexcept
