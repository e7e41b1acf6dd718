from collections.abc import Iterable
from typing import Any, final

from typing_extensions import disjoint_base

from wsev._core.connection import Connection
from wsev._core.output import Sink

@disjoint_base
class Writer(Sink): ...

@final
class EncodedMessage:
    @property
    def frame(self) -> bytes: ...
    @property
    def size(self) -> int: ...

__pyx_capi__: dict[str, object]  # Cython's: what other modules cimport

def encode_message(message: str | bytes | bytearray | memoryview, text: bool = False) -> EncodedMessage: ...
def deliver(
    connections: Iterable[Connection[Any]], message: EncodedMessage, exclude: Connection[Any] | None = None
) -> int: ...
