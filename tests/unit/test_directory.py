"""The mesh's directory: whose it is, how its members find each other, and how a dead one is found out."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsev.brokers.directory import MAX_PATH, MeshDirectory
from wsev.errors import BrokerError


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "mesh")


@pytest.fixture
def members(path: str) -> Iterator[list[tuple[MeshDirectory, socket.socket]]]:
    """Two members."""
    opened = []
    for _ in range(2):
        directory = MeshDirectory(path)
        opened.append((directory, directory.open()))
    yield opened
    for directory, sock in opened:
        sock.close()
        directory.close()


def test_a_directory_that_is_missing_is_made_and_is_its_owners_alone(path: str) -> None:
    directory = MeshDirectory(path)
    directory.open().close()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    directory.close()
    assert os.listdir(path) == []


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o702, 0o770])
def test_a_directory_that_others_may_enter_is_refused_with_the_remedy(path: str, mode: int) -> None:
    os.mkdir(path)
    os.chmod(path, mode)
    with pytest.raises(BrokerError, match=rf"mode {mode:04o}.*chmod 700 {path}"):
        MeshDirectory(path).open()
    assert os.listdir(path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away: run the tests as root")
def test_a_directory_of_another_user_is_refused(path: str) -> None:
    os.mkdir(path, 0o700)
    os.chown(path, 12345, -1)
    with pytest.raises(BrokerError, match=r"belongs to user 12345.*of your own"):
        MeshDirectory(path).open()


def test_a_file_is_no_directory(path: str) -> None:
    Path(path).touch(0o700)
    with pytest.raises(BrokerError, match="is no directory"):
        MeshDirectory(path).open()


def test_what_is_above_it_is_not_made(path: str) -> None:
    with pytest.raises(BrokerError, match="cannot be made or entered: No such file"):
        MeshDirectory(path + "/deeper").open()


def test_a_path_that_is_too_long_for_a_socket_is_an_error_and_the_longest_is_none(tmp_path: Path) -> None:
    room = MAX_PATH - len(str(tmp_path)) - len("/") - len("/01234567.sock")
    directory = MeshDirectory(str(tmp_path / ("x" * room)))
    directory.open().close()
    directory.close()
    with pytest.raises(BrokerError, match=f"more than {MAX_PATH} bytes"):
        MeshDirectory(str(tmp_path / ("x" * (room + 1)))).open()


def test_members_see_each_other_and_not_themselves(members: list[tuple[MeshDirectory, socket.socket]]) -> None:
    (one, _), (other, _) = members
    assert one.others() == [other.name]
    assert other.others() == [one.name]


def test_what_is_no_members_socket_is_not_seen(members: list[tuple[MeshDirectory, socket.socket]]) -> None:
    (one, _), (other, _) = members
    for name in ("notes.txt", "ABCDEF01.sock", "0123456.sock", "01234567.new", "sub.sock"):
        Path(one.path, name).touch()
    assert one.others() == [other.name]


def test_a_member_can_be_dialled(members: list[tuple[MeshDirectory, socket.socket]]) -> None:
    (one, _), (other, listening) = members
    dialled = one.connect(other.name)
    assert dialled is not None
    accepted, _ = listening.accept()
    accepted.send(b"hello")
    assert dialled.recv(10) == b"hello"
    accepted.close()
    dialled.close()


def test_a_dead_members_socket_is_removed_by_who_finds_it(members: list[tuple[MeshDirectory, socket.socket]]) -> None:
    (one, _), (other, listening) = members
    listening.close()  # as the system does for a process that was killed
    assert one.others() == [other.name]
    assert one.connect(other.name) is None
    assert one.others() == []


def test_who_has_left_is_not_there(members: list[tuple[MeshDirectory, socket.socket]]) -> None:
    (one, _), (other, _) = members
    other.close()
    assert one.connect(other.name) is None
    assert one.others() == []


def test_a_member_whose_backlog_is_full_is_not_taken_for_dead(path: str) -> None:
    directory = MeshDirectory(path)
    sock = directory.open()
    sock.listen(1)
    dialled = []
    with pytest.raises(OSError, match="temporarily unavailable") as caught:
        for _ in range(10):
            dialled.append(directory.connect(directory.name))
    assert caught.value.errno == errno.EAGAIN
    assert os.listdir(path) == [f"{directory.name}.sock"]
    for each in dialled:
        assert each is not None
        each.close()
    sock.close()
    directory.close()
