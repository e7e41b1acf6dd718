"""asgi(): any ASGI application behind the same port, for ``Server(http=...)``.

uvicorn's HTTP protocol does the work; this owns how it is set up, and its start and end.  WebSocket requests never get
there: wsev answers them itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

__all__ = ["ASGI", "asgi"]


class _State:
    """What uvicorn's protocols of one server share, with the names that they use; uvicorn's own server has the like."""

    def __init__(self, config: Any) -> None:
        self._config = config
        self.total_requests = 0
        self.connections: set[Any] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The fields of each answer, asked for anew each time."""
        # RFC 9110 section 6.6.1: "An origin server with a clock MUST generate a Date header field".
        return [(b"date", formatdate(usegmt=True).encode("ascii")), *self._config.encoded_headers]


class ASGI:
    """An ASGI application as what ``Server(http=...)`` takes: called, it makes a protocol for one connection."""

    def __init__(self, app: Any, config: dict[str, Any]) -> None:
        try:
            import uvicorn  # here, so that wsev can be imported without it
        except ImportError as error:
            raise ImportError("wsev.asgi needs uvicorn: pip install wsev[asgi]", name=error.name) from error
        ours = {"log_config": None, "server_header": False, "ws": "none", "loop": "none"}
        self._config = uvicorn.Config(app, **(ours | config))
        self._state = _State(self._config)
        self._app_state: dict[str, Any] = {}

    def __call__(self) -> asyncio.Protocol:
        if not self._config.loaded:
            self._config.load()
        make: Any = self._config.http_protocol_class
        protocol: asyncio.Protocol = make(
            config=self._config,
            server_state=self._state,
            app_state=self._app_state,
            _loop=asyncio.get_running_loop(),
        )
        return protocol

    @asynccontextmanager
    async def lifespan(self, server: object = None) -> AsyncIterator[dict[str, Any]]:
        """Run the application's own lifespan around the server's: ``Server(http=web, lifespan=web.lifespan)``.

        Yields:
            The application's lifespan state, which is ``server.state`` then.

        Raises:
            RuntimeError: the application failed to start or to stop; the log says why.
        """
        if not self._config.loaded:
            self._config.load()
        lifespan = self._config.lifespan_class(self._config)
        await lifespan.startup()
        if lifespan.should_exit:
            raise RuntimeError("the ASGI application failed to start; see the log of uvicorn.error")
        self._app_state = lifespan.state
        try:
            yield lifespan.state
        finally:
            await lifespan.shutdown()
            self._app_state = {}
        if lifespan.should_exit:
            raise RuntimeError("the ASGI application failed to stop; see the log of uvicorn.error")

    async def shutdown(self, timeout: float | None = None) -> None:
        """End its connections: idle ones at once, the others when their answer is out, or after ``timeout`` seconds.

        The server's ``stop`` calls it.
        """
        for protocol in list(self._state.connections):
            protocol.shutdown()
        tasks = set(self._state.tasks)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def __repr__(self) -> str:
        return f"<ASGI {self._config.app!r}>"


def asgi(app: Any, **config: Any) -> ASGI:
    """Put any ASGI application, FastAPI's or Starlette's for example, behind the server's port.

    ::

        web = wsev.asgi(app)
        server = wsev.Server(http=web, lifespan=web.lifespan)

    Every request that is no upgrade to WebSocket goes to it.  The application's own lifespan runs only where
    ``lifespan=`` says so, as above; a lifespan of yours enters it with ``async with web.lifespan():``.

    Args:
        app: the application, or where to import it from (``"module:app"``).
        config: what ``uvicorn.Config`` takes beside it, such as ``root_path``, ``proxy_headers`` or
            ``timeout_keep_alive``.  What is about listening, processes and WebSockets has no effect.
    """
    return ASGI(app, config)
