"""A coroutine as a task whose first step is taken at once."""


cpdef object start_eagerly(object coro, object loop)
