"""What callbacks may answer with, and its bytes."""

from __future__ import annotations

import pytest

from tests.answers import parse_answer, parse_upgrade
from wsev.handshake.response import Accept, Response, encode_accept, encode_response

FORBIDDEN = ["\r", "\n", "\0", "\r\n", "\x0b", "\x0c", "\x1c", "\x7f", "\u2028", "\x01"]


@pytest.mark.parametrize("control", FORBIDDEN, ids=ascii)
def test_a_control_character_in_a_value_is_a_value_error(control: str) -> None:
    for make in (lambda headers: Response(200, b"", headers), lambda headers: Accept(headers=headers)):
        with pytest.raises(ValueError, match=r"header X-Note: .*cannot be sent"):
            make({"X-Note": f"a{control}Set-Cookie: b=c"})


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "a\0", "ä", " a", "a\t", "(a)"], ids=ascii)
def test_a_name_that_is_no_token_is_a_value_error(name: str) -> None:
    with pytest.raises(ValueError, match="a name is letters"):
        Response(200, b"", [(name, "x")])
    with pytest.raises(ValueError, match="a name is letters"):
        Accept(headers=[(name, "x")])


@pytest.mark.parametrize(
    "name",
    [
        "Content-Length",
        "transfer-encoding",
        "Connection",
        "UPGRADE",
        "Date",
        "Keep-Alive",
        "Sec-WebSocket-Accept",
        "sec-websocket-extensions",
        "Sec-WebSocket-Protocol",
    ],
)
def test_a_field_that_wsev_writes_itself_is_a_value_error(name: str) -> None:
    for make in (lambda headers: Response(200, b"", headers), lambda headers: Accept(headers=headers)):
        with pytest.raises(ValueError, match="leave it out"):
            make({name: "x"})


@pytest.mark.parametrize("headers", [[("a", 1)], [(b"a", "b")], [("a", b"b")], {"a": None}], ids=repr)
def test_a_field_that_is_no_str_is_a_type_error(headers: object) -> None:
    with pytest.raises(TypeError, match="must be str"):
        Response(200, b"", headers)  # type: ignore[arg-type]  # that is the claim


@pytest.mark.parametrize("headers", ["X-A: b", [("X-A",)], [("X-A", "b", "c")], None, 5], ids=repr)
def test_headers_that_are_no_pairs_are_a_type_error(headers: object) -> None:
    with pytest.raises(TypeError, match="a mapping, or pairs"):
        Response(200, b"", headers)  # type: ignore[arg-type]  # that is the claim
    with pytest.raises(TypeError, match="a mapping, or pairs"):
        Accept(headers=headers)  # type: ignore[arg-type]  # that is the claim


@pytest.mark.parametrize("status", [0, 99, 100, 101, 199, 600, -1])
def test_a_status_that_ends_no_request_is_a_value_error(status: int) -> None:
    with pytest.raises(ValueError, match="must be 200 to 599"):
        Response(status)


@pytest.mark.parametrize(("status", "body"), [("200", b""), (200, 5), (200, None), (200.0, b"")], ids=repr)
def test_a_wrong_type_is_a_type_error(status: object, body: object) -> None:
    with pytest.raises(TypeError):
        Response(status, body)  # type: ignore[arg-type]  # that is the claim


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_takes_none(status: int) -> None:
    with pytest.raises(ValueError, match="has none"):
        Response(status, b"x")
    assert parse_answer(encode_response(Response(status))).body == b""


@pytest.mark.parametrize("status", [200, 201, 301, 400, 404, 418, 429, 499, 500, 599])
def test_an_answer_is_well_formed(status: int) -> None:
    answer = parse_answer(encode_response(Response(status, b"body", {"X-A": "1"})))
    assert (answer.status, answer.body, answer["x-a"]) == (status, b"body", "1")
    assert answer["content-type"] == "text/plain; charset=utf-8"


def test_426_says_what_to_upgrade_to_whoever_answers_it() -> None:
    assert parse_answer(encode_response(Response(426))).status == 426


def test_the_answer_to_head_has_the_length_and_no_body() -> None:
    answer = parse_answer(encode_response(Response(200, b"12345"), has_body=False), to_head=True)
    assert answer["content-length"] == "5"


def test_a_content_type_of_the_users_is_the_only_one() -> None:
    answer = parse_answer(encode_response(Response(200, "<p>", {"content-type": "text/html; charset=utf-8"})))
    assert answer["content-type"] == "text/html; charset=utf-8"


def test_a_str_is_sent_as_utf_8() -> None:
    assert parse_answer(encode_response(Response(200, "grün"))).body == "grün".encode()


def test_fields_of_one_name_are_all_sent_in_order() -> None:
    answer = parse_answer(encode_response(Response(200, b"", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])))
    assert answer.get_all("set-cookie") == ["a=1", "b=2"]


def test_latin_1_in_a_value_is_sent() -> None:
    assert parse_answer(encode_response(Response(200, b"", {"X-Name": "Zoë"})))["x-name"] == "Zoë"


@pytest.mark.parametrize("subprotocol", ["", "a b", "a,b", "ä", "a\r\nb", 'a"b'], ids=ascii)
def test_a_subprotocol_that_is_no_token_is_a_value_error(subprotocol: str) -> None:
    with pytest.raises(ValueError, match="subprotocol="):
        Accept(subprotocol)


def test_a_subprotocol_that_is_no_str_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="subprotocol=5: must be a str"):
        Accept(5)  # type: ignore[arg-type]  # that is the claim


def test_the_101_carries_subprotocol_and_fields() -> None:
    accept = Accept("chat", [("Set-Cookie", "a=1")])
    answer, rest = parse_upgrade(encode_accept("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", accept.subprotocol, accept.headers))
    assert answer["sec-websocket-protocol"] == "chat"
    assert answer["set-cookie"] == "a=1"
    assert rest == b""


def test_the_101_of_no_subprotocol_names_none() -> None:
    answer, _ = parse_upgrade(encode_accept("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", None, ()))
    assert "sec-websocket-protocol" not in answer


def test_reprs_fit_a_log_line() -> None:
    assert repr(Response(404, "no")) == "<Response 404 2 bytes>"
    assert repr(Accept("chat")) == "<Accept chat>"
    assert repr(Accept()) == "<Accept>"
