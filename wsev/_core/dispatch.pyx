"""Dispatcher: the only file that calls a connection's callbacks.

Owns their order (one at a time for each connection), sync or async, the tasks, and the bounded queue of what comes
while one is suspended.  Knows neither frames nor transports.

Invariants: user code is called from the loop only, never from inside a call of the user's; before each call everything
is consistent, since the callback may send, close, abort, publish or raise, and after it everything is read anew; events
stand in the queue only while a callback is suspended; on_disconnect is called once, last, when no task is left.
"""

cimport cython
import asyncio
import collections
import logging
from asyncio import CancelledError
from types import CoroutineType

from wsev._core.eager cimport start_eagerly
from wsev._core.loop cimport ServerState
from wsev._core.writer cimport OPEN, Writer
from wsev.errors import CallbackError, ConnectionClosed

logger = logging.getLogger("wsev.connection")

cdef tuple NAMES = ("on_connect", "on_text", "on_binary", "on_ping", "on_pong", "on_drain", "on_disconnect")


@cython.final
cdef class Callbacks:

    def __cinit__(
        self,
        *,
        on_connect=None,
        on_message=None,
        on_text=None,
        on_binary=None,
        on_ping=None,
        on_pong=None,
        on_drain=None,
        on_disconnect=None,
    ):
        self.on_connect = on_connect
        self.on_text = on_message if on_text is None else on_text
        self.on_binary = on_message if on_binary is None else on_binary
        self.text_name = "on_message" if on_text is None else "on_text"
        self.binary_name = "on_message" if on_binary is None else "on_binary"
        self.on_ping = on_ping
        self.on_pong = on_pong
        self.on_drain = on_drain
        self.on_disconnect = on_disconnect


@cython.final
cdef class Waiting:

    def __cinit__(self):
        self.events = collections.deque()
        self.tasks = set()


cdef class Dispatcher(Writer):

    cdef int message_came(self, object message, Py_ssize_t size, bint is_text) except -1:
        """The path of each message: nothing here but the call."""
        cdef object callback
        cdef object result
        if self.waiting is not None and self._is_busy():
            return self._enqueue(TEXT_MESSAGE if is_text else BINARY_MESSAGE, message, size)
        if is_text:
            callback = self.callbacks.on_text
        else:
            callback = self.callbacks.on_binary
        if callback is None:
            return 0
        result = self._call_on_message(
            callback, self.callbacks.text_name if is_text else self.callbacks.binary_name, message
        )
        if result is not None:
            self._start(result, self.callbacks.text_name if is_text else self.callbacks.binary_name)
        return 0

    cdef int happened(self, Happening happening, object argument, Py_ssize_t size) except -1:
        """Any other event (and messages, too): called now, or after those that wait."""
        cdef object result
        if happening == DISCONNECT or (self.waiting is not None and self._is_busy()):
            self._enqueue(happening, argument, size)
            return self._take_turns()
        result = self._call(happening, argument)
        if result is not None:
            self._start(result, NAMES[<int> happening])
        return 0

    cdef bint takes_events(self) noexcept:
        cdef ServerState server = self.server
        if self.waiting is None:
            return True
        if 0 <= server.max_queue <= len(self.waiting.events):
            return False
        return server.max_queue_size < 0 or self.waiting.size < server.max_queue_size

    cdef int forget_events(self) except -1:
        cdef object events
        if self.waiting is None:
            return 0
        events = self.waiting.events
        kept = [event for event in events if event[0] == <int> DISCONNECT]
        events.clear()
        events.extend(kept)
        self.waiting.size = 0
        return 0

    # ---------------------------------------------------------------- one function for each callback

    cdef object _call_on_connect(self):
        try:
            return self.callbacks.on_connect(self)
        except BaseException as error:
            return self._raised("on_connect", error)

    cdef object _call_on_message(self, object callback, str name, object message):
        try:
            return callback(self, message)
        except BaseException as error:
            return self._raised(name, error)

    cdef object _call_on_ping(self, object payload):
        try:
            return self.callbacks.on_ping(self, payload)
        except BaseException as error:
            return self._raised("on_ping", error)

    cdef object _call_on_pong(self, object payload):
        try:
            return self.callbacks.on_pong(self, payload)
        except BaseException as error:
            return self._raised("on_pong", error)

    cdef object _call_on_drain(self):
        try:
            return self.callbacks.on_drain(self)
        except BaseException as error:
            return self._raised("on_drain", error)

    cdef object _call_on_disconnect(self, object error):
        self.waiting.is_over = True
        if self.callbacks.on_disconnect is None:
            return None
        try:
            return self.callbacks.on_disconnect(self, error)
        except BaseException as raised:
            return self._raised("on_disconnect", raised)

    cdef object _call(self, Happening happening, object argument):
        """Call what ``happening`` is for; returns what the callback returned, None where there is none."""
        cdef Callbacks callbacks = self.callbacks
        if happening == TEXT_MESSAGE:
            if callbacks.on_text is not None:
                return self._call_on_message(callbacks.on_text, callbacks.text_name, argument)
        elif happening == BINARY_MESSAGE:
            if callbacks.on_binary is not None:
                return self._call_on_message(callbacks.on_binary, callbacks.binary_name, argument)
        elif happening == CONNECT:
            if callbacks.on_connect is not None:
                return self._call_on_connect()
        elif happening == PING_FRAME:
            if callbacks.on_ping is not None:
                return self._call_on_ping(argument)
        elif happening == PONG_FRAME:
            if callbacks.on_pong is not None:
                return self._call_on_pong(argument)
        elif happening == DRAIN:
            if callbacks.on_drain is not None:
                return self._call_on_drain()
        else:
            return self._call_on_disconnect(argument)
        return None

    cdef object _raised(self, str name, object error):
        """What a callback or task raised: reported, and the connection is ended.  Never raises; returns None."""
        if isinstance(error, (CancelledError, ConnectionClosed)):
            return None
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            self.server.hooks.exit(error)
            return None
        failure = CallbackError(name, self)
        failure.__cause__ = error
        if name == "on_disconnect":
            logger.error("%s of %r", failure, self, exc_info=error)
            return None
        try:
            self.server.hooks.callback_failed(failure)
        finally:
            self.callback_raised(failure)
        return None

    # ---------------------------------------------------------------- callbacks that suspend

    cdef bint _is_busy(self) noexcept:
        return self.waiting.running is not None

    cdef Waiting _waiting(self):
        if self.waiting is None:
            self.waiting = Waiting.__new__(Waiting)
        return self.waiting

    cdef int _enqueue(self, Happening happening, object argument, Py_ssize_t size) except -1:
        cdef Waiting waiting = self._waiting()
        waiting.events.append((<int> happening, argument, size))
        waiting.size += size
        return 0

    cdef int _start(self, object awaitable, str name) except -1:
        """Await what a callback returned; anything else than an awaitable is ignored."""
        cdef Waiting waiting
        cdef object task
        if type(awaitable) is not CoroutineType:
            if not hasattr(awaitable, "__await__"):
                return 0
            if not asyncio.iscoroutine(awaitable):
                awaitable = _await(awaitable)
        try:
            task = start_eagerly(awaitable, self.loop_state.loop)
        except BaseException as error:
            self._raised(name, error)
            return 0
        if task is None:
            return 0
        waiting = self._waiting()
        waiting.name = name
        waiting.running = task
        task.add_done_callback(self._callback_ended)
        return 0

    def _callback_ended(self, task):
        cdef str name = self.waiting.name
        self.waiting.running = None
        self._task_result(task, name)
        self._take_turns()
        self.events_taken()

    cdef int _task_result(self, object task, str name) except -1:
        if not task.cancelled():
            error = task.exception()
            # KeyboardInterrupt and SystemExit have left the loop already: asyncio raises them out of a task's step.
            if isinstance(error, Exception):
                self._raised(name, error)
        return 0

    cdef object _next_awaitable(self):
        """Call for the events that wait, in turn, until a callback returns an awaitable; None when none is left."""
        cdef Waiting waiting = self.waiting
        cdef Happening happening
        cdef object result
        while waiting.events:
            kind, argument, size = waiting.events[0]
            happening = <Happening> <int> kind
            if happening == DISCONNECT and waiting.tasks:
                return None             # the last of them takes the turn
            waiting.events.popleft()
            waiting.size -= size
            result = self._call(happening, argument)
            if result is None:
                continue
            if hasattr(result, "__await__"):
                if happening == TEXT_MESSAGE:
                    waiting.name = self.callbacks.text_name
                elif happening == BINARY_MESSAGE:
                    waiting.name = self.callbacks.binary_name
                else:
                    waiting.name = NAMES[<int> happening]
                return result
        return None

    cdef int _take_turns(self) except -1:
        """The events that wait, until one of them suspends."""
        cdef Waiting waiting = self.waiting
        cdef object awaitable
        while waiting is not None and waiting.running is None:
            awaitable = self._next_awaitable()
            if awaitable is None:
                if not waiting.tasks and not waiting.events:
                    self.waiting = None
                    if waiting.is_over:
                        self.over()
                return 0
            self._start(awaitable, waiting.name)
        return 0

    # ---------------------------------------------------------------- the connection's tasks

    def create_task(self, coro):
        """Run a coroutine as a task that belongs to the connection.

        It may await later messages of the connection, which a callback may not.  It is cancelled when the connection
        has ended, and has ended itself before ``on_disconnect`` is called.  What it raises is handled like what a
        callback raises: logged, given to ``on_error``, and the connection closed with 1011.

        Args:
            coro: the coroutine.

        Returns:
            The ``asyncio.Task``.

        Raises:
            TypeError: ``coro`` is no coroutine.
            ConnectionClosed: the connection is not open any more; the coroutine was closed unrun.
        """
        self.server.check_thread()
        if not asyncio.iscoroutine(coro):
            raise TypeError(f"coro={coro!r}: must be a coroutine, such as a call of an async function returns")
        if self.ready_state != OPEN:
            coro.close()
            raise ConnectionClosed(self.close_code or 1006, self.close_reason)
        task = self.loop_state.loop.create_task(coro)
        self._waiting().tasks.add(task)
        task.add_done_callback(self._own_task_ended)
        return task

    def _own_task_ended(self, task):
        self.waiting.tasks.discard(task)
        self._task_result(task, "create_task")
        self._take_turns()

    cdef int cancel_tasks(self) except -1:
        if self.waiting is not None:
            for task in list(self.waiting.tasks):
                task.cancel()
        return 0

    cdef int cancel_callback(self) except -1:
        if self.waiting is not None and self.waiting.running is not None:
            self.waiting.running.cancel()
        return 0

    cdef int callback_raised(self, object error) except -1:
        return 0

    cdef int events_taken(self) except -1:
        return 0

    cdef int over(self) except -1:
        return 0


async def _await(awaitable):
    """A future, or an object with __await__, as the coroutine that a task wants."""
    return await awaitable
