from __future__ import annotations

import os
import signal
import threading

import pytest

from cryoplug.machine.interrupts import Interrupts

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_is_noted_and_does_not_end_the_process(number: int) -> None:
    with Interrupts() as interrupts:
        assert interrupts.stop_signal is None
        os.kill(os.getpid(), number)
        assert interrupts.stop_signal == number
        assert not interrupts.save_requested


def test_sigusr1_asks_for_a_save_and_no_end() -> None:
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert interrupts.save_requested and interrupts.stop_signal is None


def test_the_handlers_of_before_come_back_even_after_an_error() -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    with pytest.raises(ZeroDivisionError), Interrupts():
        assert [signal.getsignal(number) for number in NUMBERS] != before
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in NUMBERS] == before


def test_outside_of_the_main_thread_nothing_is_installed() -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    seen: list[list[object]] = []

    def work() -> None:
        with Interrupts():
            seen.append([signal.getsignal(number) for number in NUMBERS])

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert seen == [before]
