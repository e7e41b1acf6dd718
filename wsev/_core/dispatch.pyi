import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, final

from typing_extensions import disjoint_base

from wsev._core.writer import Writer

_T = TypeVar("_T")

@final
class Callbacks:
    def __new__(
        cls,
        *,
        on_connect: Callable[..., object] | None = None,
        on_message: Callable[..., object] | None = None,
        on_text: Callable[..., object] | None = None,
        on_binary: Callable[..., object] | None = None,
        on_ping: Callable[..., object] | None = None,
        on_pong: Callable[..., object] | None = None,
        on_drain: Callable[..., object] | None = None,
        on_disconnect: Callable[..., object] | None = None,
    ) -> Callbacks: ...
    @property
    def on_connect(self) -> Callable[..., object] | None: ...
    @property
    def on_text(self) -> Callable[..., object] | None: ...
    @property
    def on_binary(self) -> Callable[..., object] | None: ...
    @property
    def on_ping(self) -> Callable[..., object] | None: ...
    @property
    def on_pong(self) -> Callable[..., object] | None: ...
    @property
    def on_drain(self) -> Callable[..., object] | None: ...
    @property
    def on_disconnect(self) -> Callable[..., object] | None: ...
    @property
    def text_name(self) -> str: ...
    @property
    def binary_name(self) -> str: ...

@final
class Waiting: ...

@disjoint_base
class Dispatcher(Writer):
    def create_task(self, coro: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]: ...
