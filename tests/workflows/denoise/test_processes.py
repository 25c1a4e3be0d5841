"""Several processes on one GPU: how many there are, what each is asked, and in which order it works."""

from __future__ import annotations

import ctypes
import os
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from cryoplug.errors import CryoplugError, DeviceError, UsageError
from cryoplug.machine import gpu_facts as facts_module
from cryoplug.machine.gpu_facts import GpuFacts, gpu_facts
from cryoplug.workflows.denoise import DenoiseRequest, gpus, processes
from cryoplug.workflows.denoise.processes import requests_for
from cryoplug.workflows.denoise.work import Sibling

H200 = GpuFacts(140 << 30, for_several=True)


def request(**named: object) -> DenoiseRequest:
    given = {"star": Path("out.star"), "report": Path("page.html"), **named}
    return DenoiseRequest(("mics",), Path("run"), Path("out"), **given)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    monkeypatch.setattr(processes, "gpu_facts", lambda number: H200)


@pytest.mark.parametrize(("files", "wanted"), [(0, 1), (1, 1), (999, 1), (1000, 2), (1500, 3), (2000, 4), (100_000, 4)])
def test_each_process_has_files_enough_to_pay(files: int, wanted: int) -> None:
    assert len(requests_for(request(), files, by_itself=True)) == wanted
    assert len(requests_for(request(device="cuda:1"), files, by_itself=True)) == wanted
    assert requests_for(request(), files, by_itself=False) == [request()]
    assert requests_for(request(device="cpu"), files, by_itself=True) == [request(device="cpu")]


@pytest.mark.parametrize(
    ("facts", "cores", "wanted"),
    [
        (None, 16, 1),
        (GpuFacts(140 << 30, for_several=False), 16, 1),
        (GpuFacts(8 << 30, for_several=True), 16, 1),
        (GpuFacts(40 << 30, for_several=True), 16, 2),
        (H200, 2, 1),
        (H200, 8, 2),
        (H200, 128, 4),
    ],
)
def test_memory_cores_and_the_gpu_limit_them(
    monkeypatch: pytest.MonkeyPatch, facts: GpuFacts | None, cores: int, wanted: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    monkeypatch.setattr(processes, "gpu_facts", lambda number: facts)
    assert len(requests_for(request(), 10_000, by_itself=True)) == wanted


def test_the_processes_share_cores_and_write_neither_list_nor_page() -> None:
    made = requests_for(request(), 10_000, by_itself=True)
    assert {(one.threads, one.star, one.report, one.processes, one.gpu) for one in made} == {(4, None, None, 1, ())}
    assert {one.threads for one in requests_for(request(threads=3), 10_000, by_itself=True)} == {3}
    made = requests_for(request(gpu=(0, 2)), 10_000, by_itself=True)
    assert [one.gpu for one in made] == [(0,), (0,), (2,), (2,)] and {one.threads for one in made} == {4}
    assert [one.gpu for one in requests_for(request(gpu=(0, 2)), 3, by_itself=True)] == [(0,), (2,)]


def test_what_is_asked_for_is_done() -> None:
    assert len(requests_for(request(processes=3), 1, by_itself=False)) == 3
    assert len(requests_for(request(processes=1), 10_000, by_itself=True)) == 1
    assert [one.gpu for one in requests_for(request(processes=2, gpu=(5,)), 1, by_itself=True)] == [(5,), (5,)]
    assert len(requests_for(request(watch=True), 10_000, by_itself=True)) == 1


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"processes": 0}, "--processes 0"),
        ({"processes": 2, "device": "cpu"}, "on a CPU, give --threads"),
        ({"processes": 2, "watch": True}, "start so many such commands"),
    ],
)
def test_what_cannot_be_is_refused(named: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        request(**named)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_each_begins_with_a_part_of_its_own_and_ends_with_all(count: int) -> None:
    todo = list(range(17))
    orders = [Sibling({}, number, count).in_order(todo) for number in range(count)]  # type: ignore[arg-type]
    assert all(sorted(order) == todo for order in orders)
    parts = [order[: len(todo[number::count])] for number, order in enumerate(orders)]
    assert sorted(item for part in parts for item in part) == todo


class Process:
    """A process that has sent its messages."""

    exitcode = -9

    def terminate(self) -> None:
        """Do nothing; it has ended."""

    def join(self, timeout: float) -> None:
        """Do nothing; it has ended."""


def listened(*ends: tuple[str, CryoplugError | None]) -> tuple[bool, list[str]]:
    """Listen to processes that ended so on these devices; None is a good end."""
    notes: list[str] = []
    parts: dict[Connection, tuple[Process, str]] = {}
    for device, error in ends:
        ours, theirs = Pipe(duplex=False)
        theirs.send(gpus._Ended(error))
        parts[ours] = Process(), device
    listener = gpus._Listener(parts, report=lambda result: None, note=notes.append, details={})  # type: ignore[arg-type]
    return listener.listen(lambda: False), notes


def test_who_gets_no_room_on_a_shared_gpu_leaves_its_share_to_the_others() -> None:
    full = DeviceError("cuda:0: not enough memory for the weights")
    # Both have ended when somebody listens, and whose message comes first is not certain.
    for _ in range(20):
        complete, notes = listened(("cuda:0", full), ("cuda:0", None))
        assert complete and notes == [f"{full}; the others do its share"]
    with pytest.raises(DeviceError, match="not enough memory"):
        listened(("cuda:0", full), ("cuda:0", full))
    with pytest.raises(DeviceError, match="not enough memory"):
        listened(("cuda:0", full), ("cuda:1", None))
    with pytest.raises(UsageError, match="another reason"):
        listened(("cuda:0", UsageError("another reason")), ("cuda:0", None))


class Driver:
    """A driver of one GPU of 24 GiB that one process may use at a time."""

    def cuInit(self, flags: int) -> int:
        return 0

    def cuDeviceGet(self, device: object, number: int) -> int:
        return 0 if number == 0 else 101

    def cuDeviceTotalMem_v2(self, size_bytes: object, device: object) -> int:
        size_bytes._obj.value = 24 << 30  # type: ignore[attr-defined]
        return 0

    def cuDeviceGetAttribute(self, value: object, which: int, device: object) -> int:
        assert which == 20
        value._obj.value = 3  # type: ignore[attr-defined]
        return 0


def test_the_driver_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_module, "torch_uses_cuda", lambda: True)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver())
    assert gpu_facts(0) == GpuFacts(24 << 30, for_several=False)
    assert gpu_facts(1) is None

    def no_driver(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", no_driver)
    assert gpu_facts(0) is None
