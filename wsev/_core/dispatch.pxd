"""Dispatcher: the events of one connection to the user's callbacks, in order, one at a time."""

from wsev._core.writer cimport Writer


cdef enum Happening:            # what a callback is called for
    CONNECT
    TEXT_MESSAGE
    BINARY_MESSAGE
    PING_FRAME
    PONG_FRAME
    DRAIN
    DISCONNECT


cdef class Callbacks:
    """What a server or route was given; None where nothing.  on_message stands in both on_text and on_binary."""
    cdef readonly object on_connect, on_text, on_binary, on_ping, on_pong, on_drain, on_disconnect
    cdef readonly str text_name, binary_name    # as which on_text and on_binary were registered


cdef class Waiting:
    """Made while a callback is suspended or a task of the connection runs; freed when neither is left."""
    cdef object running         # the task that runs the suspended callback; None: none is suspended
    cdef str name               # of that callback
    cdef object events          # deque of (Happening, argument, size): what came meanwhile
    cdef Py_ssize_t size        # bytes of the messages in it
    cdef set tasks              # of create_task()
    cdef bint is_over           # on_disconnect has been called: no event comes any more


cdef class Dispatcher(Writer):
    cdef Callbacks callbacks
    cdef Waiting waiting        # None: nothing waits and nothing runs

    cdef int happened(self, Happening happening, object argument, Py_ssize_t size) except -1
    cdef int message_came(self, object message, Py_ssize_t size, bint is_text) except -1
    cdef bint takes_events(self) noexcept       # False: max_queue is reached
    cdef int forget_events(self) except -1      # nothing more is delivered but on_disconnect
    cdef int cancel_tasks(self) except -1
    cdef int cancel_callback(self) except -1

    # For the layer above
    cdef int callback_raised(self, object error) except -1      # CallbackError, reported already
    cdef int events_taken(self) except -1       # the queue has got shorter
    cdef int over(self) except -1               # on_disconnect has ended

    cdef object _call(self, Happening happening, object argument)
    cdef object _call_on_connect(self)
    cdef object _call_on_message(self, object callback, str name, object message)
    cdef object _call_on_ping(self, object payload)
    cdef object _call_on_pong(self, object payload)
    cdef object _call_on_drain(self)
    cdef object _call_on_disconnect(self, object error)
    cdef object _raised(self, str name, object error)
    cdef int _start(self, object awaitable, str name) except -1
    cdef int _task_result(self, object task, str name) except -1
    cdef bint _is_busy(self) noexcept
    cdef Waiting _waiting(self)
    cdef int _enqueue(self, Happening happening, object argument, Py_ssize_t size) except -1
    cdef object _next_awaitable(self)
    cdef int _take_turns(self) except -1
