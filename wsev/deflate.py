"""Permessage-deflate of whole messages (RFC 7692 section 7.2), with zlib's own objects.

Owns what compression remembers: of a connection, and of all that share a compressor.  Knows no frame, no socket and not
how parameters are agreed on.

Invariants: an inflater sees one connection's messages and nobody else's, since a back-reference of nine bytes would
read them; a shared compressor remembers nothing from one message to the next; what is inflated is bounded while it is.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

from wsev._core.rules import Violation
from wsev.options import Options

__all__ = ["Compression", "MessageDeflate", "Parameters"]

LARGEST_WINDOW_BITS = 15
SHARED_MEMORY_LEVEL = 8  # zlib's default; one compressor's 256 KiB serve all connections

TAIL = b"\x00\x00\xff\xff"  # RFC 7692 section 7.2.1: what a sender removes from the end, and a receiver appends
END = b"\x03\x00"  # a last, empty block (RFC 1951)
EMPTY = b"\x00"  # RFC 7692 section 7.2.3.6: an empty message

MAX_STREAMS = 64  # DEFLATE streams in a message; ours: each end of one costs a copy of what follows


def _find_isal() -> Any:
    """isal's zlib, of the extra "deflate"; None: it is not installed."""
    try:
        from isal import isal_zlib
    except ImportError:
        return None
    return isal_zlib


ISAL = _find_isal()


class Parameters(NamedTuple):
    """What was agreed on (RFC 7692 section 7.1); window bits: None where the answer does not speak of them."""

    server_no_context_takeover: bool
    client_no_context_takeover: bool
    server_max_window_bits: int | None
    client_max_window_bits: int | None


class Compressor:
    """Compresses messages one after the other.

    Args:
        level: 1, the fastest, to 9.
        window_bits: 9 to 15; how far back it refers, as a power of two.
        memory_level: 1 to 9.
        is_shared: each message is compressed by itself, and nothing is remembered of it.
    """

    __slots__ = ("_deflater", "_is_shared", "_level", "_memory_level", "_window_bits")

    def __init__(self, level: int, window_bits: int, memory_level: int, *, is_shared: bool) -> None:
        self._level = level
        self._window_bits = window_bits
        self._memory_level = memory_level
        self._is_shared = is_shared
        self._deflater: Any = None  # made when needed

    def compress(self, payload: bytes) -> bytes | None:
        """The payload of a compressed message; None: it would not be smaller."""
        if not payload:
            return None if self._is_shared else EMPTY
        deflater = self._deflater
        if deflater is None:
            deflater = self._make()
        # If the next lines fail, for want of memory, what they left behind must not get into somebody else's message.
        # A new deflater refers to nothing that came before it, so that its peer understands it all the same.
        self._deflater = None
        # Section 7.2.1: "an empty DEFLATE block with no compression" at the end; a full flush forgets what came before.
        compressed = deflater.compress(payload) + deflater.flush(
            zlib.Z_FULL_FLUSH if self._is_shared else zlib.Z_SYNC_FLUSH
        )
        self._deflater = deflater
        if self._is_shared and len(compressed) - len(TAIL) >= len(payload):
            return None
        return bytes(compressed[: -len(TAIL)])

    def _make(self) -> Any:
        # isal knows fewer levels, of which the first is as good as zlib's and takes between a quarter and two thirds of
        # its time; its window is the largest.
        if ISAL is not None and self._is_shared and (self._level, self._window_bits) == (1, LARGEST_WINDOW_BITS):
            return ISAL.compressobj(1, ISAL.DEFLATED, -LARGEST_WINDOW_BITS)
        return zlib.compressobj(self._level, zlib.DEFLATED, -self._window_bits, self._memory_level)


class MessageDeflate:
    """What one connection has agreed on; many may have one, where it remembers nothing.

    Args:
        compressor: of what we send.
        is_shared: others use the compressor, too.
        threshold: bytes; messages that are smaller go uncompressed unless ``send`` asks for it.
        max_message_size: bytes after inflating; None: no limit.
        window_size: bytes of the peer's messages that its next one may refer to; 0: no context takeover.

    Attributes:
        shared: the compressor, if others use it, too; else None.
        threshold: bytes.
    """

    __slots__ = ("_compressor", "_max_message_size", "_window", "_window_size", "shared", "threshold")

    def __init__(
        self, compressor: Compressor, *, is_shared: bool, threshold: int, max_message_size: int | None, window_size: int
    ) -> None:
        self.shared = compressor if is_shared else None
        self.threshold = threshold
        self._compressor = compressor
        self._max_message_size = max_message_size
        self._window_size = window_size
        self._window = b""

    def deflate(self, payload: bytes) -> bytes | None:
        """The payload of the compressed message; None: it is to go uncompressed."""
        return self._compressor.compress(payload)

    def inflate(self, payload: bytes) -> bytes | Violation:
        """The message that was compressed to ``payload``, or what is wrong with it.

        A message is inflated by an inflater of its own.  Where context is taken over, it begins with the bytes that the
        message may refer to: these are all that has to be kept, and a stream that was ended (BFINAL, section 7.2.3.4)
        or broken spoils nothing that comes later.
        """
        limit = self._max_message_size
        window = self._window
        message = b""
        rest = payload
        for _ in range(MAX_STREAMS):
            room = 0 if limit is None else limit - len(message) + 1  # a byte more than may be, to see that it is more
            inflater = (
                zlib.decompressobj(-LARGEST_WINDOW_BITS, window) if window else zlib.decompressobj(-LARGEST_WINDOW_BITS)
            )
            try:
                piece = inflater.decompress(rest, room)
            except zlib.error:
                return Violation.BROKEN_COMPRESSION
            if limit is not None and len(piece) >= room:
                return Violation.MESSAGE_TOO_BIG
            message = message + piece if message else piece
            rest = inflater.unused_data
            if not inflater.eof and not _is_between_blocks(inflater):
                return Violation.BROKEN_COMPRESSION
            if not rest:
                if self._window_size:
                    self._window = (self._window + message)[-self._window_size :]
                return message
            window = (window + piece)[-(1 << LARGEST_WINDOW_BITS) :]
        return Violation.BROKEN_COMPRESSION


def _is_between_blocks(inflater: Any) -> bool:
    """Whether what it was given ends where a message must; it is of no more use then.

    There it takes TAIL for the rest of an empty block and END for the last one.  Inside a block these bytes would be
    data, or the stream would not end with them: of END's bits only the first two are set, so what they can end is
    followed by no last block.
    """
    try:
        return not inflater.decompress(TAIL + END, 1) and bool(inflater.eof)
    except zlib.error:
        return False


class Compression:
    """The permessage-deflate of one run of a server: makes what its connections need of it.

    Args:
        options: the server's.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._compressors: dict[int, Compressor] = {}  # shared ones, by window bits
        self._stateless: dict[Parameters, MessageDeflate] = {}

    def agreed(self, parameters: Parameters) -> MessageDeflate:
        """What a connection with these parameters uses."""
        is_stateless = parameters.server_no_context_takeover and parameters.client_no_context_takeover
        if not is_stateless:
            return self._make(parameters)
        found = self._stateless.get(parameters)
        if found is None:
            found = self._stateless[parameters] = self._make(parameters)
        return found

    def _make(self, parameters: Parameters) -> MessageDeflate:
        options = self._options
        is_shared = parameters.server_no_context_takeover
        if is_shared:
            compressor = self._shared_compressor(parameters.server_max_window_bits or LARGEST_WINDOW_BITS)
        else:
            window_bits = min(options.compression_window_bits, parameters.server_max_window_bits or LARGEST_WINDOW_BITS)
            compressor = Compressor(
                options.compression_level, window_bits, options.compression_memory_level, is_shared=False
            )
        client_bits = parameters.client_max_window_bits or LARGEST_WINDOW_BITS
        return MessageDeflate(
            compressor,
            is_shared=is_shared,
            threshold=options.compression_threshold,
            max_message_size=options.max_message_size,
            window_size=0 if parameters.client_no_context_takeover else 1 << client_bits,
        )

    def _shared_compressor(self, window_bits: int) -> Compressor:
        compressor = self._compressors.get(window_bits)
        if compressor is None:
            compressor = self._compressors[window_bits] = Compressor(
                self._options.compression_level, window_bits, SHARED_MEMORY_LEVEL, is_shared=True
            )
        return compressor
