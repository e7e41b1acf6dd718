import asyncio
from typing import final

from wsev._core.output import Output

@final
class AsyncioOutput(Output):
    def __init__(self, transport: asyncio.BaseTransport) -> None: ...
    @property
    def transport(self) -> asyncio.Transport | None: ...
    @property
    def local_address(self) -> tuple[str, int] | str: ...
