"""What RFC 6455 section 5 allows, judged: a header, and what came before it, in; OK or a Violation out.

Pure functions of numbers.  Knows no byte of a payload, no parser and no connection; what the network does wrong is a
value here, never an exception.

Invariant: the functions are asked in the order of rules.pxd, each as soon as the bytes it judges are there, so that a
frame which is both wrong (1002) and too long (1009) is wrong.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t, uint64_t

from wsev._core.frames cimport (
    CONTROL_BIT, MAX_CONTROL_PAYLOAD, OPCODE_BINARY, OPCODE_CONTINUATION, OPCODE_PONG, RSV1,
    FrameHeader, HEADER_LENGTH, HEADER_NOTHING, HeaderPart, decode_header,
)


cdef enum:
    # A message's size is counted in 63 bits, whatever the limit: what is larger fits no address space.
    LARGEST_SIZE = 0x7FFF_FFFF_FFFF_FFFF


cdef Violation check_start(
    const FrameHeader* header, bint is_client, bint rsv1_allowed, bint inside_message
) noexcept:
    # "The server MUST close the connection upon receiving a frame that is not masked."  "A client MUST close a
    # connection if it detects a masked frame." (section 5.1)
    if header.masked == is_client:
        return Violation.MASKED_FRAME if is_client else Violation.UNMASKED_FRAME
    # "MUST be 0 unless an extension is negotiated that defines meanings for non-zero values." (section 5.2)
    # Permessage-deflate defines RSV1, on the first frame of a data message only (RFC 7692 section 6).
    if header.rsv:
        if header.rsv != RSV1:
            return Violation.RESERVED_BIT
        if not rsv1_allowed or header.opcode & CONTROL_BIT or header.opcode == OPCODE_CONTINUATION:
            return Violation.UNNEGOTIATED_COMPRESSION
    if header.opcode & CONTROL_BIT:
        return _check_control(header)
    # "If an unknown opcode is received, the receiving endpoint MUST _Fail the WebSocket Connection_." (section 5.2)
    if header.opcode > OPCODE_BINARY:
        return Violation.RESERVED_OPCODE
    # "The fragments of one message MUST NOT be interleaved between the fragments of another message" (section 5.4)
    if header.opcode == OPCODE_CONTINUATION:
        return Violation.OK if inside_message else Violation.UNEXPECTED_CONTINUATION
    return Violation.UNFINISHED_MESSAGE if inside_message else Violation.OK


cdef Violation _check_control(const FrameHeader* header) noexcept:
    if header.opcode > OPCODE_PONG:
        return Violation.RESERVED_OPCODE
    # "All control frames MUST have a payload length of 125 bytes or less and MUST NOT be fragmented." (section 5.5)
    if not header.fin:
        return Violation.FRAGMENTED_CONTROL_FRAME
    if header.length > MAX_CONTROL_PAYLOAD:
        return Violation.LONG_CONTROL_FRAME
    return Violation.OK


cdef Violation check_length(const FrameHeader* header) noexcept:
    # "the minimal number of bytes MUST be used to encode the length" (section 5.2)
    if header.length == 126:
        return Violation.LENGTH_NOT_SHORTEST if header.payload_size < 126 else Violation.OK
    if header.length == 127:
        # "the most significant bit MUST be 0"
        if header.payload_size > LARGEST_SIZE:
            return Violation.LENGTH_TOP_BIT
        return Violation.LENGTH_NOT_SHORTEST if header.payload_size < 65_536 else Violation.OK
    return Violation.OK


cdef Violation check_limits(
    const FrameHeader* header, uint64_t size, uint64_t max_message_size, uint64_t fragments, uint64_t max_fragments
) noexcept:
    # Subtracted, since a sum could overflow; size is within the limit, since each frame before was judged here.
    if header.payload_size > (max_message_size or LARGEST_SIZE) - size:
        return Violation.MESSAGE_TOO_BIG
    if max_fragments and fragments >= max_fragments:
        return Violation.TOO_MANY_FRAGMENTS
    return Violation.OK


cdef bint is_close_code_allowed(int code) noexcept:
    # Section 7.4.1 without those that "MUST NOT be set as a status code in a Close control frame" (1005, 1006, 1015)
    # and without 1004, which has no meaning; 1012 to 1014 are IANA's; section 7.4.2 has 3000 to 4999.
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def may_receive_close_code(int code) -> bool:
    """Whether a peer's Close frame may have ``code``."""
    return is_close_code_allowed(code)


def check_header(
    bytes data not None,
    *,
    bint is_client=False,
    bint rsv1_allowed=False,
    bint inside_message=False,
    uint64_t size=0,
    uint64_t max_message_size=0,
    uint64_t fragments=0,
    uint64_t max_fragments=0,
) -> Violation:
    """Judge the first bytes of a frame, as Parser does.

    Args:
        data: the header or its beginning.
        is_client: whether the receiver is a client.
        rsv1_allowed: whether permessage-deflate was negotiated.
        inside_message: whether the frames of an unfinished message came before.
        size: bytes of that message.
        max_message_size: bytes; 0 for no limit.
        fragments: frames of that message.
        max_fragments: 0 for no limit.

    Returns:
        The rule that the bytes break; OK if they break none, or do not tell yet.
    """
    cdef FrameHeader header
    cdef Violation violation
    cdef HeaderPart part = decode_header(<const uint8_t*> PyBytes_AS_STRING(data), len(data), &header)
    if part == HEADER_NOTHING:
        return Violation.OK
    violation = check_start(&header, is_client, rsv1_allowed, inside_message)
    if violation or part < HEADER_LENGTH:
        return violation
    violation = check_length(&header)
    if violation or header.opcode & CONTROL_BIT:
        return violation
    return check_limits(&header, size, max_message_size, fragments, max_fragments)


cpdef int close_code_of(Violation violation) noexcept:
    """The close code that answers a violation (RFC 6455 section 7.4.1); 0 for OK."""
    if violation == Violation.OK:
        return 0
    if Violation.TEXT_NOT_UTF8 <= violation <= Violation.BROKEN_COMPRESSION:
        return 1007
    if violation == Violation.MESSAGE_TOO_BIG or violation == Violation.TOO_MANY_FRAGMENTS:
        return 1009
    return 1002


cpdef str reason_of(Violation violation):
    """The rule that was broken, as a sentence for logs and Close frames; empty for OK."""
    return _REASONS[violation]


# At most 123 bytes each, which is what a Close frame holds besides its code (section 5.5.1).
cdef dict _REASONS = {
    Violation.OK: "",
    Violation.UNMASKED_FRAME: "a client's frame must be masked",
    Violation.MASKED_FRAME: "a server's frame must not be masked",
    Violation.RESERVED_BIT: "a reserved bit (RSV2 or RSV3) is set",
    Violation.UNNEGOTIATED_COMPRESSION: "RSV1 is set, which is not negotiated for such a frame",
    Violation.RESERVED_OPCODE: "a reserved opcode",
    Violation.FRAGMENTED_CONTROL_FRAME: "a control frame must not be fragmented",
    Violation.LONG_CONTROL_FRAME: "a control frame is longer than 125 bytes",
    Violation.UNEXPECTED_CONTINUATION: "a continuation frame without a message to continue",
    Violation.UNFINISHED_MESSAGE: "a new message before the last one was finished",
    Violation.LENGTH_NOT_SHORTEST: "a payload length is not in its shortest form",
    Violation.LENGTH_TOP_BIT: "a payload length has its top bit set",
    Violation.CLOSE_BODY_OF_ONE_BYTE: "a Close frame's body of one byte",
    Violation.CLOSE_CODE_NOT_ALLOWED: "a close code that must not be sent",
    Violation.TEXT_NOT_UTF8: "a text message is not UTF-8",
    Violation.CLOSE_REASON_NOT_UTF8: "a close reason is not UTF-8",
    Violation.BROKEN_COMPRESSION: "a compressed message cannot be inflated",
    Violation.MESSAGE_TOO_BIG: "a message is larger than max_message_size",
    Violation.TOO_MANY_FRAGMENTS: "a message has more fragments than max_fragments",
}
