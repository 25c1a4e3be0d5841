"""A GPU warms up beside the building of the network; a CPU has nothing to warm up."""

from __future__ import annotations

import pytest
import torch

from cryoplug.inference.whole import warm_up as module
from cryoplug.inference.whole.warm_up import begin_warm_up, warm_up


def test_what_warms_up_runs_on_any_device() -> None:
    warm_up(torch.device("cpu"))


def test_a_cpu_and_a_gpu_that_is_not_there_are_left_alone() -> None:
    assert begin_warm_up("cpu") is None
    assert begin_warm_up("cuda:99") is None


def test_an_error_is_left_to_the_first_micrograph(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: torch.device) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(module, "warm_up", fail)
    monkeypatch.setattr(module, "resolve_device", lambda name: torch.device("cuda", 0))
    thread = begin_warm_up("auto")
    assert thread is not None
    thread.join()
    assert not thread.is_alive()
