from typing_extensions import disjoint_base

from wsev._core.closer import Closer

@disjoint_base
class Receiver(Closer): ...
