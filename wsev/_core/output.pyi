from typing_extensions import disjoint_base

from wsev._core.descriptor import Descriptor
from wsev._core.loop import LoopMember

@disjoint_base
class Sink(LoopMember): ...

@disjoint_base
class Output(Descriptor):
    @property
    def remote_address(self) -> tuple[str, int] | str: ...
