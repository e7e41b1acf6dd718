"""Topics: who is subscribed to what.  That messages arrive is shown with real connections, in tests/integration/."""

from __future__ import annotations

from typing import Any

import pytest

from wsev.topics import Topics


class Subscriber:
    """Stands for a connection: hashed and compared by identity."""


@pytest.fixture
def topics() -> Topics:
    return Topics(3)


def connection() -> Any:
    return Subscriber()


def test_a_subscription_is_one_of_the_connections_topics(topics: Topics) -> None:
    conn = connection()
    assert topics.subscribe(conn, "room")
    assert topics.topics_of(conn) == {"room"}
    assert topics.topics_of(connection()) == frozenset()


def test_subscribing_twice_is_once(topics: Topics) -> None:
    conn = connection()
    assert topics.subscribe(conn, "room")
    assert topics.subscribe(conn, "room")
    assert topics.unsubscribe(conn, "room")
    assert topics.topics_of(conn) == frozenset()


def test_unsubscribing_from_what_one_is_not_subscribed_to_is_false(topics: Topics) -> None:
    conn = connection()
    topics.subscribe(conn, "room")
    assert not topics.unsubscribe(conn, "hall")
    assert not topics.unsubscribe(connection(), "room")


def test_past_max_subscriptions_subscribe_is_false(topics: Topics) -> None:
    conn = connection()
    assert [topics.subscribe(conn, name) for name in "abcd"] == [True, True, True, False]
    assert topics.topics_of(conn) == {"a", "b", "c"}
    assert topics.subscribe(conn, "a"), "what it has, it keeps"
    assert topics.subscribe(connection(), "d"), "the limit is each connection's"


def test_without_max_subscriptions_there_is_no_limit() -> None:
    topics, conn = Topics(None), connection()
    assert all(topics.subscribe(conn, str(number)) for number in range(5000))


def test_a_forgotten_connection_leaves_nothing(topics: Topics) -> None:
    first, second = connection(), connection()
    topics.subscribe(first, "a")
    topics.subscribe(first, "b")
    topics.subscribe(second, "b")
    topics.forget(first)
    assert topics.topics_of(first) == frozenset()
    assert topics.topics_of(second) == {"b"}
    topics.forget(second)
    assert (topics._subscribers, topics._subscriptions) == ({}, {})


def test_forgetting_who_never_subscribed_does_nothing(topics: Topics) -> None:
    topics.forget(connection())


def test_the_last_unsubscribe_leaves_nothing(topics: Topics) -> None:
    conn = connection()
    topics.subscribe(conn, "a")
    topics.unsubscribe(conn, "a")
    assert (topics._subscribers, topics._subscriptions) == ({}, {})


def test_a_refused_subscription_leaves_nothing() -> None:
    topics = Topics(1)
    conn = connection()
    with pytest.raises(ValueError):
        topics.subscribe(conn, "")
    assert (topics._subscribers, topics._subscriptions) == ({}, {})


def test_the_subscribers_of_a_topic_are_those_who_subscribed(topics: Topics) -> None:
    first, second = connection(), connection()
    topics.subscribe(first, "room")
    topics.subscribe(second, "room")
    topics.unsubscribe(first, "room")
    assert topics.subscribers_of("room") == {second}
    assert topics.subscribers_of("hall") is None


def test_a_topic_appears_with_its_first_subscriber_and_vanishes_with_its_last() -> None:
    said: list[str] = []
    topics = Topics(None, lambda topic: said.append(f"+{topic}"), lambda topic: said.append(f"-{topic}"))
    first, second = connection(), connection()
    topics.subscribe(first, "a")
    topics.subscribe(first, "a")
    topics.subscribe(second, "a")
    topics.subscribe(second, "b")
    assert said == ["+a", "+b"]
    topics.unsubscribe(first, "a")
    topics.unsubscribe(first, "a")
    assert said == ["+a", "+b"]
    topics.forget(second)
    assert sorted(said[2:]) == ["-a", "-b"]
    topics.subscribe(first, "a")
    assert said[4:] == ["+a"]


@pytest.mark.parametrize("topic", ["x", "x" * 255, "é" * 127, "\0", "a/b.*"], ids=ascii)
def test_1_to_255_bytes_are_a_topic(topics: Topics, topic: str) -> None:
    assert topics.subscribe(connection(), topic)


@pytest.mark.parametrize("topic", ["", "x" * 256, "é" * 128, "\ud800"], ids=["empty", "256", "256 bytes", "surrogate"])
def test_other_sizes_are_a_value_error_that_names_the_topic(topics: Topics, topic: str) -> None:
    with pytest.raises(ValueError, match="topic="):
        topics.subscribe(connection(), topic)
    with pytest.raises(ValueError, match="topic="):
        topics.unsubscribe(connection(), topic)


@pytest.mark.parametrize("topic", [None, b"room", 3, ["room"]], ids=repr)
def test_what_is_no_str_is_a_type_error(topics: Topics, topic: Any) -> None:
    with pytest.raises(TypeError, match=r"topic=.*must be a str"):
        topics.subscribe(connection(), topic)
    with pytest.raises(TypeError, match=r"topic=.*must be a str"):
        topics.unsubscribe(connection(), topic)
