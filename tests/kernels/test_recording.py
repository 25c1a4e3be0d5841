"""A recorded computation gives what launching it gives, and is recorded only where many of one kind come."""

from __future__ import annotations

import threading

import pytest
import torch

from cryoplug.kernels.recording import RECORDED_AFTER, Recorded


class Halving:
    """Computes, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        self.asked += 1
        return (images / 2,)


class Tape:
    """Stands for a CUDA graph where there is no GPU."""

    def __init__(self, recorded: Recorded, images: torch.Tensor) -> None:
        self.recorded = recorded
        recorded._inputs, recorded._outputs = (images.clone(),), (torch.empty_like(images),)

    def replay(self) -> None:
        with torch.inference_mode():
            self.recorded._outputs[0].copy_(self.recorded._inputs[0] / 2)


def test_only_many_of_one_kind_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    compute = Halving()
    recorded = Recorded()
    monkeypatch.setattr(recorded, "_record", lambda _, given: setattr(recorded, "_graph", Tape(recorded, *given)))
    made = []
    for number in range(RECORDED_AFTER + 4):
        images = torch.full((2, 3), float(number))
        made.append((number, *recorded("a", compute, images)))
    assert compute.asked == RECORDED_AFTER
    assert all(bool((result == number / 2).all()) for number, result in made), "no result is written over"
    assert recorded("b", compute, torch.ones(3, 2))[0].shape == (3, 2) and compute.asked == RECORDED_AFTER + 1
    assert recorded("a", compute, torch.ones(2, 3))[0][0, 0] == 0.5
    assert compute.asked == RECORDED_AFTER + 2, "it began anew"


def test_what_cannot_be_recorded_is_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    compute = Halving()
    recorded = Recorded()

    def no_room(*anything: object) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(recorded, "_record", no_room)
    for _ in range(RECORDED_AFTER + 3):
        assert recorded("a", compute, torch.ones(2))[0][0] == 0.5
    assert compute.asked == RECORDED_AFTER + 3 and recorded.refused == "no room"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_on_a_gpu_a_recording_gives_what_was_launched_while_other_threads_go_on() -> None:
    weight = torch.randn(64, 64, device="cuda")
    compute = Halving()

    def multiplied(images: torch.Tensor) -> tuple[torch.Tensor]:
        return (compute(images)[0] @ weight,)

    recorded, stop = Recorded(), threading.Event()

    def other_work() -> None:
        while not stop.is_set():
            with torch.cuda.stream(torch.cuda.Stream()):
                host = torch.empty(1 << 16, pin_memory=True)
                float(host.cuda(non_blocking=True).sum())

    threads = [threading.Thread(target=other_work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        images = [torch.randn(64, 64, device="cuda") for _ in range(RECORDED_AFTER + 5)]
        made = [recorded("a", multiplied, image)[0] for image in images]
        recorded.forget()
        torch.testing.assert_close(torch.stack(made), torch.stack([multiplied(image)[0] for image in images]))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert recorded._graph is None and compute.asked == RECORDED_AFTER + 1 + len(images)
