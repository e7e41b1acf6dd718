import asyncio
import socket
from collections.abc import Callable
from typing import final

from wsev._core.descriptor import Descriptor
from wsev._core.loop import LoopState

@final
class Acceptor(Descriptor):
    def __init__(
        self,
        loop_state: LoopState,
        sock: socket.socket,
        factory: Callable[[], asyncio.BaseProtocol],
        report: Callable[[OSError], object],
    ) -> None: ...
    def start(self) -> None: ...
    def close(self) -> None: ...
