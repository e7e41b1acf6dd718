"""Frame headers (RFC 6455 section 5.2), decoded and encoded, and masking (section 5.3).

Arithmetic on bytes.  Knows no role, no limit and no connection, and judges nothing: that is rules.pyx.

Invariant: decode_header() fills in what the bytes tell and no more, and says how much that was.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset


cdef extern from "mask.h":
    int mask_bytes(uint8_t* dst, const uint8_t* src, size_t size, const uint8_t* key, size_t offset) noexcept
    void mask_choose() noexcept


mask_choose()


cdef HeaderPart decode_header(const uint8_t* data, Py_ssize_t size, FrameHeader* header) noexcept:
    """Read what ``size`` bytes, the beginning of a frame, tell of its header."""
    cdef int length_size = 0                # bytes of the longer forms of the length
    cdef int i
    if size < 2:
        return HEADER_NOTHING
    header.fin = data[0] & FIN != 0
    header.rsv = data[0] & (RSV1 | RSV2 | RSV3)
    header.opcode = data[0] & 0x0F
    header.masked = data[1] & MASK_BIT != 0
    header.length = data[1] & 0x7F
    if header.length < 126:
        header.payload_size = header.length
    else:
        length_size = 2 if header.length == 126 else 8
        if size < 2 + length_size:
            return HEADER_START
        # "multibyte length quantities are expressed in network byte order"
        header.payload_size = 0
        for i in range(length_size):
            header.payload_size = header.payload_size << 8 | data[2 + i]
    header.header_size = 2 + length_size
    if not header.masked:
        memset(header.masking_key, 0, MASKING_KEY_SIZE)
        return HEADER_WHOLE
    header.header_size += MASKING_KEY_SIZE
    if size < header.header_size:
        return HEADER_LENGTH
    memcpy(header.masking_key, data + 2 + length_size, MASKING_KEY_SIZE)
    return HEADER_WHOLE


cdef int encode_header(uint8_t* out, int first_byte, uint64_t size) noexcept:
    """Write the header of an unmasked frame to ``out``; return its length, 2 to 10 bytes."""
    cdef int length_size, i
    out[0] = <uint8_t> first_byte
    # "the minimal number of bytes MUST be used to encode the length"
    if size < 126:
        out[1] = <uint8_t> size
        return 2
    if size < 65_536:
        out[1] = 126
        length_size = 2
    else:
        out[1] = 127
        length_size = 8
    for i in range(length_size):
        out[2 + i] = <uint8_t> (size >> 8 * (length_size - 1 - i))
    return 2 + length_size


cdef int encode_masked_header(uint8_t* out, int first_byte, uint64_t size, const uint8_t* masking_key) noexcept:
    """Write the header of a frame whose payload is masked with ``masking_key``; return its length, 6 to 14 bytes."""
    cdef int header_size = encode_header(out, first_byte, size)
    out[1] |= MASK_BIT
    memcpy(out + header_size, masking_key, MASKING_KEY_SIZE)
    return header_size + MASKING_KEY_SIZE


cdef bint unmask(
    uint8_t* dst, const uint8_t* src, Py_ssize_t size, const uint8_t* masking_key, Py_ssize_t offset
) noexcept:
    return mask_bytes(dst, src, size, masking_key, offset)


def encode_frame(int opcode, payload, *, bint fin=True, bint rsv1=False, masking_key=None) -> bytes:
    """Encode one whole frame, of either role.

    Nothing is checked against section 5, so that tests and fuzzers can encode frames that break its rules.

    Args:
        opcode: 0 to 15.
        payload: any bytes-like object.
        fin: whether the frame is its message's last.
        rsv1: whether the message is compressed (RFC 7692 section 6).
        masking_key: the 4 bytes that a client's payload is masked with; None for a server's frame.

    Raises:
        ValueError: ``opcode`` is no number of 4 bits, or ``masking_key`` has not 4 bytes.
    """
    if not 0 <= opcode <= 0x0F:
        raise ValueError(f"opcode={opcode}: must be 0 to 15 (RFC 6455 section 5.2)")
    cdef int first_byte = opcode | (FIN if fin else 0) | (RSV1 if rsv1 else 0)
    cdef uint8_t header[MAX_HEADER]
    cdef uint8_t key[MASKING_KEY_SIZE]
    cdef int header_size
    cdef Py_buffer view
    cdef bytes frame
    cdef uint8_t* out
    if masking_key is not None:
        _read_masking_key(masking_key, key)
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        if masking_key is None:
            header_size = encode_header(header, first_byte, view.len)
        else:
            header_size = encode_masked_header(header, first_byte, view.len, key)
        frame = PyBytes_FromStringAndSize(NULL, header_size + view.len)
        out = <uint8_t*> PyBytes_AS_STRING(frame)
        memcpy(out, header, header_size)
        if masking_key is not None:
            mask_bytes(out + header_size, <const uint8_t*> view.buf, view.len, key, 0)
        elif view.len:                      # an empty buffer may be at NULL
            memcpy(out + header_size, view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    return frame


def mask(data, masking_key, Py_ssize_t offset=0) -> bytes:
    """Mask ``data``, or unmask what was masked (RFC 6455 section 5.3).

    Args:
        data: any bytes-like object: a payload or a part of one.
        masking_key: 4 bytes.
        offset: where in the payload ``data`` begins.

    Raises:
        ValueError: ``masking_key`` has not 4 bytes, or ``offset`` is negative.
    """
    cdef uint8_t key[MASKING_KEY_SIZE]
    cdef Py_buffer view
    cdef bytes masked
    _read_masking_key(masking_key, key)
    if offset < 0:
        raise ValueError(f"offset={offset}: must be 0 or more")
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        masked = PyBytes_FromStringAndSize(NULL, view.len)
        mask_bytes(<uint8_t*> PyBytes_AS_STRING(masked), <const uint8_t*> view.buf, view.len, key, offset)
    finally:
        PyBuffer_Release(&view)
    return masked


cdef int _read_masking_key(masking_key, uint8_t* key) except -1:
    cdef bytes given = bytes(masking_key)
    if len(given) != MASKING_KEY_SIZE:
        raise ValueError(f"masking_key={masking_key!r}: must be 4 bytes (RFC 6455 section 5.3)")
    memcpy(key, PyBytes_AS_STRING(given), MASKING_KEY_SIZE)
    return 0
