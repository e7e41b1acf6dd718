from typing_extensions import disjoint_base

from wsev._core.receiver import Receiver

@disjoint_base
class Timed(Receiver): ...
