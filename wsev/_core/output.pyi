import asyncio
from typing import final

from typing_extensions import disjoint_base

from wsev._core.loop import LoopMember

@disjoint_base
class Sink(LoopMember): ...

@final
class Output:
    def __init__(self, transport: asyncio.BaseTransport) -> None: ...
    @property
    def transport(self) -> asyncio.Transport | None: ...
    @property
    def remote_address(self) -> tuple[str, int] | str: ...
    @property
    def local_address(self) -> tuple[str, int] | str: ...
