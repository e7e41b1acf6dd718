from enum import IntEnum
from typing import final

from typing_extensions import Buffer

from wsev._core.rules import Violation

class Event(IntEnum):
    NEED_DATA = 0
    TEXT = 1
    BINARY = 2
    COMPRESSED_TEXT = 65
    COMPRESSED_BINARY = 66
    CLOSE = 8
    PING = 9
    PONG = 10
    FAILED = 16

@final
class Limits:
    @property
    def is_client(self) -> bool: ...
    @property
    def decode_text(self) -> bool: ...
    @property
    def rsv1_allowed(self) -> bool: ...
    @property
    def max_message_size(self) -> int: ...
    @property
    def max_fragments(self) -> int: ...
    def __new__(
        cls,
        *,
        is_client: bool = False,
        max_message_size: int = 1_048_576,
        max_fragments: int = 16_384,
        decode_text: bool = True,
        rsv1_allowed: bool = False,
    ) -> Limits: ...

@final
class Parser:
    @property
    def payload(self) -> str | bytes | None: ...
    @property
    def close_code(self) -> int: ...
    @property
    def close_reason(self) -> str: ...
    @property
    def violation(self) -> Violation: ...
    @property
    def reason(self) -> str: ...
    @property
    def inside(self) -> int | None: ...
    @property
    def capacity(self) -> int: ...
    def __new__(cls, limits: Limits) -> Parser: ...
    def feed(self, data: Buffer, /) -> None: ...
    def next(self) -> Event: ...
    def take_rest(self) -> bytes: ...
