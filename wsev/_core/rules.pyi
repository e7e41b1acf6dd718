from enum import IntEnum

class Violation(IntEnum):
    OK = 0
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
    TEXT_NOT_UTF8 = 20
    CLOSE_REASON_NOT_UTF8 = 21
    BROKEN_COMPRESSION = 22
    MESSAGE_TOO_BIG = 30
    TOO_MANY_FRAGMENTS = 31

def close_code_of(violation: Violation) -> int: ...
def reason_of(violation: Violation) -> str: ...
def may_receive_close_code(code: int) -> bool: ...
def check_header(
    data: bytes,
    *,
    is_client: bool = False,
    rsv1_allowed: bool = False,
    inside_message: bool = False,
    size: int = 0,
    max_message_size: int = 0,
    fragments: int = 0,
    max_fragments: int = 0,
) -> Violation: ...

__pyx_capi__: dict[str, object]  # Cython's: what other modules cimport
