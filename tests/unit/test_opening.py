"""OpeningHandshake: one request in, an answer or a Connection out; with a recorded transport and a clock by hand."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.answers import Answer, parse_answer, parse_upgrade
from tests.recorded import ManualLoop, RecordedTransport
from tests.requests import ACCEPT, CHROME, FIREFOX, PLAIN, SAFARI, request, wire
from wsev.deflate import Parameters
from wsev.errors import CallbackError
from wsev.handshake.handshakes import LINGER_TIMEOUT, Handshakes
from wsev.handshake.opening import OpeningHandshake
from wsev.handshake.request import Request
from wsev.handshake.response import Accept, Response
from wsev.options import Options


class FakeHost:
    """Keeps what it was asked."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None, **options: Any) -> None:
        self.options = Options.of(**options)
        self.loop = loop or ManualLoop()
        self.http: Callable[[], asyncio.Protocol] | None = None
        self.on_request: Any = None
        self.on_upgrade: Any = None
        self.refusal: Response | None = None
        self.paths = ["/chat"]
        self.inside = 0
        self.opened: list[SimpleNamespace] = []
        self.errors: list[CallbackError] = []
        self.exits: list[BaseException] = []
        self.handshakes = Handshakes(self)

    def admit(self, handshake: OpeningHandshake) -> Response | None:
        self.inside += self.refusal is None
        return self.refusal

    def leave(self, handshake: OpeningHandshake) -> None:
        self.inside -= 1
        assert self.inside >= 0

    def find_route(self, path: str) -> Any:
        return SimpleNamespace(callbacks="callbacks", on_upgrade=self.on_upgrade) if path in self.paths else None

    def open(
        self,
        transport: asyncio.Transport,
        head: bytes,
        route: Any,
        accept: Accept,
        subprotocol: str | None,
        deflate: Parameters | None,
        response: bytes,
        rest: bytes,
    ) -> None:
        transport.set_protocol(asyncio.Protocol())
        answer, none = parse_upgrade(response)
        assert none == b""
        assert route.callbacks == "callbacks"
        self.opened.append(
            SimpleNamespace(
                request=Request(head, transport),
                accept=accept,
                subprotocol=subprotocol,
                answer=answer,
                rest=rest,
                deflate=deflate,
            )
        )

    def callback_failed(self, error: CallbackError) -> None:
        self.errors.append(error)

    def exit(self, error: BaseException) -> None:
        self.exits.append(error)

    def pass_time(self, seconds: float) -> None:
        assert isinstance(self.loop, ManualLoop)
        self.loop.pass_time(seconds)


class Line:
    """One connection to a host: the handshake and its transport."""

    def __init__(self, host: FakeHost, **transport: Any) -> None:
        self.host = host
        self.transport = RecordedTransport(**transport)
        self.handshake = host.handshakes()
        self.handshake.connection_made(self.transport)

    def receive(self, data: bytes) -> Line:
        self.handshake.receive(data)
        return self

    def lose(self, error: Exception | None = None) -> None:
        """The transport's end."""
        self.transport.is_closed = True
        if self.transport.protocol is None:
            self.handshake.connection_lost(error)

    @property
    def answer(self) -> Answer:
        return parse_answer(self.transport.written)

    def check_over(self) -> None:
        """Whatever happened, nothing of it is left."""
        self.lose()
        assert self.host.inside == 0
        assert not self.host.handshakes.open
        assert not any(deadlines._members for deadlines in self.host.handshakes.deadlines)


def ask(data: bytes, host: FakeHost | None = None) -> Line:
    return Line(host or FakeHost()).receive(data)


def status_of(data: bytes, host: FakeHost | None = None) -> int:
    """The status of the answer; it is whole, FIN went out after it, and nothing is left of it all."""
    line = ask(data, host)
    answer = parse_answer(line.transport.written, to_head=data.startswith(b"HEAD "))
    assert line.transport.has_eof
    line.check_over()
    return answer.status


# ------------------------------------------------------------------------------------------------------- what is right

GOOD = {
    "firefox": wire(FIREFOX),
    "chrome": wire(CHROME),
    "safari": wire(SAFARI),
    "minimal": request(),
    "10 KB of cookies": request(cookie="a=" + "b" * 10_000),
    "90 fields": request(**{f"x-{n}": "a" for n in range(85)}),
    "7 KB of target": request("GET /chat?" + "a" * 7_000 + " HTTP/1.1"),
    "no space around values": request().replace(b": ", b":"),
    "tabs around values": re.sub(rb": (.*)\r\n", rb":\t \1 \t\r\n", request()),
    "non-ASCII elsewhere": request(x_name="Zo\xeb"),
    "a length of 0": request(content_length="0"),
    "absolute-form": request("GET http://example.com/chat HTTP/1.1"),
    "absolute-form, another Host": request(
        "GET ws://page.example/chat HTTP/1.1", host="proxy.example", origin="http://page.example"
    ),
    "IPv6": request(host="[::1]:8000", origin="http://[::1]:8000"),
    "a blank line before": b"\r\n" + request(),
    "a percent-encoded path": request("GET /ch%61t HTTP/1.1"),
}


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD)
def test_a_good_request_is_opened(data: bytes) -> None:
    host = FakeHost()
    line = ask(data, host)
    (opened,) = host.opened
    assert line.transport.written == b"", "the 101 is the Connection's to write"
    assert opened.answer["sec-websocket-accept"] == ACCEPT
    assert (opened.subprotocol, opened.rest) == (None, b"")
    assert opened.request.path == "/chat"
    assert opened.request.remote_address == ("192.0.2.7", 50412)
    line.check_over()


def test_a_good_request_is_opened_byte_by_byte() -> None:
    host = FakeHost()
    line = Line(host)
    data = wire(FIREFOX)
    for at in range(len(data)):
        assert not host.opened
        line.receive(data[at : at + 1])
    assert len(host.opened) == 1
    line.check_over()


def test_what_comes_behind_the_request_is_passed_on() -> None:
    host = FakeHost()
    ask(request() + b"\x81\x80\0\0\0\0GET / HTTP/1.1\r\n\r\n", host)
    assert host.opened[0].rest == b"\x81\x80\0\0\0\0GET / HTTP/1.1\r\n\r\n"


def test_our_first_subprotocol_that_is_offered_is_agreed_on() -> None:
    host = FakeHost(subprotocols=("v2", "v1"))
    ask(request(sec_websocket_protocol="v1, v2"), host)
    assert host.opened[0].subprotocol == host.opened[0].answer["sec-websocket-protocol"] == "v2"


def test_no_extension_is_accepted() -> None:
    host = FakeHost()
    ask(wire(CHROME), host)
    assert "sec-websocket-extensions" not in host.opened[0].answer


# ------------------------------------------------------------------------------------------------------- what is wrong

BAD = {
    "plain": (wire(PLAIN), 426),
    "plain, with fragments of an upgrade": (request(connection="keep-alive"), 426),
    "plain HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", 426),
    "an upgrade by HTTP/1.0": (request("GET /chat HTTP/1.0"), 426),
    "version 12": (request(sec_websocket_version="12"), 426),
    "no key": (request(sec_websocket_key=None), 400),
    "no Host": (request(host=None), 400),
    "two Hosts": (request(host=["example.com", "example.com"]), 400),
    "plain, no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "a foreign origin": (request(origin="http://evil.example"), 403),
    "another path": (request("GET /other HTTP/1.1"), 404),
    "POST": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 405),
    "HEAD": (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    "OPTIONS": (b"OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    "an upgrade by POST": (request("POST /chat HTTP/1.1"), 405),
    "an upgrade by HEAD": (request("HEAD /chat HTTP/1.1"), 405),
    "CONNECT": (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 400),
    "GET *": (request("GET * HTTP/1.1"), 400),
    "an unknown method": (request("BREW /chat HTTP/1.1"), 405),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/2.0": (request("GET /chat HTTP/2.0"), 505),
    "no version": (b"GET /chat\r\n\r\n", 400),
    "no version, bare LF": (b"GET /chat\n\n", 400),
    "ICE": (request("SOURCE /chat ICE/1.0"), 400),
    "RTSP": (request("DESCRIBE /chat RTSP/1.0"), 400),
    "a plain body": (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 413),
    "a plain chunked body": (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413),
    "an upgrade with a body": (request(content_length="5") + b"hello", 400),
    "an upgrade with a chunked body": (request(transfer_encoding="chunked") + b"0\r\n\r\n", 400),
    "a plain body of a length that is none": (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
    "plain, length and encoding": (
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    "length and encoding": (request(content_length="5", transfer_encoding="chunked"), 400),
    "bare LF": (request().replace(b"\r\n", b"\n"), 400),
    "one bare LF": (request().replace(b"\r\nUpgrade", b"\nUpgrade").replace(b"\r\nupgrade", b"\nupgrade"), 400),
    "bare CR": (request(x_note="a\rb"), 400),
    "NUL": (request(x_note="a\0b"), 400),
    "a control character": (request(x_note="a\x01b"), 400),
    "obs-fold": (request(x_note="a\r\n b"), 400),
    "white space before the colon": (request().replace(b"upgrade:", b"upgrade :"), 400),
    "white space before the first field": (request().replace(b"\r\nhost", b"\r\n host"), 400),
    "no name": (request().replace(b"host:", b":"), 400),
    "no colon": (request().replace(b"host: example.com", b"host"), 400),
    "an odd name": (request().replace(b"host:", b"ho(st:"), 400),
    "a non-ASCII name": (request().replace(b"host:", b"h\xf6st:"), 400),
    "a non-ASCII target": (request("GET /ch\xe4t HTTP/1.1"), 400),
    "a non-ASCII query": (request("GET /chat?\xe4 HTTP/1.1"), 400),
    "a fragment": (request("GET /chat#a HTTP/1.1"), 400),
    "two spaces": (request("GET  /chat HTTP/1.1"), 400),
    "a space at the end of the line": (request("GET /chat HTTP/1.1 "), 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01", 400),
    "two blank lines": (b"\r\n\r\n" + request(), 400),
    "a long line": (request("GET /" + "a" * 9_000 + " HTTP/1.1"), 414),
    "an endless line": (b"GET /" + b"a" * 9_000, 414),
    "a large head": (request(x_note="a" * 17_000), 431),
    "an endless head": (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 3_000, 431),
    "101 fields": (request(**{f"x-{n}": "a" for n in range(96)}), 431),
}


@pytest.mark.parametrize(("data", "status"), BAD.values(), ids=BAD)
def test_a_bad_request_gets_its_answer_and_the_end(data: bytes, status: int) -> None:
    host = FakeHost()
    assert status_of(data, host) == status
    assert host.opened == []
    assert host.handshakes.refused == {status: 1}


@pytest.mark.parametrize(("data", "status"), BAD.values(), ids=BAD)
def test_a_bad_request_gets_it_byte_by_byte_too(data: bytes, status: int) -> None:
    line = Line(FakeHost())
    for at in range(len(data)):
        line.receive(data[at : at + 1])
    assert parse_answer(line.transport.written, to_head=data.startswith(b"HEAD ")).status == status
    line.check_over()


@pytest.mark.parametrize("data", [value[0] for value in BAD.values()], ids=BAD)
def test_an_answer_quotes_nothing_of_the_request(data: bytes) -> None:
    line = ask(data)
    for word in (b"evil", b"other", b"BREW", b"hello", b"aaaa"):
        assert word not in line.transport.written


def test_what_follows_a_refused_request_is_dropped() -> None:
    host = FakeHost()
    line = ask(wire(PLAIN) + request(), host)
    before = line.transport.written
    line.receive(request()).receive(b"\x81\x80\0\0\0\0" * 1000)
    assert line.transport.written == before
    assert line.answer.status == 426
    assert host.opened == []


def test_a_refused_connection_ends_after_a_second_whatever_comes() -> None:
    host = FakeHost()
    line = ask(wire(PLAIN), host)
    host.pass_time(LINGER_TIMEOUT * 0.9)
    line.receive(b"more")
    assert not line.transport.is_closed
    host.pass_time(LINGER_TIMEOUT * 0.2)
    assert line.transport.is_aborted
    line.check_over()


def test_within_tls_the_transport_is_closed_after_the_answer_and_ended_after_close_timeout() -> None:
    host = FakeHost(close_timeout=5.0)
    line = Line(host, is_tls=True).receive(wire(PLAIN))
    assert line.answer.status == 426
    assert line.transport.is_closed
    assert not line.transport.is_aborted
    host.pass_time(5.0)
    assert line.transport.is_aborted
    line.check_over()


@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes_get_a_well_formed_answer_or_silence(data: bytes, cut: int) -> None:
    line = Line(FakeHost())
    line.receive(data[:cut]).receive(data[cut:])
    if line.transport.written:
        parse_answer(line.transport.written, to_head=data.removeprefix(b"\r\n").startswith(b"HEAD "))
    line.check_over()


@given(
    st.sampled_from([wire(FIREFOX), wire(CHROME), request(sec_websocket_protocol="a, b"), wire(PLAIN)]),
    st.lists(st.tuples(st.integers(0, 800), st.integers(0, 3), st.binary(max_size=3)), min_size=1, max_size=4),
)
def test_a_damaged_request_gets_a_well_formed_answer_or_silence(
    data: bytes, damages: list[tuple[int, int, bytes]]
) -> None:
    for at, size, instead in damages:
        data = data[:at] + instead + data[at + size :]
    host = FakeHost()
    line = ask(data, host)
    if line.transport.written:
        assert not host.opened
        parse_answer(line.transport.written, to_head=data.removeprefix(b"\r\n").startswith(b"HEAD "))
    line.check_over()


# ----------------------------------------------------------------------------------------------------------- the limits


def test_who_is_not_admitted_is_told_so_and_never_leaves() -> None:
    host = FakeHost()
    host.refusal = Response(503, "No room.\n", {"Retry-After": "5"})
    line = Line(host)
    assert line.answer.status == 503
    assert line.answer["retry-after"] == "5"
    line.receive(request())
    assert host.opened == []
    line.check_over()


def test_silence_ends_without_an_answer_at_the_deadline() -> None:
    host = FakeHost(handshake_timeout=10.0)
    line = Line(host)
    host.pass_time(9.9)
    assert not line.transport.is_closed
    host.pass_time(0.1)
    assert line.transport.is_aborted
    assert line.transport.written == b""
    line.check_over()


def test_drips_do_not_put_the_deadline_off() -> None:
    host = FakeHost(handshake_timeout=10.0)
    line = Line(host)
    for byte in b"GET / HTT":
        host.pass_time(1.0)
        line.receive(bytes([byte]))
    host.pass_time(1.0)
    assert line.answer.status == 408
    line.check_over()


def test_the_deadline_counts_from_the_accept_within_tls_too() -> None:
    host = FakeHost(handshake_timeout=10.0)
    handshake, transport = host.handshakes.make_within_tls(), RecordedTransport(is_tls=True)
    host.pass_time(6.0)  # the TLS handshake
    handshake.connection_made(transport)
    handshake.receive(b"GET")
    host.pass_time(4.0)
    assert parse_answer(transport.written).status == 408


def test_a_tls_handshake_that_took_too_long_is_the_end() -> None:
    host = FakeHost(handshake_timeout=10.0)
    handshake, transport = host.handshakes.make_within_tls(), RecordedTransport(is_tls=True)
    host.pass_time(10.0)
    assert not host.handshakes.within_tls
    handshake.connection_made(transport)
    assert transport.is_aborted
    handshake.connection_lost(None)
    assert host.inside == 0
    assert not host.handshakes.open


def test_who_is_within_tls_is_known_until_that_is_done() -> None:
    host = FakeHost()
    handshake, transport = host.handshakes.make_within_tls(), RecordedTransport(is_tls=True)
    assert len(host.handshakes.within_tls) == 1
    handshake.connection_made(transport)
    assert not host.handshakes.within_tls
    handshake.receive(request())
    assert len(host.opened) == 1
    assert not any(deadlines._members for deadlines in host.handshakes.deadlines)


async def test_a_tls_handshake_that_failed_is_forgotten_and_not_waited_with() -> None:
    host = FakeHost(asyncio.get_running_loop(), handshake_timeout=None)
    handshake = host.handshakes.make_within_tls()
    finishing = asyncio.ensure_future(host.handshakes.finish(None))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not finishing.done()
    del handshake  # as asyncio drops a protocol whose connection_made it will not call
    await finishing
    assert not host.handshakes.within_tls
    assert host.handshakes.limits_passed == {}


def test_an_answer_that_the_peer_takes_slowly_is_waited_with_and_one_that_it_does_not_take_is_not() -> None:
    host = FakeHost(write_timeout=60.0)
    host.on_request = lambda request: Response(200, b"a" * 1_000_000)
    line = Line(host, is_stuck=True).receive(wire(PLAIN))
    assert not line.transport.has_eof
    for _ in range(5):
        line.transport.unsent -= 1000
        host.pass_time(60.0)
        assert not line.transport.is_closed
    host.pass_time(70.0)
    assert line.transport.is_aborted
    line.check_over()


def test_fin_goes_out_when_the_answer_has() -> None:
    host = FakeHost()
    host.on_request = lambda request: Response(200, b"a" * 1_000_000)
    line = Line(host, is_stuck=True).receive(wire(PLAIN))
    line.transport.unsent = 0
    line.handshake.resume_writing()
    assert line.transport.has_eof
    line.check_over()


@pytest.mark.parametrize("data", [b"", b"GET", request()[:-1]], ids=["silent", "begun", "nearly whole"])
def test_a_peer_that_goes_in_the_middle_leaves_nothing(data: bytes) -> None:
    line = Line(FakeHost())
    if data:
        line.receive(data)
    line.handshake.eof_received()
    line.lose(ConnectionResetError())
    line.check_over()
    assert line.transport.written == b""


@pytest.mark.parametrize(
    ("data", "option"),
    [
        (b"GET /" + b"a" * 9_000, "max_request_line"),
        (request(x_note="a" * 17_000), "max_request_size"),
        (request(**{f"x-{n}": "a" for n in range(101)}), "max_headers"),
        (b"GET / HTTP/1.1\r\n", "handshake_timeout"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_limit_that_was_passed_is_named_in_the_log_alone(
    data: bytes, option: str, caplog: pytest.LogCaptureFixture
) -> None:
    host = FakeHost()
    with caplog.at_level(logging.INFO, "wsev.handshake"):
        line = ask(data, host)
        host.pass_time(20.0)
    assert option in caplog.text
    assert option.encode() not in line.transport.written
    assert host.handshakes.limits_passed == {option: 1}
    line.check_over()


@pytest.mark.parametrize("is_within_tls", [False, True], ids=["open", "within TLS"])
def test_silence_is_counted_and_logged_once_a_second(is_within_tls: bool, caplog: pytest.LogCaptureFixture) -> None:
    host = FakeHost(handshake_timeout=10.0)
    if is_within_tls:
        silent = [host.handshakes.make_within_tls() for _ in range(100)]
    else:
        silent = [Line(host).handshake for _ in range(100)]
    with caplog.at_level(logging.INFO, "wsev.handshake"):
        host.pass_time(10.0)
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "handshake_timeout" in record.getMessage()
    assert len(silent) == 100
    assert host.handshakes.limits_passed == {"handshake_timeout": 100}
    assert host.handshakes.refused == {}


def test_who_goes_by_himself_has_passed_no_limit() -> None:
    host = FakeHost()
    Line(host).check_over()
    Line(host).receive(b"GET").check_over()
    host.pass_time(20.0)
    assert host.handshakes.limits_passed == {}


def test_one_kind_of_refusal_hides_no_other_of_its_status(caplog: pytest.LogCaptureFixture) -> None:
    host = FakeHost()
    with caplog.at_level(logging.INFO, "wsev.handshake"):
        for _ in range(2):
            ask(request(host=None), host)
            ask(request(sec_websocket_key=None), host)
    assert [record.args[1] for record in caplog.records if isinstance(record.args, tuple)] == [400, 400]


def test_refusals_are_logged_once_a_second_each_and_name_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    host = FakeHost()
    with caplog.at_level(logging.INFO, "wsev.handshake"):
        for _ in range(100):
            ask(request(origin="http://evil.example"), host)
            ask(wire(PLAIN), host)
        assert len(caplog.records) == 2
        host.pass_time(1.0)
        ask(request(origin="http://evil.example"), host)
    assert len(caplog.records) == 3
    assert "origins=" in caplog.messages[0]
    assert "192.0.2.7" in caplog.messages[0]
    assert "evil" not in caplog.text
    assert all(record.levelno == logging.INFO for record in caplog.records)
    assert host.handshakes.refused == {403: 101, 426: 100}


# -------------------------------------------------------------------------------------------------------- the callbacks


def test_on_upgrade_may_accept_with_more() -> None:
    host = FakeHost()
    host.on_upgrade = lambda request: Accept("b", {"Set-Cookie": "x=1"}, state="mine")
    ask(request(sec_websocket_protocol="a, b"), host)
    (opened,) = host.opened
    assert (opened.subprotocol, opened.accept.state) == ("b", "mine")
    assert opened.answer["set-cookie"] == "x=1"
    assert opened.answer["sec-websocket-protocol"] == "b"


def test_on_upgrade_may_refuse() -> None:
    host = FakeHost()
    host.on_upgrade = lambda request: Response(401, "Who are you?", {"WWW-Authenticate": "Basic"})
    line = ask(request(), host)
    assert (line.answer.status, line.answer.body) == (401, b"Who are you?")
    assert host.opened == []
    assert host.handshakes.refused == {401: 1}
    line.check_over()


@pytest.mark.parametrize("data", [value[0] for value in BAD.values()], ids=BAD)
def test_on_upgrade_is_called_for_no_bad_request(data: bytes) -> None:
    host = FakeHost()
    host.on_upgrade = lambda request: pytest.fail("called")
    ask(data, host)


@pytest.mark.parametrize(
    ("result", "message"),
    [(True, "on_upgrade returned bool"), (200, "on_upgrade returned int"), (Accept("c"), "did not offer it")],
    ids=repr,
)
def test_a_wrong_result_of_on_upgrade_is_500_and_reported(result: object, message: str) -> None:
    host = FakeHost()
    host.on_upgrade = lambda request: result
    line = ask(request(sec_websocket_protocol="a"), host)
    assert line.answer.status == 500
    (error,) = host.errors
    assert error.callback == "on_upgrade"
    assert message in str(error.__cause__)
    line.check_over()


@pytest.mark.parametrize("name", ["on_upgrade", "on_request"])
def test_an_exception_of_a_callback_is_500_and_reported(name: str) -> None:
    host = FakeHost()
    failure = RuntimeError("secret")

    def callback(request: Request) -> None:
        raise failure

    setattr(host, name, callback)
    line = ask(request() if name == "on_upgrade" else wire(PLAIN), host)
    assert line.answer.status == 500
    assert b"secret" not in line.transport.written
    (error,) = host.errors
    assert (error.callback, error.__cause__) == (name, failure)
    line.check_over()


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_keyboard_interrupt_and_system_exit_are_handed_to_the_host(failure: BaseException) -> None:
    host = FakeHost()

    def callback(request: Request) -> None:
        raise failure

    host.on_upgrade = callback
    line = ask(request(), host)
    assert host.exits == [failure]
    assert host.errors == []
    assert line.answer.status == 503
    line.check_over()


def test_on_request_answers_get_and_head() -> None:
    host = FakeHost()
    seen = []

    def page(request: Request) -> Response:
        seen.append(request.method)
        return Response(200, "<p>", {"Content-Type": "text/html"})

    host.on_request = page
    line = ask(wire(PLAIN), host)
    assert line.answer.body == b"<p>"
    line.check_over()
    head = ask(wire(PLAIN).replace(b"GET", b"HEAD"), host)
    answer = parse_answer(head.transport.written, to_head=True)
    assert (answer.status, answer["content-length"]) == (200, "3")
    assert seen == ["GET", "HEAD"]
    head.check_over()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 413),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
    ],
    ids=["POST", "body", "no Host"],
)
def test_on_request_is_not_asked_about_others(data: bytes, status: int) -> None:
    host = FakeHost()
    host.on_request = lambda request: pytest.fail("called")
    line = ask(data, host)
    assert line.answer.status == status
    if status == 405:
        assert line.answer["allow"] == "GET, HEAD"


def test_a_wrong_result_of_on_request_is_500_and_reported() -> None:
    host = FakeHost()
    host.on_request = lambda request: "page"
    assert ask(wire(PLAIN), host).answer.status == 500
    assert "on_request returned str" in str(host.errors[0].__cause__)


# ------------------------------------------------------------------------------------------------- callbacks that wait


class Waiting:
    """An async callback that goes on when told to."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.was_cancelled = False

    async def __call__(self, request: Request) -> Any:
        self.begun.set()
        try:
            return await self.result
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise


async def settle(host: FakeHost) -> None:
    """Let the callbacks that run come to their end."""
    if host.handshakes.tasks:
        await asyncio.wait(host.handshakes.tasks)


@pytest.fixture
async def host() -> Any:
    made = FakeHost(asyncio.get_running_loop())
    yield made
    made.handshakes.close()
    await settle(made)


async def test_while_on_upgrade_waits_nothing_is_read_and_what_came_is_kept(host: FakeHost) -> None:
    waiting = host.on_upgrade = Waiting()
    line = ask(request() + b"ab", host)
    await waiting.begun.wait()
    assert not line.transport.is_reading_now
    line.receive(b"cd")  # TLS had it in hand
    waiting.result.set_result(None)
    await settle(host)
    assert host.opened[0].rest == b"abcd"
    assert line.transport.is_reading_now
    line.check_over()


@pytest.mark.parametrize("result", [None, Accept(state=5), Response(403)], ids=repr)
async def test_an_awaited_result_is_as_good_as_a_returned_one(host: FakeHost, result: Any) -> None:
    waiting = host.on_upgrade = Waiting()
    waiting.result.set_result(result)
    line = ask(request(), host)
    await settle(host)
    if isinstance(result, Response):
        assert line.answer.status == 403
        assert line.transport.is_reading_now
    else:
        assert host.opened[0].accept.state == (5 if result else None)
    line.check_over()


async def test_a_peer_that_goes_while_on_upgrade_runs_is_not_opened(host: FakeHost) -> None:
    waiting = host.on_upgrade = Waiting()
    line = ask(request(), host)
    await waiting.begun.wait()
    line.lose(ConnectionResetError())
    assert host.inside == 0
    waiting.result.set_result(None)
    await settle(host)
    assert not waiting.was_cancelled
    assert host.opened == []
    assert line.transport.written == b""


async def test_an_exception_after_the_peer_went_is_reported_all_the_same(host: FakeHost) -> None:
    waiting = host.on_upgrade = Waiting()
    line = ask(request(), host)
    await waiting.begun.wait()
    line.lose()
    waiting.result.set_exception(RuntimeError("late"))
    await settle(host)
    assert str(host.errors[0].__cause__) == "late"
    assert line.transport.written == b""


async def test_a_callback_that_takes_too_long_is_cancelled_and_503_answered(caplog: pytest.LogCaptureFixture) -> None:
    host = FakeHost(asyncio.get_running_loop(), upgrade_timeout=0.001)
    waiting = host.on_upgrade = Waiting()
    with caplog.at_level(logging.INFO, "wsev.handshake"):
        line = ask(request(), host)
        await settle(host)
    assert "upgrade_timeout" in caplog.text
    assert host.handshakes.limits_passed == {"upgrade_timeout": 1}
    assert waiting.was_cancelled or not waiting.begun.is_set()  # a busy machine may be late with its first step
    assert line.answer.status == 503
    assert host.errors == []
    assert line.transport.is_reading_now
    line.check_over()
    host.handshakes.close()


async def test_a_callback_that_outlives_its_cancellation_changes_nothing() -> None:
    host = FakeHost(asyncio.get_running_loop(), upgrade_timeout=0.001)

    async def stubborn(request: Request) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return

    host.on_upgrade = stubborn
    line = ask(request(), host)
    await settle(host)
    assert line.answer.status == 503
    assert host.opened == []
    line.check_over()
    host.handshakes.close()


@pytest.mark.parametrize("failure", [RuntimeError(), asyncio.CancelledError(), KeyboardInterrupt()], ids=repr)
async def test_what_an_async_callback_raises_does_not_reach_the_loop(host: FakeHost, failure: BaseException) -> None:
    async def callback(request: Request) -> None:
        raise failure

    host.on_upgrade = callback
    line = ask(request(), host)
    await settle(host)
    assert line.answer.status == (500 if isinstance(failure, Exception) else 503)
    assert len(host.errors) == isinstance(failure, RuntimeError)
    assert len(host.exits) == isinstance(failure, KeyboardInterrupt)
    line.check_over()


async def test_on_request_may_wait_too(host: FakeHost) -> None:
    waiting = host.on_request = Waiting()
    line = ask(wire(PLAIN), host)
    await waiting.begun.wait()
    waiting.result.set_result(Response(200, "page"))
    await settle(host)
    assert line.answer.body == b"page"
    assert line.transport.is_reading_now
    line.check_over()


# ------------------------------------------------------------------------------------------------------ http= and stop


class Recorder(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: asyncio.BaseTransport | None = None
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data


@pytest.mark.parametrize(
    "data",
    [
        wire(PLAIN),
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel",
        b"GET / HTTP/1.0\r\n\r\n",
        b"\r\n" + wire(PLAIN) + wire(PLAIN),
        request(upgrade="h2c"),
    ],
    ids=["GET", "POST", "HTTP/1.0", "two", "h2c"],
)
@pytest.mark.parametrize("size", [1, 1000], ids=["byte by byte", "at once"])
def test_what_is_no_upgrade_is_handed_to_http_whole(data: bytes, size: int) -> None:
    host, http = FakeHost(), Recorder()
    host.http = lambda: http
    line = Line(host)
    for at in range(0, len(data), size):
        receive = line.handshake.receive if line.transport.protocol is None else http.data_received
        receive(data[at : at + size])
    assert line.transport.protocol is http
    assert http.transport is line.transport
    assert http.received == data
    assert line.transport in host.handshakes.handed_over
    line.check_over()


@pytest.mark.parametrize(
    "data",
    [
        request(),
        request(sec_websocket_key=None),
        request("POST /chat HTTP/1.1"),
        b"GET",
        b"\x16",
        request("GET /other HTTP/1.1"),
    ],
    ids=["good", "no key", "POST", "begun", "garbage", "404"],
)
def test_an_upgrade_never_reaches_http(data: bytes) -> None:
    host = FakeHost()
    host.http = lambda: pytest.fail("called")
    ask(data, host).check_over()


def test_an_http_factory_that_raises_is_500_and_reported() -> None:
    host = FakeHost()

    def http() -> asyncio.Protocol:
        raise RuntimeError

    host.http = http
    line = ask(wire(PLAIN), host)
    assert line.answer.status == 500
    assert host.errors[0].callback == "http"
    line.check_over()


async def test_stop_answers_what_was_begun_and_waits_for_callbacks(host: FakeHost) -> None:
    waiting = host.on_upgrade = Waiting()
    silent, begun, deciding = Line(host), ask(b"GET", host), ask(request(), host)
    await waiting.begun.wait()
    stopping = asyncio.ensure_future(host.handshakes.stop(None))
    await asyncio.sleep(0)
    assert silent.transport.is_aborted
    assert silent.transport.written == b""
    assert begun.answer.status == deciding.answer.status == 503
    assert host.handshakes.refused == {503: 2}
    assert not stopping.done()
    waiting.result.set_result(None)
    await stopping
    assert not waiting.was_cancelled
    assert host.opened == []
    host.handshakes.close()
    for line in (silent, begun, deciding):
        assert line.transport.is_aborted
        line.check_over()


async def test_stop_cancels_what_runs_too_long(host: FakeHost) -> None:
    waiting = host.on_upgrade = Waiting()
    ask(request(), host)
    await waiting.begun.wait()
    await host.handshakes.stop(0.001)
    assert waiting.was_cancelled


async def test_stop_ends_what_http_serves(host: FakeHost) -> None:
    calls: list[float | None] = []

    class Http:
        def __call__(self) -> asyncio.Protocol:
            return Recorder()

        async def shutdown(self, timeout: float | None) -> None:
            calls.append(timeout)

    host.http = Http()
    line = ask(wire(PLAIN), host)
    await host.handshakes.stop(5.0)
    assert calls == [5.0]
    assert line.transport.is_aborted
