"""A context is made early only where torch comes later and will use it; whatever fails is left to torch."""

from __future__ import annotations

import ctypes
import sys

import pytest

from cryoplug.machine import early_context
from cryoplug.machine.early_context import begin_context


class Driver:
    """Notes which functions of the driver are called, and with which number of a GPU."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.called: list[str] = []
        self.number = -1

    def cuInit(self, flags: int) -> int:
        return self._said("cuInit")

    def cuDeviceGet(self, handle: object, number: int) -> int:
        self.number = number
        return self._said("cuDeviceGet")

    def cuDevicePrimaryCtxRetain(self, context: object, handle: object) -> int:
        return self._said("cuDevicePrimaryCtxRetain")

    def _said(self, name: str) -> int:
        self.called.append(name)
        return int(name == self.fails)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    found = Driver()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: found)
    monkeypatch.setattr(early_context, "torch_uses_cuda", lambda: True)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    return found


def made(device: str) -> None:
    thread = begin_context(device)
    assert thread is not None
    thread.join(20)


@pytest.mark.parametrize(("device", "number"), [("auto", 0), ("cuda", 0), ("cuda:3", 3)])
def test_the_gpu_that_torch_will_use_gets_a_context(driver: Driver, device: str, number: int) -> None:
    made(device)
    assert driver.called == ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain"] and driver.number == number


@pytest.mark.parametrize("fails", ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain"])
def test_a_driver_that_refuses_is_left_to_torch(driver: Driver, fails: str) -> None:
    driver.fails = fails
    made("cuda")
    assert driver.called[-1] == fails


def test_a_machine_without_driver_is_left_to_torch(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    made("auto")


def test_nothing_is_begun_where_no_gpu_is_used_or_torch_is_there(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert begin_context("cpu") is None
    monkeypatch.setitem(sys.modules, "torch", ctypes)
    assert begin_context("cuda") is None
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(early_context, "torch_uses_cuda", lambda: False)
    assert begin_context("cuda") is None and not driver.called
