"""Scoreboard: what each worker has counted, in memory that all processes share, so that any of them can add it up.

Anonymous memory, made before the first fork.  Each area of it has one writer and any number of readers, without a lock.
Knows numbers by name, and nothing of what they mean.

Invariant: what a worker counted is in its slot, or in the past that the supervisor keeps, and never in both: the past
says up to which of its lives each slot is in it.  So totals do not go back when a worker ends.
"""

from __future__ import annotations

import json
import mmap
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Figures", "Score", "Scoreboard", "Totals"]

Figures = Mapping[str, Any]
"""Numbers by name, or by two names: ``{"messages_in": 3, "closes": {"1000": 1}}``."""

HEADER = struct.Struct("=QII")  # the record's number, the size of its payload, the CRC-32 of both and of the payload
# What a worker's figures take at most, as JSON: 2,000 close codes with counts of 20 digits each, and a little more.
# Memory that nobody has written to is not there.
RECORD_SIZE = 64 * 1024
LOOKS = 5  # before a record that is not whole is taken for what a killed writer left; each takes a few microseconds


class Area:
    """Two records, of which the older one is overwritten: whatever interrupts a writer, or a reader, one is whole."""

    SIZE = 2 * RECORD_SIZE

    def __init__(self, memory: mmap.mmap, number: int) -> None:
        self._memory = memory
        self._start = number * self.SIZE

    def write(self, value: Mapping[str, Any]) -> None:
        """Replace the value; one that is too large is not written, and the one before it stays."""
        payload = json.dumps(value, separators=(",", ":")).encode()
        if len(payload) > RECORD_SIZE - HEADER.size:
            return
        number = max((found for found, _ in self._whole_records()), default=0) + 1
        start = self._start_of(number)
        self._memory[start + HEADER.size : start + HEADER.size + len(payload)] = payload
        HEADER.pack_into(self._memory, start, number, len(payload), _checksum(number, payload))

    def read(self) -> dict[str, Any] | None:
        """The value that was written last; None if there is none."""
        records: list[tuple[int, bytes]] = []
        for _ in range(LOOKS):
            records = sorted(self._whole_records())
            if len(records) == 2:
                break
            # The first record was ever the only one, or a writer is at work: it may have overtaken us, who saw one
            # record before it was younger than the other, and the other when it was overwritten.
        if not records:
            return None
        value: dict[str, Any] = json.loads(records[-1][1])
        return value

    def _whole_records(self) -> Iterator[tuple[int, bytes]]:
        for parity in (0, 1):
            start = self._start_of(parity)
            number, size, checksum = HEADER.unpack_from(self._memory, start)
            payload = self._memory[start + HEADER.size : start + HEADER.size + min(size, RECORD_SIZE - HEADER.size)]
            if number and checksum == _checksum(number, payload):
                yield number, payload

    def _start_of(self, number: int) -> int:
        return self._start + number % 2 * RECORD_SIZE


def _checksum(number: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(number.to_bytes(8, "little")))


@dataclass(frozen=True)
class Totals:
    """What all workers have counted together.

    Attributes:
        of_now: sums over the workers that are there.
        growing: sums over these and all that have been.
        workers: how many there are.
        restarts: how many were started because one had ended by itself.
    """

    of_now: Figures
    growing: Figures
    workers: int
    restarts: int


@dataclass
class Past:
    """What the supervisor keeps."""

    growing: Figures = field(default_factory=dict)
    restarts: int = 0
    lives: dict[str, int] = field(default_factory=dict)
    """By slot: the last of its lives that is in ``growing``."""


class Scoreboard:
    """A slot for each worker, and the past.  The supervisor opens and closes slots; anyone reads.

    Args:
        slots: how many workers there may be at once.
    """

    def __init__(self, slots: int) -> None:
        memory = mmap.mmap(-1, Area.SIZE * (slots + 1))
        self._slots = [Area(memory, number) for number in range(slots)]
        self._past_area = Area(memory, slots)
        self._past = Past()
        self._free = list(range(slots))
        self._lives = [0] * slots

    def open_slot(self) -> Score:
        """Find a slot for a worker that is about to be forked."""
        slot = self._free.pop(0)
        self._lives[slot] += 1
        return Score(self, slot, self._lives[slot])

    def close_slot(self, score: Score) -> None:
        """Take what a worker that has ended wrote last over into the past."""
        last = self._slots[score.slot].read()
        if last is not None and last["life"] == score.life:
            self._past.growing = add(self._past.growing, last["growing"])
            self._past.lives[str(score.slot)] = score.life
            self._past_area.write(vars(self._past))
        self._free.append(score.slot)

    def count_restart(self) -> None:
        """Count a worker that is started because one has ended by itself."""
        self._past.restarts += 1
        self._past_area.write(vars(self._past))

    def write(self, slot: int, record: Mapping[str, Any]) -> None:
        """Write what ``Score.write`` makes."""
        self._slots[slot].write(record)

    def read(self) -> Totals:
        """Add up what all workers have counted, each as it was when it last wrote."""
        past = self._past_area.read()
        while True:
            records = [slot.read() for slot in self._slots]
            before, past = past, self._past_area.read()
            if past == before:  # and so nobody's figures went from slot to past between the two looks
                break
        known = Past(**past) if past is not None else Past()
        there = [
            record
            for slot, record in enumerate(records)
            if record is not None and record["life"] > known.lives.get(str(slot), 0)
        ]
        of_now: Figures = {}
        growing = known.growing
        for record in there:
            of_now, growing = add(of_now, record["of_now"]), add(growing, record["growing"])
        return Totals(of_now, growing, len(there), known.restarts)


@dataclass(frozen=True)
class Score:
    """One worker's slot, during one life of it."""

    board: Scoreboard
    slot: int
    life: int

    def write(self, of_now: Figures, growing: Figures) -> None:
        """Replace what this worker has counted."""
        self.board.write(self.slot, {"life": self.life, "of_now": of_now, "growing": growing})

    def read(self) -> Totals:
        """As ``Scoreboard.read``."""
        return self.board.read()


def add(figures: Figures, more: Figures) -> Figures:
    """Add two lots of figures, number by number."""
    total = dict(figures)
    for name, value in more.items():
        total[name] = add(total.get(name, {}), value) if isinstance(value, Mapping) else total.get(name, 0) + value
    return total
