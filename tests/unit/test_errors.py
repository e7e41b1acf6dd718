"""The exceptions: one root, and sentences made from their attributes."""

from __future__ import annotations

import pickle

import pytest

from wsev import errors


def _caused() -> errors.CallbackError:
    error = errors.CallbackError("on_message")
    error.__cause__ = KeyError("nick")
    return error


SENTENCES: list[tuple[errors.WsevError, str]] = [
    (errors.OptionError("port", -1, "must be at least 0"), "port=-1: must be at least 0"),
    (errors.ConnectionClosed(1001, "bye"), "the connection is closed (1001, bye)"),
    (errors.ConnectionClosed(1006), "the connection is closed (1006)"),
    (errors.HandshakeError(403, "the origin is foreign"), "403: the origin is foreign"),
    (errors.ProtocolError(1002, "a frame was not masked"), "a frame was not masked (1002)"),
    (errors.MessageTooBig(1009, "too long"), "too long (1009)"),
    (errors.TimedOut("idle"), "nothing was received for idle_timeout"),
    (errors.SlowConsumer(12), "12 bytes were unsent, more than max_buffered_amount"),
    (_caused(), "on_message raised: KeyError: 'nick'"),
    (errors.CallbackError("on_message"), "on_message raised"),
]


@pytest.mark.parametrize(("error", "sentence"), SENTENCES, ids=[type(error).__name__ for error, _ in SENTENCES])
def test_the_sentence_is_made_from_the_attributes(error: errors.WsevError, sentence: str) -> None:
    assert str(error) == sentence


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name != "TimeoutKind"])
def test_every_exception_has_the_one_root(name: str) -> None:
    assert issubclass(getattr(errors, name), errors.WsevError)


@pytest.mark.parametrize(
    ("error", "base"),
    [(errors.OptionError("a", 1, "b"), ValueError), (errors.TimedOut("read"), TimeoutError)],
    ids=["OptionError", "TimedOut"],
)
def test_a_builtin_base_stands_where_one_fits(error: Exception, base: type[Exception]) -> None:
    assert isinstance(error, base)


def test_an_exception_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(errors.ProtocolError(1002, "why")))
    assert (error.close_code, error.reason) == (1002, "why")
