"""Interest: which links want which topic."""

from __future__ import annotations

from wsev.brokers.interest import Interest


def test_a_topic_that_nobody_wants_has_no_audience() -> None:
    assert Interest[str]().get("room") is None


def test_an_audience_is_the_links_that_want_the_topic() -> None:
    interest: Interest[str] = Interest()
    interest.add("room", "a")
    interest.add("room", "b")
    interest.add("hall", "c")
    audience = interest.get("room")
    assert audience is not None
    assert audience.links == {"a", "b"}
    assert (audience.text_head, audience.binary_head) == (b"\x01\x04room", b"\x02\x04room")


def test_wanting_twice_is_once() -> None:
    interest: Interest[str] = Interest()
    interest.add("room", "a")
    interest.add("room", "a")
    interest.remove("room", "a")
    assert interest.get("room") is None


def test_who_leaves_leaves_the_others() -> None:
    interest: Interest[str] = Interest()
    interest.add("room", "a")
    interest.add("room", "b")
    interest.remove("room", "a")
    audience = interest.get("room")
    assert audience is not None
    assert audience.links == {"b"}


def test_the_last_who_leaves_leaves_nothing() -> None:
    interest: Interest[str] = Interest()
    interest.add("room", "a")
    interest.remove("room", "a")
    assert len(interest) == 0


def test_removing_what_was_not_there_does_nothing() -> None:
    interest: Interest[str] = Interest()
    interest.remove("room", "a")
    interest.add("room", "a")
    interest.remove("room", "b")
    interest.remove("hall", "a")
    audience = interest.get("room")
    assert audience is not None
    assert audience.links == {"a"}
