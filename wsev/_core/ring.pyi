from typing import final

from wsev._core.loop import SendBatch

@final
class Ring(SendBatch):
    def __new__(cls) -> Ring: ...
    @staticmethod
    def open() -> Ring | None: ...
