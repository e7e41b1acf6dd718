"""HeadReader: bytes in, the head of one HTTP request out, within its limits and right in its grammar (RFC 9112).

Owns where a head begins and ends, how large it may be, and which bytes may stand where.  Judges no value: what makes
a request an opening handshake is decided elsewhere, by what Head says.

Invariants: a head is read when it is whole and known to be within the limits, each byte of it once, however the bytes
were split.  Its last byte is LF, and no line is read past its own LF.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.string cimport memchr

import sys


cdef extern from "Python.h":
    str PyUnicode_DecodeLatin1(const char* data, Py_ssize_t size, const char* errors)


cdef enum:
    CR = 13
    LF = 10
    # Kinds of bytes; one may be of several.
    TOKEN = 1                   # tchar of RFC 9110 section 5.6.2
    TARGET = 2                  # visible, and what is not ASCII: which targets are right is judged elsewhere
    CONTENT = 4                 # field-vchar, SP and HTAB of RFC 9110 section 5.5

# The fields that are kept, by their places in a list.
cdef enum:
    HOST
    ORIGIN
    UPGRADE
    CONNECTION
    CONTENT_LENGTH
    TRANSFER_ENCODING
    WEBSOCKET_KEY
    WEBSOCKET_VERSION
    WEBSOCKET_PROTOCOL
    WEBSOCKET_EXTENSIONS
    FIELDS
    NOT_KEPT = -1

cdef uint8_t[256] KINDS


cdef int _fill_kinds() except -1:
    cdef int byte
    for byte in range(256):
        KINDS[byte] = 0
        if 0x21 <= byte != 0x7F:
            KINDS[byte] = TARGET | CONTENT
    for byte in b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz":
        KINDS[byte] |= TOKEN
    KINDS[b" "] = KINDS[b"\t"] = CONTENT
    return 0


_fill_kinds()


@cython.final
cdef class HeadLimits:
    """What the readers of a server share.

    Args:
        max_line: the longest request line, in bytes; None: no limit.
        max_size: the largest head, in bytes, with a blank line before it; None: no limit.
        max_fields: the most fields; None: no limit.
    """

    def __cinit__(self, max_line=None, max_size=None, max_fields=None):
        # 2: nothing that is added to a limit below may wrap around.
        self.max_line = sys.maxsize - 2 if max_line is None else max_line
        self.max_size = sys.maxsize - 2 if max_size is None else max_size
        self.max_fields = sys.maxsize - 2 if max_fields is None else max_fields


@cython.final
@cython.no_gc
cdef class Head:
    """The head of one HTTP request.

    A field of several lines is one value, its lines joined by commas as RFC 9110 section 5.2 has it.  Bytes that are
    not ASCII are read as Latin-1.
    """

    cdef bint _read(self) except -1:
        """Read ``raw``; False: it is not valid."""
        cdef list values = [None] * FIELDS
        cdef int field
        cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(self.raw)
        cdef const uint8_t* end = at + len(self.raw)
        at = self._read_line(at)
        # What ends a head is an empty line; other lines are no shorter than it, and end within the head.
        while at != NULL and at < end - 2:
            at = self._read_field(at, values)
        if at == NULL or at != end - 2 or at[0] != CR or at[1] != LF:
            return False
        self.is_origin_repeated = type(values[ORIGIN]) is list
        for field in range(FIELDS):
            if type(values[field]) is list:
                values[field] = ", ".join(values[field])
        (
            self.host, self.origin, self.upgrade, self.connection, self.content_length, self.transfer_encoding,
            self.websocket_key, self.websocket_version, self.websocket_protocol, self.websocket_extensions,
        ) = values
        return True

    cdef const uint8_t* _read_line(self, const uint8_t* at) except? NULL:
        """RFC 9112 section 3: "request-line = method SP request-target SP HTTP-version", where we take one SP each."""
        cdef const uint8_t* begin = at
        while KINDS[at[0]] & TOKEN:
            at += 1
        if at == begin or at[0] != b" ":
            return NULL
        self.method = _text(begin, at)
        at += 1
        begin = at
        while KINDS[at[0]] & TARGET:
            at += 1
        if at == begin or at[0] != b" ":
            return NULL
        self.target = _text(begin, at)
        at += 1
        # Section 2.3: "HTTP-version = HTTP-name "/" DIGIT "." DIGIT", and the name is case-sensitive.
        begin = at
        if not (
            _skip(&at, b"HTTP/") and _skip_digit(&at) and _skip(&at, b".") and _skip_digit(&at) and _skip(&at, b"\r\n")
        ):
            return NULL
        self.version = _text(begin, at - 2)
        return at

    cdef const uint8_t* _read_field(self, const uint8_t* at, list values) except? NULL:
        """Section 5: "field-line = field-name ":" OWS field-value OWS"; no line is folded (section 5.2)."""
        cdef const uint8_t* name = at
        cdef const uint8_t* value
        cdef const uint8_t* end
        cdef int field
        while KINDS[at[0]] & TOKEN:
            at += 1
        if at == name or at[0] != b":":
            return NULL
        field = _field_of(name, at - name)
        at += 1
        value = at
        # Neither CR, LF, NUL nor another control character: section 2.2 on a bare CR, RFC 9110 section 5.5 on the rest.
        while KINDS[at[0]] & CONTENT:
            at += 1
        end = at
        if not _skip(&at, b"\r\n"):
            return NULL
        if field == NOT_KEPT:
            return at
        while value < end and (value[0] == b" " or value[0] == b"\t"):
            value += 1
        while value < end and ((end - 1)[0] == b" " or (end - 1)[0] == b"\t"):
            end -= 1
        if values[field] is None:
            values[field] = _text(value, end)
        elif type(values[field]) is list:
            (<list> values[field]).append(_text(value, end))
        else:
            values[field] = [values[field], _text(value, end)]
        return at


@cython.final
@cython.no_gc
cdef class HeadReader:
    """Reads the head of one request."""

    def __cinit__(self, HeadLimits limits not None):
        self.limits = limits
        self.data = b""

    @property
    def has_begun(self):
        """Whether anything has come."""
        return len(self.data) > 0

    @property
    def is_head_request(self):
        """Whether the method is HEAD, whose answer has no body (RFC 9110 section 9.3.2)."""
        return self.data.startswith(b"HEAD ", self.start)

    @property
    def received(self):
        """All bytes that have come, for another protocol to start with."""
        return bytes(self.data)

    def feed(self, bytes data not None):
        """Take what was received.

        Returns:
            The Head; or the Fault of one that cannot be right; or None: more is needed.
        """
        cdef HeadLimits limits = self.limits
        cdef const uint8_t* begin
        cdef const uint8_t* found
        cdef Py_ssize_t size, end
        begin = self._take(data)
        size = len(self.data)
        # RFC 9112 section 2.2: "a server that is expecting to receive and parse a request-line SHOULD ignore at least
        # one empty line (CRLF) received prior to the request-line."
        if self.start == 0 and size >= 2 and begin[0] == CR and begin[1] == LF:
            self.start = self.line = self.scanned = 2
        # Refused at once is what no request begins with, a TLS ClientHello say: all methods are capital letters.
        if size > self.start and not b"A" <= begin[self.start] <= b"Z" and not (size == 1 and begin[0] == CR):
            return Fault.NOT_VALID
        while True:
            found = <const uint8_t*> memchr(begin + self.scanned, LF, size - self.scanned)
            end = size if found == NULL else found - begin
            if self.lines == 0 and end - self.start > limits.max_line + 1:      # 1: its CR
                return Fault.LINE_TOO_LONG
            if found == NULL:
                self.scanned = size
                return Fault.HEAD_TOO_LARGE if size > limits.max_size else None
            self.scanned = end + 1
            self.lines += 1
            # An empty line.  One with a bare LF is none (section 2.2 lets us choose), but a head that ends in it has
            # ended too: it is refused at once, where we would wait for the rest of it.
            if self.lines > 1 and (end == self.line or (end == self.line + 1 and begin[self.line] == CR)):
                return self._whole(begin, size)
            self.line = self.scanned

    cdef const uint8_t* _take(self, bytes data) except NULL:
        """Add what has come to what came before; returns where all of it lies."""
        if not self.data:
            self.data = data
            return <const uint8_t*> PyBytes_AS_STRING(data)
        if type(self.data) is bytes:
            self.data = bytearray(self.data)
        self.data += data
        return <const uint8_t*> PyByteArray_AS_STRING(self.data)

    cdef object _whole(self, const uint8_t* begin, Py_ssize_t size):
        """The empty line has come, and ends at ``scanned``."""
        cdef Head head
        if self.scanned > self.limits.max_size:
            return Fault.HEAD_TOO_LARGE
        if self.lines - 2 > self.limits.max_fields:     # the request line and the empty line are none
            return Fault.TOO_MANY_FIELDS
        head = Head.__new__(Head)
        if self.start == 0 and self.scanned == size and type(self.data) is bytes:
            head.raw = self.data
        else:
            head.raw = PyBytes_FromStringAndSize(<const char*> begin + self.start, self.scanned - self.start)
        head.rest = PyBytes_FromStringAndSize(<const char*> begin + self.scanned, size - self.scanned)
        return head if head._read() else Fault.NOT_VALID


cdef str _text(const uint8_t* begin, const uint8_t* end):
    return PyUnicode_DecodeLatin1(<const char*> begin, end - begin, NULL)


cdef bint _skip(const uint8_t** at, const char* text) noexcept:
    """Step over ``text``, if it is there.  Ends at the first byte that differs, so never behind the head's last LF."""
    cdef Py_ssize_t place = 0
    while text[place]:
        if at[0][place] != <uint8_t> text[place]:
            return False
        place += 1
    at[0] += place
    return True


cdef bint _skip_digit(const uint8_t** at) noexcept:
    if not b"0" <= at[0][0] <= b"9":
        return False
    at[0] += 1
    return True


cdef bint _is(const uint8_t* name, Py_ssize_t size, const char* wanted) noexcept:
    """Whether a token is ``wanted``, of the same size and in lower case, in any case (RFC 9110 section 5.1)."""
    cdef Py_ssize_t place
    for place in range(size):
        # Of tokens the letters alone become a lower-case letter by this, and a hyphen stays one.
        if name[place] | 0x20 != <uint8_t> wanted[place]:
            return False
    return True


cdef int _field_of(const uint8_t* name, Py_ssize_t size) noexcept:
    """Which of the fields that are kept has this name."""
    if size == 4 and _is(name, size, b"host"):
        return HOST
    if size == 6 and _is(name, size, b"origin"):
        return ORIGIN
    if size == 7 and _is(name, size, b"upgrade"):
        return UPGRADE
    if size == 10 and _is(name, size, b"connection"):
        return CONNECTION
    if size == 14 and _is(name, size, b"content-length"):
        return CONTENT_LENGTH
    if size == 17 and _is(name, size, b"transfer-encoding"):
        return TRANSFER_ENCODING
    if size == 17 and _is(name, size, b"sec-websocket-key"):
        return WEBSOCKET_KEY
    if size == 21 and _is(name, size, b"sec-websocket-version"):
        return WEBSOCKET_VERSION
    if size == 22 and _is(name, size, b"sec-websocket-protocol"):
        return WEBSOCKET_PROTOCOL
    if size == 24 and _is(name, size, b"sec-websocket-extensions"):
        return WEBSOCKET_EXTENSIONS
    return NOT_KEPT
