"""Places: sockets that outlive their workers, on a port that nobody else can have."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wsev.options import Listening
from wsev.workers.places import Places
from wsev.workers.sockets import open_sockets

Make = Callable[..., Places]

spreads = pytest.mark.skipif(sys.platform != "linux", reason="only Linux spreads connections over sockets")


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Places] = []

    def make_places(count: int = 2, port: int = 0, **listening: Any) -> Places:
        made.append(Places(Listening.of(port, **listening), count))
        return made[-1]

    yield make_places
    for each in made:
        each.close()


def port_of(places: Places) -> int:
    (one,) = places.sockets_of(0)
    return int(one.address[1])


def waiting(places: Places, number: int) -> int:
    """How many connections can be accepted at a place, which this does."""
    count = 0
    for each in places.sockets_of(number):
        while True:
            try:
                each.sock.accept()[0].close()
            except BlockingIOError:
                break
            count += 1
    return count


def knock(port: int, times: int) -> None:
    for _ in range(times):
        socket.create_connection(("127.0.0.1", port)).close()


@spreads
def test_each_place_has_a_socket_of_its_own_on_one_port_and_gets_its_share(make: Make) -> None:
    places = make(2)
    first, second = places.sockets_of(0)[0], places.sockets_of(1)[0]
    assert first.address == second.address
    assert first.sock is not second.sock
    knock(port_of(places), 400)
    shares = [waiting(places, 0), waiting(places, 1)]
    assert sum(shares) == 400
    assert min(shares) > 100


@spreads
def test_several_hosts_are_several_sockets_of_each_place(make: Make) -> None:
    places = make(2, host=["127.0.0.1", "127.0.0.2"])
    addresses = [[each.address for each in places.sockets_of(number)] for number in (0, 1)]
    assert addresses[0] == addresses[1] == [("127.0.0.1", addresses[0][0][1]), ("127.0.0.2", addresses[0][0][1])]


def test_a_places_sockets_stay_the_same_for_worker_after_worker(make: Make) -> None:
    places = make(2)
    assert places.sockets_of(0)[0].sock is places.sockets_of(0)[0].sock


@spreads
def test_a_closed_place_gets_nothing_and_when_it_is_opened_nothing_before_its_worker_listens(make: Make) -> None:
    places = make(2)
    port = port_of(places)
    places.close_place(0)
    knock(port, 50)
    assert waiting(places, 1) == 50
    (anew,) = places.sockets_of(0)
    knock(port, 50)
    assert waiting(places, 1) == 50
    anew.sock.listen(100)
    knock(port, 100)
    assert 0 < waiting(places, 0) < 100


@spreads
def test_the_port_stays_ours_while_every_place_is_closed(make: Make) -> None:
    places = make(1)
    port = port_of(places)
    places.close_place(0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with pytest.raises(OSError, match="is in use"):
        open_sockets(Listening.of(port))
    with pytest.raises(OSError, match="is in use"):
        make(2, port)
    places.sockets_of(0)[0].sock.listen()
    knock(port, 1)


@pytest.mark.parametrize("other", ["one process", "several workers", "several workers that share"])
def test_a_port_in_use_is_an_error_whoever_has_it(make: Make, other: str) -> None:
    if other == "one process":
        (has_it,) = open_sockets(Listening.of(0))
        port = int(has_it.address[1])
    else:
        port = port_of(make(2, reuse_port=other.endswith("share")))
    with pytest.raises(OSError, match=f"port {port} of 127.0.0.1 is in use"):
        make(2, port)
    if other == "one process":
        has_it.close()


@spreads
def test_reuse_port_shares_with_who_asks_for_it_too(make: Make) -> None:
    port = port_of(make(2, reuse_port=True))
    assert port_of(make(2, port, reuse_port=True)) == port


def test_after_the_end_the_port_can_be_had_again(make: Make) -> None:
    places = make(2)
    port = port_of(places)
    places.close()
    assert port_of(make(2, port)) == port


def test_a_unix_path_is_shared_and_removed_at_the_end_by_who_made_it(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "sock"
    places = make(2, unix=path)
    (first,), (second,) = places.sockets_of(0), places.sockets_of(1)
    assert first.sock is second.sock
    places.close_place(0)  # which closes nothing: others serve there
    for each in (places.sockets_of(0)[0], first):
        assert each.address == str(path)
    assert path.exists()
    places.close()
    assert not path.exists()


def test_a_worker_closes_what_belongs_to_the_others_and_keeps_its_own(make: Make) -> None:
    places = make(2)
    (own,), (other,) = places.sockets_of(0), places.sockets_of(1)
    places.leave_to(0)  # as in a forked process, but for the descriptors being the same ones
    assert own.sock.fileno() >= 0
    assert other.sock.fileno() == -1
    own.close()


def test_a_worker_that_leaves_does_not_remove_the_path_that_others_serve(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "sock"
    places = make(2, unix=path)
    (own,) = places.sockets_of(0)
    places.leave_to(0)
    own.close()
    assert path.exists()


def test_a_start_that_fails_leaves_no_socket(make: Make) -> None:
    places = make(2)
    port = port_of(places)
    with pytest.raises(OSError, match="is in use"):
        make(2, port, host=["127.0.0.2", "127.0.0.1"])
    again = open_sockets(Listening.of(port, host="127.0.0.2"))
    again[0].close()
