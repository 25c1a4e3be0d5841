"""Memory that torch keeps for later tensors is there for the next run in the same process."""

from __future__ import annotations

import pytest
import torch

from cryoplug.machine.devices import memory_for_tensors

GIB = 1 << 30


@pytest.mark.parametrize(
    ("free", "reserved", "allocated", "expected"),
    [
        pytest.param(7, 0, 0, 7, id="nothing was computed yet"),
        pytest.param(1, 6, 0, 7, id="an earlier run left its memory to torch"),
        pytest.param(1, 6, 4, 3, id="some of it is in use"),
    ],
)
def test_what_torch_keeps_counts_as_free(
    monkeypatch: pytest.MonkeyPatch, free: int, reserved: int, allocated: int, expected: int
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * GIB, 8 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated * GIB)
    assert memory_for_tensors(torch.device("cuda", 0)) == expected * GIB
