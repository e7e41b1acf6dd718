from typing import final

from typing_extensions import disjoint_base

from wsev._core.dispatch import Dispatcher

@final
class Rare: ...

@disjoint_base
class Closer(Dispatcher): ...
