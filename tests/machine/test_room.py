"""Threads share memory: together they never take more than there is, and nobody waits for ever."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cryoplug.machine.room import Room


def most_inside(room: Room, sizes: list[int]) -> int:
    """Let a thread for each size in; give the most bytes that were inside at once."""
    inside: list[int] = []
    seen: list[int] = []
    lock = threading.Lock()

    def use(size: int) -> None:
        with room.taken(size):
            with lock:
                inside.append(size)
                seen.append(sum(inside))
            time.sleep(0.01)
            with lock:
                inside.remove(size)

    with ThreadPoolExecutor(len(sizes)) as pool:
        list(pool.map(use, sizes))
    return max(seen)


def test_together_they_take_no_more_than_there_is() -> None:
    assert most_inside(Room(10), [4] * 8) == 8
    assert most_inside(Room(10), [10, 1, 9] * 3) == 10


def test_who_is_too_large_gets_in_alone() -> None:
    assert most_inside(Room(10), [30, 30]) == 30


def test_without_a_limit_all_get_in() -> None:
    assert most_inside(Room(None), [1 << 40] * 4) > 1 << 40


def test_room_comes_back_after_an_error() -> None:
    room = Room(10)
    with pytest.raises(ZeroDivisionError), room.taken(10):
        _ = 1 / 0
    assert most_inside(room, [10]) == 10
