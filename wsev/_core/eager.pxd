"""A coroutine as a task whose first step is taken at once, as Python 3.12 has it."""


cpdef object start_eagerly(object coro, object loop)
