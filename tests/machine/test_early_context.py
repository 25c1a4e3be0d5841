"""A context is begun for a GPU alone, and whatever is not there goes without a word."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest

from cryoplug.machine import early_context
from cryoplug.machine.early_context import begin_context


class Driver(SimpleNamespace):
    """Stands for the driver's library: notes what is asked of it."""

    def __init__(self, gpus: int) -> None:
        self.asked: list[object] = []

        def get(device: object, number: int) -> int:
            self.asked.append(("device", number))
            return 0 if number < gpus else 101

        super().__init__(
            cuInit=lambda flags: self.asked.append(("init", flags)) or 0,
            cuDeviceGet=get,
            cuDevicePrimaryCtxRetain=lambda context, device: self.asked.append("retain") or 0,
        )


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver(gpus=2)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    monkeypatch.setattr(early_context, "_torch_has_cuda", lambda: True)
    return driver


@pytest.mark.parametrize(("name", "number"), [("auto", 0), ("cuda", 0), ("cuda:1", 1)])
def test_the_context_of_the_named_gpu_is_begun(driver: Driver, name: str, number: int) -> None:
    thread = begin_context(name)
    assert thread is not None
    thread.join()
    assert driver.asked == [("init", 0), ("device", number), "retain"]


def test_a_gpu_that_is_not_there_is_left_to_torch(driver: Driver) -> None:
    thread = begin_context("cuda:2")
    assert thread is not None
    thread.join()
    assert driver.asked == [("init", 0), ("device", 2)]


def test_a_machine_without_a_driver_goes_on(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    thread = begin_context("cuda")
    assert thread is not None
    thread.join()
    assert not driver.asked


def test_a_cpu_and_a_torch_without_cuda_begin_nothing(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    assert begin_context("cpu") is None
    monkeypatch.setattr(early_context, "_torch_has_cuda", lambda: False)
    assert begin_context("auto") is None
    assert not driver.asked
