"""Parser: the bytes of one direction of a connection in, its messages and control frames out.

Owns what is unfinished: a header, a frame, a message.  Knows no socket, no event loop and no callback, and answers
nothing; it never writes to the bytes it is fed, and keeps none of them.

Invariants: a payload is copied once, unmasked on the way, to where it stays.  What an unfinished message holds is at
most twice what has come of it plus 64 KiB, whatever a header claims, and its fragments cost nothing once they have
come.  Unfinished text is valid as far as it goes.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from wsev._core.buffers cimport allocate, deallocate
from wsev._core.frames cimport (
    CONTROL_BIT, MASKING_KEY_SIZE, MAX_HEADER, OPCODE_CLOSE, OPCODE_CONTINUATION, OPCODE_TEXT,
    FrameHeader, HEADER_LENGTH, HEADER_NOTHING, HEADER_WHOLE, HeaderPart, decode_header, unmask,
)
from wsev._core.rules cimport Violation, check_length, check_limits, check_start, is_close_code_allowed, reason_of


cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    void* PyUnicode_DATA(object text)
    object PyUnicode_DecodeUTF8(const char* data, Py_ssize_t size, const char* errors)
    int _PyBytes_Resize(PyObject** message, Py_ssize_t size) except -1
    PyObject* new_bytes "PyBytes_FromStringAndSize" (const char* data, Py_ssize_t size) except NULL


cdef extern from "utf8.h":
    bint utf8_feed(utf8_state* state, const uint8_t* data, size_t size) noexcept


cdef enum:
    GO_ON = -2                  # no event yet, and perhaps bytes left; never leaves this file
    COMPRESSED = 64             # of an event: RSV1 was set
    NO_CLOSE_CODE = 1005        # RFC 6455 section 7.1.5: "considered to be 1005" if the Close frame has none
    DEFLATE_OVERHEAD = 64       # bytes; of small messages, where a thousandth is nothing
    SLACK = 65_536              # bytes: what a header's claim is trusted with; small beside the read buffer


@cython.final
cdef class Limits:
    """What parsers share: the role they play, and the bounds of a message.

    Args:
        is_client: whether the parser reads what a server sends; False: what a client sends.
        max_message_size: bytes, exactly so many are allowed; 0 for no limit.
        max_fragments: frames of one message, empty ones counted; 0 for no limit.
        decode_text: whether text comes as str; False: as bytes that are valid UTF-8.
        rsv1_allowed: whether permessage-deflate was negotiated (RFC 7692).  Inflating is not the parser's.
    """

    def __cinit__(
        self,
        *,
        bint is_client=False,
        uint64_t max_message_size=1_048_576,
        uint64_t max_fragments=16_384,
        bint decode_text=True,
        bint rsv1_allowed=False,
    ):
        self.is_client = is_client
        self.max_message_size = max_message_size
        self.max_fragments = max_fragments
        self.decode_text = decode_text
        self.rsv1_allowed = rsv1_allowed


@cython.final
@cython.no_gc
cdef class Parser:
    """A pulled, sans-IO parser of WebSocket frames (RFC 6455 section 5): 80 bytes while nothing is unfinished.

    Feed it bytes, then ask for events until it needs more::

        parser.feed(data)
        while (event := parser.next()) != Event.NEED_DATA:
            ...

    After CLOSE, which ends the peer's data, and after FAILED it looks at no further byte and keeps none: ``next``
    returns NEED_DATA, or FAILED again.
    """

    def __cinit__(self, Limits limits not None):
        self.limits = limits
        self.close_reason = ""

    def __dealloc__(self):
        self._drop_unfinished()

    # What Python sees: tests, fuzzers and whoever needs a codec without I/O

    def feed(self, data, /) -> None:
        """Give the parser the next bytes, any bytes-like object.

        Raises:
            ValueError: bytes fed before are not used up; ask for events until NEED_DATA first.
        """
        if self._data != self._end:
            raise ValueError("bytes fed before are not used up; call next() until it returns Event.NEED_DATA")
        if self._state == ENDED:
            return
        cdef bytes fed = bytes(data)            # the very object, if it is bytes; what a bytearray was, if it changes
        cdef Unfinished* unfinished = self._need_unfinished()
        Py_XDECREF(unfinished.fed)
        Py_INCREF(fed)                          # its Py_XDECREF: the line above, _need_data() or _drop_unfinished()
        unfinished.fed = <PyObject*> fed
        self.feed_bytes(<const uint8_t*> PyBytes_AS_STRING(fed), len(fed))

    def next(self) -> Event:
        """Return what comes next in the bytes fed; the attributes tell more of it.

        TEXT, BINARY, both COMPRESSED, PING and PONG have a ``payload``, CLOSE a ``close_code`` and ``close_reason``,
        FAILED a ``violation``, with ``reason``.
        """
        return <Event> self.next_event()

    def take_rest(self) -> bytes:
        """Return the bytes fed that were not looked at, also after CLOSE and FAILED; the parser forgets them."""
        cdef const uint8_t* data = NULL
        cdef Py_ssize_t size = self.rest(&data)
        cdef bytes rest = PyBytes_FromStringAndSize(<const char*> data, size)
        self._need_data()
        return rest

    @property
    def reason(self) -> str:
        """The rule that the peer broke, as a sentence; empty before FAILED."""
        return reason_of(self.violation)

    @property
    def inside(self) -> int | None:
        """How many bytes of an unfinished message, frame or header have come; None if nothing is unfinished."""
        return self.inside_size() if self.is_inside() else None

    @property
    def capacity(self) -> int:
        """The bytes that are reserved for an unfinished message."""
        return 0 if self._unfinished == NULL else self._unfinished.size + self._room()

    # What the connection calls

    cdef void feed_bytes(self, const uint8_t* data, Py_ssize_t size) noexcept:
        if self._state == ENDED:
            return
        self._data = data
        self._end = data + size

    cdef int next_event(self) except -1:
        cdef int event = GO_ON
        while event == GO_ON:
            if self._state == IN_HEADER:
                event = self._next_frame()
            elif self._state == IN_PAYLOAD:
                event = self._next_payload()
            else:
                self._data = self._end = NULL
                self._need_data()
                event = FAILED if self.violation else NEED_DATA
        return event

    cdef object take_payload(self):
        cdef object payload = self.payload
        self.payload = None
        return payload

    cdef Py_ssize_t rest(self, const uint8_t** data) noexcept:
        cdef Py_ssize_t size = self._end - self._data
        data[0] = self._data
        self._data = self._end = NULL
        if self._unfinished != NULL and self._unfinished.fed == NULL:
            self._need_data()
        return size

    cdef bint is_inside(self) noexcept:
        if self._state == IN_PAYLOAD or self._message_opcode:
            return True
        return self._unfinished != NULL and self._unfinished.header_size > 0

    cdef uint64_t inside_size(self) noexcept:
        cdef Unfinished* unfinished = self._unfinished
        if unfinished == NULL:
            return 0
        return unfinished.size + unfinished.header_size + unfinished.control_size

    # A header

    cdef int _next_frame(self) except -1:
        cdef FrameHeader header
        cdef HeaderPart part
        cdef Violation violation
        if self._data == self._end:
            return self._need_data()
        part = self._read_header(&header)
        violation = self._check(&header, part)
        if violation:
            return self._fail(violation)
        if part != HEADER_WHOLE:
            return self._need_data()
        if header.payload_size <= <uint64_t> (self._end - self._data):
            if header.opcode & CONTROL_BIT:
                return self._whole_control(&header)
            if header.fin and header.opcode != OPCODE_CONTINUATION:
                return self._whole_message(&header)
        return self._begin_payload(&header)

    cdef HeaderPart _read_header(self, FrameHeader* header) except <HeaderPart> -1:
        """Decode the header that begins at _data, or began in earlier bytes; if it is not whole, keep what there is."""
        cdef Py_ssize_t size = self._end - self._data
        cdef Unfinished* unfinished = self._unfinished
        cdef HeaderPart part
        cdef Py_ssize_t before
        if unfinished == NULL or unfinished.header_size == 0:
            part = decode_header(self._data, size, header)
            if part == HEADER_WHOLE:
                self._data += header.header_size
                return part
            unfinished = self._need_unfinished()
        before = unfinished.header_size
        size = min(size, MAX_HEADER - before)
        memcpy(unfinished.header + before, self._data, size)
        part = decode_header(unfinished.header, before + size, header)
        if part == HEADER_WHOLE:
            self._data += header.header_size - before
            unfinished.header_size = 0
        else:
            self._data += size
            unfinished.header_size = <uint8_t> (before + size)
        return part

    cdef Violation _check(self, const FrameHeader* header, HeaderPart part) noexcept:
        """Judge as much of a header as has come."""
        cdef Violation violation
        cdef uint64_t size = 0, fragments = 0
        cdef uint64_t most = self.limits.max_message_size
        cdef bint is_compressed = header.rsv != 0
        if part == HEADER_NOTHING:
            return Violation.OK
        violation = check_start(header, self.limits.is_client, self.limits.rsv1_allowed, self._message_opcode != 0)
        if violation or part < HEADER_LENGTH:
            return violation
        violation = check_length(header)
        if violation or header.opcode & CONTROL_BIT:
            return violation
        if self._message_opcode:
            size = self._unfinished.size
            fragments = self._unfinished.fragments
            is_compressed = self._unfinished.is_compressed
        if is_compressed and most:
            # The limit is the inflated message's; what cannot be compressed takes some bytes more, five in 65,535.
            most += most // 1000 + DEFLATE_OVERHEAD
        return check_limits(header, size, most, fragments, self.limits.max_fragments)

    # A frame that lies whole in the bytes fed: no state changes

    cdef int _whole_message(self, const FrameHeader* header) except -1:
        cdef const uint8_t* data = self._data
        cdef Py_ssize_t size = header.payload_size
        self._data += size
        if header.opcode == OPCODE_TEXT and not header.rsv:
            return self._whole_text(data, size, header.masking_key)
        self.payload = PyBytes_FromStringAndSize(NULL, size)
        unmask(<uint8_t*> PyBytes_AS_STRING(self.payload), data, size, header.masking_key, 0)
        return header.opcode | COMPRESSED if header.rsv else BINARY

    cdef int _whole_text(self, const uint8_t* data, Py_ssize_t size, const uint8_t* masking_key) except -1:
        cdef utf8_state utf8
        cdef uint8_t* text
        if self.limits.decode_text:
            # Most text is ASCII: it is unmasked straight into the str.  If that shows it is not, this is no str that
            # anyone may see, but still the unmasked bytes, to be decoded from.
            self.payload = PyUnicode_New(size, 127)
            text = <uint8_t*> PyUnicode_DATA(self.payload)
            if unmask(text, data, size, masking_key, 0):
                try:
                    self.payload = PyUnicode_DecodeUTF8(<const char*> text, size, "strict")
                except UnicodeDecodeError:
                    return self._fail(Violation.TEXT_NOT_UTF8)
            return TEXT
        self.payload = PyBytes_FromStringAndSize(NULL, size)
        text = <uint8_t*> PyBytes_AS_STRING(self.payload)
        if unmask(text, data, size, masking_key, 0):
            memset(&utf8, 0, sizeof(utf8))
            if not utf8_feed(&utf8, text, size) or utf8.missing:
                return self._fail(Violation.TEXT_NOT_UTF8)
        return TEXT

    cdef int _whole_control(self, const FrameHeader* header) except -1:
        cdef uint8_t payload[125]
        unmask(payload, self._data, header.payload_size, header.masking_key, 0)
        self._data += header.payload_size
        return self._control_event(header.opcode, payload, header.payload_size)

    # A message in fragments, and a frame in pieces

    cdef int _begin_payload(self, const FrameHeader* header) except -1:
        cdef Unfinished* unfinished = self._need_unfinished()
        unfinished.opcode = header.opcode
        unfinished.fin = header.fin
        unfinished.remaining = header.payload_size
        unfinished.position = 0
        memcpy(unfinished.masking_key, header.masking_key, MASKING_KEY_SIZE)
        if not header.opcode & CONTROL_BIT:
            unfinished.fragments += 1
            if header.opcode != OPCODE_CONTINUATION:
                self._message_opcode = header.opcode
                unfinished.is_compressed = header.rsv != 0
        self._set_state(IN_PAYLOAD)
        return GO_ON

    cdef int _next_payload(self) except -1:
        """Take what has come of the payload; at its end, the event that it completes."""
        cdef Unfinished* unfinished = self._unfinished
        cdef Py_ssize_t size = min(<uint64_t> (self._end - self._data), unfinished.remaining)
        cdef const uint8_t* data = self._data
        self._data += size
        if unfinished.opcode & CONTROL_BIT:
            self._take_in(unfinished.control + unfinished.control_size, data, size)
        elif size:
            if self._room() < size:
                self._grow(unfinished.size + size)
            if not self._take_in(self._message_end(), data, size):
                return self._fail(Violation.TEXT_NOT_UTF8)
        if unfinished.remaining:
            return self._need_data()
        self._set_state(IN_HEADER)
        if unfinished.opcode & CONTROL_BIT:
            size = unfinished.control_size
            unfinished.control_size = 0
            return self._control_event(unfinished.opcode, unfinished.control, size)
        return self._finish_message() if unfinished.fin else GO_ON

    cdef bint _take_in(self, uint8_t* dst, const uint8_t* src, Py_ssize_t size) noexcept:
        """Unmask the payload's next bytes to where they stay; False if they cannot be text and should."""
        cdef Unfinished* unfinished = self._unfinished
        cdef bint has_high = unmask(dst, src, size, unfinished.masking_key, unfinished.position & 3)
        unfinished.position += size
        unfinished.remaining -= size
        if unfinished.opcode & CONTROL_BIT:
            unfinished.control_size += size
            return True
        unfinished.size += size
        if self._message_opcode == OPCODE_TEXT and (has_high or unfinished.utf8.missing):
            if unfinished.is_compressed:
                return True
            return utf8_feed(&unfinished.utf8, dst, size)
        return True

    cdef int _finish_message(self) except -1:
        cdef Unfinished* unfinished = self._unfinished
        cdef int event = self._message_opcode           # TEXT and BINARY are the opcodes' numbers
        if unfinished.is_compressed:
            event |= COMPRESSED
        if unfinished.utf8.missing:
            return self._fail(Violation.TEXT_NOT_UTF8)
        self.payload = self._message()
        self._drop_message()
        return event

    cdef object _message(self):
        """The complete message; of text it is known that it is valid."""
        cdef Unfinished* unfinished = self._unfinished
        cdef bint is_str = (
            self._message_opcode == OPCODE_TEXT and self.limits.decode_text and not unfinished.is_compressed
        )
        if unfinished.message == NULL:
            return "" if is_str else b""
        if is_str:
            return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(<object> unfinished.message), unfinished.size, "strict")
        if PyBytes_GET_SIZE(<object> unfinished.message) != unfinished.size:
            _PyBytes_Resize(&unfinished.message, unfinished.size)
        return <object> unfinished.message

    # The memory of the unfinished

    cdef Unfinished* _need_unfinished(self) except NULL:
        if self._unfinished == NULL:
            self._unfinished = <Unfinished*> allocate(sizeof(Unfinished))
            memset(self._unfinished, 0, sizeof(Unfinished))
        return self._unfinished

    cdef void _drop_unfinished(self) noexcept:
        cdef Unfinished* unfinished = self._unfinished
        if unfinished == NULL:
            return
        self._unfinished = NULL
        Py_XDECREF(unfinished.message)
        Py_XDECREF(unfinished.fed)
        deallocate(unfinished)

    cdef void _drop_message(self) noexcept:
        self._message_opcode = 0
        Py_XDECREF(self._unfinished.message)
        self._unfinished.message = NULL
        self._unfinished.size = 0
        self._unfinished.fragments = 0
        self._unfinished.is_compressed = False

    cdef Py_ssize_t _room(self) noexcept:
        """The bytes that fit behind the unfinished message."""
        cdef Unfinished* unfinished = self._unfinished
        if unfinished.message == NULL:
            return 0
        return PyBytes_GET_SIZE(<object> unfinished.message) - unfinished.size

    cdef uint8_t* _message_end(self) noexcept:
        cdef Unfinished* unfinished = self._unfinished
        return <uint8_t*> PyBytes_AS_STRING(<object> unfinished.message) + unfinished.size

    cdef int _grow(self, uint64_t come) except -1:
        """Make the message's object larger, when ``come`` bytes of it have come: to what it needs, if that is known."""
        cdef Unfinished* unfinished = self._unfinished
        cdef uint64_t needed = unfinished.size + unfinished.remaining
        cdef uint64_t capacity = min(needed, 2 * come + SLACK)
        if not unfinished.fin:
            # Nobody knows how many fragments follow: twice what has come, so that none of them costs a copy of all.
            capacity = max(capacity, 2 * come)
        try:
            if unfinished.message == NULL:
                unfinished.message = new_bytes(NULL, capacity)
            else:
                _PyBytes_Resize(&unfinished.message, capacity)
        except MemoryError:
            self._stop()        # what had come is lost, so nothing that follows can be understood
            raise
        return 0

    # Events and ends

    cdef int _control_event(self, int opcode, const uint8_t* payload, Py_ssize_t size) except -1:
        if opcode == OPCODE_CLOSE:
            return self._close_event(payload, size)
        self.payload = PyBytes_FromStringAndSize(<const char*> payload, size)
        return opcode                                   # PING and PONG are the opcodes' numbers

    cdef int _close_event(self, const uint8_t* payload, Py_ssize_t size) except -1:
        """The peer's Close frame: "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned
        integer", "the body MAY contain UTF-8-encoded data" (RFC 6455 section 5.5.1)."""
        cdef int close_code
        if size == 0:
            self.close_code = NO_CLOSE_CODE
            self._stop()
            return CLOSE
        if size == 1:
            return self._fail(Violation.CLOSE_BODY_OF_ONE_BYTE)
        close_code = payload[0] << 8 | payload[1]
        if not is_close_code_allowed(close_code):
            return self._fail(Violation.CLOSE_CODE_NOT_ALLOWED)
        try:
            self.close_reason = PyUnicode_DecodeUTF8(<const char*> payload + 2, size - 2, "strict")
        except UnicodeDecodeError:
            return self._fail(Violation.CLOSE_REASON_NOT_UTF8)
        self.close_code = <unsigned short> close_code
        self._stop()
        return CLOSE

    cdef int _fail(self, Violation violation) noexcept:
        self.violation = violation
        self._stop()
        return FAILED

    cdef void _stop(self) noexcept:
        """Look at no further byte and keep none; rest() tells what came behind."""
        self._set_state(ENDED)
        self.payload = None
        if self._unfinished != NULL:
            self._drop_message()
            self._unfinished.header_size = 0

    cdef int _need_data(self) noexcept:
        """Everything fed is used up: let go of it, and of a block that nothing needs any more."""
        cdef Unfinished* unfinished = self._unfinished
        self.payload = None
        if unfinished == NULL:
            return NEED_DATA
        Py_XDECREF(unfinished.fed)
        unfinished.fed = NULL
        if not self.is_inside():
            self._drop_unfinished()
        return NEED_DATA

    cdef void _set_state(self, State state) noexcept:
        # From IN_HEADER to IN_PAYLOAD and back; from both to ENDED, for good.
        assert self._state != state and self._state != ENDED
        self._state = state
