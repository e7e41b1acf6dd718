"""Frame headers (RFC 6455 section 5.2) as arithmetic on bytes; nothing here judges them."""

from libc.stdint cimport uint8_t, uint64_t


cdef enum Opcode:               # RFC 6455 section 5.2
    OPCODE_CONTINUATION = 0x0
    OPCODE_TEXT = 0x1
    OPCODE_BINARY = 0x2
    OPCODE_CLOSE = 0x8
    OPCODE_PING = 0x9
    OPCODE_PONG = 0xA


cdef enum:
    # The first byte of a frame
    FIN = 0x80
    RSV1 = 0x40
    RSV2 = 0x20
    RSV3 = 0x10
    CONTROL_BIT = 0x08          # of the opcode: set in control frames (section 5.5)
    # The second byte
    MASK_BIT = 0x80
    # Sizes in bytes
    MAX_CONTROL_PAYLOAD = 125   # section 5.5
    MAX_HEADER = 14             # 2, the longest form of the length 8, the masking key 4
    MASKING_KEY_SIZE = 4


cdef enum HeaderPart:           # how much of a header the bytes told
    HEADER_NOTHING = 0          # not even its first two bytes
    HEADER_START = 1            # the first two bytes: all but payload_size, header_size and masking_key
    HEADER_LENGTH = 2           # payload_size too
    HEADER_WHOLE = 3            # everything


cdef struct FrameHeader:
    bint fin
    int rsv                     # RSV1 | RSV2 | RSV3, as far as set
    int opcode
    bint masked
    int length                  # the 7-bit length: 126 and 127 stand for the longer forms
    int header_size             # bytes of the whole header
    uint64_t payload_size
    uint8_t masking_key[4]      # zeros in an unmasked frame, so that unmasking changes nothing


cdef HeaderPart decode_header(const uint8_t* data, Py_ssize_t size, FrameHeader* header) noexcept

# Both write at most MAX_HEADER bytes to out, and return how many.  first_byte: FIN, RSV bits and opcode together.
cdef int encode_header(uint8_t* out, int first_byte, uint64_t size) noexcept
cdef int encode_masked_header(uint8_t* out, int first_byte, uint64_t size, const uint8_t* masking_key) noexcept

# Write size bytes of a payload, from src to dst (which may be the same, else do not overlap), masked or unmasked;
# offset is src's in the payload.  Returns whether a byte written has its high bit set; if none has, they are ASCII.
cdef bint unmask(
    uint8_t* dst, const uint8_t* src, Py_ssize_t size, const uint8_t* masking_key, Py_ssize_t offset
) noexcept
