"""Callbacks: how they are given, and that each mistake is an error at that call which names the right way."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from wsev.errors import OptionError
from wsev.handler import OF_ROUTES, PARAMETERS, CallbackRegistry, Handler
from wsev.server import Server


class Registry(CallbackRegistry[Any]):
    """A registry such as a route's, and one that can be sealed."""

    is_sealed = False

    def _is_sealed(self) -> bool:
        return self.is_sealed


class ServerRegistry(Registry):
    _names = tuple(PARAMETERS)


def function_of(count: int) -> Any:
    return eval(f"lambda {', '.join('abc'[:count])}: None")


# By decorator.


@pytest.mark.parametrize("name", OF_ROUTES)
def test_a_decorator_registers_the_function_and_gives_it_back(name: str) -> None:
    registry, callback = Registry(), function_of(len(PARAMETERS[name]))
    assert getattr(registry, name)(callback) is callback
    assert registry._registered == {name: callback}


@pytest.mark.parametrize("name", OF_ROUTES)
def test_a_decorator_may_have_parentheses(name: str) -> None:
    registry, callback = Registry(), function_of(len(PARAMETERS[name]))
    assert getattr(registry, name)()(callback) is callback
    assert registry._registered == {name: callback}


def test_a_second_registration_is_an_error() -> None:
    registry = Registry()

    @registry.on_connect
    def first(conn: Any) -> None: ...

    with pytest.raises(OptionError, match=r"on_connect=.*registered already, with .*first"):
        registry.on_connect(function_of(1))


def test_a_registration_after_the_start_is_an_error() -> None:
    registry = Registry()
    registry.is_sealed = True
    with pytest.raises(OptionError, match="register callbacks before run, listen or start"):
        registry.on_connect(function_of(1))


@pytest.mark.parametrize(
    ("first", "second"),
    [("on_message", "on_text"), ("on_message", "on_binary"), ("on_text", "on_message"), ("on_binary", "on_message")],
)
def test_on_message_beside_one_kind_of_messages_is_an_error(first: str, second: str) -> None:
    registry = Registry()
    getattr(registry, first)(function_of(2))
    with pytest.raises(OptionError, match=f"{first} is registered; use on_message, or on_text and on_binary"):
        getattr(registry, second)(function_of(2))


def test_on_text_and_on_binary_go_together() -> None:
    registry = Registry()
    registry.on_text(function_of(2))
    registry.on_binary(function_of(2))
    assert list(registry._registered) == ["on_text", "on_binary"]


@pytest.mark.parametrize(
    ("wrong", "right"), [("on_open", "on_connect"), ("on_close", "on_disconnect"), ("on_receive", "on_message")]
)
def test_another_librarys_name_is_an_error_that_names_ours(wrong: str, right: str) -> None:
    with pytest.raises(AttributeError, match=f"there is no callback {wrong}; write {right}"):
        getattr(Registry(), wrong)
    assert not hasattr(Registry(), wrong)


@pytest.mark.parametrize("name", ["on_request", "on_error"])
def test_what_belongs_to_the_server_is_an_error_as_a_routes_decorator(name: str) -> None:
    with pytest.raises(AttributeError, match="give it to Server, not to a route"):
        getattr(Registry(), name)
    assert getattr(Server(), name)


# What can be called.


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("difference", [-1, 1], ids=["one too few", "one too many"])
def test_a_wrong_number_of_parameters_is_an_error_that_shows_the_call(name: str, difference: int) -> None:
    parameters = PARAMETERS[name]
    with pytest.raises(OptionError) as caught:
        ServerRegistry()._register(name, function_of(len(parameters) + difference))
    assert f"is called as {name}({', '.join(parameters)})" in str(caught.value)


def _keyword_only(conn: Any, *, message: str) -> None: ...


def _generator(conn: Any, message: str) -> Iterator[None]:
    yield


async def _async_generator(conn: Any, message: str) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize(
    ("callback", "remedy"),
    [
        (_keyword_only, "is called as on_message"),
        (_generator, "has a yield"),
        (_async_generator, "has a yield"),
        ("said", "must be a function, called as on_message(conn, message)"),
        (None, "must be a function"),
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
def test_what_cannot_be_called_is_an_error(callback: Any, remedy: str) -> None:
    with pytest.raises(OptionError) as caught:
        Registry().on_message(callback)
    assert remedy in str(caught.value)


async def _async(conn: Any, message: str) -> None: ...


def _with_defaults(conn: Any, message: str, more: int = 0, *, most: int = 0) -> None: ...


class _Callable:
    def __call__(self, conn: Any, message: str) -> None: ...

    def method(self, conn: Any, message: str) -> None: ...


@pytest.mark.parametrize(
    "callback",
    [
        _async,
        _with_defaults,
        lambda conn, message: None,
        lambda *args: None,
        lambda conn, *rest: None,
        functools.partial(lambda room, conn, message: None, "room"),
        _Callable(),
        _Callable().method,
        min,  # a built-in function without a signature
    ],
    ids=["async", "defaults", "lambda", "args", "rest", "partial", "object", "method", "builtin"],
)
def test_whatever_takes_the_arguments_is_a_callback(callback: Any) -> None:
    registry = Registry()
    registry.on_message(callback)
    assert registry._registered == {"on_message": callback}


# By Handler.


class Chat(Handler[Any]):
    helped = 0

    def on_connect(self, conn: Any) -> None: ...

    async def on_message(self, conn: Any, message: Any) -> None: ...

    def help(self) -> None: ...


def test_a_handlers_own_methods_are_registered_and_no_others() -> None:
    chat = Chat()
    assert Registry(chat)._registered == {"on_connect": chat.on_connect, "on_message": chat.on_message}


def test_an_inherited_method_is_registered() -> None:
    class Room(Chat):
        pass

    assert set(Registry(Room())._registered) == {"on_connect", "on_message"}


def test_a_static_method_is_registered() -> None:
    class Static(Handler[Any]):
        @staticmethod
        def on_drain(conn: Any) -> None: ...

    assert set(Registry(Static())._registered) == {"on_drain"}


def test_a_handler_and_decorators_go_together() -> None:
    registry = Registry(Chat())
    registry.on_drain(function_of(1))
    assert set(registry._registered) == {"on_connect", "on_message", "on_drain"}


def test_a_decorator_for_what_the_handler_has_is_an_error() -> None:
    with pytest.raises(OptionError, match="registered already"):
        Registry(Chat()).on_connect(function_of(1))


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("on_open", "on_connect"), ("on_close", "on_disconnect"), ("on_mesage", "on_message"), ("on_xyz", "known are")],
)
def test_a_method_of_an_unknown_name_is_an_error_that_names_the_right_one(wrong: str, right: str) -> None:
    handler = type("Wrong", (Handler,), {wrong: lambda self, conn: None})()
    with pytest.raises(OptionError, match=f"{wrong}=.*there is no such callback; .*{right}"):
        Registry(handler)


@pytest.mark.parametrize("name", ["on_request", "on_error"])
def test_what_belongs_to_the_server_is_an_error_in_a_routes_handler(name: str) -> None:
    handler = type("Wrong", (Handler,), {name: lambda self, *args: None})()
    with pytest.raises(OptionError, match="give it to Server, not to a route"):
        Registry(handler)
    assert name in ServerRegistry(handler)._registered


def test_a_handlers_method_with_wrong_parameters_is_an_error() -> None:
    handler = type("Wrong", (Handler,), {"on_message": lambda self, conn: None})()
    with pytest.raises(OptionError, match=r"takes \(conn\), but is called as on_message\(conn, message\)"):
        Registry(handler)


@pytest.mark.parametrize(
    ("handler", "remedy"), [(Chat, r"give an instance, Chat\(\)"), (object(), "subclass of wsev.Handler")]
)
def test_what_is_no_handler_is_an_error(handler: Any, remedy: str) -> None:
    with pytest.raises(OptionError, match=remedy):
        Registry(handler)


def test_the_core_gets_what_was_registered() -> None:
    registry = Registry()
    callback = registry.on_message(function_of(2))
    callbacks = registry._make_callbacks()
    assert (callbacks.on_text, callbacks.on_binary, callbacks.on_connect) == (callback, callback, None)
