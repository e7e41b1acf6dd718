"""What RFC 6455 section 5 allows: pure functions of a header and of what came before it."""

from libc.stdint cimport uint64_t

from wsev._core.frames cimport FrameHeader


cpdef enum Violation:
    OK = 0
    # Close 1002
    UNMASKED_FRAME = 1
    MASKED_FRAME = 2
    RESERVED_BIT = 3
    UNNEGOTIATED_COMPRESSION = 4
    RESERVED_OPCODE = 5
    FRAGMENTED_CONTROL_FRAME = 6
    LONG_CONTROL_FRAME = 7
    UNEXPECTED_CONTINUATION = 8
    UNFINISHED_MESSAGE = 9
    LENGTH_NOT_SHORTEST = 10
    LENGTH_TOP_BIT = 11
    CLOSE_BODY_OF_ONE_BYTE = 12
    CLOSE_CODE_NOT_ALLOWED = 13
    # Close 1007
    TEXT_NOT_UTF8 = 20
    CLOSE_REASON_NOT_UTF8 = 21
    BROKEN_COMPRESSION = 22
    # Close 1009
    MESSAGE_TOO_BIG = 30
    TOO_MANY_FRAGMENTS = 31


cpdef int close_code_of(Violation violation) noexcept
cpdef str reason_of(Violation violation)

# What the first two bytes tell (HEADER_START).
cdef Violation check_start(
    const FrameHeader* header, bint is_client, bint rsv1_allowed, bint inside_message
) noexcept
# The form of the length (HEADER_LENGTH); before check_limits(), so that 1002 goes before 1009.
cdef Violation check_length(const FrameHeader* header) noexcept
# Of a data frame (HEADER_LENGTH): size and fragments are those of the message before this frame; 0 is no limit.
cdef Violation check_limits(
    const FrameHeader* header, uint64_t size, uint64_t max_message_size, uint64_t fragments, uint64_t max_fragments
) noexcept
cdef bint is_close_code_allowed(int code) noexcept
