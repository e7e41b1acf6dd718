"""Listening sockets: what is bound, and errors that say what to do."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wsev.errors import OptionError
from wsev.options import Listening
from wsev.workers.sockets import ListeningSocket, open_files_limit, open_sockets

Open = Callable[..., list[ListeningSocket]]


@pytest.fixture
def open_() -> Iterator[Open]:
    opened: list[ListeningSocket] = []

    def open_them(port: int = 0, **listening: Any) -> list[ListeningSocket]:
        sockets = open_sockets(Listening.of(port, **listening))
        opened.extend(sockets)
        return sockets

    yield open_them
    for each in opened:
        each.close()


def test_port_0_is_a_free_port(open_: Open) -> None:
    (one,) = open_()
    assert one.address == one.sock.getsockname()
    assert one.address[0] == "127.0.0.1"
    assert int(one.address[1]) > 0


def test_it_listens_already(open_: Open) -> None:
    (one,) = open_()
    with socket.create_connection(one.sock.getsockname()):
        pass


def test_several_hosts_have_one_port(open_: Open) -> None:
    first, second = open_(host=["127.0.0.1", "127.0.0.2"])
    assert first.address[1] == second.address[1]
    assert [first.address[0], second.address[0]] == ["127.0.0.1", "127.0.0.2"]


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
def test_all_addresses_of_both_families_go_together(open_: Open) -> None:
    first, second = open_(host=["0.0.0.0", "::"])
    assert [first.address[0], second.address[0]] == ["0.0.0.0", "::"]
    assert first.address[1] == second.address[1]


def test_a_port_in_use_is_an_error_that_names_it_and_a_remedy(open_: Open) -> None:
    (one,) = open_()
    port = one.address[1]
    with pytest.raises(OSError, match=f"port {port} of 127.0.0.1 is in use: .*another port") as caught:
        open_(port)
    assert caught.value.errno == errno.EADDRINUSE


def test_a_port_that_another_shares_is_in_use_all_the_same(open_: Open) -> None:
    (one,) = open_(reuse_port=True)
    with pytest.raises(OSError, match="is in use"):
        open_(one.address[1])


def test_reuse_port_shares_with_who_asks_for_it_too(open_: Open) -> None:
    (one,) = open_(reuse_port=True)
    (two,) = open_(one.address[1], reuse_port=True)
    assert one.address == two.address


def test_after_a_failure_nothing_stays_open(open_: Open) -> None:
    before = set(os.listdir("/proc/self/fd"))
    (one,) = open_(host="127.0.0.2")
    with pytest.raises(OSError, match="is in use"):
        open_(one.address[1], host=["127.0.0.1", "127.0.0.2"])
    one.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_an_address_of_another_machine_is_an_error_with_a_remedy(open_: Open) -> None:
    with pytest.raises(OSError, match=r"192.0.2.1 is no address of this machine: .*0\.0\.0\.0"):
        open_(host="192.0.2.1")


def test_a_host_that_is_no_name_is_an_option_error(open_: Open) -> None:
    with pytest.raises(OptionError, match=r"host='999\.999\.999\.999\.invalid'"):
        open_(host="999.999.999.999.invalid")


def test_a_unix_path_has_its_mode_and_goes_when_closed(open_: Open, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    (one,) = open_(unix=path, unix_mode=0o640)
    assert one.address == str(path)
    assert one.is_unix
    assert path.stat().st_mode & 0o777 == 0o640
    one.close()
    assert not path.exists()


def test_a_stale_unix_path_is_replaced(open_: Open, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    open_(unix=path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_unix_path_in_use_is_an_error_and_goes_on_to_be_used(open_: Open, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    open_(unix=path)
    with pytest.raises(OSError, match=f"the path {path} is in use") as caught:
        open_(unix=path)
    assert caught.value.errno == errno.EADDRINUSE
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_file_at_the_unix_path_is_an_error_and_stays(open_: Open, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(OptionError, match="exists and is no socket"):
        open_(unix=path)
    assert path.read_text() == "precious"


def test_a_successors_unix_path_is_not_removed(open_: Open, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    (one,) = open_(unix=path)
    path.unlink()
    (two,) = open_(unix=path)
    one.close()
    assert path.exists()
    two.close()


def test_a_missing_directory_is_an_error_that_names_the_path(open_: Open, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"the path .*/nowhere/socket cannot be listened on"):
        open_(unix=tmp_path / "nowhere" / "socket")


def test_a_path_that_is_too_long_is_an_error_that_names_it(open_: Open) -> None:
    with pytest.raises(OSError, match=r"the path /x+"):
        open_(unix="/" + "x" * 200)


def test_a_given_socket_is_taken_as_it_is(open_: Open) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    (one,) = open_(sock=sock)
    assert one.sock is sock


def test_a_given_descriptor_is_taken_over(open_: Open) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    address = sock.getsockname()
    (one,) = open_(fd=sock.detach())
    assert one.address == address


def test_a_descriptor_that_is_no_socket_is_an_option_error_and_stays_open(open_: Open, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OptionError, match=f"fd={descriptor}: is no open socket"):
        open_(fd=descriptor)
    os.close(descriptor)


def test_a_datagram_descriptor_is_an_option_error_and_stays_open(open_: Open) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with pytest.raises(OptionError, match="is no stream socket"):
            open_(fd=sock.fileno())
        sock.getsockname()


def test_the_limit_of_open_files_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
    try:
        limit = open_files_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
        assert limit == (None if hard == resource.RLIM_INFINITY else hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
